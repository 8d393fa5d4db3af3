"""Turned files against Pillow and OpenCV, which apply orientation tags by themselves."""

import io
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images import file_turning
from canon_seg.images.exif import ORIENTATIONS, set_orientation
from canon_seg.images.file_turning import turn_file

needs_jpegtran = pytest.mark.skipif(
    shutil.which("jpegtran") is None, reason="jpegtran (libjpeg-turbo-progs) is not installed"
)
TURNS = [Turn(1), Turn(2), Turn(3)]
SIZE = 64, 32  # width, height: whole blocks of 16 px, which jpegtran can turn in every way
MAKER_NOTE = bytes(range(200))
XMP = '<x:xmpmeta xmlns:tiff="t"><rdf tiff:Orientation="{}" tiff:Other="7"/></x:xmpmeta>'


def picture(width=SIZE[0], height=SIZE[1], seed=0):
    """Four corners of other colours, so that no turn or mirror is like another."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (height, width, 3))
    pixels[: height // 2, : width // 2, 0] += 200
    pixels[: height // 2, width // 2 :, 1] += 200
    pixels[height // 2 :, : width // 2, 2] += 200
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif_block(order, orientation=None, thumbnail=b"", thumbnail_orientation=None, size=SIZE):
    """EXIF data as a camera writes them, laid out by hand; MAKER_NOTE is found by its offset."""

    def directory(entries, next_at):
        body = b"".join(
            struct.pack(f"{order}HHI", tag, kind, count)
            + (
                value
                if isinstance(value, bytes)
                else struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value)
            ).ljust(4, b"\0")
            for tag, kind, count, value in sorted(entries)
        )
        return struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", next_at)

    def length(count):
        return 6 + 12 * count

    first = [(0x010F, 2, 4, b"Cam\0"), (0x8769, 4, 1, 0)]
    if orientation:
        first.append((0x0112, 3, 1, orientation))
    inner_at = 8 + length(len(first))
    second_at = inner_at + length(3)
    second = [(0x0201, 4, 1, 0), (0x0202, 4, 1, len(thumbnail))]
    if thumbnail_orientation:
        second.append((0x0112, 3, 1, thumbnail_orientation))
    note_at = second_at + (length(len(second)) if thumbnail else 0)
    first[1] = (0x8769, 4, 1, inner_at)
    second[0] = (0x0201, 4, 1, note_at + len(MAKER_NOTE))
    inner = [
        (0xA002, 4, 1, size[0]),
        (0xA003, 3, 1, size[1]),
        (0x927C, 7, len(MAKER_NOTE), struct.pack(f"{order}I", note_at)),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    block = head + directory(first, second_at if thumbnail else 0) + directory(inner, 0)
    return block + (directory(second, 0) if thumbnail else b"") + MAKER_NOTE + thumbnail


def seen(contents):
    """The image as a viewer shows it."""
    with Image.open(io.BytesIO(contents)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


def turned(contents, turn):
    return np.rot90(seen(contents), turn.quarters)


def thumbnail_of(contents):
    """The thumbnail as a viewer shows it: by its own tag, else by the image's."""
    with Image.open(io.BytesIO(contents)) as image:
        exif = image.getexif()
        inner = exif.get_ifd(ExifTags.IFD.IFD1)
        block = image.info["exif"][6:]
    start, length = inner[0x0201], inner[0x0202]
    with Image.open(io.BytesIO(block[start : start + length])) as small:
        small.load()
        tag = inner.get(0x0112, exif.get(0x0112, 1))
    small.getexif()[0x0112] = tag
    return np.asarray(ImageOps.exif_transpose(small)).astype(int)


def exif_of(contents):
    with Image.open(io.BytesIO(contents)) as image:
        exif = image.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
    return exif.get(0x0112), exif.get(0x010F), inner


