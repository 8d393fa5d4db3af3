"""Draw canonical poses towards a prior by a loss, and measure how well they align with it.

The segmenter was trained on data whose poses have a known distribution, by default all upright. A
canonicalizer is trained so that the poses it predicts on such data follow that prior (Mondal et
al. 2023, section 3.2).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from canon_seg.core.scorer import CircularDistribution

TARGET_WIDTH = 5.0
"""Degrees: the standard deviation of the target of an angle."""

Distribution = torch.Tensor | Sequence[float]
"""(N,) probabilities."""

TEACHER = "teacher"
"""The key of a training example that holds a teacher's (N,) probabilities of its poses."""


def check_prior(prior: Iterable[Any], order: int) -> torch.Tensor:
    """Return a prior from the config as a tensor.

    Args:
        prior: N non-negative numbers with sum 1; entry k is the probability of pose k.
        order: N.

    Returns:
        (N,) float32 tensor.

    Raises:
        ValueError: naming ``PRIOR``.
    """
    try:
        values = torch.tensor([float(p) for p in prior], dtype=torch.float64)
    except (TypeError, ValueError):
        values = torch.tensor([])
    # NaN fails every comparison, so that these are written the way that it has to pass.
    if not (len(values) == order and bool((values >= 0).all()) and abs(values.sum() - 1) <= 1e-6):
        raise ValueError(f"PRIOR must be {order} non-negative numbers that sum to 1, got {prior}")
    return values.float()


def check_label_smoothing(value: float) -> float:
    """Return a label smoothing from the config as a float in [0, 1).

    Raises:
        ValueError: naming ``LABEL_SMOOTHING``.
    """
    if not 0 <= value < 1:
        raise ValueError(f"LABEL_SMOOTHING is {value}; it must be at least 0 and below 1")
    return float(value)


def check_share(value: float) -> float:
    """Return the teacher's share of the targets from the config as a float in [0, 1].

    Raises:
        ValueError: naming ``TEACHER.SHARE``.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"TEACHER.SHARE is {value}; give 0 to 1")
    return float(value)


def prior_loss(
    logits: torch.Tensor,
    prior: torch.Tensor,
    label_smoothing: float = 0.0,
    taught: torch.Tensor | None = None,
    share: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of the predicted pose distributions with the prior.

    Equal to the Kullback-Leibler divergence KL(prior || prediction) plus the prior's entropy, which
    is constant: for the default prior (all upright) the two are the same.

    Args:
        logits: (B, N) pose logits.
        prior: (N,) probabilities.
        label_smoothing: weight of a uniform distribution mixed into the prior, in [0, 1).
        taught: (B, N) probabilities of a teacher, mixed into the target of each; None for none.
        share: weight of the teacher's in the mixture, 0..1; the smoothed prior has the rest.

    Returns:
        scalar, in nats, mean over the batch.
    """
    target = prior.to(logits) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    if taught is not None:
        target = (1 - share) * target + share * taught.to(logits)
    return F.cross_entropy(logits, target.expand_as(logits))


