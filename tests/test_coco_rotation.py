"""Rotation by any angle, with detectron2 and brute force as oracles."""

import copy
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from pycocotools import mask as coco_mask

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.coco.rotation import rotate_annotation, rotate_coco, rotate_rle
from canon_seg.core.turn import split_angle
from canon_seg.errors import InputError
from canon_seg.geometry import (
    C4,
    annotation_to_rle,
    turn_annotation,
    turn_boxes,
    turn_coco,
    turn_image,
    turn_points,
    turn_polygons,
    turn_rle,
    turned_size,
)
from canon_seg.images.tilt import (
    CANVASES,
    FILL,
    clip_boxes,
    rotate_boxes,
    rotate_image,
    rotate_points,
    rotate_polygons,
    rotated_size,
)

from detectron2.data.transforms import RotationTransform

HEIGHT, WIDTH = 60, 83
OFF_QUARTERS = (15.0, 45.0, -45.0, 100.5, 181.0, 299.0)
ANGLES = st.floats(-1000, 1000)
CANVAS = st.sampled_from(CANVASES)
SIDES = st.integers(1, 90)

on_each_canvas = pytest.mark.parametrize("canvas", CANVASES)
at_each_angle = pytest.mark.parametrize("degrees", OFF_QUARTERS)

LEAF = [10.5, 30.2, 24.1, 8.7, 60.3, 12.2, 72.9, 33.3, 47.0, 52.1, 20.4, 49.6]
NOTCH = [5.0, 5.0, 20.0, 4.5, 18.0, 21.0]
POLYGONS = {
    "id": 1,
    "image_id": 5,
    "category_id": 2,
    "iscrowd": 0,
    "area": 1.0,
    "bbox": [5.0, 4.5, 67.9, 47.6],
    "segmentation": [LEAF, NOTCH],
}
CORNER = {**POLYGONS, "id": 2, "segmentation": [[0.0, 0.0, 4.0, 0.0, 4.0, 3.0, 0.0, 3.0]]}


def smooth_image(height=HEIGHT, width=WIDTH):
    """Slopes of some ten levels a pixel: half a pixel astray is far outside the tolerances."""
    coarse = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def blobs(height=HEIGHT, width=WIDTH):
    return (smooth_image(height, width)[:, :, 0] > 120).astype(np.uint8)


def crowd():
    rle = coco_mask.encode(np.asfortranarray(blobs()))
    rle["counts"] = rle["counts"].decode()
    return {**POLYGONS, "id": 3, "iscrowd": 1, "segmentation": rle}


def dataset():
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [POLYGONS, CORNER, crowd()],
        "categories": [{"id": 2, "name": "b"}],
    }


def picture_points(degrees, canvas, height=HEIGHT, width=WIDTH):
    """Where the centre of each pixel of the canvas lies in the picture, in complex numbers."""
    rows, columns = rotated_size(height, width, degrees, canvas)
    y, x = np.mgrid[:rows, :columns] + 0.5
    # y runs down: counterclockwise on screen is clockwise in these numbers
    z = (x - columns / 2 + 1j * (y - rows / 2)) * np.exp(1j * np.deg2rad(degrees))
    return z.real + width / 2, z.imag + height / 2


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# The angle and the canvas ------------------------------------------------------------------------


@given(degrees=ANGLES)
def test_an_angle_is_a_quarter_turn_and_a_tilt(degrees):
    turns, tilt = split_angle(degrees)
    assert turns in C4.elements and -45 < tilt <= 45
    assert abs((90 * turns + tilt - degrees + 180) % 360 - 180) < 1e-9


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, (0, 0)),
        (450, (1, 0)),
        (-90, (3, 0)),
        (720, (0, 0)),
        (-1e-20, (0, 0)),
        (45, (0, 45)),
        (135, (1, 45)),
        (-45, (3, 45)),
        (375, (0, 15)),
        (345, (0, -15)),
    ],
)
def test_angles_by_hand(degrees, expected):
    assert split_angle(degrees) == expected


