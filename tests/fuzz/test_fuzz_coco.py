"""COCO files of any kind: right figures, by pycocotools, or a message that names the entry."""

import copy
import json
import math
import warnings

import numpy as np
import pytest
from fuzzing import attempt, fuzz
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from score_parity import TASKS, reference_curves

from canon_seg.coco.dataset import load_coco
from canon_seg.coco.scoring import METRICS
from canon_seg.evaluation.rotated_coco import RotatedCOCOEvaluator
from canon_seg.evaluation.views import View

LARGEST = 40
IDS = st.one_of(
    st.integers(0, 20),
    st.integers(-(2**40), 2**40),
    st.sampled_from([2**31, 2**53, 2**53 + 1, 10**17 + 1, 2**63 - 1, 2**64, 10**30, -(10**30)]),
)
COORDINATES = st.one_of(
    st.integers(-5, LARGEST + 5),
    st.floats(-5, LARGEST + 5),
    # An edge takes pycocotools time and memory in proportion to its length: few are very long.
    st.sampled_from([*(0, -0.0, 0.5, 1e-9) * 3, 1e2, 1e3, 1e4, 1e5, 1e6]),
)
# In place of any value; what JSON can hold, and what only Python writes and reads.
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 1e9, -1, 0, 10**30, -0.0]),
    st.text(max_size=5),
    st.sampled_from(
        [[], {}, [[]], [None], {"size": [1, 1], "counts": "0"}, "1", "surrogate\ud800"]
    ),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=2)), max_size=8),
)
ANY_VALUE = st.recursive(JUNK, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
SECTIONS = ("images", "annotations", "categories")
# Made once: to make a strategy costs more than to draw from it.
BOXES = st.lists(COORDINATES, min_size=4, max_size=4)
POLYGONS = st.lists(st.lists(COORDINATES, min_size=6, max_size=10), min_size=1, max_size=3)
BYTES_OF_RLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
SEGMENTATIONS = st.sampled_from(["box", "polygons", "RLE", "uncompressed", "bytes of an RLE"])
SIDES = st.integers(1, LARGEST)
FEW_IDS = st.lists(IDS, min_size=1, max_size=3, unique=True)
ANNOTATION_IDS = st.lists(IDS, min_size=1, max_size=6, unique=True)
SPOILT = st.sampled_from([0, 0, 0, 1, 1, 2])
CHANGES = st.sampled_from(["replace", "remove", "add"])
MORE_KEYS = st.sampled_from(["ignore", "attributes", "isbbox", "area", "license"])
AREAS = st.sampled_from([0, 0.0, 1, 1023.999, 1024, 9216, 1e300])
CROWD = st.sampled_from([0, 0, 1])
IN_TEN, DEPTHS = st.integers(0, 9), st.integers(0, 4)


@st.composite
def segmentations(draw, height, width):
    """Polygons, and RLE of all kinds, most of which fit the image."""
    kind = draw(SEGMENTATIONS)
    if kind == "box":
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        right, low = draw(st.integers(x + 1, width)), draw(st.integers(y + 1, height))
        return [[x, y, right, y, right, low, x, low]]
    if kind == "polygons":
        return draw(POLYGONS)
    if kind == "bytes of an RLE":
        return {"size": [height, width], "counts": draw(BYTES_OF_RLE)}
    runs, left = [], height * width
    while left and len(runs) < 12:
        runs.append(draw(st.integers(0, left)))
        left -= runs[-1]
    uncompressed = {"size": [height, width], "counts": [*runs, left]}
    if kind == "uncompressed":
        return uncompressed
    rle = coco_mask.frPyObjects(uncompressed, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}


@st.composite
def annotations(draw, number, images, categories):
    """An annotation, whose box is that of the mask, or any."""
    image = draw(st.sampled_from(images))
    height, width = image["height"], image["width"]
    segmentation = draw(segmentations(height, width))
    box = draw(BOXES)
    if draw(IN_TEN):
        with_pixels = mask_of(segmentation, height, width)
        if with_pixels is not None and with_pixels.any():
            rows, columns = (np.flatnonzero(with_pixels.any(axis)) for axis in (1, 0))
            box = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            box = [int(value) for value in box]
    entry = {
        "id": number,
        "image_id": image["id"],
        "category_id": draw(st.sampled_from(categories))["id"],
        "bbox": box,
        "segmentation": segmentation,
    }
    if draw(st.booleans()):
        entry["iscrowd"] = draw(CROWD)
    if draw(st.booleans()):
        entry["area"] = draw(AREAS)
    return entry


@st.composite
def coco_files(draw):
    """A COCO file, as dict, in which up to two values are junk, missing or more than there are."""
    images = [
        {"id": number, "file_name": f"{index}.png", "height": draw(SIDES), "width": draw(SIDES)}
        for index, number in enumerate(draw(FEW_IDS))
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in draw(FEW_IDS)]
    numbers = draw(ANNOTATION_IDS)
    dataset = {
        "images": images,
        "annotations": [draw(annotations(number, images, categories)) for number in numbers],
        "categories": categories,
    }
    for _ in range(draw(SPOILT)):
        _spoil(draw, dataset)
    return dataset


def _spoil(draw, dataset):
    """Replace, remove or add a value somewhere; a section, an entry or a value in it."""
    node, key = dataset, draw(st.sampled_from(SECTIONS))
    for _ in range(draw(DEPTHS)):
        inner = node.get(key) if isinstance(node, dict) else node[key]
        if not isinstance(inner, (dict, list)) or not inner:
            break
        node = inner
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
    what = draw(CHANGES)
    if what == "remove":
        if isinstance(node, list) or key in node:  # not removed once already
            del node[key]
    elif what == "replace" or isinstance(node, list):
        node[key] = draw(ANY_VALUE)
    else:
        node[draw(MORE_KEYS)] = draw(ANY_VALUE)


def mask_of(segmentation, height, width):
    """Return a mask by pycocotools, or None where the RLE is no RLE of this image."""
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        return None  # random bytes would fill a mask with leftovers of the memory
    return coco_mask.decode(rle)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "images").mkdir()
    return folder


