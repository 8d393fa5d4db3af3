import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.coco.masks import decode_rle, encode_mask, turn_rle
from canon_seg.core.group import C4, D4, O2, SO2, C, D, Group, PlanarGroup, permutation
from canon_seg.core.turn import IDENTITY, Turn, turned_size
from canon_seg.images.arrays import turn_image, turn_maps, turned_copy
from canon_seg.images.coordinates import (
    turn_boxes,
    turn_boxes_xywh,
    turn_keypoints,
    turn_pixels,
    turn_points,
    turn_polygons,
    turn_rotated_boxes,
)
from canon_seg.sam.prompts import Prompts

FINITE = [C(1), C(2), C(3), C4, C(7), C(8), C(360), D(1), D(2), D(3), D4, D(6)]
HEIGHT, WIDTH = 6, 9

tilts = st.integers(-180 * 2**12, 180 * 2**12).map(lambda k: k / 2**12)


@st.composite
def group_and_elements(draw, count):
    group = draw(st.sampled_from([*FINITE, SO2, O2]))
    if group.elements is not None:
        element = st.sampled_from(group.elements)
    else:
        mirrored = st.booleans() if group.mirrors else st.just(False)
        element = st.builds(Turn.by, tilts, mirrored)
    return group, [draw(element) for _ in range(count)]


@given(group_and_elements(2))
def test_closure_identity_and_inverse(case):
    group, (a, b) = case
    assert group.compose(a, b) in group
    assert group.compose(a, group.identity) == a == group.compose(group.identity, a)
    assert group.compose(a, group.inverse(a)) == IDENTITY == group.compose(group.inverse(a), a)


@given(group_and_elements(3))
def test_associativity(case):
    group, (a, b, c) = case
    compose = group.compose
    assert compose(compose(a, b), c) == compose(a, compose(b, c))


@given(group_and_elements(3))
def test_the_distance_is_a_bi_invariant_metric(case):
    group, (a, b, c) = case
    distance = group.distance
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a) <= 180
    # Elements of C(n) are rounded to the grid of tilts, by less than this.
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-5
    for moved in (
        distance(group.compose(a, c), group.compose(b, c)),
        distance(group.compose(c, a), group.compose(c, b)),
    ):
        assert moved == pytest.approx(distance(a, b), abs=1e-5)
    if a.mirrored != b.mirrored:
        assert distance(a, b) == 180


@pytest.mark.parametrize("group", [*FINITE, SO2, O2], ids=lambda group: group.name)
def test_the_exact_part_is_a_subgroup_that_acts_by_index(group):
    exact = group.exact
    assert exact.is_exact and exact.exact == exact
    assert all(element.exact and element in group for element in exact.elements)
    for a, b in itertools.product(exact.elements, repeat=2):
        assert group.compose(a, b) == exact.compose(a, b)
    by_index = {element for element in group.elements or D4.elements if element.exact}
    if group.elements is None and not group.mirrors:
        by_index = set(C4.elements)
    assert set(exact.elements) == by_index


def test_exact_parts_by_name():
    assert [g.exact for g in (C(8), C(6), C(5), D(8), SO2, O2)] == [C4, C(2), C(1), D4, C4, D4]
    assert [g.name for g in (C(8), D(3), SO2, O2)] == ["C8", "D3", "SO2", "O2"]
    assert isinstance(C4, Group)


@pytest.mark.parametrize("group", FINITE, ids=lambda group: group.name)
def test_elements_are_in_order_of_their_angles(group):
    assert group.elements[0] == IDENTITY
    assert len(set(group.elements)) == len(group.elements) == group.order * (1 + group.mirrors)
    for place, element in enumerate(group.elements):
        assert group.index(element) == place
        assert element.degrees == pytest.approx(360 * (place % group.order) / group.order, abs=1e-5)
        assert element.mirrored == (place >= group.order)


@pytest.mark.parametrize(
    ("group", "value", "reason"),
    [
        (C4, Turn(mirrored=True), "no mirrors"),
        (C4, Turn.by(45), "multiple of 90"),
        (C(3), 1, "multiple of 120"),
        (C4, 90, "not degrees"),
        (SO2, Turn(mirrored=True), "no mirrors"),
    ],
)
def test_what_is_no_element(group, value, reason):
    assert value not in group
    with pytest.raises(ValueError, match=reason):
        group.compose(value, IDENTITY)


