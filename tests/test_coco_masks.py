"""Quarter turns of COCO RLE, with pycocotools as oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from canon_seg.coco.masks import areas_of_rles
from canon_seg.errors import InputError
from canon_seg.geometry import (
    C4,
    annotation_to_rle,
    decode_rle,
    encode_mask,
    turn_boxes_xywh,
    turn_polygons,
    turn_rle,
    turned_size,
)

COCO_VAL182 = Path(__file__).parents[2] / "shared/data/coco_val182/annotations/instances_val.json"

TURNS = st.sampled_from(C4.elements)
SIDES = st.integers(1, 12)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: hnp.arrays(bool, shape))


def pycocotools_encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def uncompressed(mask):
    """Run lengths column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat)).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}


def with_str(rle):
    return {**rle, "counts": rle["counts"].decode()}


@given(mask=MASKS)
def test_codec_agrees_with_pycocotools(mask):
    rle = pycocotools_encode(mask)
    assert encode_mask(mask) == rle
    for form in (rle, with_str(rle), uncompressed(mask)):
        np.testing.assert_array_equal(decode_rle(form), mask)


def test_long_runs_and_large_differences():
    """Numbers of several characters, and negative differences to the run two before."""
    mask = np.zeros((3000, 700), dtype=bool)
    mask[5:2900, 3:650] = True
    mask[100:103, 5::7] = False
    np.testing.assert_array_equal(decode_rle(pycocotools_encode(mask)), mask)


@given(mask=MASKS, turns=TURNS)
def test_turns_the_decoded_mask(mask, turns):
    turned = turn_rle(pycocotools_encode(mask), turns)
    assert turned["size"] == list(turned_size(*mask.shape, turns))
    np.testing.assert_array_equal(coco_mask.decode(turned), np.rot90(mask, turns))


@given(mask=MASKS, a=TURNS, b=TURNS)
def test_turns_compose_and_invert(mask, a, b):
    rle = pycocotools_encode(mask)
    assert turn_rle(turn_rle(rle, a), b) == turn_rle(rle, C4.compose(a, b))
    assert turn_rle(turn_rle(rle, a), C4.inverse(a)) == rle


@given(mask=MASKS, turns=TURNS)
def test_the_kind_of_counts(mask, turns):
    rle = pycocotools_encode(mask)
    expected = turn_rle(rle, turns)
    assert type(expected["counts"]) is bytes
    assert turn_rle(uncompressed(mask), turns) == expected
    as_str = turn_rle(with_str(rle), turns)
    assert as_str == with_str(expected)
    assert json.loads(json.dumps(as_str)) == as_str


@given(data=st.data(), turns=TURNS)
def test_area_box_and_iou_by_pycocotools(data, turns):
    a = data.draw(MASKS)
    b = data.draw(hnp.arrays(bool, a.shape))
    rles = [pycocotools_encode(a), pycocotools_encode(b)]
    turned = [turn_rle(rle, turns) for rle in rles]
    np.testing.assert_array_equal(coco_mask.area(turned), coco_mask.area(rles))
    for crowd in ([0, 0], [1, 1]):
        iou = coco_mask.iou(rles, rles, crowd)
        np.testing.assert_array_equal(coco_mask.iou(turned, turned, crowd), iou)
    for rle, turned_rle, mask in zip(rles, turned, (a, b)):
        if mask.any():
            box = turn_boxes_xywh(coco_mask.toBbox(rle), turns, *mask.shape)
            np.testing.assert_array_equal(coco_mask.toBbox(turned_rle), box)


def test_areas_of_more_masks_than_8_bits_count():
    masks = np.random.default_rng(0).random((300, 7, 5)) < 0.5
    areas = areas_of_rles([encode_mask(mask) for mask in masks])
    assert areas == masks.sum((1, 2)).tolist() and areas_of_rles([]) == []


