"""Give figures that were measured on few photographs an interval of 95 %."""

import math

import numpy as np

Z = 1.959963984540054
"""Standard deviations of a normal distribution that 95 % lie within."""

RESAMPLES = 1000
"""How often photographs are drawn anew."""

_SEED = 0


def wilson(share: float, trials: int) -> list[float]:
    """Return the 95 % interval of a share by Wilson's score ("Probable Inference", 1927).

    Args:
        share: of the trials that went well, 0..1.
        trials: their number, at least 1.

    Returns:
        [low, high], within 0..1.

    >>> [round(end, 3) for end in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    spread = Z * math.sqrt(share * (1 - share) / trials + (Z / (2 * trials)) ** 2)
    middle, scale = share + Z**2 / (2 * trials), 1 + Z**2 / trials
    # At the ends, rounding may leave a trace.
    return [max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)]


def draw_shares(count: int) -> np.ndarray:
    """Draw photographs anew, with replacement, for intervals by the bootstrap.

    Args:
        count: of the photographs.

    Returns:
        (RESAMPLES, count) float64 array, always the same: the share that each photograph has of
        each drawing. A mean over the photographs becomes ``shares @ values``.
    """
    counts = np.random.default_rng(_SEED).multinomial(count, [1 / count] * count, RESAMPLES)
    return counts / count


def percentiles(drawn: np.ndarray) -> list[float] | None:
    """Return the 95 % interval [low, high] of what was drawn, None where some is not finite."""
    if not np.isfinite(drawn).all():
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return [float(low), float(high)]
