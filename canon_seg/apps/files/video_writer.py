"""Write videos that browsers play: H.264 in MP4, with the sound of another video."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from canon_seg.errors import InputError, warn
from canon_seg.io.files import write_atomically

ENCODERS = ("libx264", "libopenh264", "h264", "mpeg4")
"""FFmpeg's, the best first. The last is no H.264, but every FFmpeg has it."""
COPIED_SOUND = frozenset({"aac", "mp3", "opus", "flac"})
"""Codecs of sound that browsers play in an MP4; all others are encoded as AAC."""
_CLOCK = 90_000  # ticks in a second, as in MPEG


@contextmanager
def write_video(
    path: "str | Path", fps: float, sound_of: "str | Path | None" = None
) -> Iterator[Callable[..., None]]:
    """Give a function that takes one picture after another; the file is complete or absent.

    Pictures of another size than the first are cut or padded at the right and bottom, and so is
    the first to even sides, which the format wants.

    Args:
        path: .mp4 file to write.
        fps: frames per second, of pictures that come without a time.
        sound_of: path of a video whose sound is taken along, as far as the pictures go; None for
            none. One without sound is fine; sound that cannot be read is an
            :class:`canon_seg.errors.InputWarning`.

    Yields:
        function of an (H, W, 3) uint8 array, RGB, and its time in seconds since the start, which
        grows from picture to picture, or nothing.

    Raises:
        InputError: if it can't be written.
    """
    with write_atomically(path) as temporary:
        writer = _Writer(temporary, fps, sound_of)
        try:
            yield writer.write
            writer.finish()
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: the video cannot be written ({error})") from error
        finally:
            writer.close()
        if not writer.count:
            raise InputError(f"{path}: the video cannot be written: it has no frames")


class _Writer:
    def __init__(self, path: Path, fps: float, sound_of: Any) -> None:
        self.path, self.fps, self.count = path, fps, 0
        self._sound_of = sound_of
        self._sound: _Sound | None = None
        self._file: Any = None
        self._container: Any = None
        self._stream: Any = None
        self._ticks = -1

    def write(self, picture: np.ndarray, seconds: float | None = None) -> None:
        if self._container is None:
            self._begin(picture)
        due = self.count / self.fps if seconds is None else seconds
        self._ticks = max(self._ticks + 1, round(due * _CLOCK))
        height, width = self._size
        pixels = np.zeros((height, width, 3), np.uint8)
        height, width = min(height, picture.shape[0]), min(width, picture.shape[1])
        pixels[:height, :width] = picture[:height, :width]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))
        self.count += 1
        if self._sound is not None:
            self._sound.mux_until(self._ticks / _CLOCK)

    def finish(self) -> None:
        """Write what the encoder still holds, the rest of the sound and the end of the file."""
        if self._container is None:
            return
        self._container.mux(self._stream.encode())
        if self._sound is not None:
            self._sound.mux_until(self._ticks / _CLOCK + 1 / self.fps)
            self._sound.finish()
        container, self._container = self._container, None
        container.close()
        self._file.flush()

    def close(self) -> None:
        """Free all that is open, whatever has happened."""
        if self._sound is not None:
            self._sound.close()
        if self._container is not None:
            # The file is thrown away, and an earlier error is on its way.
            with suppress(OSError, av.error.FFmpegError):
                self._container.close()
        if self._file is not None:
            self._file.close()

    def _begin(self, picture: np.ndarray) -> None:
        self._size = tuple(side + side % 2 for side in picture.shape[:2])
        # A file, not a path: its name may be any bytes, and errors of writing come as they are.
        self._file = self.path.open("wb")
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = _add_pictures(self._container, self.fps, *self._size)
        if self._sound_of is not None:
            self._sound = _Sound.of(self._sound_of, self._container)


def _add_pictures(container: Any, fps: float, height: int, width: int) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    for name in ENCODERS:
        try:
            stream = container.add_stream(name, rate=rate)
        except (av.error.FFmpegError, ValueError):  # not in this build of FFmpeg
            continue
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        if name == "libx264":
            stream.options = {"crf": "18", "preset": "veryfast"}
        elif name == ENCODERS[-1]:
            stream.bit_rate = max(1_000_000, 4 * height * width)
            warn("FFmpeg has no encoder of H.264 here: browsers may not play the video")
        return stream
    raise InputError(f"FFmpeg has none of the encoders {', '.join(ENCODERS)} here")


class _Sound:
    """Take the sound of a video along into another one, packet by packet."""

    def __init__(self, file: Any, source: Any, stream: Any, target: Any) -> None:
        self._file, self._source, self._target = file, source, target
        self._start = (source.start_time or 0) / av.time_base
        # AAC without its parameters in front, as in broadcasts, cannot be copied into an MP4.
        name = stream.codec_context.name
        self._is_copied = name in COPIED_SOUND and (
            name != "aac" or bool(stream.codec_context.extradata)
        )
        if self._is_copied:
            self._out = target.add_stream_from_template(stream)
            self._packets = self._copied(stream)
        else:
            self._out = target.add_stream("aac", rate=stream.codec_context.sample_rate or 48_000)
            self._out.layout = stream.codec_context.layout
            self._packets = self._encoded(stream)
        self._next = next(self._packets, None)

    @classmethod
    def of(cls, path: "str | Path", target: Any) -> "_Sound | None":
        """Open the sound of a file, or return None where it has none that can be read."""
        file = Path(path).open("rb")  # noqa: SIM115 - close() closes it
        try:
            source = av.open(file, metadata_errors="replace")
            stream = source.streams.best("audio")
            if stream is not None:
                return cls(file, source, stream, target)
        except (av.error.FFmpegError, ValueError) as error:
            warn(f"{path}: its sound cannot be read and is left out ({error})")
        file.close()
        return None

    def mux_until(self, seconds: float) -> None:
        """Write the sound that begins before a time, in seconds since the start."""
        while self._next is not None and self._next[0] < seconds:
            self._target.mux(self._next[1])
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write what the encoder of the sound still holds."""
        if not self._is_copied:
            self._target.mux(self._out.encode())

    def close(self) -> None:
        self._source.close()
        self._file.close()

    def _copied(self, stream: Any) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, packet) of the sound as it is."""
        for packet in _until_damaged(self._source.demux(stream)):
            if packet.dts is None:  # the empty packet at the end
                continue
            shift = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts >= 0:
                seconds = float(packet.pts * packet.time_base)
                packet.stream = self._out
                yield seconds, packet

    def _encoded(self, stream: Any) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, packets) of the sound, encoded as AAC."""
        resampler = av.AudioResampler(format="fltp", layout=self._out.layout, rate=self._out.rate)
        for frame in _until_damaged(self._source.decode(stream)):
            seconds = (frame.time or 0.0) - self._start
            for piece in resampler.resample(frame):
                piece.pts = None if piece.pts is None else max(0, piece.pts - self._shift(piece))
                yield max(0.0, seconds), self._out.encode(piece)

    def _shift(self, frame: Any) -> int:
        return round(self._start / frame.time_base)


def _until_damaged(parts: Iterator[Any]) -> Iterator[Any]:
    """Yield what an iterator of PyAV's yields, and end with a warning where it fails."""
    while True:
        try:
            part = next(parts)
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            warn(f"the sound ends early, since it is damaged ({error})")
            return
        yield part