def test_input_is_unchanged():
    rle = with_str(pycocotools_encode(np.eye(3, 4)))
    before = json.dumps(rle)
    turn_rle(rle, 1)
    assert json.dumps(rle) == before


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [4, 4]},
        {"size": [4], "counts": [16]},
        {"size": [4.0, 4], "counts": [16]},
        {"size": [-4, -4], "counts": [16]},
        {"size": [4, 4], "counts": None},
        {"size": [4, 4], "counts": []},
        {"size": [4, 4], "counts": b""},
        {"size": [4, 4], "counts": [3, 2]},
        {"size": [4, 4], "counts": [3, 200]},
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": [[16]]},
        {"size": [4, 4], "counts": [2**62, 2**62, 2**62, 2**62, 16]},
        {"size": [4, 4], "counts": ["a"]},
        {"size": [4, 4], "counts": [1.5, 14.5]},
        {"size": [4, 4], "counts": b"32"},
        {"size": [4, 4], "counts": b"P"},
        {"size": [4, 4], "counts": "zz zz"},
        {"size": [4, 4], "counts": "\u00ff"},
        {"size": [4, 4], "counts": b"o" * 30 + b"1"},
        "not a dict",
    ],
)
def test_damaged_rle(rle):
    """pycocotools reads memory out of bounds for some of these."""
    with pytest.raises(InputError, match="malformed RLE"):
        turn_rle(rle, 1)


TRIANGLE = [1.3, 1.2, 6.1, 2.4, 3.7, 6.9]
SQUARE = [5, 5, 9, 5, 9, 7, 5, 7]


def test_polygons_are_united_by_pycocotools():
    rle = annotation_to_rle([TRIANGLE, SQUARE], 8, 9)
    parts = coco_mask.frPyObjects([TRIANGLE, SQUARE], 8, 9)
    assert rle == coco_mask.merge(parts)
    as_arrays = [np.array(TRIANGLE), np.array(SQUARE)]
    assert annotation_to_rle(as_arrays, 8, 9) == rle


@given(mask=MASKS)
def test_all_kinds_of_rle_annotations(mask):
    rle = pycocotools_encode(mask)
    for form in (rle, with_str(rle), uncompressed(mask)):
        assert annotation_to_rle(form, *mask.shape) == rle


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        None,
        TRIANGLE,
        [[1, 2, 3, 4]],  # which pycocotools takes for a box
        [TRIANGLE, [1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, "six"]],
        [[[1, 2], [3, 4], [5, 6]]],
    ],
)
def test_damaged_polygons(segmentation):
    with pytest.raises(InputError, match="polygon"):
        annotation_to_rle(segmentation, 8, 9)


def test_rle_of_another_size():
    with pytest.raises(InputError, match="swapped"):
        annotation_to_rle(pycocotools_encode(np.ones((4, 5))), 5, 4)


def pixels_that_differ(polygons, height, width, turns):
    """Pixels by which the raster of turned polygons differs from the turned raster."""
    turned_raster = decode_rle(turn_rle(annotation_to_rle(polygons, height, width), turns))
    turned_polygons = turn_polygons([np.array(p) for p in polygons], turns, height, width)
    raster_of_turned = annotation_to_rle(turned_polygons, *turned_size(height, width, turns))
    return np.count_nonzero(turned_raster != decode_rle(raster_of_turned))


def test_pycocotools_rasteriser_is_not_equivariant():
    """Why polygons are rasterised upright and the raster is turned."""
    assert pixels_that_differ([TRIANGLE], 8, 9, 0) == 0
    assert all(pixels_that_differ([TRIANGLE], 8, 9, turns) > 0 for turns in (1, 2, 3))


@pytest.mark.skipif(not COCO_VAL182.exists(), reason=f"needs {COCO_VAL182}")
def test_turned_polygons_change_most_masks_of_coco():
    coco = json.loads(COCO_VAL182.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    polygons = [ann for ann in coco["annotations"] if isinstance(ann["segmentation"], list)][::20]
    changed = [
        pixels_that_differ(ann["segmentation"], *sizes[ann["image_id"]], turns=1) > 0
        for ann in polygons
    ]
    assert np.mean(changed) > 0.5
