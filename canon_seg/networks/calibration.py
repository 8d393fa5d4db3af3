"""Fit the temperature at which a trained scorer is as sure of its poses as it is right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017): one number
that the logits are divided by, fitted on photographs that were not trained on.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from canon_seg.core.group import PlanarGroup
from canon_seg.core.scorer import CircularDistribution, Scorer
from canon_seg.core.turn import inverse
from canon_seg.images.arrays import turned_copy
from canon_seg.images.representative import representative_turns
from canon_seg.images.tilt import rotate_image
from canon_seg.networks.circle_scorer import CircleScorer, pool

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


@torch.no_grad()
def fit_circle(scorer: CircleScorer, images: Sequence[np.ndarray]) -> dict[str, dict[int, float]]:
    """Fit the temperatures of a scorer of angles for SO2, C8 and C4, on upright photographs.

    With mirrors they are for O2, D8 and D4. For the continuous group each photograph is turned by
    an angle, always the same, and cut to what lies inside; for the others it is upright.

    Args:
        scorer: in eval mode; its passes are changed for the time being.
        images: H x W x 3 uint8 arrays in its channel order, at least one.

    Returns:
        dict from the name of a group to a dict from passes to the temperature.
    """
    rng = np.random.default_rng(0)
    turned = [(image, 0.0) for image in images] + [
        (image, float(angle))
        for image, angle in zip(images, rng.uniform(0, 360, len(images)), strict=True)
    ]
    circle = scorer.network.spec.circle
    finite = [PlanarGroup(order, circle.mirrors) for order in (4, 8)]
    fitted: dict[str, dict[int, float]] = {group.name: {} for group in (*finite, circle)}
    passes = scorer.passes
    try:
        for scorer.passes in (1, 0):
            rows = torch.cat([_arcs_at(scorer, *item) for item in turned])
            upright, others = rows[: len(images)], rows[len(images) :]
            zeros = [0] * len(images)
            for group in finite:
                fitted[group.name][scorer.passes] = fit_temperature(pool(upright, group), zeros)
            fitted[circle.name][scorer.passes] = fit_temperature(others, zeros)
    finally:
        scorer.passes = passes
    return fitted


def _arcs_at(scorer: CircleScorer, image: np.ndarray, degrees: float) -> torch.Tensor:
    """Return (1, N) logits of the angle less the true one, which is 0 in them to half an arc."""
    circle = scorer.network.spec.circle
    image = np.ascontiguousarray(rotate_image(image, degrees, "inscribed"))
    turn = representative_turns(image, circle)[0]
    arcs = scorer.arcs_of_inputs(
        scorer.prepare(turned_copy(torch.from_numpy(image).permute(2, 0, 1), turn))[None]
    )
    # By the exact turn first, then by arcs of the angle, which was there before it.
    found = CircularDistribution(arcs, group=circle).act(inverse(turn))
    sides: torch.Tensor = torch.unflatten(found.logits, 1, (-1, found.arcs))
    return sides.roll(-round(degrees * found.arcs / 360), dims=2).flatten(1)


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
