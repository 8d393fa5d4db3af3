"""Videos read and written, and the pose of a clip."""

import cv2
import numpy as np
import pytest

from canon_seg.apps.files.video import (
    equals_a_turn,
    frame_rate,
    read_frames,
    video_size,
    write_video,
)
from canon_seg.errors import InputError


def coloured(height, width, value):
    """Red grows with the value, blue shrinks: channels that change places show."""
    return np.full((height, width, 3), (value, 100, 250 - value), np.uint8)


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


def test_a_frame_that_equals_a_turn_of_itself_is_known():
    black = coloured(8, 8, 0)
    assert equals_a_turn(black)
    black[2, 3] = 9
    assert not equals_a_turn(black)
