"""Boxes against masks: what cannot be is refused, another notation is named."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from toy_coco import SIZES, write_toy_coco

from canon_seg.coco.boxes import box_of_mask, compare_boxes, compare_results
from canon_seg.coco.dataset import load_coco
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.errors import InputError, InputWarning


@pytest.fixture
def toy(tmp_path):
    path, images = write_toy_coco(tmp_path)
    return json.loads(path.read_text()), path, images


def rewrite(dataset, change, every=1):
    """Change the boxes of every n-th annotation: ``change`` takes x, y, w, h, wide, high."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in dataset["images"]}
    for entry in dataset["annotations"][::every]:
        entry["bbox"] = list(change(*entry["bbox"], *sizes[entry["image_id"]]))


NOTATIONS = {
    "corners x0, y0, x1, y1": lambda x, y, w, h, wide, high: (x, y, x + w, y + h),
    "a centre, width and height": lambda x, y, w, h, wide, high: (x + w / 2, y + h / 2, w, h),
    "fractions of the image, x, y, width, height": lambda x, y, w, h, wide, high: (
        x / wide,
        y / high,
        w / wide,
        h / high,
    ),
    "fractions of the image, a centre, width and height": lambda x, y, w, h, wide, high: (
        (x + w / 2) / wide,
        (y + h / 2) / high,
        w / wide,
        h / high,
    ),
}


def test_right_boxes_say_nothing(toy):
    assert compare_boxes(toy[0]) is None
    # Cut at the edges of the image, and off by the rounding of a mask's outline.
    rewrite(toy[0], lambda x, y, w, h, wide, high: (x - 1, y - 1, w + 2.5, h + 2.5))
    assert compare_boxes(toy[0]) is None


@pytest.mark.parametrize("name", NOTATIONS)
def test_another_notation_is_named(toy, name):
    dataset, path, images = toy
    rewrite(dataset, NOTATIONS[name])
    path.write_text(json.dumps(dataset))
    with pytest.warns(InputWarning, match=f"instances.json: .* of 24 boxes .*probably {name}, "):
        load_coco(path, images)


def test_few_that_disagree_are_counted_without_a_cause(toy):
    rewrite(toy[0], lambda x, y, w, h, wide, high: (0, 0, 1, 1), every=12)
    assert (
        compare_boxes(toy[0]) == "3 of 24 boxes disagree with their masks (annotations 1, 13, 25)"
    )


def test_a_cause_that_is_not_known(toy):
    rewrite(toy[0], lambda x, y, w, h, wide, high: (wide - 1, high - 1, 1, 1))
    assert compare_boxes(toy[0]).endswith(
        "do they belong to other images, or to other sizes of these?"
    )


def test_objects_without_a_pixel_may_have_any_box(toy):
    dataset, path, images = toy
    entry = dataset["annotations"][0]
    entry.update(segmentation=[[500.0, 500.0, 510.0, 500.0, 510.0, 510.0]], bbox=[500, 500, 0, 10])
    path.write_text(json.dumps(dataset))
    assert len(load_coco(path, images)["annotations"]) == len(dataset["annotations"])


def test_box_of_a_mask_as_pycocotools_has_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((20, 30), np.uint8, order="F")
        top, left = rng.integers(0, 15, 2)
        mask[top : top + 4, left : left + 5] = 1
        rle = mask_util.encode(mask)
        assert box_of_mask(rle, 20, 30) == (left, top, 5, 4) == tuple(mask_util.toBbox(rle))
    assert box_of_mask([[-5.0, 2, 40, 2, 40, 30, -5, 30]], 20, 30) == (0, 2, 30, 18)
    assert box_of_mask([[-5.0, 2, -1, 2, -1, 30]], 20, 30) is None
    assert box_of_mask({"size": [2, 2], "counts": [4]}, 2, 2) is None


# Detections as prompts ---------------------------------------------------------------------------


def results_of(dataset, change):
    rewrite(dataset, change)
    return [
        {**{key: entry[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5}
        for entry in dataset["annotations"]
        if not entry["iscrowd"]
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (NOTATIONS["corners x0, y0, x1, y1"], "probably corners x0, y0, x1, y1"),
        (NOTATIONS["fractions of the image, x, y, width, height"], "24 of 24 .* fractions"),
    ],
)
def test_detections_in_another_notation(toy, tmp_path, change, said):
    dataset, path, images = toy
    upright = load_coco(path, images)
    (tmp_path / "results.json").write_text(json.dumps(results_of(dataset, change)))
    with pytest.warns(InputWarning, match=f"MODEL.SAM.PROMPTS: .*results.json.*{said}"):
        load_box_prompts(tmp_path / "results.json", upright)


def test_detections_as_they_should_be(toy):
    results = results_of(toy[0], lambda x, y, w, h, wide, high: (x, y, w, h))
    sizes = {11 + index: size for index, size in enumerate(SIZES)}
    assert compare_results(results, sizes) is None
    assert compare_results(results, {}) is None


@pytest.mark.parametrize(
    ("box", "said"), [([3, 3, 0, 9], "has no area"), ([300, 3, 4, 9], "lies outside the image")]
)
def test_detections_that_cannot_be(toy, tmp_path, box, said):
    dataset, path, images = toy
    upright = load_coco(path, images)
    results = results_of(dataset, lambda x, y, w, h, wide, high: (x, y, w, h))
    results[2]["bbox"] = box
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match=f"entry 2: bbox .* {said}"):
        load_box_prompts(tmp_path / "results.json", upright)