def test_nearly_a_quarter_turn_is_none():
    turns, tilt = split_angle(90.0000001)
    assert turns == 1 and 0 < tilt < 1.1e-7
    assert rotated_size(480, 640, 90.0000001) == (640, 480)


@pytest.mark.parametrize("degrees", [float("nan"), float("inf")])
def test_what_is_no_angle(degrees):
    with pytest.raises(ValueError, match="finite"):
        split_angle(degrees)


@given(height=SIDES, width=SIDES, degrees=ANGLES)
def test_the_expanded_canvas_is_the_smallest_that_holds_the_picture(height, width, degrees):
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    corners = rotate_points(corners, degrees, height, width)
    rows, columns = rotated_size(height, width, degrees)
    assert corners.min() > -1e-3 and (corners.max(axis=0) < [columns + 1e-3, rows + 1e-3]).all()
    assert (np.ptp(corners, axis=0) > [columns - 1, rows - 1]).all()


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (50, 50), (20, 200)])
@pytest.mark.parametrize("degrees", [1, 17.5, 30, 45, -44, 121])
def test_the_inscribed_canvas_is_the_largest_inside_of_the_picture(size, degrees):
    height, width = rotated_size(*size, degrees, "inscribed")
    white = np.full((*size, 3), 255, np.uint8)
    assert (rotate_image(white, degrees, "inscribed") == 255).all()  # no fill, not even mixed in
    # By brute force: of all widths, the height at which a corner meets the picture's edge.
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    wide = np.arange(1, 400) * 0.5
    high = np.minimum((size[1] - wide * cos) / sin, (size[0] - wide * sin) / cos)
    largest = (wide * high)[high > 0].max()
    assert (height + 1) * (width + 1) >= largest and height * width <= largest + 1


@given(degrees=ANGLES)
def test_the_cropped_canvas_is_the_picture_s_turned_frame(degrees):
    expected = turned_size(HEIGHT, WIDTH, split_angle(degrees)[0])
    assert rotated_size(HEIGHT, WIDTH, degrees, "crop") == expected


# Quarter turns -----------------------------------------------------------------------------------


@on_each_canvas
@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (-180, 2), (270, 3), (450, 1)])
def test_quarter_turns_are_the_exact_ones(degrees, turns, canvas):
    frame = degrees, HEIGHT, WIDTH, canvas
    image, points = smooth_image(), np.float32([[1.1, 2.3], [80, 3]])
    boxes, polygons = np.float64([[1.1, 2.3, 8.7, 9.1]]), [np.float64(LEAF), np.float64(NOTCH)]
    for rotated, turned in [
        (rotate_image(image, degrees, canvas), turn_image(image, turns)),
        (rotate_points(points, *frame), turn_points(points, turns, HEIGHT, WIDTH)),
        (rotate_boxes(boxes, *frame), turn_boxes(boxes, turns, HEIGHT, WIDTH)),
        *zip(rotate_polygons(polygons, *frame), turn_polygons(polygons, turns, HEIGHT, WIDTH)),
    ]:
        np.testing.assert_array_equal(rotated, turned)
        assert rotated.dtype == turned.dtype
    rle = crowd()["segmentation"]
    assert rotate_rle(rle, degrees, canvas) == turn_rle(rle, turns)
    assert rotate_coco(dataset(), degrees, canvas) == (turn_coco(dataset(), turns), 0)


@on_each_canvas
@pytest.mark.parametrize("tilt", [15.0, -30.0, 45.0])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_four_angles_are_the_turns_of_one_tilted_picture(tilt, turns, canvas):
    degrees, tilted_frame = tilt + 90 * turns, rotated_size(HEIGHT, WIDTH, tilt, canvas)
    np.testing.assert_array_equal(
        rotate_image(smooth_image(), degrees, canvas),
        turn_image(rotate_image(smooth_image(), tilt, canvas), turns),
    )
    boxes = np.random.default_rng(0).uniform(0, 60, (9, 4))
    np.testing.assert_array_equal(
        rotate_boxes(boxes, degrees, HEIGHT, WIDTH, canvas),
        turn_boxes(rotate_boxes(boxes, tilt, HEIGHT, WIDTH, canvas), turns, *tilted_frame),
    )
    tilted, cut = rotate_coco(dataset(), tilt, canvas)
    assert rotate_coco(dataset(), degrees, canvas) == (turn_coco(tilted, turns), cut)
    box_only = {"id": 4, "bbox": [3.3, 5.1, 40.2, 20.9]}
    tilted = rotate_annotation(box_only, tilt, HEIGHT, WIDTH, canvas)
    rotated = rotate_annotation(box_only, degrees, HEIGHT, WIDTH, canvas)
    assert rotated == turn_annotation(tilted, turns, *tilted_frame)


