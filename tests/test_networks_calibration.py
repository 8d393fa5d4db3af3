import numpy as np
import pytest
import torch
from torch import nn

from canon_seg.core.group import C4
from canon_seg.core.scorer import GridDistribution
from canon_seg.images.arrays import turn_maps
from canon_seg.networks.calibration import RANGE, fit_temperature, representative_logits


class TopRow(nn.Module):
    """Scores poses by the brightness of the four sides: not equivariant by its weights."""

    group = C4

    def forward(self, images):
        weights = torch.tensor([1.0, 2.0, 3.0, 5.0])
        rows = [
            weights * torch.stack([turn_maps(i.float(), -k % 4)[:, 0].mean() for k in range(4)])
            for i in images
        ]
        return GridDistribution(C4, torch.stack(rows))


def test_representative_logits():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 14), dtype=np.uint8)
    image = torch.from_numpy(pixels)
    logits = representative_logits(TopRow(), image)
    assert len(set(logits.tolist())) == 4
    for turns in range(4):
        turned = representative_logits(TopRow(), turn_maps(image, turns))
        assert torch.equal(turned, logits.roll(turns))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_fit_temperature(temperature):
    """Poses drawn from what the logits say at some temperature give that temperature back."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5000, 4, generator=generator)
    poses = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    fitted = fit_temperature(logits * temperature, poses)
    assert fitted == pytest.approx(temperature, rel=0.1)


def test_temperature_of_the_always_right_and_of_the_never_right():
    logits = torch.eye(4).repeat(3, 1)
    right = torch.arange(4).repeat(3)
    assert fit_temperature(logits, right) == pytest.approx(RANGE[0], rel=0.01)
    assert fit_temperature(logits, (right + 1) % 4) == pytest.approx(RANGE[1], rel=0.01)
