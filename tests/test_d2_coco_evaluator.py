"""One evaluator: --eval-only and evaluation during training say what a sweep says at 0 degrees."""

import json
import math

import pytest
import torch
from test_evaluation import mask_rcnn_config
from tiny_models import canonicalized, random_canonicalizer, tiny_segmenter
from toy_coco import write_toy_coco

from canon_seg.coco.dataset import load_coco
from canon_seg.coco.scoring import METRICS
from canon_seg.d2.catalog import register_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.models import models_by_mode
from canon_seg.d2.trainer import Trainer
from canon_seg.evaluation.sweep import run_sweep
from canon_seg.evaluation.views import View

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

# The ids of block, bar and what is never seen, in the order of the file.
CATEGORY_IDS = {
    "one class, id 1": (1, 1, None),
    "from 1": (1, 2, 3),
    "from 0": (0, 1, 2),
    "gaps": (3, 70, 1000),
    "unsorted": (70, 3, 12),
}


def write_with_ids(folder, ids):
    """The toy data set with other category ids; returns (annotations, images folder)."""
    annotations, images = write_toy_coco(folder)
    dataset = json.loads(annotations.read_text())
    new = dict(zip((3, 7, 9), ids))
    for entry in dataset["annotations"]:
        entry["category_id"] = new[entry["category_id"]]
    names = {new[entry["id"]]: entry["name"] for entry in dataset["categories"]}
    dataset["categories"] = [
        {"id": number, "name": name} for number, name in names.items() if number is not None
    ]
    annotations.write_text(json.dumps(dataset))
    return annotations, images


@pytest.fixture
def register(tmp_path):
    """Register the toy data set with these category ids, and one of other ids before it."""
    names = []

    def call(name, ids):
        files = write_with_ids(tmp_path / name, ids)
        register_coco(name, *files)
        names.append(name)
        return files

    call("of training", (40, 20, 30))
    DatasetCatalog.get("of training")
    yield call
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def sam_config(folder, name, meta_architecture):
    cfg = load_config("configs/sam_c4.yaml")
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = meta_architecture, "cpu"
    return for_test(cfg, folder, name)


def for_test(cfg, folder, name):
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("of training",), (name,)
    cfg.DATALOADER.NUM_WORKERS, cfg.OUTPUT_DIR = 0, str(folder / "output")
    return cfg


def upright_sweep(model, mode, files, image_format, prompted):
    dataset = load_coco(*files)
    result = run_sweep(
        models_by_mode(model, [mode]),
        dataset,
        files[1],
        views=[View(0)],
        image_format=image_format,
        progress=False,
        prompts=load_box_prompts("boxes", dataset) if prompted else None,
    )
    return result["modes"][mode]["0"]


def check_same(tested, expected):
    """The same to the last bit."""
    for task in ("segm", "bbox"):
        own = {metric: tested[task][metric] for metric in METRICS}
        own = {key: None if math.isnan(value) else value for key, value in own.items()}
        assert own == expected[task]
    assert tested["bbox"]["AP"] > 0  # random masks may all be wrong


def check_ids(folder, name, ids):
    path = folder / "output" / "inference" / name / "coco_instances_results.json"
    written = json.loads(path.read_text())
    assert written and {entry["category_id"] for entry in written} <= set(ids)


@pytest.mark.parametrize("ids", CATEGORY_IDS.values(), ids=CATEGORY_IDS)
@pytest.mark.parametrize(
    ("meta_architecture", "mode"),
    [("CanonicalizedSegmenter", "canonical"), ("SamSegmenter", "vanilla")],
)
def test_sam_is_tested_as_a_sweep_does(tmp_path, register, ids, meta_architecture, mode):
    files = register("set", ids)
    model = canonicalized(tiny_segmenter("sam"), random_canonicalizer())
    cfg = sam_config(tmp_path, "set", meta_architecture)
    tested = Trainer.test(cfg, model if mode == "canonical" else model.segmenter)
    check_same(tested, upright_sweep(model, mode, files, cfg.INPUT.FORMAT, prompted=True))
    check_ids(tmp_path, "set", ids)


@pytest.mark.parametrize("ids", CATEGORY_IDS.values(), ids=CATEGORY_IDS)
def test_a_detector_is_tested_as_a_sweep_does(tmp_path, register, ids):
    files = register("set", ids)
    cfg = mask_rcnn_config()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len({*ids} - {None})
    cfg.MODEL.CANONICALIZER.NAME = "IdentityCanonicalizer"
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).eval()
    expected = upright_sweep(model, "vanilla", files, cfg.INPUT.FORMAT, prompted=False)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    tested = Trainer.test(for_test(cfg, tmp_path, "set"), model.segmenter)
    check_same(tested, expected)
    check_ids(tmp_path, "set", ids)


def test_each_class_has_its_own_ap(tmp_path, register):
    register("set", CATEGORY_IDS["unsorted"])
    cfg = sam_config(tmp_path, "set", "SamSegmenter")
    tested = Trainer.test(cfg, tiny_segmenter("sam"))
    own = tested["bbox"]
    assert math.isnan(own["AP-never seen"])
    assert own["AP"] == pytest.approx((own["AP-block"] + own["AP-bar"]) / 2, abs=1e-9)
    assert own["AP-block"] != own["AP-bar"]


def test_a_set_that_is_in_no_file(tmp_path, register):
    """The classes' ids are what the set says, in any order."""
    files = register("set", CATEGORY_IDS["from 1"])
    cfg = mask_rcnn_config()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).eval()
    expected = Trainer.test(for_test(cfg, tmp_path, "set"), model)
    examples = DatasetCatalog.get("set")
    assert files and examples[0]["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    DatasetCatalog.register("own", lambda: examples)
    try:
        MetadataCatalog.get("own").set(
            thing_classes=["block", "bar", "never seen"],
            thing_dataset_id_to_contiguous_id={5: 0, 4: 1, 9: 2},
        )
        tested = Trainer.test(for_test(cfg, tmp_path, "own"), model)
    finally:
        DatasetCatalog.remove("own")
        MetadataCatalog.remove("own")
    assert tested["bbox"]["AP"] == pytest.approx(expected["bbox"]["AP"], rel=0.05)
    assert tested["bbox"]["AP"] > 0
    check_ids(tmp_path, "own", (5, 4, 9))