# Coordinates and images --------------------------------------------------------------------------


@at_each_angle
@pytest.mark.parametrize("expand", [True, False])
def test_points_are_where_detectron2_puts_them(degrees, expand):
    """As seen from the centre: detectron2 rounds the canvas to the nearest size, not up."""
    oracle = RotationTransform(HEIGHT, WIDTH, degrees, expand=expand)
    canvas = "expand" if expand else "crop"
    points = np.random.default_rng(0).uniform(0, 60, (20, 2))
    rows, columns = rotated_size(HEIGHT, WIDTH, degrees, canvas)
    ours = rotate_points(points, degrees, HEIGHT, WIDTH, canvas) - [columns / 2, rows / 2]
    theirs = oracle.apply_coords(points) - [oracle.bound_w / 2, oracle.bound_h / 2]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


# Sides of squares for which detectron2's canvas, rounded to the nearest size, is as large as ours.
@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize(
    ("degrees", "side"), [(15, 80), (45, 77), (-45, 77), (100.5, 77), (181, 90), (299, 77)]
)
def test_images_are_as_detectron2_rotates_them(degrees, side, expand):
    image, canvas = smooth_image(side, side), "expand" if expand else "crop"
    ours = rotate_image(image, degrees, canvas).astype(int)
    theirs = RotationTransform(side, side, degrees, expand=expand).apply_image(image).astype(int)
    assert ours.shape == theirs.shape
    x, y = picture_points(degrees, canvas, side, side)
    inside = (np.minimum(x, y) > 1) & (np.maximum(x, y) < side - 1)
    assert inside.mean() > 0.4
    assert np.abs(ours - theirs)[inside].max() <= 2


@on_each_canvas
@at_each_angle
def test_images_are_interpolated_between_pixel_centres(degrees, canvas):
    image = smooth_image()
    x, y = (axis - 0.5 for axis in picture_points(degrees, canvas))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), constant_values=FILL)
    expected = sum(
        padded[np.clip(top + j + 1, 0, HEIGHT + 1), np.clip(left + i + 1, 0, WIDTH + 1)]
        * (np.abs(1 - i - (x - left)) * np.abs(1 - j - (y - top)))[:, :, None]
        for i in (0, 1)
        for j in (0, 1)
    )
    rotated = rotate_image(image, degrees, canvas)
    assert rotated.dtype == np.uint8
    errors = np.abs(rotated - expected)  # OpenCV interpolates at 1/32 of a pixel
    assert errors.max() < 5 and errors.mean() < 0.5
    assert (rotated[(x < -1.1) | (y < -1.1) | (x > WIDTH) | (y > HEIGHT)] == FILL).all()


@given(degrees=ANGLES, height=SIDES, width=SIDES, canvas=CANVAS)
def test_coordinates_come_back(degrees, height, width, canvas):
    points = np.array([[0.0, 0.0], [3.25, 70.5], [height, width]])
    frame = rotated_size(height, width, degrees, canvas)
    back = rotate_points(
        rotate_points(points, degrees, height, width, canvas), -degrees, *frame, canvas
    )
    rows, columns = rotated_size(*frame, -degrees, canvas)
    offset = [(columns - width) / 2, (rows - height) / 2]
    np.testing.assert_allclose(back - offset, points, atol=1e-5)


