"""Read and write video files, and read webcams."""

from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from canon_seg.errors import InputError
from canon_seg.images.representative import representative_turns
from canon_seg.io.files import write_atomically

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv")
CODEC = "mp4v"  # MPEG-4 part 2: what OpenCV's packages can all write
DEFAULT_FPS = 25.0  # where a file does not say, or says nonsense


def is_video(path):
    """Return whether a path has the suffix of a video file."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def video_size(path):
    """Return (height, width) of the frames of a video file, from its first one."""
    return next(read_frames(path)).shape[:2]


def frame_rate(path):
    """Return the frames per second of a video file."""
    with _opened(path) as capture:
        fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 1 <= fps <= 240 else DEFAULT_FPS  # false for NaN


def read_frames(source):
    """Yield the frames of a video file from the first to the last, or of a webcam without end.

    Args:
        source: path, or number of a webcam.

    Yields:
        (H, W, 3) uint8 arrays, RGB, turned as the file's metadata ask for.

    Raises:
        InputError: the file is missing, is no video or has no frames; or, after the last frame,
            it ends well before the length that its header announces. There is no such webcam.
    """
    with _opened(source) as capture:
        count, seconds = 0, 0.0
        while True:
            is_there, frame = capture.read()
            if not is_there:
                break
            count, seconds = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield np.ascontiguousarray(frame[..., ::-1])
        announced, fps = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    if not count:
        raise InputError(f"{_name(source)}: has no frames that can be read; {_advice(source)}")
    # Where a header has no number of frames, it is calculated from the length and the rate, which
    # may be far off; then the time of the last frame tells.
    is_short = count < 0.95 * announced - 2
    if is_short and fps > 0 and seconds < (0.95 * announced - 2) / fps:
        raise InputError(
            f"{_name(source)}: ends after {count} of {announced:.0f} frames; {_advice(source)}"
        )


@contextmanager
def _opened(source):
    is_file = not isinstance(source, int)
    if is_file and not Path(source).is_file():
        raise InputError(f"{source}: no such video file; check the path")
    capture = cv2.VideoCapture(str(source) if is_file else source)
    try:
        if not capture.isOpened():
            if is_file:
                raise InputError(
                    f"{source}: cannot be opened as a video, it is cut short, broken or of an "
                    f"unknown format; {_advice(source)}"
                )
            raise InputError(
                f"{_name(source)}: there is no webcam of that number, or it may not be used; give "
                "another number, or --input FILE"
            )
        yield capture
    finally:
        capture.release()


def _name(source):
    return f"--webcam {source}" if isinstance(source, int) else str(source)


def _advice(source):
    if isinstance(source, int):
        return "is another program using it?"
    return "get the file again, or convert it to MP4"


@contextmanager
def write_video(path, fps):
    """Give a function that takes one picture after another; the file is complete or absent.

    Pictures of another size than the first are cut or padded at the right and bottom, and so is
    the first to even sides, which the format wants.

    Args:
        path: .mp4 file to write.
        fps: frames per second.

    Yields:
        function of an (H, W, 3) uint8 array, RGB.

    Raises:
        InputError: if it can't be written.
    """
    with write_atomically(path) as temporary:
        writer = _Writer(temporary, fps)
        try:
            yield writer.write
        finally:
            writer.close()
        writer.check(path)


class _Writer:
    def __init__(self, path, fps):
        self.path, self.fps = path, fps
        self.writer, self.size, self.count = None, None, 0

    def write(self, picture):
        if self.writer is None:
            self.size = tuple(side + side % 2 for side in picture.shape[:2])
            code = cv2.VideoWriter_fourcc(*CODEC)
            self.writer = cv2.VideoWriter(str(self.path), code, self.fps, self.size[::-1])
        frame = np.zeros((*self.size, 3), np.uint8)
        height, width = (min(sides) for sides in zip(self.size, picture.shape, strict=False))
        frame[:height, :width] = picture[:height, :width, ::-1]
        self.writer.write(frame)
        self.count += 1

    def close(self):
        if self.writer is not None:
            self.writer.release()

    def check(self, path):
        """Look at what is there, since OpenCV says nothing of failed writes."""
        capture = cv2.VideoCapture(str(self.path))
        written = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if written != self.count or not self.count:
            raise InputError(f"{path}: the video cannot be written; is there space left?")


def equals_a_turn(frame):
    """Return whether an (H, W, 3) frame equals a turn of itself, such as a black one."""
    return len(representative_turns(frame)) > 1
