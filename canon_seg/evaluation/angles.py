"""Measure how far the angles that a canonicalizer finds are from the true ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LIMITS = (5, 10, 45)
"""Degrees within which errors are counted."""


def summarise_errors(errors: Sequence[float]) -> dict[str, float]:
    """Summarise errors of angles.

    >>> summarise_errors([1.0, 3.0, 170.0])["within_5"]
    0.6666666666666666

    Args:
        errors: at least one, in degrees, 0..180.

    Returns:
        dict: ``mean_error`` and ``median_error`` in degrees; ``within_5``, ``within_10`` and
        ``within_45``: fraction of errors of at most so many degrees, 0..1.
    """
    values = np.asarray(errors, np.float64)
    return {
        "mean_error": float(values.mean()),
        "median_error": float(np.median(values)),
        **{f"within_{limit}": float((values <= limit).mean()) for limit in LIMITS},
    }


def summarise_by_angle(
    angles: Sequence[float], errors: Sequence[Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Summarise errors by the true angle.

    Args:
        angles: degrees.
        errors: for each photograph the error at each angle, in degrees.

    Returns:
        dict from the angle as text, such as "22.5", to :func:`summarise_errors`.
    """
    columns = np.asarray(errors, np.float64).T
    return {
        np.format_float_positional(angle, trim="-"): summarise_errors(column)
        for angle, column in zip(angles, columns, strict=True)
    }
