import numpy as np
import pytest

from canon_seg.evaluation.intervals import Z, bootstrap, wilson


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
            deviation = abs(end - right / trials) / np.sqrt(end * (1 - end) / trials)
            assert deviation == pytest.approx(Z)
    assert wilson(0.0, trials)[0] == 0.0 and wilson(1.0, trials)[1] == 1.0


def test_bootstrap_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(5, 2, 400)
    drawn = bootstrap(lambda indices: {"mean": float(values[indices].mean())}, 400)
    half = Z * values.std() / 20
    expected = [values.mean() - half, values.mean() + half]
    assert drawn["mean"] == pytest.approx(expected, abs=0.03)
    assert drawn == bootstrap(lambda indices: {"mean": float(values[indices].mean())}, 400)


def test_measures_that_are_infinite_in_some_drawing_have_no_interval():
    def measure(indices):
        return {"one": 1.0, "odd": float("inf") if 0 in indices else 0.0}

    assert bootstrap(measure, 3) == {"one": [1.0, 1.0]}
