"""Image files of any kind, whole and broken: the right pixels, or a message that names the file."""

import io
import warnings

import numpy as np
import pytest
from fuzzing import attempt, fuzz
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from canon_seg.images.reading import image_size, read_image

# Pillow's name: whether it keeps the pixels.
FORMATS = {
    "PNG": True,
    "BMP": True,
    "PPM": True,
    "TIFF": True,
    "TGA": True,
    "GIF": True,
    "PCX": False,  # its palette comes last, and may be absent
    "SGI": True,
    "JPEG": False,
    "WEBP": False,
    "JPEG2000": False,
    "AVIF": False,
    "ICO": False,
}
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
DEEP_MODES = ["I;16", "I;16B", "I", "F"]
NEEDS = {"JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}
WRITABLE = [name for name in FORMATS if name not in NEEDS or features.check(NEEDS[name])]


@st.composite
def image_files(draw):
    """The bytes of an image file that Pillow writes, of a format, a mode, and with EXIF or not."""
    kind = draw(st.sampled_from(WRITABLE))
    mode = draw(st.sampled_from([*MODES, *DEEP_MODES]))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode in DEEP_MODES:
        deep = rng.integers(0, 2**16, (height, width)).astype(np.uint16)
        image = {
            "I": lambda: Image.fromarray(deep.astype(np.int32)),
            "F": lambda: Image.fromarray(deep.astype(np.float32)),
            "I;16": lambda: Image.fromarray(deep),
            "I;16B": lambda: Image.frombytes("I;16B", (width, height), deep.tobytes()),
        }[mode]()
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if mode in ("PA", "RGBX"):
            image = image.convert({"PA": "P", "RGBX": "RGB"}[mode])
        elif mode == "LAB":
            image = Image.frombytes("LAB", image.size, image.tobytes())
        else:
            image = image.convert(mode)
        if mode in ("PA", "RGBX"):
            image = image.convert(mode)
    options = {"sizes": [(width, height)]} if kind == "ICO" else {}
    orientation = draw(st.sampled_from([None, None, *range(10), 65535]))
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError, KeyError, SystemError):  # the format has no such mode
        assume(False)
    return kind, file.getvalue()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "image"


def read(path):
    """Return the pixels, or None where a message names the file; anything else is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, message = attempt(read_image, path, "RGB")
    if message is not None:
        assert str(path) in message
        return None
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.size and pixels.flags.c_contiguous and pixels.flags.writeable
    return pixels


def pixels_by_pillow(contents):
    """Return (the pixels upright as RGB, Pillow's mode) by Pillow's own functions."""
    with Image.open(io.BytesIO(contents)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image) or image
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            grey = (np.asarray(upright).astype(np.int64) // 256).astype(np.uint8)
            return np.stack([grey] * 3, axis=2), image.mode
        return np.asarray(upright.convert("RGB")), image.mode


@fuzz
@given(image_files())
def test_whole_files_are_read_as_pillow_reads_them(path, file):
    _, contents = file
    path.write_bytes(contents)
    pixels = read(path)
    try:
        expected, mode = pixels_by_pillow(contents)
    except (OSError, ValueError):  # Pillow does not read what it wrote, or not as RGB
        assert pixels is None
        return
    if pixels is None:
        assert mode in ("I", "F")  # of no known range
        return
    np.testing.assert_array_equal(pixels, expected)
    assert image_size(path) == pixels.shape[:2]


@fuzz
@given(image_files(), st.data())
def test_cut_files_are_refused_or_have_the_pixels_of_whole_ones(path, file, data):
    kind, contents = file
    path.write_bytes(contents)
    whole = read(path)
    path.write_bytes(contents[: data.draw(st.integers(0, len(contents) - 1), label="bytes left")])
    cut = read(path)
    if cut is not None and whole is not None and FORMATS[kind]:
        np.testing.assert_array_equal(cut, whole)


@fuzz
@given(image_files(), st.data())
def test_broken_files_give_pixels_or_a_message(path, file, data):
    _, contents = file
    broken = bytearray(contents)
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    pixels = read(path)
    if pixels is not None:
        assert image_size(path) == pixels.shape[:2]


@fuzz
@given(st.binary(max_size=64))
def test_files_of_any_bytes_give_a_message(path, contents):
    path.write_bytes(contents)
    read(path)
