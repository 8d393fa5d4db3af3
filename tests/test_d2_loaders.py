import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_coco import write_toy_coco

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.d2.catalog import register_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.loaders import (
    build_train_loader,
    known_poses,
    split_photos,
)
from canon_seg.d2.test_loader import build_test_loader
from canon_seg.errors import InputError
from canon_seg.images.coordinates import PIXEL_STEP

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, BoxMode


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Name of a registered COCO-format set."""
    register_coco("toy_training", *write_toy_coco(tmp_path_factory.mktemp("toy")))
    yield "toy_training"
    DatasetCatalog.remove("toy_training")
    MetadataCatalog.remove("toy_training")


def write_photos(folder, count, size=(60, 80)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return str(folder)


def photo_config(*options):
    return load_config(
        "",
        [
            "MODEL.META_ARCHITECTURE",
            "CanonicalizedSegmenter",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.IMS_PER_BATCH",
            "4",
            "MODEL.CANONICALIZER.INPUT_SIZE",
            "33",
            *options,
        ],
    )


def sam_config(*options):
    return load_config(
        "",
        [
            "MODEL.META_ARCHITECTURE",
            "SamSegmenter",
            "MODEL.SAM.SIZE",
            "tiny",
            "MODEL.SAM.TINY.IMAGE_SIZE",
            "64",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.IMS_PER_BATCH",
            "4",
            *options,
        ],
    )


# --- loaders --------------------------------------------------------------------------------------


def test_photos_alone(tmp_path):
    cfg = photo_config("DATASETS.PHOTOS", f"['{write_photos(tmp_path, 3)}']")
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 4
    shapes = {tuple(example["image"].shape) for example in batch}
    assert len(shapes) == 1 and min(shapes.pop()[1:]) == 33


def test_photos_are_drawn_by_the_seed(tmp_path):
    cfg = photo_config("DATASETS.PHOTOS", f"['{write_photos(tmp_path, 3)}']")

    def draw(seed):
        np.random.seed(seed)
        return torch.cat([e["image"].flatten() for e in next(iter(build_train_loader(cfg)))])

    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_images_of_annotated_sets_are_photos_too(tmp_path, toy):
    photos = write_photos(tmp_path, 30)
    cfg = photo_config("DATASETS.PHOTOS", f"['{photos}']", "DATASETS.TRAIN", f"('{toy}', '{toy}')")
    training, held_out = split_photos(cfg)
    assert len(training) + len(held_out) == 34 and len(held_out) == 1
    assert len({*training, *held_out}) == 34
    assert split_photos(cfg) == (training, held_out)


def test_a_handful_of_photos_is_all_used(tmp_path):
    cfg = photo_config("DATASETS.PHOTOS", f"['{write_photos(tmp_path, 24)}']")
    training, held_out = split_photos(cfg)
    assert len(training) == 24 and held_out == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "DATASETS.PHOTOS.*DATASETS.TRAIN"),
        (("DATASETS.TRAIN", "('nowhere_registered',)"), "DATASETS.TRAIN.*nowhere_registered"),
        (("DATASETS.TRAIN", "('coco_2017_val_panoptic_stuffonly',)"), "DATASETS.TRAIN"),
        (("DATASETS.TRAIN", "('coco_2017_val',)"), "coco_2017_val.*DETECTRON2_DATASETS"),
        (("DATASETS.PHOTOS", "['no/such/folder']"), "no/such/folder"),
        (
            ("DATASETS.PHOTOS", "['.']", "MODEL.CANONICALIZER.TASK_WEIGHT", "1.0"),
            "annotated.*DATASETS.TRAIN",
        ),
        (
            ("DATASETS.PHOTOS", "['.']", "MODEL.META_ARCHITECTURE", "SamSegmenter"),
            "annotated.*DATASETS.TRAIN",
        ),
    ],
)
def test_nothing_to_train_on(options, message):
    with pytest.raises(InputError, match=message):
        build_train_loader(photo_config(*options))


def test_sam_trains_on_views(toy):
    cfg = sam_config("DATASETS.TRAIN", f"('{toy}',)")
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 4
    for example in batch:
        assert max(example["image"].shape[1:]) == 64
        assert len(example["instances"]) > 0
        assert isinstance(example["instances"].gt_masks, BitMasks)


def test_sam_needs_masks(tmp_path):
    annotations, images = write_toy_coco(tmp_path)
    dataset = json.loads(annotations.read_text())
    for entry in dataset["annotations"]:
        entry.pop("segmentation")
    annotations.write_text(json.dumps(dataset))
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("toy_boxes", {}, str(annotations), str(images))
    try:
        with pytest.raises(InputError, match="toy_boxes.*no masks"):
            build_train_loader(sam_config("DATASETS.TRAIN", "('toy_boxes',)"))
    finally:
        DatasetCatalog.remove("toy_boxes")
        MetadataCatalog.remove("toy_boxes")


def test_other_models_train_as_in_detectron2(toy):
    cfg = load_config(
        "",
        [
            "DATASETS.TRAIN",
            f"('{toy}',)",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.IMS_PER_BATCH",
            "2",
            "INPUT.MIN_SIZE_TRAIN",
            "(64,)",
        ],
    )
    example = next(iter(build_train_loader(cfg)))[0]
    assert min(example["image"].shape[1:]) == 64
    assert example["instances"].has("gt_classes")


# --- testing --------------------------------------------------------------------------------------


def test_test_images_come_as_read_with_prompts(toy):
    cfg = photo_config("DATASETS.TEST", f"('{toy}',)")
    loader = build_test_loader(cfg, toy)
    entries = {entry["image_id"]: entry for entry in DatasetCatalog.get(toy)}
    assert len(loader) == len(entries) == 4
    for (inputs,) in loader:
        entry = entries[inputs["image_id"]]
        pixels = np.asarray(Image.open(entry["file_name"]).convert("RGB"))[..., ::-1]  # BGR
        assert np.array_equal(inputs["image"].permute(1, 2, 0).numpy(), pixels)
        assert (inputs["height"], inputs["width"]) == pixels.shape[:2]
        annotations = [a for a in entry["annotations"] if not a["iscrowd"]]
        boxes = BoxMode.convert(
            torch.tensor([a["bbox"] for a in annotations]), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS
        )
        given = inputs["prompts"].boxes  # on the grid of a canonicalizer, as in a sweep
        assert torch.equal(given, torch.round(given / PIXEL_STEP) * PIXEL_STEP)
        torch.testing.assert_close(given, boxes, atol=PIXEL_STEP / 2 + 1e-4, rtol=0)
        assert inputs["prompts"].classes.tolist() == [a["category_id"] for a in annotations]


def test_other_models_are_tested_as_in_detectron2(toy):
    cfg = load_config(
        "",
        [
            "DATASETS.TEST",
            f"('{toy}',)",
            "DATALOADER.NUM_WORKERS",
            "0",
            "INPUT.MIN_SIZE_TEST",
            "96",
        ],
    )
    (inputs,) = next(iter(build_test_loader(cfg, toy)))
    assert min(inputs["image"].shape[1:]) == 96 and "prompts" not in inputs


def test_no_prompts_without_sam(toy):
    cfg = photo_config("MODEL.SEGMENTER.META_ARCHITECTURE", "GeneralizedRCNN")
    (inputs,) = next(iter(build_test_loader(cfg, toy)))
    assert "prompts" not in inputs and inputs["image"].shape[1:] == (60, 83)


def test_unknown_test_sets():
    with pytest.raises(InputError, match="DATASETS.TEST.*nowhere"):
        build_test_loader(photo_config(), "nowhere")


def test_detectors_train_on_turned_and_disturbed_images(toy):
    cfg = load_config(
        "",
        [
            "DATASETS.TRAIN",
            "('toy_training',)",
            "INPUT.QUARTER_TURNS",
            "True",
            "INPUT.COLOR_JITTER",
            "0.5",
            "MODEL.MASK_ON",
            "False",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.IMS_PER_BATCH",
            "2",
            "DATALOADER.ASPECT_RATIO_GROUPING",
            "False",
            "INPUT.MIN_SIZE_TRAIN",
            "(64,)",
            "SEED",
            "3",
        ],
    )
    batches = iter(build_train_loader(cfg))
    examples = [example for _ in range(12) for example in next(batches)]
    # The 48 x 97 image of the set comes in both orientations.
    shapes = {e["image"].shape[1] > e["image"].shape[2] for e in examples if e["image_id"] == 14}
    assert shapes == {True, False}


def test_sam_trains_on_turned_images(toy):
    options = [
        "MODEL.META_ARCHITECTURE",
        "SamSegmenter",
        "MODEL.SAM.SIZE",
        "tiny",
        "SEED",
        "3",
        "MODEL.SAM.TINY.IMAGE_SIZE",
        "64",
        "DATASETS.TRAIN",
        "('toy_training',)",
        "DATALOADER.NUM_WORKERS",
        "0",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "DATALOADER.ASPECT_RATIO_GROUPING",
        "False",
    ]
    shapes = []
    for turns in (False, True):
        batches = iter(
            build_train_loader(load_config("", [*options, "INPUT.QUARTER_TURNS", turns]))
        )
        examples = [example for _ in range(20) for example in next(batches)]
        shapes.append(
            {
                np.sign(e["image"].shape[2] - e["image"].shape[1])
                for e in examples
                if e["image_id"] == 14  # 48 x 97: views are wide, or square crops
            }
        )
    assert -1 not in shapes[0] and -1 in shapes[1]


@pytest.mark.parametrize("task_weight", [0.0, 1.0])
def test_canonicalizers_do_not_train_on_turned_images(toy, task_weight):
    cfg = photo_config(
        "MODEL.CANONICALIZER.TASK_WEIGHT",
        task_weight,
        "INPUT.QUARTER_TURNS",
        True,
        "DATASETS.TRAIN",
        "('toy_training',)",
    )
    with pytest.raises(InputError, match="INPUT.QUARTER_TURNS.*canonicalizer"):
        build_train_loader(cfg)


# --- bad input in the midst of a training ---------------------------------------------------------


def register_broken(tmp_path, name, change):
    """A registered set of one image; ``change`` takes its file and its annotation dict."""
    annotations, images = write_toy_coco(tmp_path)
    dataset = json.loads(Path(annotations).read_text())
    change(Path(images, dataset["images"][0]["file_name"]), dataset)
    Path(annotations).write_text(json.dumps(dataset))
    register_coco(name, annotations, images)
    return name, dataset["images"][0]["file_name"]


@pytest.fixture
def broken_image(tmp_path):
    name, file = register_broken(tmp_path, "toy_broken", lambda file, _: file.write_bytes(b"none"))
    yield name, file
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("architecture", ["SamSegmenter", "GeneralizedRCNN"])
def test_an_unreadable_annotated_image_is_named_without_a_traceback(
    broken_image, architecture, workers
):
    name, file = broken_image
    loader = build_train_loader(
        sam_config(
            "MODEL.META_ARCHITECTURE",
            architecture,
            "DATALOADER.NUM_WORKERS",
            str(workers),
            "DATASETS.TRAIN",
            f"('{name}',)",
            "INPUT.MASK_FORMAT",
            "bitmask",
        )
    )
    with pytest.raises(InputError) as caught:
        for batch, _ in zip(loader, range(100)):
            assert batch
    assert file in str(caught.value) and "Traceback" not in str(caught.value)


def test_masks_that_the_mask_format_cannot_hold_are_named(tmp_path):
    def as_rle(file, dataset):
        crowd = next(a for a in dataset["annotations"] if a["iscrowd"])
        crowd["iscrowd"] = 0

    name, _ = register_broken(tmp_path, "toy_rle", as_rle)
    options = [
        "MODEL.META_ARCHITECTURE",
        "GeneralizedRCNN",
        "MODEL.MASK_ON",
        "True",
        "DATASETS.TRAIN",
        f"('{name}',)",
    ]
    try:
        with pytest.raises(InputError, match="INPUT.MASK_FORMAT.*toy_rle.*bitmask"):
            build_train_loader(sam_config(*options))
        build_train_loader(sam_config(*options, "INPUT.MASK_FORMAT", "bitmask"))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


# --- EXIF orientation, which every kind of loader applies or not ----------------------------------


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """Names of two registered sets of the same raw frames: one with EXIF orientation 3."""
    names = []
    for name, orientation in (("exif_none", 1), ("exif_three", 3)):
        annotations, images = write_toy_coco(tmp_path_factory.mktemp(name))
        exif = Image.Exif()
        exif[0x0112] = orientation
        for file in Path(images).iterdir():
            Image.open(file).save(file, exif=exif)
        register_coco(name, annotations, images)
        names.append(name)
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


COMMON = ["DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SEED", "3"]
DETECTOR = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.MASK_ON", "True"]
KINDS = {
    "photos": ["MODEL.META_ARCHITECTURE", "CanonicalizedSegmenter"],
    "turned photos": [
        *("MODEL.META_ARCHITECTURE", "CanonicalizedSegmenter"),
        *("MODEL.CANONICALIZER.SCORER.BACKBONE", "efficientnet_lite0"),
    ],
    "regions": [
        *("MODEL.META_ARCHITECTURE", "SamSegmenter", "MODEL.SAM.SIZE", "tiny"),
        *("MODEL.SAM.TINY.IMAGE_SIZE", "64"),
    ],
    "detector": [*DETECTOR, "INPUT.MASK_FORMAT", "bitmask"],
    "jittered detector": [*DETECTOR, "INPUT.COLOR_JITTER", "0.3"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_train", [True, False])
def test_raw_frames_where_the_annotations_are_of_these(turned, kind, is_train):
    def first(name, exif):
        key = "TRAIN" if is_train else "TEST"
        options = [*COMMON, *KINDS[kind], "INPUT.EXIF", exif, f"DATASETS.{key}", f"('{name}',)"]
        cfg = load_config("", options)
        np.random.seed(0)
        torch.manual_seed(0)
        loader = build_train_loader(cfg) if is_train else build_test_loader(cfg, name)
        return next(iter(loader))[0]["image"]

    plain = first(turned[0], exif=True)
    assert torch.equal(plain, first(turned[1], exif=False))
    assert not torch.equal(plain, first(turned[1], exif=True))


# --- photographs whose poses are known ------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """Photographs in a folder and a pose file of them, the fourth unsure."""
    folder = write_photos(tmp_path / "labelled", 4)
    names = [f"{index:03}.png" for index in range(4)]
    entries = [{"file": name, "degrees": 90 * index} for index, name in enumerate(names[:3])]
    entries.append({"file": names[3], "probabilities": [0.4, 0.3, 0.2, 0.1]})
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(entries))
    return str(path), folder


def test_photos_whose_poses_are_known(labelled, tmp_path):
    path, folder = labelled
    upright = write_photos(tmp_path / "upright", 2)
    options = ["DATASETS.POSES", f"[['{path}', '{folder}']]"]
    cfg = photo_config(*options, "DATASETS.PHOTOS", f"['{upright}']")
    poses = {f"{folder}/{index:03}.png": index for index in range(3)}
    assert known_poses(cfg) == poses
    training, held_out = split_photos(cfg)
    assert sorted(training) == sorted([*poses, f"{upright}/000.png", f"{upright}/001.png"])
    assert held_out == []
    stream = build_train_loader(cfg).loader.dataset
    assert dict(zip(stream.files, stream.poses.tolist())) == {
        **poses,
        f"{upright}/000.png": 0,
        f"{upright}/001.png": 0,
    }
    cfg = photo_config(*options, "DATASETS.POSES_ABOVE", "0.3")
    assert known_poses(cfg)[f"{folder}/003.png"] == 0
    assert len(next(iter(build_train_loader(cfg)))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["DATASETS.POSES_ABOVE", "1.5"], "DATASETS.POSES_ABOVE is 1.5"),
        (["DATASETS.POSES", "['{path}']"], "is no pair; give"),
        (["DATASETS.POSES", "[['{path}', '{other}']]"], "4 of 4 photographs are not in"),
        (["DATASETS.POSES", "[['{unsure}', '{folder}']]"], "no pose in .* is as probable as"),
    ],
)
def test_poses_that_cannot_be_used(labelled, tmp_path, options, message):
    path, folder = labelled
    unsure = tmp_path / "unsure.json"
    unsure.write_text(json.dumps([{"file": "000.png", "probabilities": [0.4, 0.3, 0.2, 0.1]}]))
    names = {"path": path, "folder": folder, "unsure": unsure, "other": tmp_path}
    cfg = photo_config(*(option.format(**names) for option in options))
    with pytest.raises(InputError, match=message):
        known_poses(cfg)
