import numpy as np
import pytest

from canon_seg.evaluation.intervals import RESAMPLES, Z, draw_shares, percentiles, wilson


@pytest.mark.parametrize(
    ("right", "trials", "low", "high"),
    [
        # By hand from the formula with z = 1.96; the first is Newcombe's (1998) table, 81 of 263.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombes_table(right, trials, low, high):
    assert wilson(right / trials, trials) == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize("trials", [1, 7, 182])
def test_wilson_solves_its_own_equation(trials):
    """Its ends are the shares that lie Z standard deviations of their own from what was found."""
    for right in range(1, trials):
        for end in wilson(right / trials, trials):
            assert 0 < end < 1
            deviation = abs(end - right / trials) / np.sqrt(end * (1 - end) / trials)
            assert deviation == pytest.approx(Z)
    assert wilson(0.0, trials)[0] == pytest.approx(0, abs=1e-15)
    assert wilson(1.0, trials)[1] == pytest.approx(1, abs=1e-15)


def test_drawn_means_spread_as_those_of_a_normal_distribution():
    values = np.random.default_rng(3).normal(5, 2, 400)
    shares = draw_shares(400)
    assert shares.shape == (RESAMPLES, 400)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    half = Z * values.std() / 20
    expected = [values.mean() - half, values.mean() + half]
    assert percentiles(shares @ values) == pytest.approx(expected, abs=0.03)
    assert np.array_equal(shares, draw_shares(400))


def test_figures_that_are_infinite_in_some_drawing_have_no_interval():
    assert percentiles(np.array([1.0, np.inf, 2.0])) is None
    assert percentiles(np.full(9, 3.0)) == [3.0, 3.0]
