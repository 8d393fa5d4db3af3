"""Quarter turns of coordinates: exact group action, and agreement with pixels and detectron2."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from canon_seg.geometry import (
    ANNOTATION_STEP,
    C4,
    PIXEL_STEP,
    snap,
    turn_boxes,
    turn_boxes_xywh,
    turn_keypoints,
    turn_maps,
    turn_pixels,
    turn_points,
    turn_polygons,
    turn_rotated_boxes,
    turned_size,
)

TURNS = st.sampled_from(C4.elements)
SIDES = st.one_of(st.just(1), st.integers(1, 20), st.integers(1, 8192))
SMALL_SIDES = st.integers(1, 9)

COLUMNS = {
    turn_points: 2,
    turn_pixels: 2,
    turn_boxes: 4,
    turn_boxes_xywh: 4,
    turn_keypoints: 3,
    turn_rotated_boxes: 5,
}
every_turn = pytest.mark.parametrize("turn", COLUMNS, ids=lambda turn: turn.__name__)


def on_grid(columns, dtype, steps_per_pixel=256):
    """Arrays (..., columns) of multiples of 1 / steps_per_pixel, inside the frame and around it."""
    counts = hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3).map(
            lambda shape: (*shape, columns)
        ),
        elements=st.integers(-10 * steps_per_pixel, 8192 * steps_per_pixel),
    )
    return counts.map(lambda counts: (counts / steps_per_pixel).astype(dtype))


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@every_turn
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data(), height=SIDES, width=SIDES, a=TURNS, b=TURNS)
def test_turns_compose_and_invert_bit_for_bit(turn, dtype, data, height, width, a, b):
    coords = data.draw(on_grid(COLUMNS[turn], dtype))
    if turn is turn_rotated_boxes:
        coords = turn(coords, 0, height, width)  # angles in their normal range
    for coords in (coords, torch.from_numpy(coords)):
        once = turn(coords, a, height, width)
        twice = turn(once, b, *turned_size(height, width, a))
        back = turn(once, C4.inverse(a), *turned_size(height, width, a))
        assert same_bits(twice, turn(coords, C4.compose(a, b), height, width))
        assert same_bits(back, coords)


@every_turn
@given(data=st.data(), height=SIDES, width=SIDES, turns=TURNS)
def test_torch_and_numpy_agree(turn, data, height, width, turns):
    coords = data.draw(on_grid(COLUMNS[turn], np.float32))
    turned = turn(torch.from_numpy(coords), turns, height, width)
    assert same_bits(turned, turn(coords, turns, height, width))


@every_turn
@pytest.mark.parametrize("turns", C4.elements)
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("make", [np.copy, torch.from_numpy])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_new_memory_of_the_same_kind(turn, turns, dtype, make, shape):
    original = np.full((*shape, COLUMNS[turn]), 7).astype(dtype)
    coords = make(original.copy())
    turned = turn(coords, turns, np.int64(30), 70_000)  # numpy would widen for such sizes
    assert type(turned) is type(coords)
    assert turned.dtype == coords.dtype and turned.shape == coords.shape
    turned[...] = 0
    np.testing.assert_array_equal(coords, original)


@every_turn
def test_bad_input(turn):
    columns = COLUMNS[turn]
    with pytest.raises(ValueError, match=r"\(\.\.\., "):
        turn(np.zeros((2, columns + 1)), 1, 5, 5)
    with pytest.raises(TypeError, match="list"):
        turn([0.0] * columns, 1, 5, 5)
    for dtype in (np.uint8, np.uint32, np.int8, np.float16):
        with pytest.raises(TypeError, match=np.dtype(dtype).name):
            turn(np.zeros(columns, dtype=dtype), 1, 300, 300)
    with pytest.raises(ValueError, match="not degrees"):
        turn(np.zeros(columns), 90, 5, 5)
    with pytest.raises(TypeError):
        turn(np.zeros(columns), 1, 5.5, 5)


@given(data=st.data(), height=SMALL_SIDES, width=SMALL_SIDES, turns=TURNS)
def test_clicks_follow_their_pixel(data, height, width, turns):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    image = np.zeros((height, width), dtype=bool)
    image[y, x] = True
    turned_x, turned_y = turn_pixels(np.array([x, y]), turns, height, width)
    assert turn_maps(image, turns)[turned_y, turned_x]


@given(data=st.data(), height=SIDES, width=SIDES, turns=TURNS)
def test_a_click_is_the_point_at_its_pixels_centre(data, height, width, turns):
    clicks = data.draw(on_grid(2, np.float64))
    points = turn_points(clicks + 0.5, turns, height, width)
    np.testing.assert_array_equal(turn_pixels(clicks, turns, height, width) + 0.5, points)


@given(data=st.data(), height=SMALL_SIDES, width=SMALL_SIDES, turns=TURNS)
def test_boxes_stay_tight_around_their_mask(data, height, width, turns):
    mask = data.draw(hnp.arrays(bool, (height, width)).filter(np.any))
    box, turned_box = tight_box(mask), tight_box(turn_maps(mask, turns))
    np.testing.assert_array_equal(turn_boxes(box, turns, height, width), turned_box)
    xywh = turn_boxes_xywh(as_xywh(box), turns, height, width)
    np.testing.assert_array_equal(xywh, as_xywh(turned_box))


def tight_box(mask):
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def as_xywh(box):
    return np.concatenate([box[:2], box[2:] - box[:2]])


@given(data=st.data(), height=SIDES, width=SIDES, turns=TURNS)
def test_boxes_stay_ordered(data, height, width, turns):
    sides = st.floats(0, 8192, width=32)
    corners = data.draw(hnp.arrays(np.float32, (3, 2, 2), elements=sides))
    boxes = np.sort(corners, axis=1).reshape(3, 4)
    turned = turn_boxes(boxes, turns, height, width)
    assert (turned[:, :2] <= turned[:, 2:]).all()


def test_last_column_of_keypoints_is_kept():
    keypoints = np.array([[[1.0, 2.0, 0.3], [0.0, 0.0, 2.0]]])
    turned = turn_keypoints(keypoints, 1, 10, 20)
    np.testing.assert_array_equal(turned, [[[2.0, 19.0, 0.3], [0.0, 20.0, 2.0]]])


@given(data=st.data(), height=SIDES, width=SIDES, a=TURNS, b=TURNS)
def test_polygons_turn_vertex_by_vertex(data, height, width, a, b):
    vertices = data.draw(st.lists(on_grid(2, np.float64), max_size=3))
    polygons = [points.reshape(-1) for points in vertices]
    once = turn_polygons(polygons, a, height, width)
    twice = turn_polygons(once, b, *turned_size(height, width, a))
    for points, turned in zip(vertices, twice):
        expected = turn_points(points, C4.compose(a, b), height, width)
        assert same_bits(turned, expected.reshape(-1))


@given(
    box=st.tuples(*[st.integers(0, 99)] * 4, st.floats(-180, 179, width=16)).map(np.array),
    turns=TURNS,
)
def test_rotated_boxes_keep_their_corners(box, turns):
    """OpenCV computes the corners; its angles are clockwise on screen."""
    cv2 = pytest.importorskip("cv2")

    def corners(box):
        cx, cy, w, h, angle = box.tolist()
        return cv2.boxPoints(((cx, cy), (w, h), -angle))

    turned = turn_rotated_boxes(box, turns, 100, 80)
    expected = turn_points(corners(box), turns, 100, 80)
    np.testing.assert_allclose(corners(turned), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data(), turns=TURNS)
def test_rotated_angles_are_normalised(dtype, data, turns):
    elements = st.floats(-1e4, 1e4, width=np.dtype(dtype).itemsize * 8)
    boxes = data.draw(hnp.arrays(dtype, (3, 5), elements=elements))
    for boxes in (boxes, torch.from_numpy(boxes)):
        angles = turn_rotated_boxes(boxes, turns, 10, 10)[:, 4]
        assert ((angles >= -180) & (angles < 180)).all()


@pytest.mark.parametrize("make", [np.copy, torch.from_numpy])
def test_angles_just_below_the_range_are_normalised(make):
    boxes = np.array([0, 0, 1, 1, np.nextafter(-180, -181, dtype=np.float32)], dtype=np.float32)
    assert turn_rotated_boxes(make(boxes), 0, 10, 10)[4] == -180


@pytest.mark.parametrize(("height", "width"), [(6, 6), (6, 9), (7, 4), (1, 5), (480, 1)])
@pytest.mark.parametrize("turns", C4.elements)
def test_detectron2_rotates_the_same_way(height, width, turns):
    pytest.importorskip("detectron2")
    import canon_seg.d2.compat  # noqa: F401

    from detectron2.data.transforms import RotationTransform

    rotation = RotationTransform(height, width, C4.degrees(turns))
    points = np.array([[0, 0], [width, 0], [0.25, height], [width / 3, height / 5]])
    expected = rotation.apply_coords(points.copy())
    np.testing.assert_allclose(turn_points(points, turns, height, width), expected, atol=1e-9)
    boxes = np.array([[0, 0, width, height], [0.2, 0.1, width / 2, height / 3]])
    expected = rotation.apply_box(boxes.copy())
    np.testing.assert_allclose(turn_boxes(boxes, turns, height, width), expected, atol=1e-9)


def test_sam_adds_the_half_pixel_itself():
    """The premise for passing clicks as pixel indices, and boxes as they are."""
    segment_anything = pytest.importorskip("segment_anything")
    encoder = segment_anything.modeling.PromptEncoder(
        embed_dim=8, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4
    )
    coords = torch.tensor([[[3.0, 5.0], [20.0, 41.0]]])
    at_centres = encoder.pe_layer.forward_with_coords(coords + 0.5, (64, 64))
    clicks = encoder._embed_points(coords, torch.ones(1, 2), pad=False)
    torch.testing.assert_close(clicks, at_centres + encoder.point_embeddings[1].weight)
    boxes = encoder._embed_boxes(coords.reshape(1, 4))
    corners = torch.cat([encoder.point_embeddings[2].weight, encoder.point_embeddings[3].weight])
    torch.testing.assert_close(boxes, at_centres + corners)


# Multiples of half a step hold every tie, and leave the turn itself exact in float32.
# Not in x, y, w, h boxes, whose far edge is rounded by parts.
@pytest.mark.parametrize("turn", [turn for turn in COLUMNS if turn is not turn_boxes_xywh])
@given(data=st.data(), height=SIDES, width=SIDES, turns=TURNS)
def test_snapping_commutes_with_turning_bit_for_bit(turn, data, height, width, turns):
    coords = data.draw(on_grid(COLUMNS[turn], np.float32, steps_per_pixel=512))
    for coords in (coords, torch.from_numpy(coords)):
        snapped_first = turn(snap(coords), turns, height, width)
        assert same_bits(snapped_first, snap(turn(coords, turns, height, width)))


@given(data=st.data(), side=st.integers(1, 2**15), turns=TURNS)
def test_coco_boxes_turn_without_rounding(data, side, turns):
    hundredths = st.integers(0, 100 * side).map(lambda n: n / 100)  # as COCO writes them
    box = snap(np.array(data.draw(st.tuples(*[hundredths] * 4))), ANNOTATION_STEP)
    turned = turn_boxes_xywh(box, turns, side, side)
    assert same_bits(turn_boxes_xywh(turned, C4.inverse(turns), side, side), box)
    assert sorted(turned[2:]) == sorted(box[2:])


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_snap_rounds_half_to_even(make, dtype):
    steps = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 2.51, 7.0])
    coords = make((steps * PIXEL_STEP).astype(dtype))
    snapped = snap(coords)
    np.testing.assert_array_equal(snapped / PIXEL_STEP, [0, 2, 2, 0, -2, 0, 3, 7])
    assert type(snapped) is type(coords) and snapped.dtype == coords.dtype
    assert not np.signbit(np.asarray(snapped))[3]
    np.testing.assert_array_equal(coords, (steps * PIXEL_STEP).astype(dtype))


def test_snap_keeps_the_dtype_of_scalars():
    assert snap(np.array(0.3, dtype=np.float32)).dtype == np.float32


def test_snap_before_narrowing():
    """Near a tie float64 still knows the side, float32 after the turn does not."""
    x = np.array([1 / 512 + 2**-20, 0.0])
    narrowed_first = snap(turn_points(x, 2, 1000, 1000).astype(np.float32))
    snapped_first = turn_points(snap(x).astype(np.float32), 2, 1000, 1000)
    assert snapped_first[0] == 1000 - 1 / 256
    assert narrowed_first[0] == 1000


@pytest.mark.parametrize("step", [0, -0.5, 1, 0.3, 3 / 512, float("nan")])
def test_snap_needs_a_grid_that_turns_onto_itself(step):
    with pytest.raises(ValueError, match="power of two"):
        snap(np.zeros(2), step)


@pytest.mark.parametrize("coords", [np.zeros(2, int), torch.zeros(2).half(), [0.5]])
def test_snap_needs_floats_that_hold_the_grid(coords):
    with pytest.raises(TypeError, match="float32 or float64"):
        snap(coords)
