"""Find one pose for a whole clip, whose frames belong together."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from canon_seg.core.group import C4
from canon_seg.core.pose import Pose, UncertainPoses

Frame = TypeVar("Frame")

POSE_FRAMES = 16  # frames at least, of a clip that has so many, that its pose is taken from


def clip_pose(
    find_pose: "Callable[[Frame], Pose | None]",
    frames: Iterable[Frame],
    uncertain: UncertainPoses = UncertainPoses(),
) -> Pose:
    """Find one pose for a whole clip: the likeliest by the sum of its frames' log-probabilities.

    Some 16 to 31 frames are looked at, evenly spaced. They are alike, so that each adds little to
    what the others say: the probability given is that of their mean, not of their sum. That of a
    turned clip differs by exactly that turn.

    Args:
        find_pose: function from a frame to its :class:`canon_seg.core.pose.Pose`, or None for a
            frame that has no pose of its own, since it equals a turn of itself, and does not count.
        frames: iterable of frames, read to its end.
        uncertain: what to do where that probability is low.

    Returns:
        the pose.
    """
    step, elements = 1, C4.elements or ()
    found: list[tuple[float, ...]] = []
    for number, frame in enumerate(frames):
        pose = None if number % step else find_pose(frame)
        if pose is None:
            continue
        found.append(pose.probabilities)
        if len(found) == 2 * POSE_FRAMES:  # nothing tells beforehand how long a clip is
            step, found = 2 * step, found[::2]
    found = found or [(1 / len(elements),) * len(elements)]
    logs = np.log(np.maximum(found, np.finfo(float).tiny)).mean(axis=0)
    odds = np.exp(logs - logs.max()).tolist()
    total = math.fsum(odds)  # exact in any order
    probabilities = tuple(value / total for value in odds)
    ranking = sorted(zip(elements, probabilities, strict=True), key=lambda item: -item[1])
    return uncertain.choose(ranking, probabilities)
