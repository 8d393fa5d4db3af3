"""Image files are levelled by one interpolation, in their own format, with their metadata."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from canon_seg.core.turn import Turn, inverse
from canon_seg.errors import InputError
from canon_seg.images.file_levelling import level_array, level_file, level_pillow
from canon_seg.images.tilt import rotate_image, rotated_size

ANGLE = 98.0  # a quarter turn and a tilt of 8 degrees
TURN = Turn.by(ANGLE)


def smooth(height=96, width=128, channels=3):
    """Coloured waves, which no interpolation harms much."""
    y, x = np.mgrid[:height, :width] / 24
    waves = [np.sin(x + k) + np.cos(y * (k + 1) / 2) for k in range(channels)]
    return np.round(np.stack(waves, axis=-1) * 60 + 127).astype(np.uint8)


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def seen(contents):
    with Image.open(io.BytesIO(contents)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


def middle(pixels, size=40):
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size].astype(int)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_format_shows_the_level_picture(form, orientation):
    tilted = np.ascontiguousarray(rotate_image(smooth(), -ANGLE, "inscribed"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a note"
    stored = np.rot90(tilted, 1) if orientation == 6 and form != "BMP" else tilted
    data = encoded(Image.fromarray(stored), form, exif=exif, dpi=(90, 90))
    result = level_file(data, TURN)
    found = seen(result.contents)
    assert result.way == "levelled"
    assert np.abs(middle(found) - middle(smooth())).mean() < 4
    assert found.shape[:2] == rotated_size(*tilted.shape[:2], ANGLE, "inscribed")
    with Image.open(io.BytesIO(result.contents)) as image:
        assert image.format == form and image.getexif().get(0x0112, 1) == 1
        if form != "BMP":
            assert image.getexif()[0x010E] == "a note"
        if form != "WEBP":
            assert image.info["dpi"] == pytest.approx((90, 90), abs=0.1)


def test_expand_keeps_all_of_it():
    data = encoded(Image.fromarray(smooth()), "PNG")
    found = seen(level_file(data, Turn(tilt=8.0), "expand").contents)
    assert found.shape[:2] == rotated_size(96, 128, 8.0, "expand")
    assert (found[0, 0] == 255).all() and (found[-1, -1] == 255).all()


def test_other_segments_of_a_jpeg_file_are_kept_and_the_thumbnail_is_not():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(Image.fromarray(smooth()), "JPEG", exif=exif, icc_profile=b"colours" * 40)
    data = data[:2] + b"\xff\xfe\x00\x07hello" + data[2:]
    contents = level_file(data, Turn(tilt=5.0)).contents
    with Image.open(io.BytesIO(contents)) as image:
        assert image.info["icc_profile"] == b"colours" * 40
        assert image.info["comment"] == b"hello"
        assert image.getexif()[0x0112] == 1
        assert image.layer == Image.open(io.BytesIO(data)).layer  # sampling of colours


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pillow_images_of_every_mode(mode):
    if mode == "I;16":
        image = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 200)
    else:
        image = Image.fromarray(smooth()).convert(mode)
    levelled = level_pillow(image, Turn(tilt=6.0))
    assert levelled.size == rotated_size(96, 128, 6.0, "inscribed")[::-1]
    kept = {"1": "L", "P": "RGB"}.get(mode, mode)
    assert levelled.mode == kept
    back = middle(np.asarray(level_pillow(levelled, inverse(Turn(tilt=6.0)))))
    if mode not in ("1", "P"):
        scale = 200 if mode == "I;16" else 1
        assert np.abs(back - middle(np.asarray(image).astype(np.int64))).mean() < 2 * scale


def test_a_mode_that_cannot_be_levelled():
    with pytest.raises(InputError, match="mode F"):
        level_pillow(Image.fromarray(np.zeros((9, 9), np.float32)), Turn(tilt=6.0))


def test_16_bit_colours_stay():
    deep = smooth().astype(np.uint16) * 200
    data = cv2.imencode(".png", deep)[1].tobytes()
    found = cv2.imdecode(
        np.frombuffer(level_file(data, Turn(tilt=5.0)).contents, np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert found.dtype == np.uint16
    assert np.array_equal(found, level_array(deep, Turn(tilt=5.0)))


def test_exact_turns_of_an_array_are_exact():
    image = smooth()
    assert np.array_equal(level_array(image, Turn(1)), np.rot90(image))
