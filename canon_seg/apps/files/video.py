"""Read video files as a player shows them, and webcams."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from canon_seg.errors import InputError, warn
from canon_seg.images.representative import representative_turns

AnyPath = str | Path

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".3gp", ".mts", ".m2ts", ".ogv"),
)
DEFAULT_FPS = 25.0  # where a file does not say, or says nonsense

# What a display matrix asks for, on H x W x ... arrays, by the signs of its upper left part
# (a, b, c, d): the point (x, y) is shown at (a x + c y, b x + d y), y downwards.
_DISPLAYED: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda pixels: pixels,
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (-1, 0, 0, -1): lambda pixels: pixels[::-1, ::-1],
    (0, -1, 1, 0): np.rot90,
    (-1, 0, 0, 1): lambda pixels: pixels[:, ::-1],
    (1, 0, 0, -1): lambda pixels: pixels[::-1],
    (0, 1, 1, 0): lambda pixels: pixels.swapaxes(0, 1),
    (0, -1, -1, 0): lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
}


def is_video(path: AnyPath) -> bool:
    """Return whether a path has the suffix of a video file."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def video_size(path: AnyPath) -> tuple[int, int]:
    """Return (height, width) of the frames of a video file as they are shown, from its first."""
    height, width = next(read_frames(path)).shape[:2]
    return height, width


def frame_rate(path: AnyPath) -> float:
    """Return the frames per second of a video file, on average."""
    with open_video(path) as (_, stream):
        fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
    return fps if 1 <= fps <= 240 else DEFAULT_FPS


def count_frames(path: AnyPath) -> "int | None":
    """Return how many frames a video file has by its header; None where it does not say."""
    with open_video(path) as (_, stream):
        length = float(stream.duration * stream.time_base) if stream.duration else 0.0
        return stream.frames or round(length * float(stream.average_rate or 0)) or None


def read_frames(source: "AnyPath | int") -> Iterator[np.ndarray]:
    """Yield the frames of a video file from the first to the last, or of a webcam without end.

    Args:
        source: path, or number of a webcam.

    Yields:
        (H, W, 3) uint8 arrays, RGB, as a player shows them: turned and mirrored as the file's
        display matrix asks for, and stretched where its pixels are not square.

    Raises:
        InputError: the file is missing, is no video or has no frames; or, after the last frame,
            it ends well before the length that its header announces. There is no such webcam.
    """
    if isinstance(source, int):
        yield from _webcam_frames(source)
    else:
        for _, frame in read_timed_frames(source):
            yield frame


def read_timed_frames(path: AnyPath) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds since the start, frame) of a video file; see :func:`read_frames`.

    Phones record at a rate that changes: the time of a frame is not its number by the rate. Damaged
    frames are left out, as players do, and are an :class:`canon_seg.errors.InputWarning`.
    """
    count, damaged, seconds = 0, 0, 0.0
    with open_video(path) as (container, stream):
        aspect = stream.codec_context.sample_aspect_ratio
        start = (container.start_time or 0) / av.time_base
        rate = float(stream.average_rate or 0)
        for frame in _decoded(container, stream):
            if frame is None:
                damaged += 1
                continue
            seconds = count / (rate or DEFAULT_FPS) if frame.time is None else frame.time - start
            count += 1
            yield max(0.0, seconds), _as_shown(frame, aspect, path)
        length = float(stream.duration * stream.time_base) if stream.duration else 0.0
        announced = stream.frames or round(length * rate)
    if not count:
        raise InputError(f"{path}: has no frames that can be read; {_ADVICE}")
    # Where a header has no number of frames, it is calculated from the length and the rate, which
    # may be far off; then the time of the last frame tells.
    is_short = count < 0.95 * announced - 2
    if is_short and rate > 0 and seconds < (0.95 * announced - 2) / rate:
        raise InputError(f"{path}: ends after {count} of {announced} frames; {_ADVICE}")
    if damaged:
        warn(f"{path}: {damaged} parts of it are damaged and left out; {_ADVICE}")


@contextmanager
def open_video(path: AnyPath) -> Iterator[tuple[Any, Any]]:
    """Open a video file for a block: PyAV's container, and its stream of pictures.

    Raises:
        InputError: naming the file that is missing or is no video.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such video file; check the path")
    with Path(path).open("rb") as file:  # whose name may be any bytes
        try:
            container = av.open(file, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(
                f"{path}: cannot be opened as a video, it is cut short, broken or of an unknown "
                f"format; {_ADVICE}"
            ) from error
        with container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no pictures, sound alone; give a video")
            yield container, container.streams.video[0]


_ADVICE = "get the file again, or convert it to MP4"


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield PyAV's frames, and None for each packet that cannot be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None
        else:
            yield from frames


def _as_shown(frame: Any, aspect: "Fraction | None", path: AnyPath) -> np.ndarray:
    """Return a frame as a contiguous (H, W, 3) RGB array, as a player shows it.

    Args:
        frame: PyAV's.
        aspect: width of a pixel by its height; None where the file does not say.
        path: of the file, for messages.
    """
    width = max(1, round(frame.width * (aspect or 1)))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
            largest = max(abs(a), abs(b), abs(c), abs(d), 1)
            show = _DISPLAYED.get(tuple(round(value / largest) for value in (a, b, c, d)))
            if show is None:
                warn(f"{path}: asks to be shown turned by no quarter turn, which is left out")
            else:
                pixels = show(pixels)
    return np.array(pixels, order="C")


def _webcam_frames(number: int) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(number)
    count = 0
    try:
        if not capture.isOpened():
            raise InputError(
                f"--webcam {number}: there is no webcam of that number, or it may not be used; "
                "give another number, or --input FILE"
            )
        while True:
            is_there, frame = capture.read()
            if not is_there:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()
    if not count:
        raise InputError(
            f"--webcam {number}: has no frames that can be read; is another program using it?"
        )


def equals_a_turn(frame):
    """Return whether an (H, W, 3) frame equals a turn of itself, such as a black one."""
    return len(representative_turns(frame)) > 1