@pytest.fixture(params=["jpegtran", "tag"])
def way(request, monkeypatch):
    if request.param == "tag":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("jpegtran") is None:
        pytest.skip("jpegtran (libjpeg-turbo-progs) is not installed")
    return request.param


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [None, *ORIENTATIONS])
@pytest.mark.parametrize("turn", TURNS)
def test_jpeg_with_exif(way, order, orientation, turn):
    thumbnail = encoded(picture(48, 32, seed=1), quality=95)
    block = exif_block(order, orientation, thumbnail)
    xmp = XMP.format(orientation or 1).encode()
    source = encoded(picture(), exif=b"Exif\0\0" + block, quality=95, comment=b"kept", xmp=xmp)
    result = turn_file(source, turn)
    lies_right = ORIENTATIONS.get(orientation) == Turn(4 - turn.quarters)
    assert result.way == ("pixels" if way == "jpegtran" and not lies_right else "tag")
    # What is seen is turned, by Pillow and by OpenCV: the same coefficients, decoded in another
    # order, which rounds a little differently.
    assert np.abs(seen(result.contents) - turned(source, turn)).max() <= 16
    by_cv2 = cv2.imdecode(np.frombuffer(result.contents, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(by_cv2[..., ::-1].astype(int) - turned(source, turn)).max() <= 16
    small = thumbnail_of(result.contents)
    assert np.abs(small - np.rot90(thumbnail_of(source), turn.quarters)).mean() < 4
    tag, make, inner = exif_of(result.contents)
    assert make == "Cam" and inner[0x927C] == MAKER_NOTE
    with Image.open(io.BytesIO(result.contents)) as image:
        assert image.info["comment"] == b"kept"
        assert image.info["xmp"] == XMP.format(tag or 1).encode()
        if way == "jpegtran" or lies_right:
            assert tag in (None, 1)
            assert (inner[0xA002], inner[0xA003]) == image.size
        else:
            assert image.size == SIZE and tag in ORIENTATIONS


@pytest.mark.parametrize("turn", TURNS)
def test_the_tag_way_moves_no_pixel(monkeypatch, turn):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for source in (
        encoded(picture()),
        encoded(picture(), exif=b"Exif\0\0" + exif_block(">", 6)),
        encoded(picture(), exif=b"Exif\0\0" + exif_block("<")),
    ):
        result = turn_file(source, turn)
        assert result.way == "tag"
        assert np.array_equal(seen(result.contents), turned(source, turn))
        assert source[-500:] == result.contents[-500:]
        # And back: four quarter turns are none.
        back = turn_file(result.contents, Turn(4 - turn.quarters))
        assert np.array_equal(seen(back.contents), seen(source))


def test_a_tag_that_turns_back_to_the_stored_pixels():
    """Stored upright, with a wrong tag: no pixel is touched."""
    source = encoded(picture(), exif=b"Exif\0\0" + exif_block("<", 6))
    result = turn_file(source, Turn(1))
    assert result.way == "tag" and exif_of(result.contents)[0] == 1
    with Image.open(io.BytesIO(result.contents)) as image:
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(source))))


@needs_jpegtran
def test_pixels_turn_without_loss():
    """Turned four times by a quarter, the coefficients are what they were."""
    source = encoded(picture(), quality=80)
    contents = source
    for _ in range(4):
        result = turn_file(contents, Turn(1))
        assert result.way == "pixels"
        contents = result.contents
    with Image.open(io.BytesIO(source)) as a, Image.open(io.BytesIO(contents)) as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))


@needs_jpegtran
def test_progressive_files_stay_progressive():
    source = encoded(picture(), progressive=True)
    with Image.open(io.BytesIO(turn_file(source, Turn(1)).contents)) as image:
        assert image.info["progressive"]


@needs_jpegtran
@pytest.mark.parametrize("size", [(61, 32), (64, 30)])
def test_sizes_that_jpegtran_cannot_turn_get_the_tag(size):
    result = turn_file(encoded(picture(*size)), Turn(2))
    assert result.way == "tag"
    assert exif_of(result.contents)[0] == 3


