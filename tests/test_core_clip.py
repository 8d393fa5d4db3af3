import math

import numpy as np
import pytest

from canon_seg.core.clip import POSE_FRAMES, clip_pose
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.turn import Turn


def poses(*rows):
    """A function from the number of a frame to its pose."""
    return lambda frame: Pose(int(np.argmax(rows[frame])), tuple(rows[frame]))


def test_the_pose_of_a_clip_is_the_likeliest_by_the_sum_of_logarithms():
    # Two frames lean a little to one pose, one is nearly sure of another.
    rows = (0.5, 0.4, 0.05, 0.05), (0.5, 0.4, 0.05, 0.05), (0.01, 0.9, 0.04, 0.05)
    pose = clip_pose(poses(*rows), range(3))
    means = [math.prod(column) ** (1 / 3) for column in zip(*rows)]
    assert pose.turns == 1
    assert pose.probabilities == pytest.approx([mean / sum(means) for mean in means])
    sure = clip_pose(poses((1.0, 0.0, 0.0, 0.0)), [0])  # no logarithm of zero
    assert sure.turns == 0 and sure.probability == 1


def test_the_pose_of_a_turned_clip_is_turned_bit_by_bit():
    rows = np.random.default_rng(0).dirichlet([1, 1, 1, 1], 20).tolist()
    upright = clip_pose(poses(*rows), range(20))
    for turns in (1, 2, 3):
        turned = clip_pose(poses(*np.roll(rows, turns, axis=1).tolist()), range(20))
        assert turned.turns == (upright.turns + turns) % 4
        assert turned.probabilities == tuple(np.roll(upright.probabilities, turns).tolist())


@pytest.mark.parametrize("count", [1, 15, 16, 31, 32, 33, 1000])
def test_frames_all_over_a_clip_tell_its_pose(count):
    seen = []

    def find_pose(frame):
        seen.append(frame)
        # Frames in the second half are surer: the pose tells which counted.
        return Pose(0, (0.4, 0.3, 0.2, 0.1) if frame < count / 2 else (0.1, 0.2, 0.3, 0.4))

    pose = clip_pose(find_pose, iter(range(count)))
    assert len(seen) <= POSE_FRAMES * (2 + math.log2(max(1, count / POSE_FRAMES)))
    if count >= 16:
        assert pose.probabilities[0] == pytest.approx(0.25, abs=0.05)


def test_frames_without_a_pose_of_their_own_do_not_count():
    rows = (0.5, 0.4, 0.05, 0.05), (0.6, 0.2, 0.1, 0.1)

    def find_pose(frame):
        return None if frame is None else poses(*rows)(frame)

    assert clip_pose(find_pose, [None, 0, None, 1]) == clip_pose(find_pose, [0, 1])
    assert clip_pose(find_pose, [None] * 3).probabilities == (0.25,) * 4


def test_uncertain_clips_are_treated_as_the_config_says():
    find_pose = poses((0.2, 0.35, 0.3, 0.15))
    assert clip_pose(find_pose, [0], UncertainPoses("keep")).turns == 0
    vote = clip_pose(find_pose, [0], UncertainPoses("vote"))
    assert (vote.turns, vote.others, vote.policy) == (1, (Turn(2),), "vote")