def test_bad_orders_and_numbers_of_continuous_groups():
    for order in (0, -4):
        with pytest.raises(ValueError, match="order of 1 or more"):
            C(order)
    with pytest.raises(TypeError):
        PlanarGroup(2.5)
    with pytest.raises(ValueError, match="continuous"):
        SO2.index(IDENTITY)


def test_permutations_are_a_right_action():
    for a, b in itertools.product(D4.elements, repeat=2):
        first, second = permutation(D4, a), permutation(D4, b)
        both = permutation(D4, D4.compose(a, b))
        assert [second[place] for place in first] == both


# All pairs of D4 on everything that moves by index: the order of the two matters.

IMAGE = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3)
POINTS = np.array([[0.0, 0.0], [2.5, 4.25], [9.0, 6.0]])
BOXES = np.array([[1.0, 2.0, 4.5, 5.0]])

ACTIONS = {
    "image": (IMAGE, lambda value, turn, *frame: turn_image(value, turn)),
    "tensor": (
        torch.from_numpy(IMAGE.transpose(2, 0, 1).astype(np.uint8)),
        lambda value, turn, *frame: turned_copy(value, turn),
    ),
    "maps": (torch.from_numpy(IMAGE[None, ..., 0]), lambda v, turn, *frame: turn_maps(v, turn)),
    "points": (POINTS, turn_points),
    "pixels": (np.floor(POINTS[:2]), turn_pixels),
    "boxes": (BOXES, turn_boxes),
    "boxes_xywh": (np.array([[1.0, 2.0, 3.5, 3.0]]), turn_boxes_xywh),
    "keypoints": (np.array([[[1.0, 2.0, 1.0], [3.0, 0.5, 2.0]]]), turn_keypoints),
    "polygons": (
        [POINTS.reshape(-1)],
        turn_polygons,
    ),
    "rotated_boxes": (np.array([[3.0, 2.0, 4.0, 1.0, 30.0]]), turn_rotated_boxes),
    "rle": (
        encode_mask(IMAGE[..., 0] % 5 < 2),
        lambda value, turn, *frame: turn_rle(value, turn),
    ),
    "prompts": (
        Prompts(boxes=torch.tensor(BOXES).float()),
        lambda value, *rest: value.turned(*rest),
    ),
}


def values(thing):
    """The numbers of whatever an action gives."""
    if isinstance(thing, dict):
        return decode_rle(thing)
    if isinstance(thing, Prompts):
        return thing.boxes.numpy()
    return np.asarray(thing[0] if isinstance(thing, list) else thing)


@pytest.mark.parametrize("kind", ACTIONS)
def test_compose_is_the_action_of_the_second_after_the_first(kind):
    value, act = ACTIONS[kind]
    results = {}
    for a, b in itertools.product(D4.elements, repeat=2):
        size = turned_size(HEIGHT, WIDTH, a)
        twice = values(act(act(value, a, HEIGHT, WIDTH), b, *size))
        once = values(act(value, D4.compose(a, b), HEIGHT, WIDTH))
        assert once.shape == twice.shape and np.array_equal(once, twice), (a, b)
        results.setdefault(D4.compose(a, b), once.tobytes() + bytes(once.shape))
    if kind not in ("rotated_boxes",):
        assert len(set(results.values())) == 8  # the test would see a wrong order


def test_the_order_of_two_elements_matters():
    turn, mirror = Turn(1), Turn(mirrored=True)
    assert D4.compose(turn, mirror) != D4.compose(mirror, turn)
    one_way = turn_image(turn_image(IMAGE, turn), mirror)
    assert np.array_equal(one_way, turn_image(IMAGE, D4.compose(turn, mirror)))
    assert not np.array_equal(one_way, turn_image(IMAGE, D4.compose(mirror, turn)))


@given(st.floats(-1e6, 1e6), st.booleans())
def test_angles_as_matrices(degrees, mirrored):
    """Composition is that of 2 x 2 matrices, y pointing up."""

    def matrix(turn):
        angle = math.radians(turn.degrees)
        rotation = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        return rotation @ np.diag([-1.0 if turn.mirrored else 1.0, 1.0])

    a, b = Turn.by(degrees, mirrored), Turn.by(degrees / 3 + 20, not mirrored)
    assert matrix(O2.compose(a, b)) == pytest.approx(matrix(b) @ matrix(a), abs=1e-6)