@needs_jpegtran
@pytest.mark.parametrize("trailer", [b"SEFT" + bytes(40) + b"a clip", "MPF"])
def test_files_with_more_than_the_image_keep_all_of_it(trailer):
    source = encoded(picture())
    if trailer == "MPF":
        mpf = b"MPF\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0"
        source = source[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(mpf)) + mpf + source[2:]
        trailer = b""
    result = turn_file(source + trailer, Turn(1))
    assert result.way == "tag"
    assert result.contents.endswith(source[-100:] + trailer)
    assert np.array_equal(seen(result.contents), turned(source, Turn(1)))


def test_a_thumbnail_with_a_tag_of_its_own(way):
    small = picture(48, 32, seed=1)
    block = exif_block("<", 6, encoded(small, quality=95), thumbnail_orientation=3)
    source = encoded(picture(), exif=b"Exif\0\0" + block)
    result = turn_file(source, Turn(1))
    expected = np.rot90(thumbnail_of(source), 1)
    assert np.abs(thumbnail_of(result.contents) - expected).mean() < 10


@needs_jpegtran
def test_a_thumbnail_that_is_broken_stays():
    block = exif_block("<", 6, b"no JPEG at all")
    result = turn_file(encoded(picture(), exif=b"Exif\0\0" + block), Turn(1))
    assert result.way == "tag" and b"no JPEG at all" in result.contents


@needs_jpegtran
@pytest.mark.parametrize("orientation", [None, 6])
def test_a_thumbnail_that_cannot_be_turned_is_taken_out(orientation):
    block = exif_block("<", orientation, b"no JPEG at all")
    result = turn_file(encoded(picture(), exif=b"Exif\0\0" + block), Turn(2))
    assert result.way == "pixels" and MAKER_NOTE in result.contents
    with Image.open(io.BytesIO(result.contents)) as image:
        assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)
        assert image.getexif().get(0x0112, 1) == 1


@needs_jpegtran
def test_a_tag_that_cannot_be_set_is_an_error():
    block = bytearray(exif_block("<", 6))
    block[block.index(bytes([0x12, 0x01, 3, 0])) + 2] = 8  # a signed number, which viewers read
    source = encoded(picture(), exif=b"Exif\0\0" + bytes(block))
    with Image.open(io.BytesIO(source)) as image:
        assert image.getexif().get(0x0112) == 6
    with pytest.raises(InputError, match="orientation tag that cannot be set"):
        turn_file(source, Turn(2))


def test_the_most_pixels(monkeypatch):
    source = encoded(picture())
    with pytest.raises(InputError, match="more than 10 pixels"):
        turn_file(source, Turn(1), max_pixels=10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="exceeds limit"):
        turn_file(source, Turn(1))
    assert turn_file(source, Turn(1), max_pixels=10**6).contents
    assert Image.MAX_IMAGE_PIXELS == 10


def test_broken_exif_is_kept_where_pixels_turn_and_refused_for_a_tag(monkeypatch):
    block = exif_block("<", 6)[:30]
    source = encoded(picture(), exif=b"Exif\0\0" + block)
    if shutil.which("jpegtran"):
        assert b"Exif\0\0" + block in turn_file(source, Turn(1)).contents
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="cut short"):
        turn_file(source, Turn(1))


def test_no_room_for_a_tag(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    block = exif_block("<") + bytes(65527 - len(exif_block("<")))
    with pytest.raises(InputError, match="no room"):
        turn_file(encoded(picture(), exif=b"Exif\0\0" + block), Turn(1))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 3, 5, 8])
@pytest.mark.parametrize("turn", TURNS)
def test_other_formats_keep_every_pixel(form, orientation, turn):
    options = {"lossless": True} if form == "WEBP" else {}
    if orientation and form != "BMP":
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "Cam"
        options["exif"] = exif.tobytes() if form != "TIFF" else exif
    source = encoded(picture(61, 30), form, **options)
    result = turn_file(source, turn)
    assert np.array_equal(seen(result.contents), turned(source, turn))
    with Image.open(io.BytesIO(result.contents)) as image:
        assert image.format == form
        if "exif" in options:
            assert image.getexif()[0x010F] == "Cam"
    assert result.way == ("tag" if form == "TIFF" else "pixels")