@settings(max_examples=25)
@given(degrees=ANGLES)
def test_smooth_images_come_back(degrees):
    image = smooth_image(64, 64)
    back = rotate_image(rotate_image(image, degrees, "crop"), -degrees, "crop")
    disc = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 29
    assert np.abs(back.astype(int) - image)[disc].mean() < 2


# Masks, boxes and annotations --------------------------------------------------------------------


@on_each_canvas
@at_each_angle
def test_rle_is_sampled_at_pixel_centres(degrees, canvas):
    mask = blobs()
    rle = rotate_rle(crowd()["segmentation"], degrees, canvas)
    assert isinstance(rle["counts"], str)
    assert rotate_annotation(crowd(), degrees, HEIGHT, WIDTH, canvas)["segmentation"] == rle
    rotated = coco_mask.decode(rle)
    x, y = picture_points(degrees, canvas)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    expected = np.zeros_like(rotated)
    expected[inside] = mask[y[inside].astype(int), x[inside].astype(int)]
    undecided = np.minimum(abs(x - np.rint(x)), abs(y - np.rint(y))) < 4e-3
    assert undecided.mean() < 0.05
    np.testing.assert_array_equal(rotated[~undecided], expected[~undecided])
    if canvas == "expand":
        assert abs(rotated.sum() / mask.sum() - 1) < 0.01
    assert coco_mask.encode(np.asfortranarray(rotated))["counts"].decode() == rle["counts"]


@on_each_canvas
@at_each_angle
def test_polygons_rotate_as_geometry(degrees, canvas):
    rotated = rotate_annotation(POLYGONS, degrees, HEIGHT, WIDTH, canvas)
    mask = coco_mask.decode(rotated["segmentation"]).astype(bool)
    assert list(mask.shape) == list(rotated_size(HEIGHT, WIDTH, degrees, canvas))

    centres = np.stack(picture_points(degrees, canvas), axis=-1).reshape(-1, 2)
    drawn = [
        Path(np.reshape(polygon, (-1, 2))).contains_points(centres).reshape(mask.shape)
        for polygon in POLYGONS["segmentation"]
    ]
    assert iou(mask, drawn[0] | drawn[1]) > 0.96

    upright = annotation_to_rle(POLYGONS["segmentation"], HEIGHT, WIDTH)
    warped = coco_mask.decode(rotate_rle(upright, degrees, canvas)).astype(bool)
    assert iou(mask, warped) > 0.95
    assert abs(mask.sum() / warped.sum() - 1) < 0.02

    assert rotated["area"] == mask.sum()
    assert rotated["bbox"] == coco_mask.toBbox(rotated["segmentation"]).tolist()
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encoded["counts"].decode() == rotated["segmentation"]["counts"]


@on_each_canvas
@pytest.mark.parametrize("tilt", [15.0, 45.0, -31.0])
@pytest.mark.parametrize("shift", [0.1, 0.3, 0.7, 0.9])
def test_the_window_around_an_object_is_drawn_as_in_the_whole_frame(tilt, shift, canvas):
    """A rectangle that will be upright, so that a column lost at its border shows."""
    rows, columns = rotated_size(HEIGHT, WIDTH, tilt, canvas)
    for left, top in [(20, 17), (-9, 30), (columns - 15, rows - 10), (30, -6)]:
        box = np.array([left, top, left + 21, top + 14]) + shift
        corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        middle, centre = np.array([columns, rows]) / 2, np.array([WIDTH, HEIGHT]) / 2
        upright = (corners - middle) @ [[1, 0], [0, -1]] @ [1, 1j] * np.exp(-1j * np.deg2rad(tilt))
        upright = np.stack([upright.real, -upright.imag], axis=-1) + centre
        annotation = {"bbox": [0, 0, 1, 1], "segmentation": [upright.ravel().tolist()]}
        rotated = rotate_annotation(annotation, tilt, HEIGHT, WIDTH, canvas)
        [rle] = coco_mask.frPyObjects([corners.ravel().tolist()], rows, columns)
        assert rotated["segmentation"]["counts"] == rle["counts"].decode()


