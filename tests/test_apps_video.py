"""Videos read and written."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from canon_seg.apps.files.video import (
    equals_a_turn,
    frame_rate,
    read_frames,
    read_timed_frames,
    video_size,
)
from canon_seg.apps.files.video_writer import write_video
from canon_seg.errors import InputError, InputWarning

try:
    import resource
except ImportError:  # Windows
    resource = None


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


@pytest.mark.skipif(resource is None, reason="no limits of file sizes here")
def test_a_full_disk_is_noticed(tmp_path):
    rng, before = np.random.default_rng(0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(InputError, match="a.mp4: cannot be written"):
            with write_video(tmp_path / "a.mp4", 10) as write:
                for _ in range(40):
                    write(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


# As a player shows them ---------------------------------------------------------------------------

HEIGHT, WIDTH = 32, 64
# The upper left part of a display matrix, and how numpy turns a frame as it asks for.
MATRICES = {
    "0": ((1, 0, 0, 1), lambda frame: frame),
    "90": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "180": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "270": ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "upside down, mirrored": ((1, 0, 0, -1), lambda frame: frame[::-1]),
    "90, mirrored": ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
    "270, mirrored": ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).swapaxes(0, 1)),
}


def corners():
    """A frame whose corners differ: red, green, blue and black quadrants."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[: HEIGHT // 2, : WIDTH // 2, 0] = 200
    frame[: HEIGHT // 2, WIDTH // 2 :, 1] = 200
    frame[HEIGHT // 2 :, : WIDTH // 2, 2] = 200
    return frame


def set_matrix(path, matrix):
    """Write another display matrix into the track header of the pictures, as phones do."""
    contents = bytearray(path.read_bytes())
    header = contents.index(b"tkhd")
    assert contents[header + 4] == 0  # its version, which tells where the matrix is
    a, b, c, d = (value * 65536 for value in matrix)
    place = header + 4 + 40
    assert contents[place : place + 4] == struct.pack(">i", 65536)
    contents[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(contents)


@pytest.mark.parametrize("name", MATRICES)
def test_frames_come_as_a_player_shows_them(tmp_path, name):
    matrix, shown = MATRICES[name]
    with write_video(tmp_path / "a.mp4", 10) as write:
        for _ in range(3):
            write(corners())
    set_matrix(tmp_path / "a.mp4", matrix)
    expected = shown(corners())
    assert video_size(tmp_path / "a.mp4") == expected.shape[:2]
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert len(frames) == 3
    for frame in frames:
        # The codec loses sharpness at the edges of the quadrants.
        assert np.mean(np.abs(frame.astype(int) - expected) > 40) < 0.15
        assert all(
            frame[y, x].argmax() == expected[y, x].argmax() for y in (4, -5) for x in (4, -5)
        )


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    container = av.open(str(tmp_path / "a.mp4"), "w")
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
    container.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
    container.mux(stream.encode())
    container.close()
    assert video_size(tmp_path / "a.mp4") == (HEIGHT, WIDTH * 3 // 2)


# Sound, times, what browsers play -----------------------------------------------------------------


def write_with_sound(path, codec, seconds=1.0, times=None):
    """A video of 10 frames, and a tone of 440 Hz as sound."""
    container = av.open(str(path), "w")
    pictures = container.add_stream("mpeg4", rate=10)
    pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    pictures.codec_context.time_base = Fraction(1, 1000)
    sound = container.add_stream(codec, rate=48_000)
    sound.layout = "mono"
    for number in range(10):
        frame = av.VideoFrame.from_ndarray(coloured(HEIGHT, WIDTH, 20 * number), format="rgb24")
        frame.pts = round(1000 * (times[number] if times else number / 10))
        frame.time_base = Fraction(1, 1000)
        container.mux(pictures.encode(frame))
    wave = np.sin(2 * np.pi * 440 * np.arange(round(48_000 * seconds)) / 48_000)
    frame = av.AudioFrame.from_ndarray((wave * 9000).astype(np.int16)[None], "s16", "mono")
    frame.sample_rate, frame.pts = 48_000, 0
    resampler = av.AudioResampler(sound.format, "mono", 48_000, frame_size=sound.frame_size or 0)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(sound.encode(piece))
    container.mux(pictures.encode())
    container.mux(sound.encode())
    container.close()


def sound_in(path):
    """Name of the codec, and the samples of the first channel, of a file's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp", "mono", 48_000)
        pieces = [p for frame in container.decode(stream) for p in resampler.resample(frame)]
        return stream.codec_context.name, np.concatenate([p.to_ndarray()[0] for p in pieces])


@pytest.mark.parametrize(("file", "codec"), [("a.mp4", "aac"), ("a.mov", "pcm_s16le")])
def test_sound_is_kept(tmp_path, file, codec):
    write_with_sound(tmp_path / file, codec)
    with write_video(tmp_path / "out.mp4", 10, sound_of=tmp_path / file) as write:
        for seconds, frame in read_timed_frames(tmp_path / file):
            write(frame, seconds)
    name, samples = sound_in(tmp_path / "out.mp4")
    assert name == "aac" and len(samples) == pytest.approx(48_000, rel=0.06)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() / len(samples) * 48_000 == pytest.approx(440, abs=3)
    assert len(list(read_frames(tmp_path / "out.mp4"))) == 10


def test_sound_ends_with_the_pictures(tmp_path):
    write_with_sound(tmp_path / "a.mp4", "aac", seconds=3.0)
    with write_video(tmp_path / "out.mp4", 10, sound_of=tmp_path / "a.mp4") as write:
        for number in range(5):
            write(coloured(HEIGHT, WIDTH, 0), number / 10)
    assert len(sound_in(tmp_path / "out.mp4")[1]) == pytest.approx(24_000, abs=3000)


def test_no_sound_where_there_is_none(tmp_path):
    with write_video(tmp_path / "a.mp4", 10) as write:
        write(corners())
    with write_video(tmp_path / "out.mp4", 10, sound_of=tmp_path / "a.mp4") as write:
        write(corners())
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_times_are_those_of_the_given_frames(tmp_path):
    times = [0, 0.03, 0.1, 0.2, 0.5, 0.51, 0.6, 0.9, 1.5, 1.6]  # as phones record in the dark
    write_with_sound(tmp_path / "a.mp4", "aac", times=times)
    read = [seconds for seconds, _ in read_timed_frames(tmp_path / "a.mp4")]
    assert read == pytest.approx(times, abs=0.002)
    with write_video(tmp_path / "out.mp4", 10, sound_of=tmp_path / "a.mp4") as write:
        for seconds, frame in read_timed_frames(tmp_path / "a.mp4"):
            write(frame, seconds)
    again = [seconds for seconds, _ in read_timed_frames(tmp_path / "out.mp4")]
    assert again == pytest.approx(times, abs=0.002)


def test_names_of_any_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff$.mp4")
    with write_video(path, 10) as write:
        write(corners())
    assert len(list(read_frames(path))) == 1
    with write_video(path.with_name("b.mp4"), 10, sound_of=path) as write:
        write(corners())


# Unusable files -----------------------------------------------------------------------------------


def test_files_that_are_no_videos(tmp_path):
    with pytest.raises(InputError, match="none.mp4: no such video file"):
        next(read_frames(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="text.mp4: cannot be opened as a video"):
        frame_rate(tmp_path / "text.mp4")
    container = av.open(str(tmp_path / "sound.mp4"), "w")
    stream = container.add_stream("aac", rate=8000)
    stream.layout = "mono"
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    silence.sample_rate = 8000
    container.mux(stream.encode(silence))
    container.mux(stream.encode())
    container.close()
    with pytest.raises(InputError, match="sound.mp4: holds no pictures"):
        next(read_frames(tmp_path / "sound.mp4"))


def test_a_video_that_is_cut_short(tmp_path):
    rng = np.random.default_rng(0)
    container = av.open(str(tmp_path / "a.avi"), "w")
    stream = container.add_stream("mjpeg", rate=10)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
    for _ in range(30):
        noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
    container.mux(stream.encode())
    container.close()
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.avi: ends after 1\d of 30 frames"):
        list(read_frames(tmp_path / "a.avi"))


def test_damaged_parts_are_left_out_and_counted(tmp_path):
    with write_video(tmp_path / "a.mp4", 10) as write:
        for value in range(0, 200, 10):
            write(coloured(HEIGHT, WIDTH, value))
    with av.open(str(tmp_path / "a.mp4")) as container:
        packet = list(container.demux(video=0))[-3]
        place, size = packet.pos, packet.size
    contents = bytearray((tmp_path / "a.mp4").read_bytes())
    contents[place : place + size] = b"\xff" * size
    (tmp_path / "a.mp4").write_bytes(contents)
    with pytest.warns(InputWarning, match="a.mp4: 1 parts of it are damaged"):
        assert len(list(read_frames(tmp_path / "a.mp4"))) >= 18


def test_a_frame_that_equals_a_turn_of_itself_is_known():
    black = coloured(8, 8, 0)
    assert equals_a_turn(black)
    black[2, 3] = 9
    assert not equals_a_turn(black)
