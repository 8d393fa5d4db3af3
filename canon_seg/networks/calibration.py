"""Fit the temperature at which a trained scorer is as sure of its poses as it is right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017): one number
that the logits are divided by, fitted on photographs that were not trained on.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from canon_seg.core.scorer import Scorer
from canon_seg.images.arrays import turned_copy
from canon_seg.images.representative import representative_turns

RANGE = 0.05, 20.0  # of temperatures
_STEPS = 60  # each shortens the interval to 0.62 of its length


@torch.no_grad()
def representative_logits(scorer: Scorer, image: torch.Tensor) -> torch.Tensor:
    """Score an image as the canonicalizer does: by way of the representative of its orbit.

    Args:
        scorer: :class:`canon_seg.core.scorer.Scorer`, in eval mode.
        image: (3, H, W) tensor, values 0..255.

    Returns:
        (4,) logits of the poses of the image as given.
    """
    turn = representative_turns(image.permute(1, 2, 0), scorer.group)[0]
    return scorer([turned_copy(image, turn)]).act(scorer.group.inverse(turn)).logits[0]


def fit_temperature(logits: torch.Tensor, poses: torch.Tensor | Sequence[int]) -> float:
    """Fit the temperature under which the true poses are likeliest.

    Args:
        logits: (n, N) tensor.
        poses: (n,) true poses.

    Returns:
        float in :data:`RANGE`: by a search of golden sections over its logarithm, in which the
        loss has one minimum.
    """
    logits, poses = torch.as_tensor(logits).double(), torch.as_tensor(poses)

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), poses))

    low, high = (math.log(value) for value in RANGE)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
