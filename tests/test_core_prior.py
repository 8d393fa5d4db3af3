import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.core.prior import (
    alignment,
    check_label_smoothing,
    check_prior,
    check_share,
    cyclic_mmd,
    cyclic_wasserstein,
    prior_loss,
)

UPRIGHT = torch.tensor([1.0, 0.0, 0.0, 0.0])
MIXED = torch.tensor([0.5, 0.25, 0.25, 0.0])


def probabilities_by_hand(logits):
    exponents = [math.exp(value) for value in logits]
    return [value / sum(exponents) for value in exponents]


def test_loss_for_the_upright_prior_by_hand():
    logits = [[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 0.0, 1.0]]
    expected = -sum(math.log(probabilities_by_hand(row)[0]) for row in logits) / 2
    assert float(prior_loss(torch.tensor(logits), UPRIGHT)) == pytest.approx(expected, rel=1e-6)


def test_loss_is_kl_and_entropy_by_hand():
    logits = [1.0, 0.2, -0.7, 2.0]
    predicted = probabilities_by_hand(logits)
    kl = sum(p * math.log(p / q) for p, q in zip(MIXED.tolist(), predicted) if p > 0)
    entropy = -sum(p * math.log(p) for p in MIXED.tolist() if p > 0)
    loss = float(prior_loss(torch.tensor([logits]), MIXED))
    assert loss == pytest.approx(kl + entropy, rel=1e-6)


def test_label_smoothing_by_hand():
    logits = [1.0, 0.2, -0.7, 2.0]
    target = [0.9 * p + 0.1 / 4 for p in MIXED.tolist()]
    expected = -sum(t * math.log(q) for t, q in zip(target, probabilities_by_hand(logits)))
    loss = float(prior_loss(torch.tensor([logits]), MIXED, label_smoothing=0.1))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_a_teacher_is_mixed_into_the_target_by_hand():
    logits = [[1.0, 0.2, -0.7, 2.0], [0.0, 0.5, 0.5, -1.0]]
    taught = [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]
    losses = []
    for row, said in zip(logits, taught):
        target = [0.25 * (0.9 * p + 0.1 / 4) + 0.75 * t for p, t in zip(UPRIGHT.tolist(), said)]
        losses.append(-sum(t * math.log(q) for t, q in zip(target, probabilities_by_hand(row))))
    loss = prior_loss(torch.tensor(logits), UPRIGHT, 0.1, torch.tensor(taught), 0.75)
    assert float(loss) == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_a_teacher_without_a_share_changes_nothing():
    logits, taught = torch.randn(5, 4), torch.rand(5, 4)
    assert torch.equal(prior_loss(logits, MIXED, 0.1, taught, 0.0), prior_loss(logits, MIXED, 0.1))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_its_range(share):
    with pytest.raises(ValueError, match="TEACHER.SHARE"):
        check_share(share)


def test_loss_pulls_towards_the_prior():
    logits = torch.zeros(3, 4, requires_grad=True)
    prior_loss(logits, UPRIGHT).backward()
    assert (logits.grad[:, 0] < 0).all() and (logits.grad[:, 1:] > 0).all()


def transport(first, second, order):
    """Cheapest assignment of equally many unit masses on a circle, by trying them all."""

    def distance(a, b):
        return min((a - b) % order, (b - a) % order)

    return min(
        sum(distance(a, b) for a, b in zip(first, assigned)) for assigned in permutations(second)
    ) / len(first)


@st.composite
def atoms(draw):
    order = draw(st.integers(1, 8))
    count = draw(st.integers(1, 5))
    positions = st.lists(st.integers(0, order - 1), min_size=count, max_size=count)
    return order, draw(positions), draw(positions)


@given(atoms())
def test_wasserstein_by_brute_force(drawn):
    order, first, second = drawn
    histograms = [
        torch.bincount(torch.tensor(positions), minlength=order).double() / len(positions)
        for positions in (first, second)
    ]
    expected = transport(first, second, order)
    assert cyclic_wasserstein(*histograms) == pytest.approx(expected, abs=1e-12)


