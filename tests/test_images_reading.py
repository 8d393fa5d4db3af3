import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from canon_seg.config.load import default_config
from canon_seg.errors import InputError, InputWarning
from canon_seg.images.reading import (
    ReadingOptions,
    count_pixels,
    image_facts,
    image_size,
    read_image,
)

HEIGHT, WIDTH = 5, 8


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detectron2_utils():
    pytest.importorskip("detectron2")
    import canon_seg.d2.compat  # noqa: F401

    from detectron2.data import detection_utils

    return detection_utils


def _smooth(height, width):
    """A picture that JPEG compresses with little loss."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3, columns * 2, rows + columns], axis=2).astype(np.uint8)


def _write_png(path, width, height, bit_depth, colour_type, rows):
    """A PNG of a kind that Pillow can't write."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def _save(path, pixels, orientation=None, **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)


# Agreement with Detectron2 -----------------------------------------------------------------------


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_same_pixels_as_detectron2(detectron2_utils, tmp_path, suffix, orientation, channels):
    path = tmp_path / f"photo.{suffix}"
    _save(path, _smooth(37, 52), orientation)
    image = read_image(path, channels)
    np.testing.assert_array_equal(image, detectron2_utils.read_image(str(path), channels))
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"] and image.flags["WRITEABLE"]
    assert image_size(path) == image.shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK", "YCbCr"])
def test_same_pixels_as_detectron2_in_other_modes(detectron2_utils, tmp_path, pixels, mode):
    path = tmp_path / ("photo.jpg" if mode in ("CMYK", "YCbCr") else "photo.png")
    Image.fromarray(pixels).convert(mode).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image, detectron2_utils.read_image(str(path), "BGR"))
    assert image.shape == (HEIGHT, WIDTH, 3)


# Orientation -------------------------------------------------------------------------------------

# Where the first row and the first column of the stored pixels are to be seen (EXIF standard).
STORED_EDGES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
EDGES = {
    "top": lambda image: image[0],
    "bottom": lambda image: image[-1],
    "left": lambda image: image[:, 0],
    "right": lambda image: image[:, -1],
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED_EDGES)
def test_orientation_by_the_standard(tmp_path, pixels, orientation, suffix):
    path = tmp_path / f"photo.{suffix}"
    _save(path, pixels, orientation, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path, "RGB")
    row_edge, column_edge = (EDGES[name] for name in STORED_EDGES[orientation])
    assert sorted(map(tuple, row_edge(image))) == sorted(map(tuple, pixels[0]))
    assert sorted(map(tuple, column_edge(image))) == sorted(map(tuple, pixels[:, 0]))
    assert image_size(path) == image.shape[:2]


# Pixel formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"scan.{suffix}"
    Image.fromarray(np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)).save(path)
    grey = read_image(path)
    np.testing.assert_array_equal(grey[:, :, 0], [[0, 0, 1], [128, 254, 255]])
    assert (grey == grey[:, :, :1]).all()


def test_16_bit_grey_with_orientation(tmp_path):
    path = tmp_path / "scan.png"
    _save(path, np.array([[0, 65535]], np.uint16), 6)
    np.testing.assert_array_equal(read_image(path)[:, :, 0], [[0], [255]])


def test_16_bit_colour(tmp_path):
    path = tmp_path / "scan.png"
    values = np.array([[[0, 32768, 65535], [256, 255, 4660]]], ">u2")
    _write_png(path, 2, 1, 16, 2, [values[0].tobytes()])
    np.testing.assert_array_equal(read_image(path, "RGB"), (values >> 8).astype(np.uint8))


def test_transparency_is_dropped(tmp_path, pixels):
    path = tmp_path / "logo.png"
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(path)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_one_pixel(tmp_path, mode):
    path = tmp_path / "dot.png"
    Image.new(mode, (1, 1)).save(path)
    assert read_image(path).shape == (1, 1, 3)
    assert image_size(path) == (1, 1)


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_pixels_of_unknown_range(tmp_path, dtype, kind):
    path = tmp_path / "depth.tif"
    Image.fromarray(np.ones((2, 3), dtype)).save(path)
    with pytest.raises(InputError, match=f"depth.tif: has {kind}.*8 or 16 bits"):
        read_image(path)


def test_channel_order_is_checked(tmp_path):
    with pytest.raises(ValueError, match="'L'"):
        read_image(tmp_path / "photo.png", "L")


# Unusable files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp"])
def test_pixels_are_counted_without_decoding_any(tmp_path, pixels, suffix, monkeypatch):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert count_pixels(path) == pixels.shape[0] * pixels.shape[1]


@pytest.fixture(params=[read_image, image_size, count_pixels])
def reader(request):
    return request.param


def test_missing(tmp_path, reader):
    with pytest.raises(InputError, match="none.jpg: no such image file"):
        reader(tmp_path / "none.jpg")


def test_folder(tmp_path, reader):
    with pytest.raises(InputError, match="is a folder"):
        reader(tmp_path)


