"""Find the pose of a clip, whose frames belong together: one for all, or a smooth one for each."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from canon_seg.core.group import C4, PlanarGroup
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.scorer import ARCS, CircularDistribution, pointwise
from canon_seg.core.turn import IDENTITY, Turn

Frame = TypeVar("Frame")

POSE_FRAMES = 16  # frames at least, of a clip that has so many, that its pose is taken from

SMOOTH_SECONDS = 0.3
"""Standard deviation of the Gaussian by which angles of neighbouring frames are weighted."""

JUMP = 45.0
"""Degrees: frames whose angles are further apart than this are not averaged."""


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


def smooth_poses(
    poses: "Sequence[Pose | None]",
    seconds: Sequence[float],
    group: PlanarGroup = C4,
    deviation: float = SMOOTH_SECONDS,
) -> list[Pose]:
    """Smooth the poses of the frames of a clip, so that a levelled clip does not tremble.

    The angle of a frame is first the circular median of the frames around it, each weighted by its
    probability and by a Gaussian of its distance in time: the angle among theirs from which the
    weighted sum of the angles to all others is the least. So a pose that is off for a few frames
    goes, and one that jumps and stays, as when a phone is turned, jumps at once. Of a continuous
    group it is then the circular mean of those frames that are within ``JUMP`` degrees of it; what
    is before a jump is never averaged with what is after it. Poses of a finite group stay elements.

    Args:
        poses: of the frames, in order; None for frames that have none of their own. What votes, or
            was kept for want of a clear pose, has none either.
        seconds: times of the frames, which do not fall.
        group: of the poses, without mirrors.
        deviation: of the Gaussian, in seconds; frames within three times as much count.

    Returns:
        a pose for each frame, with its own probabilities; ``probability`` is that of the smoothed
        angle in that frame.

    Raises:
        ValueError: for a group with mirrors, or lists of different lengths.
    """
    if group.mirrors:
        raise ValueError(f"poses of {group.name} have mirrors, between which nothing is smooth")
    times = np.asarray(seconds, np.float64)
    if len(times) != len(poses):
        raise ValueError(f"there are {len(poses)} poses and {len(times)} times")
    angles = np.array([0.0 if pose is None else pose.turn.degrees for pose in poses])
    weights = np.array(
        [0.0 if pose is None or pose.policy != "argmax" else pose.probability for pose in poses]
    )
    smoothed = []
    for number, pose in enumerate(poses):
        first, last = np.searchsorted(
            times, [times[number] - 3 * deviation, times[number] + 3 * deviation], "left"
        )
        last = max(int(last), number + 1)
        near = slice(int(first), last)
        share = weights[near] * np.exp(-(((times[near] - times[number]) / deviation) ** 2) / 2)
        if share.sum() > 0:
            angle = _circular_median(angles[near], share)
            if group.elements is None:
                away = (angles[near] - angle + 180) % 360 - 180
                counts = share * (np.abs(away) <= JUMP)
                angle += float((away * counts).sum() / counts.sum())
            turn = group.element(Turn.by(angle))
        else:
            turn = IDENTITY if pose is None else pose.turn
        smoothed.append(_turned_to(pose, turn, group))
    return smoothed


def _circular_median(angles: np.ndarray, weights: np.ndarray) -> float:
    """Return the angle of those given from which the weighted sum of distances is the least."""
    apart = np.abs((angles[:, None] - angles[None] + 180) % 360 - 180)
    costs = np.where(weights > 0, apart @ weights, np.inf)
    return float(angles[int(costs.argmin())])


def _turned_to(pose: "Pose | None", turn: Turn, group: PlanarGroup) -> Pose:
    """Return the pose of a frame with another turn, and how likely that is."""
    count = ARCS if group.elements is None else len(group.elements)
    shares = (1 / count,) * count if pose is None else pose.probabilities
    if group.elements is None:
        logs = torch.tensor([shares], dtype=torch.float64).log()
        probability = CircularDistribution(logs).near(turn).item()
    else:
        probability = shares[group.index(turn)]
    if pose is None:
        return Pose(turn, shares, probability=probability)
    return replace(pose, turn=turn, policy="argmax", others=(), probability=probability)