def png_chunks(contents):
    place, found = 8, []
    while place < len(contents):
        length, kind = struct.unpack_from(">I4s", contents, place)
        payload = contents[place + 8 : place + 8 + length]
        (crc,) = struct.unpack_from(">I", contents, place + 8 + length)
        assert crc == zlib.crc32(kind + payload)
        found.append((kind, payload))
        place += 12 + length
    return found


def with_chunks(contents, *extra):
    """A PNG file with further chunks before its pixels."""
    place = 8 + 25
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in extra
    )
    return contents[:place] + made + contents[place:]


def test_png_keeps_its_chunks():
    extra = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"tEXt", b"Title\0a holiday"),
        (b"pHYs", struct.pack(">IIB", 100, 200, 1)),
        (b"prVt", b"something private"),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(1).encode()),
    ]
    source = with_chunks(encoded(picture(61, 30), "PNG"), *extra)
    chunks = dict(png_chunks(turn_file(source, Turn(1)).contents))
    extra[2] = (b"pHYs", struct.pack(">IIB", 200, 100, 1))
    assert {kind: chunks[kind] for kind, _ in extra} == dict(extra)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_png_of_every_mode(mode):
    image = picture(61, 30)
    if mode == "I;16":
        values = np.arange(61 * 30, dtype=np.uint16).reshape(30, 61) * 31
        image = Image.fromarray(values)
    else:
        image = image.convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    source = encoded(image, "PNG", **options)
    result = turn_file(source, Turn(3)).contents
    with Image.open(io.BytesIO(source)) as a, Image.open(io.BytesIO(result)) as b:
        assert a.mode == b.mode and a.info.get("transparency") == b.info.get("transparency")
        assert np.array_equal(np.rot90(np.asarray(a), 3), np.asarray(b))


@pytest.mark.parametrize("channels", [3, 4])
def test_png_of_16_bits_keeps_them(channels):
    values = np.random.default_rng(0).integers(0, 2**16, (30, 61, channels)).astype(np.uint16)
    source = cv2.imencode(".png", values)[1].tobytes()
    result = turn_file(with_chunks(source, (b"tEXt", b"a\0b")), Turn(1)).contents
    found = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found, np.rot90(values))
    assert (b"tEXt", b"a\0b") in png_chunks(result)


def test_webp_with_loss_is_encoded_again():
    source = encoded(picture(), "WEBP", quality=80, icc_profile=b"a profile")
    result = turn_file(source, Turn(1))
    assert result.way == "re-encoded"
    assert np.abs(seen(result.contents) - turned(source, Turn(1))).mean() < 8
    with Image.open(io.BytesIO(result.contents)) as image:
        assert image.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_images_are_refused(form):
    frames = [picture(seed=seed) for seed in range(3)]
    source = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several images"):
        turn_file(source, Turn(1))


def test_other_formats_are_refused():
    with pytest.raises(InputError, match="format GIF, which is not turned; known are JPEG"):
        turn_file(encoded(picture().convert("P"), "GIF"), Turn(1))


@pytest.mark.parametrize("contents", [b"", b"no image", encoded(picture())[:400]])
def test_broken_files_are_refused(contents):
    with pytest.raises(InputError, match="cannot be turned"):
        turn_file(contents, Turn(1))


def test_every_orientation_is_what_pillow_does():
    stored = picture(5, 3)
    for value, turn in ORIENTATIONS.items():
        tagged = encoded(stored, "PNG", exif=b"Exif\0\0" + set_orientation(b"", value))
        pixels = np.asarray(stored)[:, :: -1 if turn.mirrored else 1]
        assert np.array_equal(seen(tagged), np.rot90(pixels, turn.quarters))


def test_the_jpegtran_table_has_every_turn():
    assert set(file_turning._OF_JPEGTRAN) == set(ORIENTATIONS.values()) - {Turn()}
    assert set(file_turning._OF_PILLOW) == set(ORIENTATIONS.values()) - {Turn()}
