import pytest
import torch

from canon_seg.core.group import C4, D4, SO2, C
from canon_seg.core.registry import Registry
from canon_seg.core.scorer import GridDistribution, pointwise
from canon_seg.core.turn import Turn


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


def test_registries_name_what_they_know():
    things = Registry("thing")
    things.register("one")(int)
    things.register("one")(int)  # the same again
    with pytest.raises(ValueError, match="'one' is registered already"):
        things.register("one")(float)
    with pytest.raises(ValueError, match="'two' is not a registered thing; known: one"):
        things.get("two")
    assert "one" in things and list(things) == ["one"]
