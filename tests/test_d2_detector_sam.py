import functools

import pytest
import torch
from test_d2_meta_arch import assert_equivariant, voting
from tiny_models import (
    MIN_SIZE,
    canonicalized,
    random_canonicalizer,
    random_image,
    random_prompts,
    tiny_config,
    tiny_segmenter,
)

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.d2.config import load_config
from canon_seg.d2.detector_sam import BoxDetector, DetectorSam, build_detector
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.errors import InputError
from canon_seg.sam.prompts import Prompts

from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

tiny_parts = functools.cache(tiny_segmenter)


def detector_sam(kind="mask_rcnn", **options):
    resize = ResizeShortestEdge([MIN_SIZE, MIN_SIZE], 2 * MIN_SIZE)
    detector = BoxDetector(tiny_parts(kind), resize=resize, flips_channels=True, **options)
    return DetectorSam(detector, tiny_parts("sam"))


@pytest.mark.parametrize(("kind", "votes"), [("mask_rcnn", True), ("retinanet", False)])
def test_one_canonicalization_serves_both_exactly(kind, votes):
    canonicalizer = random_canonicalizer()
    if votes:
        canonicalizer = voting(canonicalizer, 2)
    model = canonicalized(detector_sam(kind), canonicalizer)
    results = assert_equivariant(model, random_image(40, 61))
    assert len(results[0]["instances"]) > 0
    assert sorted(result["pose"].turns for result in results) == [0, 1, 2, 3]


def test_class_and_score_are_the_detectors_and_the_masks_sams():
    model, image = detector_sam(), random_image(40, 61)
    height, width = 80, 122  # of the results
    ours = model([{"image": image, "height": height, "width": width}])[0]["instances"]
    # By hand: the detector sees the image in its own channel order and size.
    resized = model.box_detector.resize
    pixels = image.permute(1, 2, 0).numpy()[..., ::-1]
    pixels = resized.get_transform(pixels).apply_image(pixels)
    inputs = {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "height": 40}
    with torch.no_grad():
        found = model.detector([{**inputs, "width": 61}])[0]["instances"]
    boxes = (found.pred_boxes.tensor * 256).round() / 256
    prompts = Prompts(boxes=boxes, classes=found.pred_classes, scores=found.scores)
    expected = model.segmenter(
        [{"image": image, "prompts": prompts, "height": height, "width": width}]
    )[0]["instances"]
    assert len(ours) == len(found) > 1
    assert torch.equal(ours.scores, found.scores)
    assert torch.equal(ours.pred_classes, found.pred_classes)
    assert torch.equal(ours.pred_masks, expected.pred_masks)
    assert torch.equal(ours.pred_ious, expected.pred_ious)


def test_weak_detections_are_left_out():
    image = random_image(40, 61)
    everything = detector_sam().box_detector.prompts(image)
    threshold = float(everything.scores.sort().values[2])
    kept = detector_sam(score_thresh=threshold).box_detector.prompts(image)
    assert len(kept) == len(everything) - 2 and kept.scores.min() == threshold
    none = detector_sam(score_thresh=1.0)
    assert len(none([{"image": image}])[0]["instances"]) == 0


def test_prompts_that_are_given_go_before():
    model = detector_sam()
    inputs = {"image": random_image(40, 61), "prompts": random_prompts(40, 61)}
    ours, theirs = (part([inputs])[0]["instances"] for part in (model, model.segmenter))
    assert torch.equal(ours.pred_masks, theirs.pred_masks)
    assert torch.equal(ours.pred_classes, inputs["prompts"].classes)


def test_it_is_for_evaluation():
    model = detector_sam()
    model.training = True
    with pytest.raises(InputError, match="MODEL.SAM.PROMPTS"):
        model([{"image": random_image(40, 61)}])


