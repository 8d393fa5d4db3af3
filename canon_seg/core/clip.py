"""Find one pose for a whole clip, whose frames belong together."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch

from canon_seg.core.group import C4, PlanarGroup
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.scorer import CircularDistribution, pointwise
from canon_seg.core.turn import IDENTITY

Frame = TypeVar("Frame")

POSE_FRAMES = 16  # frames at least, of a clip that has so many, that its pose is taken from


def clip_pose(
    find_pose: "Callable[[Frame], Pose | None]",
    frames: Iterable[Frame],
    uncertain: UncertainPoses = UncertainPoses(),
    group: PlanarGroup = C4,
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
        group: of the poses.

    Returns:
        the pose.
    """
    step, count = 1, len(pointwise(group, IDENTITY))
    found: list[tuple[float, ...]] = []
    for number, frame in enumerate(frames):
        pose = None if number % step else find_pose(frame)
        if pose is None:
            continue
        found.append(pose.probabilities)
        if len(found) == 2 * POSE_FRAMES:  # nothing tells beforehand how long a clip is
            step, found = 2 * step, found[::2]
    found = found or [(1 / count,) * count]
    logs = np.log(np.maximum(found, np.finfo(float).tiny)).mean(axis=0)
    odds = np.exp(logs - logs.max()).tolist()
    total = math.fsum(odds)  # exact in any order
    probabilities = tuple(value / total for value in odds)
    if group.elements is None:
        logs_of_all = torch.tensor([probabilities], dtype=torch.float64).log()
        angles = CircularDistribution(logs_of_all, group=group)
        (modes,) = angles.modes(uncertain.vote_poses)
        likely = [(turn, float(angles.certainty(turn))) for turn in modes]
        return uncertain.choose(likely, probabilities, (), float(angles.certainty(IDENTITY)))
    ranking = sorted(zip(group.elements, probabilities, strict=True), key=lambda item: -item[1])
    return uncertain.choose(ranking, probabilities)
