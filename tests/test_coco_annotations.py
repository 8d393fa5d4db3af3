"""Quarter turns of COCO annotations and data sets, with pycocotools' COCO as oracle."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from canon_seg.errors import InputError
from canon_seg.geometry import (
    C4,
    turn_annotation,
    turn_coco,
    turn_polygon_annotation,
    turned_size,
)

HEIGHT, WIDTH = 7, 10
TRIANGLE = [1.3, 1.2, 6.1, 2.4, 3.7, 6.9]
SQUARE = [5, 2, 9, 2, 9, 6, 5, 6]

POLYGONS = {
    "id": 1,
    "image_id": 5,
    "category_id": 2,
    "iscrowd": 0,
    "area": 17.25,
    "bbox": [1.3, 1.2, 7.7, 5.7],
    "segmentation": [TRIANGLE, SQUARE],
    "keypoints": [0, 0, 0, 3, 4, 1, 9, 6, 2],
    "num_keypoints": 2,
}
CROWD = {
    "id": 2,
    "image_id": 5,
    "category_id": 2,
    "iscrowd": 1,
    "area": 5,
    "bbox": [0, 3, 2, 4],
    "segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 4, 6, 1, 56]},
}
RESULT = {
    "image_id": 5,
    "category_id": 2,
    "score": 0.75,
    "bbox": [0.01, 0.02, 0.03, 0.04],
    "segmentation": coco_mask.encode(np.eye(HEIGHT, WIDTH, dtype=np.uint8, order="F")),
}
BOX_ONLY = {"id": 3, "image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": []}
ANNOTATIONS = [POLYGONS, CROWD, RESULT, BOX_ONLY]

DATASET = {
    "info": {"year": 2017},
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "images": [
        {"id": 5, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 6, "file_name": "empty.jpg", "height": 1, "width": 3},
    ],
    "annotations": [POLYGONS, CROWD, BOX_ONLY],
}

either_turn = pytest.mark.parametrize("turn", [turn_annotation, turn_polygon_annotation])


@either_turn
@pytest.mark.parametrize("annotation", ANNOTATIONS)
@pytest.mark.parametrize("a", C4.elements)
@pytest.mark.parametrize("b", C4.elements)
def test_turns_compose_and_invert(turn, annotation, a, b):
    once = turn(annotation, a, HEIGHT, WIDTH)
    twice = turn(once, b, *turned_size(HEIGHT, WIDTH, a))
    assert twice == turn(annotation, C4.compose(a, b), HEIGHT, WIDTH)
    back = turn(once, C4.inverse(a), *turned_size(HEIGHT, WIDTH, a))
    assert back == turn(annotation, 0, HEIGHT, WIDTH)


@given(
    hundredths=st.lists(st.integers(0, 50_000), min_size=4, max_size=4),
    a=st.sampled_from(C4.elements),
    b=st.sampled_from(C4.elements),
)
def test_boxes_turn_exactly_once_snapped(hundredths, a, b):
    annotation = {"bbox": [n / 100 for n in hundredths]}
    once = turn_annotation(annotation, a, 480, 641)
    twice = turn_annotation(once, b, *turned_size(480, 641, a))
    assert twice == turn_annotation(annotation, C4.compose(a, b), 480, 641)
    upright = turn_annotation(annotation, 0, 480, 641)["bbox"]
    np.testing.assert_allclose(upright, annotation["bbox"], rtol=0, atol=2**-21)


@either_turn
@pytest.mark.parametrize("annotation", ANNOTATIONS)
@pytest.mark.parametrize("turns", C4.elements)
def test_input_is_unchanged_and_the_rest_kept(turn, annotation, turns):
    before = copy.deepcopy(annotation)
    turned = turn(annotation, turns, HEIGHT, WIDTH)
    assert annotation == before
    assert list(turned) == list(annotation)
    for key in annotation.keys() - {"bbox", "segmentation", "keypoints"}:
        assert turned[key] == annotation[key]
    json.dumps(turned)


def test_one_turn_by_hand():
    turned = turn_annotation(POLYGONS, 1, HEIGHT, WIDTH)
    assert turned["keypoints"] == [0, 0, 0, 4, 6, 1, 6, 0, 2]
    assert all(type(number) is int for number in turned["keypoints"])
    np.testing.assert_allclose(turned["bbox"], [1.2, 1, 5.7, 7.7], atol=1e-6)
    assert turn_annotation(BOX_ONLY, 1, HEIGHT, WIDTH)["bbox"] == [2, 6, 4, 3]


def test_polygons_for_export_stay_polygons():
    turned = turn_polygon_annotation(POLYGONS, 1, HEIGHT, WIDTH)["segmentation"]
    np.testing.assert_allclose(turned[0], [1.2, 8.7, 2.4, 3.9, 6.9, 6.3], atol=1e-6)
    assert turned[1] == [2, 5, 2, 1, 6, 1, 6, 5]


def test_keypoints_of_results_may_be_fractions():
    result = {"keypoints": [1.25, 2.5, 0.9, 3, 4, 0.8]}
    turned = turn_annotation(result, 2, HEIGHT, WIDTH)
    assert turned["keypoints"] == [7.75, 3.5, 0.9, 6, 2, 0.8]


def load_with_pycocotools(dataset):
    coco = COCO()
    coco.dataset = copy.deepcopy(dataset)
    coco.createIndex()
    return coco


@pytest.mark.parametrize("turns", C4.elements)
def test_pycocotools_sees_the_turned_masks(turns):
    upright = load_with_pycocotools(DATASET)
    turned = load_with_pycocotools(json.loads(json.dumps(turn_coco(DATASET, turns))))
    for image_id, (height, width) in {5: (HEIGHT, WIDTH), 6: (1, 3)}.items():
        image = turned.imgs[image_id]
        assert (image["height"], image["width"]) == turned_size(height, width, turns)
        assert image["file_name"] == upright.imgs[image_id]["file_name"]
    for i in (1, 2):
        mask = turned.annToMask(turned.anns[i])
        np.testing.assert_array_equal(mask, np.rot90(upright.annToMask(upright.anns[i]), turns))


def test_turning_a_data_set_leaves_it_alone():
    before = copy.deepcopy(DATASET)
    turned = turn_coco(DATASET, 1)
    assert before == DATASET
    assert turned["categories"] == DATASET["categories"] and turned["info"] == DATASET["info"]


@either_turn
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rotation": 30}, "rotation"),
        ({"bbox": [1, 2, 3]}, "bbox.*four numbers"),
        ({"bbox": None}, "bbox"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox.*finite"),
        ({"bbox": [1, 2, 3, "four"]}, "bbox.*numbers"),
        ({"keypoints": [1, 2]}, "keypoints.*flat list"),
        ({"segmentation": [[1, 2, 3, 4]]}, "segmentation.*polygon"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3]}}, "segmentation.*malformed RLE"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [70]}}, "segmentation.*swapped"),
    ],
)
def test_errors_name_the_annotation_and_the_key(turn, bad, message):
    with pytest.raises(InputError, match=f"annotation 77, key '{message}"):
        turn({"id": 77, **bad}, 1, HEIGHT, WIDTH)


def test_annotation_of_no_image():
    dataset = {"images": [], "annotations": [POLYGONS]}
    with pytest.raises(InputError, match="annotation 1: image_id 5"):
        turn_coco(dataset, 1)


@pytest.mark.parametrize("size", [{}, {"height": 4}, {"height": 0, "width": 3}])
def test_image_without_its_size(size):
    with pytest.raises(InputError, match="image 8"):
        turn_coco({"images": [{"id": 8, **size}], "annotations": []}, 1)