# --- from a config --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A detector's config and checkpoint, and this project's config of the same model."""
    folder = tmp_path_factory.mktemp("detector")
    cfg = tiny_config("mask_rcnn")
    torch.manual_seed(3)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "weights.pth")
    (folder / "plain.yaml").write_text(cfg.dump())
    cfg.MODEL.META_ARCHITECTURE = "CanonicalizedSegmenter"
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.SEGMENTER.WEIGHTS = str(folder / "weights.pth")
    (folder / "ours.yaml").write_text(cfg.dump())
    cfg.MODEL.META_ARCHITECTURE = "SamSegmenter"
    (folder / "sam.yaml").write_text(cfg.dump())
    (folder / "code.yaml").write_text("SEED: !!python/object/apply:os.getpid []\n")
    return folder


def config(files, config_file="plain.yaml", weights="weights.pth", **changes):
    cfg = load_config(
        "",
        [
            "MODEL.DEVICE",
            "cpu",
            "MODEL.SEGMENTER.META_ARCHITECTURE",
            "SamSegmenter",
            "MODEL.SAM.SIZE",
            "tiny",
            "MODEL.SAM.TINY.IMAGE_SIZE",
            "64",
            "MODEL.SAM.TINY.CHANNELS",
            "(8, 8, 16, 64)",
            "MODEL.SAM.TINY.EMBED_DIM",
            "32",
            "MODEL.SAM.PROMPTS",
            "detector",
            "INPUT.FORMAT",
            "RGB",
        ],
    )
    keys = cfg.MODEL.SAM.DETECTOR
    keys.CONFIG_FILE = str(files / config_file) if config_file else ""
    keys.WEIGHTS = str(files / weights) if weights else ""
    keys.SCORE_THRESH = changes.pop("SCORE_THRESH", 0.0)
    return cfg


def test_built_from_a_config(files):
    model, image = build_segmenter(config(files)), random_image(40, 61)
    assert isinstance(model, DetectorSam) and not model.training and model.resizes_itself
    ours = model.box_detector.prompts(image)
    theirs = detector_sam().box_detector.prompts(image)
    assert len(ours) > 0 and torch.equal(ours.boxes, theirs.boxes)
    assert torch.equal(ours.scores, theirs.scores)
    instances = model([{"image": image}])[0]["instances"]
    assert torch.equal(instances.scores, ours.scores)


def test_a_config_of_this_project_gives_its_segmenter(files):
    cfg, image = config(files, "ours.yaml", weights=""), random_image(40, 61)
    cfg.INPUT.FORMAT = "BGR"
    ours = build_detector(cfg).prompts(image.flip(0))
    assert torch.equal(ours.boxes, detector_sam().box_detector.prompts(image).boxes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config_file": ""}, "MODEL.SAM.DETECTOR.CONFIG_FILE is empty"),
        ({"config_file": "none.yaml"}, "MODEL.SAM.DETECTOR.CONFIG_FILE: .*none.yaml is neither"),
        ({"config_file": "code.yaml"}, "code.yaml: .*python/object/apply"),
        ({"config_file": "sam.yaml"}, "describes a 'SamSegmenter'"),
        ({"weights": ""}, "MODEL.SAM.DETECTOR.WEIGHTS is empty"),
        ({"weights": "none.pth"}, "MODEL.SAM.DETECTOR.WEIGHTS: there is no file"),
        ({"weights": "plain.yaml"}, r"plain.yaml \(MODEL.SAM.DETECTOR.WEIGHTS\)"),
        ({"SCORE_THRESH": 50.0}, "MODEL.SAM.DETECTOR.SCORE_THRESH is 50.0"),
    ],
)
def test_detectors_that_cannot_be_built(files, arguments, message):
    with pytest.raises(InputError, match=message):
        build_detector(config(files, **arguments))


def test_names_of_the_model_zoo_are_found(files):
    cfg = config(files, weights="")
    cfg.MODEL.SAM.DETECTOR.CONFIG_FILE = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
    with pytest.raises(InputError, match="WEIGHTS is empty"):  # so that the config was found
        build_detector(cfg)


def test_a_model_without_instances_is_no_detector():
    model = detector_sam("semantic")
    with pytest.raises(InputError, match="gives sem_seg but no instances"):
        model([{"image": random_image(40, 61)}])