def test_wasserstein_goes_around_the_circle():
    assert cyclic_wasserstein(torch.eye(4)[0], torch.eye(4)[3]) == 1
    assert cyclic_wasserstein(torch.eye(4)[0], torch.eye(4)[2]) == 2
    assert cyclic_wasserstein([0.25] * 4, [1.0, 0, 0, 0]) == 1


@st.composite
def distribution_pairs(draw):
    order = draw(st.integers(1, 8))
    weights = st.lists(st.integers(0, 9), min_size=order, max_size=order).filter(any)
    return [torch.tensor(w).double() / sum(w) for w in (draw(weights), draw(weights))]


@given(distribution_pairs())
def test_mmd_is_the_distance_of_mean_embeddings(pair):
    # By hand, over pairs of elements: E k(x, x') + E k(y, y') - 2 E k(x, y).
    def expectation(p, q):
        order = len(p)
        points = [
            (math.cos(2 * math.pi * k / order), math.sin(2 * math.pi * k / order))
            for k in range(order)
        ]
        return sum(
            float(a) * float(b) * math.exp(-(math.dist(x, y) ** 2) / 2)
            for a, x in zip(p, points)
            for b, y in zip(q, points)
        )

    first, second = pair
    squared = expectation(first, first) + expectation(second, second)
    squared -= 2 * expectation(first, second)
    measured = cyclic_mmd(first, second)
    assert measured**2 == pytest.approx(squared, abs=1e-12)
    assert (measured > 1e-6) == (not torch.equal(first, second))
    assert cyclic_mmd(second.roll(1), first.roll(1)) == pytest.approx(measured, abs=1e-7)


def test_alignment_of_a_known_batch():
    probabilities = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.2, 0.2, 0.6, 0.0]])
    measures = alignment(probabilities, UPRIGHT)
    assert set(measures) == {"kl", "identity_rate", "wasserstein", "mmd"}
    assert all(type(value) is float for value in measures.values())
    assert measures["identity_rate"] == pytest.approx(2 / 3)
    assert measures["wasserstein"] == pytest.approx(2 / 3)  # one of three is two steps away
    assert measures["kl"] == pytest.approx(-math.log(0.5), rel=1e-6)
    # A third of the mass moved to the opposite point of the circle.
    assert measures["mmd"] == pytest.approx(math.sqrt(2 - 2 * math.exp(-2)) / 3)


def test_perfect_alignment():
    measures = alignment(UPRIGHT.expand(5, 4), UPRIGHT)
    assert measures == {"kl": 0, "identity_rate": 1, "wasserstein": 0, "mmd": 0}


def test_a_pose_that_never_comes_is_infinitely_far():
    assert alignment(UPRIGHT.expand(5, 4), MIXED)["kl"] == math.inf


def test_good_priors():
    assert torch.equal(check_prior([1, 0, 0, 0], 4), UPRIGHT)
    prior = check_prior((0.1,) * 10, 10)
    assert prior.dtype == torch.float32 and prior.shape == (10,)


@pytest.mark.parametrize(
    "prior",
    [
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.5, -0.5],
        [0.3, 0.3, 0.3, 0.3],
        [0.0, 0.0, 0.0, 0.0],
        [float("nan"), 0.0, 0.0, 0.0],
        [float("nan"), 1.0, 0.0, 0.0],
        [float("inf"), 0.0, 0.0, 0.0],
        ["upright", 0.0, 0.0, 0.0],
        [[1.0], [0.0], [0.0], [0.0]],
        [],
        1.0,
    ],
)
def test_bad_priors(prior):
    with pytest.raises(ValueError, match="PRIOR must be 4"):
        check_prior(prior, 4)


def test_label_smoothing_has_a_range():
    assert [check_label_smoothing(value) for value in (0, 0.1, 0.999)] == [0.0, 0.1, 0.999]
    for value in (-0.1, 1.0, 1, 2.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="LABEL_SMOOTHING is"):
            check_label_smoothing(value)