def circle_loss(
    found: CircularDistribution,
    degrees: torch.Tensor,
    label_smoothing: float = 0.0,
    mirrored: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross-entropy of predicted distributions of angles with targets around the truth.

    The target is a Gaussian on the circle, cut into the distribution's arcs: photographs that count
    as upright are a few degrees off themselves, and neighbouring arcs are not wrong alike.

    Args:
        found: of B images.
        degrees: (B,) true angles counterclockwise.
        label_smoothing: weight of a uniform distribution mixed into the targets, in [0, 1).
        mirrored: (B,) booleans, whether each image is mirrored, for a group with mirrors; None for
            none.

    Returns:
        scalar, in nats, mean over the batch.
    """
    logits = found.logits
    arcs = torch.arange(found.arcs, device=logits.device) * found.step + found.offset
    away = (arcs - degrees.to(arcs)[:, None] + 180) % 360 - 180
    target = torch.exp(-0.5 * (away / TARGET_WIDTH) ** 2)
    target = target / target.sum(dim=1, keepdim=True)
    if found.group.mirrors:
        side = torch.zeros(len(logits), 2, dtype=target.dtype, device=target.device)
        other = torch.zeros(len(logits), dtype=torch.bool) if mirrored is None else mirrored
        side[torch.arange(len(logits)), other.long().to(side.device)] = 1
        target = (side[:, :, None] * target[:, None]).flatten(1)
    target = (1 - label_smoothing) * target + label_smoothing / logits.shape[1]
    return F.cross_entropy(logits, target.to(logits))


VECTOR_LOSSES = ("von_mises", "cosine", "squared")
"""What :func:`vector_loss` knows. The last two are there to compare with."""


def vector_loss(
    vectors: torch.Tensor,
    degrees: torch.Tensor,
    label_smoothing: float = 0.0,
    kind: str = "von_mises",
) -> torch.Tensor:
    """Return the loss of predicted vectors, of von Mises distributions of angles, with the truth.

    "von_mises" is the cross-entropy with a von Mises distribution around the true angle, as wide as
    the targets of :func:`circle_loss`: the prior, for photographs that count as upright. Up to a
    constant it is the Kullback-Leibler divergence. Its gradient does not vanish, nor explode, where
    the length of a vector is 0, and the length becomes how sure the direction is. "cosine" is 1
    less the cosine of the angle between vector and truth, to which the length means nothing.
    "squared" is the squared distance to a vector of length 1.

    Args:
        vectors: (B, 2), see :class:`canon_seg.core.scorer.VonMisesDistribution`.
        degrees: (B,) true angles counterclockwise.
        label_smoothing: weight of a uniform distribution mixed into the targets, in [0, 1); for
            "von_mises", whose concentration it bounds.
        kind: one of :data:`VECTOR_LOSSES`.

    Returns:
        scalar, mean over the batch; of "von_mises" in nats.
    """
    angles = degrees.to(vectors) * (math.pi / 180)
    truth = torch.stack([angles.cos(), angles.sin()], dim=1)
    along = (vectors * truth).sum(dim=1)
    length = (vectors.square().sum(dim=1) + 1e-12).sqrt()  # whose gradient is 0 at 0
    if kind == "cosine":
        return (1 - along / length).mean()
    if kind == "squared":
        return (vectors - truth).square().sum(dim=1).mean()
    concentration = torch.tensor((180 / math.pi / TARGET_WIDTH) ** 2, dtype=torch.float64)
    mean = float(torch.special.i1e(concentration) / torch.special.i0e(concentration))
    log_bessel: torch.Tensor = length + torch.special.i0e(length).log()
    expected = (1 - label_smoothing) * mean * along
    return (math.log(2 * math.pi) + log_bessel - expected).mean()


def check_vector_loss(value: str) -> str:
    """Return the kind of loss of vectors from the config.

    Raises:
        ValueError: naming ``VECTOR_LOSS``.
    """
    if value not in VECTOR_LOSSES:
        raise ValueError(f"VECTOR_LOSS is {value!r}; known: {', '.join(VECTOR_LOSSES)}")
    return value


def alignment(
    probabilities: torch.Tensor, prior: torch.Tensor, mirrors: bool = False
) -> dict[str, float]:
    """Measure how well the poses of upright data follow the prior.

    ``kl`` compares the prior with the mean of the predicted distributions; the two distances
    compare it with the distribution of the poses found (the likeliest of each image), which are
    what images are turned by.

    Args:
        probabilities: (B, N) pose distributions of a batch or of a whole set.
        prior: (N,) probabilities.
        mirrors: whether the second half of the poses is mirrored.

    Returns:
        dict of floats:

        - ``kl``: Kullback-Leibler divergence KL(prior || mean prediction) in nats, infinite where
          a pose of the prior never gets any probability; the loss of Mondal et al. 2023 takes the
          mean over the images instead, which is never less;
        - ``identity_rate``: fraction of images left as they are, 0..1;
        - ``wasserstein``: :func:`cyclic_wasserstein`, in steps of the group (quarter turns for C4);
        - ``mmd``: :func:`cyclic_mmd`; with mirrors both are of the rotations alone;
        - ``mirror_rate``, only with mirrors: fraction of images that are found mirrored, 0..1.
    """
    probabilities = probabilities.detach().double().cpu()
    prior = prior.double().cpu()
    poses = probabilities.argmax(dim=1)
    found = torch.bincount(poses, minlength=len(prior)).double() / len(poses)
    support = prior > 0
    mean = probabilities.mean(dim=0)
    turns, expected = rotations(found, mirrors), rotations(prior, mirrors)
    return {
        "kl": float((prior[support] * (prior[support] / mean[support]).log()).sum()),
        "identity_rate": float((poses == 0).double().mean()),
        "wasserstein": cyclic_wasserstein(turns, expected),
        "mmd": cyclic_mmd(turns, expected),
        **({"mirror_rate": float(found[len(prior) // 2 :].sum())} if mirrors else {}),
    }


def rotations(probabilities: torch.Tensor, mirrors: bool) -> torch.Tensor:
    """Return the distribution of the rotation alone, whichever side of the mirror it is on.

    Args:
        probabilities: (..., N) of the elements of a group, in their order.
        mirrors: whether the second half of them is mirrored.

    Returns:
        (..., N) tensor, or (..., N / 2) with mirrors.
    """
    return torch.unflatten(probabilities, -1, (2, -1)).sum(dim=-2) if mirrors else probabilities


def cyclic_wasserstein(first: Distribution, second: Distribution) -> float:
    """Return the Wasserstein-1 distance of distributions on the cyclic group, steps of length 1.

    On a circle the optimal transport is the sum of |F(k) - c| for the cumulative difference F and
    its median c (Rabin, Delon and Gousseau, "Transportation Distances on the Circle", 2011).

    Args:
        first, second: (N,) probabilities.

    Returns:
        float in 0..N/2, in steps of the group (quarter turns for C4).
    """
    cumulative = torch.cumsum(torch.as_tensor(first) - torch.as_tensor(second), dim=0)
    return float((cumulative - cumulative.median()).abs().sum())


def cyclic_mmd(first: Distribution, second: Distribution) -> float:
    """Return the maximum mean discrepancy of two distributions on the cyclic group.

    Gretton et al., "A Kernel Two-Sample Test" (JMLR 2012), with the elements as points on the unit
    circle and a Gaussian kernel of width 1 in the plane: k = exp(-|x - y|^2 / 2) = exp(cos(angle)
    - 1). That is a positive definite kernel for every N, which a Gaussian of the angle is not, so
    that the result is 0 only for equal distributions.

    Args:
        first, second: (N,) probabilities.

    Returns:
        float from 0; for C4 at most 1.315, between two poses half a turn apart.
    """
    difference = torch.as_tensor(first).double() - torch.as_tensor(second).double()
    angles = 2 * math.pi * torch.arange(len(difference), dtype=torch.float64) / len(difference)
    kernel = torch.exp(torch.cos(angles[:, None] - angles) - 1)
    return math.sqrt(max(0.0, float(difference @ kernel @ difference)))  # rounding may pass 0
