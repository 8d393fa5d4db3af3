"""The group itself: axioms, angles, and what is no element."""

import itertools

import numpy as np
import pytest

from canon_seg.geometry import C4, CyclicGroup

GROUPS = [CyclicGroup(1), C4, CyclicGroup(8), CyclicGroup(7)]


@pytest.mark.parametrize("group", GROUPS)
def test_group_axioms(group):
    for a, b, c in itertools.product(group.elements, repeat=3):
        assert group.compose(a, b) in group.elements
        assert group.compose(group.compose(a, b), c) == group.compose(a, group.compose(b, c))
    for a in group.elements:
        assert group.compose(0, a) == a == group.compose(a, 0)
        assert group.compose(a, group.inverse(a)) == 0


@pytest.mark.parametrize("group", GROUPS)
def test_angles_add_up(group):
    for a, b in itertools.product(group.elements, repeat=2):
        total = (group.degrees(a) + group.degrees(b)) % 360
        assert total == pytest.approx(group.degrees(group.compose(a, b)), abs=1e-9)


@pytest.mark.parametrize("group", GROUPS)
def test_element_at_undoes_degrees(group):
    assert [group.element_at(group.degrees(a)) for a in group.elements] == list(group.elements)


def test_angles_of_any_sign_and_number_of_turns():
    assert [C4.element_at(d) for d in (0, 90, 180.0, 270, 360, 450, -90)] == [0, 1, 2, 3, 0, 1, 3]


@pytest.mark.parametrize("degrees", [45, 89.999, 1, float("nan")])
def test_angle_off_the_grid(degrees):
    with pytest.raises(ValueError, match="not on the grid"):
        C4.element_at(degrees)


@pytest.mark.parametrize("value", [4, -1, 90])
def test_no_element_wraps_around_silently(value):
    for use in (C4.element, C4.inverse, C4.degrees, lambda a: C4.compose(a, 0)):
        with pytest.raises(ValueError, match="no element"):
            use(value)


def test_fractions_are_no_elements():
    with pytest.raises(TypeError):
        C4.element(1.0)


def test_integers_of_other_libraries_become_plain():
    assert type(C4.element(np.int64(3))) is int


def test_equal_groups_are_one_key():
    assert {C4: "quarter turns"}[CyclicGroup(4)] == "quarter turns"


def test_order_must_be_positive():
    with pytest.raises(ValueError, match="order"):
        CyclicGroup(0)