def test_empty(tmp_path, reader):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty.jpg: is empty \(0 bytes\)"):
        reader(tmp_path / "empty.jpg")


def test_not_an_image(tmp_path, reader):
    (tmp_path / "page.jpg").write_text("<html>404 Not Found</html>")
    with pytest.raises(InputError, match="page.jpg: is not an image"):
        reader(tmp_path / "page.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_cut_short(tmp_path, suffix, kept):
    path = tmp_path / f"photo.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=f"photo.{suffix}: "):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif"])
def test_no_damage_escapes_as_another_error(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    rng = np.random.default_rng(0)
    _save(path, rng.integers(0, 256, (16, 12, 3), dtype=np.uint8), 6)
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(int(rng.integers(1, 6))):
            damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (read_image, image_size):
            try:
                read(path)
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017 - some are still read


def test_decompression_bomb(tmp_path, reader):
    path = tmp_path / "bomb.png"
    _write_png(path, 60_000, 60_000, 8, 2, [])
    with pytest.raises(InputError, match="bomb.png: claims more pixels"):
        reader(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_forbidden(tmp_path, pixels, reader):
    path = tmp_path / "secret.png"
    Image.fromarray(pixels).save(path)
    path.chmod(0)
    with pytest.raises(InputError, match="secret.png: may not be read"):
        reader(path)


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_raw_frames(tmp_path, orientation, suffix):
    path, raw = tmp_path / f"photo.{suffix}", _smooth(24, 40)
    _save(path, raw, orientation, **({"lossless": True} if suffix == "webp" else {}))
    read = read_image(path, "RGB", ReadingOptions(exif=False))
    # JPEG loses a little; turned, the picture would differ by far more.
    np.testing.assert_allclose(read.astype(int), raw, atol=0 if suffix != "jpg" else 30)
    assert image_size(path, ReadingOptions(exif=False)) == raw.shape[:2]
    facts = image_facts(path, decode=True)
    assert (facts.height, facts.width, facts.orientation) == (24, 40, orientation)
    assert facts.size(exif=True) == read_image(path).shape[:2] == image_size(path)


def test_broken_exif_is_said(tmp_path, pixels):
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path, exif=b"Exif\0\0no such thing")
    with pytest.warns(InputWarning, match="photo.png: its EXIF data cannot be read.*as they are"):
        np.testing.assert_array_equal(read_image(path, "RGB"), pixels)
    assert image_facts(path).orientation == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path, "RGB", ReadingOptions(exif=False))  # where it changes nothing


def test_the_most_pixels(tmp_path, pixels, reader, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)  # less than half of 40
    path = tmp_path / "large.png"
    Image.fromarray(pixels).save(path)
    with pytest.raises(InputError, match="large.png: claims more pixels.*INPUT.MAX_PIXELS"):
        reader(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader(path, options=ReadingOptions(max_pixels=HEIGHT * WIDTH))
    with pytest.raises(InputError, match="INPUT.MAX_PIXELS"):
        reader(path, options=ReadingOptions(max_pixels=HEIGHT * WIDTH - 1))


def test_pillows_limit_and_the_warnings_stay_as_they_were(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    path = tmp_path / "large.tif"
    Image.fromarray(pixels).save(path)
    filters = list(warnings.filters)
    np.testing.assert_array_equal(
        read_image(path, "RGB", ReadingOptions(max_pixels=HEIGHT * WIDTH)), pixels
    )
    with pytest.raises(InputError, match="claims more pixels"):
        read_image(path, "RGB", ReadingOptions(max_pixels=5))
    assert Image.MAX_IMAGE_PIXELS == 3 and warnings.filters == filters


def test_options_of_a_config():
    cfg = default_config()
    assert ReadingOptions.from_config(cfg) == ReadingOptions()
    cfg.INPUT.EXIF, cfg.INPUT.MAX_PIXELS = False, 10
    assert ReadingOptions.from_config(cfg) == ReadingOptions(exif=False, max_pixels=10)
    cfg.INPUT.MAX_PIXELS = -1
    with pytest.raises(InputError, match="INPUT.MAX_PIXELS is -1"):
        ReadingOptions.from_config(cfg)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
def test_turned_tiff_files_without_compression(tmp_path, pixels, mode, orientation):
    """Pillow maps them into memory, and forgets that they are turned."""
    upright = Image.fromarray(pixels[:, :, 0]).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(tmp_path / "turned.tif", exif=exif)
    # Compressed files are not mapped.
    upright.save(tmp_path / "compressed.tif", exif=exif, compression="tiff_lzw")
    read = read_image(tmp_path / "turned.tif", "RGB")
    np.testing.assert_array_equal(read, read_image(tmp_path / "compressed.tif", "RGB"))
    assert image_size(tmp_path / "turned.tif") == read.shape[:2]
    rgb = np.asarray(upright.convert("RGB"))
    assert read.shape == (rgb if orientation < 5 else rgb.swapaxes(0, 1)).shape