def load(dataset, folder):
    path = folder / "instances.json"
    path.write_text(json.dumps(dataset))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_coco(path, folder / "images")


@fuzz
@given(coco_files(), st.randoms(use_true_random=False))
def test_a_file_has_right_figures_or_a_message_that_names_the_entry(folder, dataset, random):
    loaded, message = attempt(load, dataset, folder)
    if message is not None:
        check_message(message, folder)
        return
    assert [entry["id"] for entry in loaded["images"]] == [e["id"] for e in dataset["images"]]
    truth, empty = with_pixels(loaded)
    check_figures(loaded, truth, empty, 0, random.randrange(2**31))
    check_figures(loaded, turned_by_hand(truth), empty, 90, random.randrange(2**31))
    check_tilted(loaded, empty, 31.5)


def check_message(message, folder):
    """Check that a message says where the trouble is."""
    assert str(folder / "instances.json") in message
    assert any(
        word in message
        for word in ("image", "annotation", "categor", *(f'"{section}"' for section in SECTIONS))
    ), message
    assert len(message) < 4000


def with_pixels(dataset):
    """Return pycocotools' ground truth, all as RLE, without what has no pixel; and the ids of that.

    Ids are numbered anew, as pycocotools cannot hold all of them.
    """
    images = {
        entry["id"]: {**entry, "id": number}
        for number, entry in enumerate(sorted(dataset["images"], key=lambda e: e["id"]), 1)
    }
    categories = sorted(entry["id"] for entry in dataset["categories"])
    kept, empty = [], []
    for entry in dataset["annotations"]:
        image = images[entry["image_id"]]
        rle = to_rle(entry["segmentation"], image["height"], image["width"])
        if not coco_mask.area(rle):
            empty.append(entry["id"])
            continue
        kept.append(
            {
                "id": len(kept) + 1,
                "image_id": image["id"],
                "category_id": categories.index(entry["category_id"]) + 1,
                "iscrowd": entry.get("iscrowd", 0),
                "bbox": entry["bbox"],
                "area": entry["area"],
                "segmentation": rle,
            }
        )
    numbers = range(1, len(categories) + 1)
    truth = {
        "images": list(images.values()),
        "annotations": kept,
        "categories": [{"id": number, "name": str(number)} for number in numbers],
    }
    return truth, empty


def to_rle(segmentation, height, width):
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return {"size": segmentation["size"], "counts": segmentation["counts"].encode()}


def turned_by_hand(truth):
    """Return the ground truth turned counterclockwise by 90 degrees."""
    truth = copy.deepcopy(truth)
    for image in truth["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    for entry in truth["annotations"]:
        mask = coco_mask.decode(entry["segmentation"])
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [y, mask.shape[1] - x - w, h, w]
        entry["segmentation"] = coco_mask.encode(np.asfortranarray(np.rot90(mask)))
    return truth


def toy_results(truth, seed):
    """Detections of a toy model: right, moved, doubled, of other classes, of nothing."""
    rng = np.random.default_rng(seed)
    results = []
    for entry in truth["annotations"]:
        mask = coco_mask.decode(entry["segmentation"])
        for _ in range(rng.integers(0, 4)):
            moved = np.roll(mask, rng.integers(-2, 3, 2) * rng.integers(0, 2), (0, 1))
            rle = coco_mask.encode(np.asfortranarray(moved))
            category = rng.integers(len(truth["categories"])) + 1
            results.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": entry["category_id"] if rng.random() < 0.8 else int(category),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "score": float(rng.choice([0.1, 0.5, 0.5, rng.random()])),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    return results


def check_figures(loaded, truth, empty, angle, seed):
    """Check the evaluator's figures of one view against pycocotools'."""
    evaluator = RotatedCOCOEvaluator(loaded, View(angle))
    assert evaluator.instances_empty == empty and evaluator.cut == []
    results = toy_results(truth, seed)
    image_ids, category_ids = (
        sorted(entry["id"] for entry in loaded[section]) for section in ("images", "categories")
    )
    evaluator.extend(
        [
            {
                **entry,
                "image_id": image_ids[entry["image_id"] - 1],
                "category_id": category_ids[entry["category_id"] - 1],
            }
            for entry in results
        ]
    )
    scores = evaluator.evaluate()
    assert list(scores) == (list(TASKS) if results else [])
    for task, figures in scores.items():
        precision = reference_curves(truth, results, task)["precision"]
        expected = {
            "AP": precision[:, :, :, 0, -1],
            "AP50": precision[:1, :, :, 0, -1],
            "AP75": precision[5:6, :, :, 0, -1],
            "APs": precision[:, :, :, 1, -1],
            "APm": precision[:, :, :, 2, -1],
            "APl": precision[:, :, :, 3, -1],
        }
        for metric in METRICS:
            defined = expected[metric][expected[metric] > -1]
            value = 100 * np.mean(defined) if defined.size else math.nan
            np.testing.assert_array_equal(figures[metric], value, err_msg=f"{task}, {metric}")
    return scores


def check_tilted(loaded, empty, angle):
    """Check that a tilt forgets no object without a word."""
    evaluator = RotatedCOCOEvaluator(loaded, View(angle))
    ids = {entry["id"] for entry in loaded["annotations"]}
    assert evaluator.instances_empty == empty
    assert set(evaluator.cut) <= ids - set(empty)
    assert len(evaluator.cut) == evaluator.instances_cut
