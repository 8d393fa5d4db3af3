"""Videos read and written, and the pose of a clip."""

import math

import cv2
import numpy as np
import pytest

from canon_seg.apps.files.video import (
    POSE_FRAMES,
    clip_pose,
    equals_a_turn,
    frame_rate,
    read_frames,
    video_size,
    write_video,
)
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError


def coloured(height, width, value):
    """Red grows with the value, blue shrinks: channels that change places show."""
    return np.full((height, width, 3), (value, 100, 250 - value), np.uint8)


def poses(*rows):
    """A function from the number of a frame to its pose."""
    return lambda frame: Pose(int(np.argmax(rows[frame])), tuple(rows[frame]))


def test_frames_come_back_in_order_and_colour(tmp_path):
    frames = [coloured(48, 64, value) for value in range(0, 250, 25)]
    with write_video(tmp_path / "new" / "a.mp4", 12.5) as write:
        for frame in frames:
            write(frame)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
    read = list(read_frames(tmp_path / "new" / "a.mp4"))
    assert len(read) == len(frames) and frame_rate(tmp_path / "new" / "a.mp4") == 12.5
    for one, other in zip(read, frames):
        assert np.abs(one.astype(int) - other).max() < 12  # the codec's loss


def test_odd_and_changing_sizes_are_padded_and_cut(tmp_path):
    with write_video(tmp_path / "a.mp4", 10) as write:
        for size in ((33, 47), (20, 60), (40, 10)):
            write(coloured(*size, 200))
    assert video_size(tmp_path / "a.mp4") == (34, 48)
    first, wide, high = read_frames(tmp_path / "a.mp4")
    assert first[10, 40, 0] > 150 and wide[10, 40, 0] > 150
    assert high[20, 30, 0] < 50 and wide[30, 20, 0] < 50


def test_a_video_is_whole_or_absent(tmp_path):
    (tmp_path / "a.mp4").write_text("from before")
    with pytest.raises(ZeroDivisionError), write_video(tmp_path / "a.mp4", 10) as write:
        write(coloured(32, 32, 0))
        raise ZeroDivisionError
    with pytest.raises(InputError, match="a.mp4: the video cannot be written"):
        with write_video(tmp_path / "a.mp4", 10):
            pass  # not a single frame
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "from before"


def test_a_full_disk_is_noticed(tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, *_):
            open(path, "wb").close()

        def write(self, frame):
            pass

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoWriter", Full)
    with pytest.raises(InputError, match="is there space left"):
        with write_video(tmp_path / "a.mp4", 10) as write:
            write(coloured(32, 32, 0))
    assert not list(tmp_path.iterdir())


def test_a_video_without_frames_is_an_error(tmp_path, monkeypatch):
    with write_video(tmp_path / "a.mp4", 10) as write:
        write(coloured(32, 32, 0))
    capture = cv2.VideoCapture

    class Empty:
        def __init__(self, path):
            self.file = capture(path)

        def read(self):
            return False, None

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(cv2, "VideoCapture", Empty)
    with pytest.raises(InputError, match="a.mp4: has no frames"):
        list(read_frames(tmp_path / "a.mp4"))


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
    black = coloured(8, 8, 0)
    assert equals_a_turn(black)
    black[2, 3] = 9
    assert not equals_a_turn(black)


def test_uncertain_clips_are_treated_as_the_config_says():
    find_pose = poses((0.2, 0.35, 0.3, 0.15))
    assert clip_pose(find_pose, [0], UncertainPoses("keep")).turns == 0
    vote = clip_pose(find_pose, [0], UncertainPoses("vote"))
    assert (vote.turns, vote.others, vote.policy) == (1, (Turn(2),), "vote")
