import pytest
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.core.turn import (
    IDENTITY,
    TILT_STEP,
    Turn,
    as_turn,
    compose,
    distance,
    exact_turn,
    inverse,
    turned_size,
)


@given(st.floats(-1e5, 1e5))
def test_every_angle_is_a_tilt_and_quarter_turns(degrees):
    turn = Turn.by(degrees)
    assert -45 < turn.tilt <= 45 and turn.quarters in range(4)
    assert turn.tilt % TILT_STEP == 0
    apart = abs(turn.degrees - degrees % 360)
    assert min(apart, 360 - apart) <= TILT_STEP


@pytest.mark.parametrize("degrees", [45, 135, 225, 315, -45, 44.99999999, -44.9999999999])
def test_halfway_between_two_quarter_turns(degrees):
    turn = Turn.by(degrees)
    assert turn.degrees == pytest.approx(degrees % 360)
    assert compose(turn, inverse(turn)) == IDENTITY


def test_multiples_of_90_are_exact():
    assert [Turn.by(90 * k) for k in range(-4, 5)] == [Turn(k % 4) for k in range(-4, 5)]
    assert all(Turn(k).exact for k in range(4)) and not Turn.by(1).exact


def test_integers_are_quarter_turns():
    assert as_turn(3) == Turn(3) and as_turn(Turn.by(7)) == Turn.by(7)
    assert exact_turn(2) == Turn(2)


@pytest.mark.parametrize("value", [90, 4, -1])
def test_degrees_do_not_wrap_around(value):
    with pytest.raises(ValueError, match="not degrees"):
        as_turn(value)


@pytest.mark.parametrize("value", [1.0, "1", None])
def test_what_is_no_turn(value):
    with pytest.raises(TypeError):
        as_turn(value)


def test_a_tilt_does_not_act_by_index():
    with pytest.raises(ValueError, match="a tilt of 10 degrees does not act by index"):
        exact_turn(Turn.by(100))


@pytest.mark.parametrize("tilt", [-45, 45.001, float("nan"), float("inf")])
def test_tilts_have_a_range(tilt):
    with pytest.raises(ValueError, match="a tilt must lie in"):
        Turn(0, tilt)


@pytest.mark.parametrize("degrees", [float("nan"), float("inf")])
def test_angles_are_finite(degrees):
    with pytest.raises(ValueError, match="finite"):
        Turn.by(degrees)


def test_minus_zero_is_zero():
    assert Turn(0, -0.0) == IDENTITY and str(Turn(0, -0.0).tilt) == "0.0"


def test_sizes():
    for quarters in range(4):
        for mirrored in (False, True):
            size = turned_size(4, 7, Turn(quarters, mirrored=mirrored))
            assert size == ((7, 4) if quarters % 2 else (4, 7))


def test_distances():
    assert distance(Turn.by(350), Turn.by(20)) == 30
    assert distance(Turn(0), Turn(2)) == 180
    assert distance(Turn.by(20), Turn.by(20, mirrored=True)) == 180
