import pytest
import torch

from canon_seg.core.group import C4, D4, O2, SO2, C
from canon_seg.core.pose import permuted_places
from canon_seg.core.registry import Registry
from canon_seg.core.scorer import CircularDistribution, GridDistribution, pointwise
from canon_seg.core.turn import Turn, compose, distance


def test_a_distribution_turns_with_its_image():
    torch.manual_seed(0)
    found = GridDistribution(D4, torch.randn(3, 8))
    for turn in D4.elements:
        turned = found.act(turn)
        for element in D4.elements:
            expected = found.log_prob(element)
            assert torch.equal(turned.log_prob(D4.compose(element, turn)), expected)
        assert turned.mode() == [D4.compose(mode, turn) for mode in found.mode()]


def test_probabilities_and_modes():
    found = GridDistribution(C4, torch.tensor([[0.0, 1.0, 1.0, -1.0], [3.0, 0.0, 0.0, 0.0]]))
    assert found.mode() == [Turn(1), Turn(0)]
    assert torch.allclose(found.probabilities.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(found.log_prob(1).exp().double(), found.probabilities[:, 1])
    assert len(found) == 2 and found[1].mode() == [Turn(0)]
    assert [len(one) for one in found] == [1, 1]


def test_gradients_reach_the_scores():
    logits = torch.zeros(2, 4, requires_grad=True)
    GridDistribution(C4, logits).act(Turn(1)).log_prob(0).sum().backward()
    assert logits.grad[:, 3].min() > 0 > logits.grad[:, 0].max()


@pytest.mark.parametrize(("group", "shape"), [(C4, (2, 8)), (C4, (4,)), (C(8), (1, 4))])
def test_scores_of_another_shape(group, shape):
    with pytest.raises(ValueError, match=f"over {group.name} needs {len(group.elements)} scores"):
        GridDistribution(group, torch.zeros(shape))


def test_a_grid_is_for_finite_groups():
    with pytest.raises(ValueError, match="SO2 is continuous"):
        GridDistribution(SO2, torch.zeros(1, 4))


def test_point_masses():
    assert pointwise(C4, 3) == (0.0, 0.0, 0.0, 1.0)
    assert pointwise(O2, Turn(1, mirrored=True)).index(1.0) == 72 + 18


def test_angles_with_mirrors_turn_with_their_image():
    torch.manual_seed(0)
    found = CircularDistribution(3 * torch.randn(2, 144), 1.5, O2)
    for turn in (*D4.elements, Turn.by(100.25), Turn.by(-20.5, mirrored=True)):
        turned = found.act(turn)
        for before, after in zip(found.mode(), turned.mode(), strict=True):
            assert distance(after, compose(before, turn)) < 1e-4
        for pose in (Turn.by(33), Turn.by(200, mirrored=True)):
            expected = found.near(pose)
            assert torch.allclose(turned.near(compose(pose, turn)), expected, atol=1e-6)
        for before, after in zip(found.modes(3), turned.modes(3), strict=True):
            assert len(before) == len(after) == 3
    assert torch.allclose(found.probabilities.sum(dim=1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("turn", D4.elements)
def test_probabilities_of_arcs_go_where_the_distribution_goes(turn):
    found = CircularDistribution(torch.randn(1, 144, generator=torch.manual_seed(0)), group=O2)
    places = permuted_places(O2, turn, 144)
    assert sorted(places) == list(range(144))
    assert torch.equal(found.act(turn).logits[0, places], found.logits[0])


def test_both_sides_of_a_mirror_count_where_nothing_tells_them_apart():
    logits = torch.full((1, 144), -20.0)
    logits[0, 10], logits[0, 72 + 10] = 1.0, 0.8
    unclear = CircularDistribution(logits, group=O2)
    pose, mirrored = Turn.by(50), Turn.by(50, mirrored=True)
    assert float(unclear.near(pose)) == pytest.approx(0.55, abs=0.01)
    assert float(unclear.certainty(pose)) == pytest.approx(1, abs=0.01)
    assert float(unclear.certainty(mirrored)) == pytest.approx(1, abs=0.01)
    logits[0, 72 + 10] = -1.0
    clear = CircularDistribution(logits, group=O2)
    assert float(clear.certainty(pose)) == float(clear.near(pose))
    assert unclear.modes(2)[0] == [pose, mirrored]


def test_arcs_are_for_continuous_groups():
    with pytest.raises(ValueError, match="C4 is finite"):
        CircularDistribution(torch.zeros(1, 72), group=C4)
    with pytest.raises(ValueError, match="over O2 needs a multiple of 16 scores"):
        CircularDistribution(torch.zeros(1, 72), group=O2)


def test_registries_name_what_they_know():
    things = Registry("thing")
    things.register("one")(int)
    things.register("one")(int)  # the same again
    with pytest.raises(ValueError, match="'one' is registered already"):
        things.register("one")(float)
    with pytest.raises(ValueError, match="'two' is not a registered thing; known: one"):
        things.get("two")
    assert "one" in things and list(things) == ["one"]


def test_a_mode_is_where_the_most_mass_is_near():
    masses = torch.full((1, 144), 1e-6)
    masses[0, 10] = 0.3  # alone
    masses[0, 72 + 40 : 72 + 43] = torch.tensor([0.2, 0.25, 0.2])
    found = CircularDistribution(masses.log(), group=O2)
    for turn in D4.elements:
        expected = compose(Turn.by(205, mirrored=True), turn)
        (mode,), ((first, second),) = found.act(turn).mode(), found.act(turn).modes(2)
        assert mode == first and mode.mirrored == expected.mirrored
        assert distance(mode, expected) < 1e-3
        assert distance(second, compose(Turn.by(50), turn)) < 1e-2


def test_modes_where_all_mass_is_on_one_arc():
    found = CircularDistribution(torch.eye(72)[3:4] * 10_000)
    (modes,) = found.modes(2)
    assert modes[0].degrees == 15 and len(modes) == 2
