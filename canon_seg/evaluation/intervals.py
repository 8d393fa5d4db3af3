"""Give figures that were measured on few photographs an interval of 95 %."""

import math
from collections.abc import Callable, Mapping

import numpy as np

Z = 1.959963984540054
"""Standard deviations of a normal distribution that 95 % lie within."""

RESAMPLES = 1000
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


def bootstrap(
    measure: Callable[[np.ndarray], Mapping[str, float]], count: int
) -> dict[str, list[float]]:
    """Return 95 % intervals of measures by drawing the photographs anew, with replacement.

    Args:
        measure: function from the indices that were drawn, (count,), to measures by name.
        count: of the photographs.

    Returns:
        dict from name to [low, high], percentiles; always the same for the same measures. Measures
        that were not finite in some drawing are left out.
    """
    rng = np.random.default_rng(_SEED)
    drawn = [measure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    intervals = {}
    for name in drawn[0]:
        values = np.array([one[name] for one in drawn], np.float64)
        if np.isfinite(values).all():
            intervals[name] = np.percentile(values, [2.5, 97.5]).tolist()
    return intervals
