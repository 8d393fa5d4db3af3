"""Show a sweep as FOCAL reports it: upright, turned, and either of them brought upright.

Singhal et al., "Test-Time Canonicalization by Foundation Models for Robust Perception"
(arXiv 2507.10375). All follows from what a sweep has measured.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS: dict[str, tuple[str, bool]] = {
    "upright": ("vanilla", False),
    "turned": ("vanilla", True),
    "turned_undone": ("oracle", True),
    "turned_realigned": ("canonical", True),
    "upright_realigned": ("canonical", False),
}
"""Of each figure the mode, and whether it is of turned images or of upright ones."""

TITLES = {
    "upright": "upright",
    "turned": "turned",
    "turned_undone": "turned and undone",
    "turned_realigned": "turned and re-aligned",
    "upright_realigned": "upright and re-aligned",
}

UPRIGHT = "0"


def realigned(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Return FOCAL's figures of a sweep.

    Args:
        sweep: dict of :func:`canon_seg.evaluation.sweep.run_sweep`, or of a ``sweep.json``.

    Returns:
        dict that JSON can hold: ``segm`` and ``bbox``: dicts from the names of :data:`COLUMNS` to
        AP, 0..100. Turned is the mean over all angles of the sweep but 0. None where the mode, or
        such an angle, is not in the sweep, or a figure is undefined. ``pose_accuracy``: 0..1;
        ``pose_distance``: degrees, 0..180; both over all angles, None without poses.
    """
    pose = sweep["pose"] or {}
    return {
        **{
            task: {
                name: _mean_ap(sweep["modes"].get(mode), task, turned)
                for name, (mode, turned) in COLUMNS.items()
            }
            for task in ("segm", "bbox")
        },
        "pose_accuracy": pose.get("accuracy"),
        "pose_distance": pose_distance(pose),
    }


def pose_distance(pose: Mapping[str, Any]) -> float | None:
    """Return the mean angle in degrees between the pose found and the true one, or None.

    Args:
        pose: of a sweep. Earlier ones have no ``distance``; with quarter turns alone it follows
            from the confusion.
    """
    if "distance" in pose:
        return float(pose["distance"])
    angles = pose.get("accuracy_by_angle", {})
    if not angles or any(float(angle) % 90 for angle in angles):
        return None
    counts: Sequence[Sequence[int]] = pose["confusion"]
    order = len(counts)
    total = sum(map(sum, counts))
    return math.fsum(
        count * 90 * min((found - true) % order, (true - found) % order) / total
        for true, row in enumerate(counts)
        for found, count in enumerate(row)
    )


def _mean_ap(by_angle: Mapping[str, Any] | None, task: str, turned: bool) -> float | None:
    values = [
        scores[task]["AP"]
        for angle, scores in (by_angle or {}).items()
        if angle[:1].isdigit() and (angle != UPRIGHT) == turned  # averages have names
    ]
    if not values or None in values:
        return None
    return math.fsum(values) / len(values)