def test_masks_that_fill_the_last_pixel():
    filled = coco_mask.encode(np.ones((HEIGHT, WIDTH), np.uint8, order="F"))
    assert rotate_rle(filled, 0.1, "crop") == filled


def test_what_is_cut_away_is_dropped_and_counted():
    before = dataset()
    original = copy.deepcopy(before)
    rotated, cut = rotate_coco(before, 30, "crop")
    assert before == original
    assert cut == 1 and [entry["id"] for entry in rotated["annotations"]] == [1, 3]
    assert rotated["images"][0] == original["images"][0]
    json.dumps(rotated)
    expanded, cut = rotate_coco(before, 30)
    assert cut == 0 and len(expanded["annotations"]) == 3
    size = rotated_size(HEIGHT, WIDTH, 30)
    assert (expanded["images"][0]["height"], expanded["images"][0]["width"]) == size
    assert expanded["categories"] == original["categories"]
    for ours, whole in zip(rotated["annotations"], expanded["annotations"][::2]):
        assert ours["area"] <= whole["area"]


def test_boxes_are_those_around_the_corners():
    by_hand = rotate_boxes(np.array([[40.0, 30.0, 60.0, 50.0]]), 45, 80, 100, "crop")
    # The corners around the centre (50, 40) are half a diagonal away from it.
    half = 10 * np.sqrt(2)
    np.testing.assert_allclose(by_hand, [[50 - half, 40 - half, 50 + half, 40 + half]], atol=1e-5)
    annotation = {"id": 1, "bbox": [40.0, 30.0, 20.0, 20.0], "segmentation": [], "score": 0.5}
    rotated = rotate_annotation(annotation, 45, 80, 100, "crop")
    np.testing.assert_allclose(rotated["bbox"], [50 - half, 40 - half, 2 * half, 2 * half])
    assert rotated["score"] == 0.5 and "area" not in rotated
    assert rotate_annotation({"bbox": [0, 0, 3, 3]}, 45, 80, 100, "crop") is None


def test_boxes_are_clipped_to_the_frame():
    boxes = np.float64([[-5, 2, 4, 300], [10, 10, 20, 20], [-9, 0, 0, 5], [60, 3, 90, 9]])
    clipped, kept = clip_boxes(boxes, 40, 60)
    assert kept.tolist() == [True, True, False, False]
    assert clipped.tolist() == [[0, 2, 4, 40], [10, 10, 20, 20]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "key 'keypoints'.*quarter turns"),
        ({"segmentation": [[1, 2, 3, 4]]}, "key 'segmentation'.*polygon"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3]}}, "'segmentation'.*malformed"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}}, "swapped"),
        ({"bbox": [1, 2, 3]}, "key 'bbox'.*four numbers"),
        ({}, "key 'bbox'.*four numbers"),
    ],
)
def test_errors_name_the_annotation_and_the_key(bad, message):
    with pytest.raises(InputError, match=f"annotation 77.*{message}"):
        rotate_annotation({"id": 77, **bad}, 15, HEIGHT, WIDTH)


def test_annotation_of_no_image():
    with pytest.raises(InputError, match="annotation 1: image_id 5"):
        rotate_coco({"images": [], "annotations": [POLYGONS]}, 15)


def test_unknown_canvas():
    with pytest.raises(ValueError, match="expand, crop"):
        rotate_image(smooth_image(), 15, "grow")


@pytest.mark.parametrize("degrees", [22.1, 0.1, 44.9, 7.3, 45.0, 45.0000000001])
def test_turned_angles_have_the_same_tilt_to_the_last_bit(degrees):
    turns, tilt = split_angle(degrees)
    assert -45 < tilt <= 45
    for more in (1, 2, 3):
        assert split_angle(degrees + 90 * more) == ((turns + more) % 4, tilt)


def test_sides_that_cannot_be_warped_are_named():
    with pytest.raises(InputError, match="height 4 and width 40000 .* by 10 degrees"):
        rotate_image(np.zeros((4, 40_000), np.uint8), 10)
    assert rotate_image(np.zeros((4, 40_000), np.uint8), 90).shape == (40_000, 4)
