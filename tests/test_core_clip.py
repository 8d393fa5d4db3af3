import math

import numpy as np
import pytest

from canon_seg.core.clip import POSE_FRAMES, clip_pose, smooth_poses
from canon_seg.core.group import C4, D4, SO2
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.scorer import pointwise
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


def angles_of(angles, probability=0.9):
    return [Pose(Turn.by(a), pointwise(SO2, Turn.by(a)), probability=probability) for a in angles]


TIMES = [k / 25 for k in range(100)]


def degrees_of(poses):
    return np.array([pose.turn.degrees for pose in poses])


def test_jitter_goes_and_a_roll_stays():
    true = 340 + 0.4 * np.arange(100)  # through 0 degrees
    given = true + np.random.default_rng(0).normal(0, 3, 100)
    found = degrees_of(smooth_poses(angles_of(given), TIMES, SO2))
    error = (found - true + 180) % 360 - 180
    assert np.abs(error[10:-10]).max() < 2 and np.sqrt((error**2).mean()) < 1.2
    assert np.abs(np.diff((found + 180) % 360)).max() < 1.5


def test_what_is_off_for_a_moment_goes_and_a_jump_that_stays_is_kept():
    given = np.where(np.arange(100) < 50, 10.0, 100.0)
    given[20:22] = 190.0
    found = degrees_of(smooth_poses(angles_of(given), TIMES, SO2))
    assert np.allclose(found[:50], 10) and np.allclose(found[50:], 100)


def test_poses_of_a_finite_group_stay_elements():
    rows = np.full((100, 4), 0.1)
    rows[np.arange(100), np.where(np.arange(100) < 50, 0, 1)] = 0.7
    rows[20] = 0.1, 0.1, 0.1, 0.7
    given = [Pose(int(np.argmax(row)), tuple(row)) for row in rows]
    found = smooth_poses(given, TIMES, C4)
    assert [pose.turns for pose in found] == [0] * 50 + [1] * 50
    assert found[20].probability == 0.1


def test_frames_without_a_clear_pose_take_that_of_their_neighbours():
    given = angles_of([30.0] * 100)
    given[40] = None
    given[41] = Pose(Turn(), pointwise(SO2, Turn()), "keep", probability=0.1)
    found = smooth_poses(given, TIMES, SO2)
    assert np.allclose(degrees_of(found), 30)
    assert {pose.policy for pose in found} == {"argmax"}
    alone = smooth_poses([None, given[41]], [0, 1], SO2)
    assert [pose.turn for pose in alone] == [Turn(), Turn()]


def test_smoothing_is_refused_where_it_makes_no_sense():
    with pytest.raises(ValueError, match="mirrors"):
        smooth_poses([], [], D4)
    with pytest.raises(ValueError, match="1 poses and 2 times"):
        smooth_poses([None], [0, 1], SO2)
