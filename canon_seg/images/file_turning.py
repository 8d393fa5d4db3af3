"""Turn image files: JPEG without loss, other formats in their own, metadata kept."""

import io
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from canon_seg.core.turn import Turn, compose
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.images.exif import (
    ORIENTATION,
    ORIENTATIONS,
    find_thumbnail,
    get_orientation,
    orientation_for,
    remove_orientation,
    remove_thumbnail,
    replace_thumbnail,
    set_orientation,
    set_xmp_orientation,
    turn_thumbnail_tag,
    turned_orientation,
)
from canon_seg.images.reading import load_within, open_within

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MAX_SEGMENT = 65533  # bytes in one segment of a JPEG file
_SOI, _SOS, _EOI, _APP0, _APP1, _APP2 = 0xD8, 0xDA, 0xD9, 0xE0, 0xE1, 0xE2
_PROGRESSIVE = 0xC2
_THUMBNAIL_QUALITIES = (90, 75, 50)
_WEBP_QUALITY = 95  # of what was encoded with loss before
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_JPEGTRAN = {
    Turn(1): ("-rotate", "270"),
    Turn(2): ("-rotate", "180"),
    Turn(3): ("-rotate", "90"),
    Turn(0, mirrored=True): ("-flip", "horizontal"),
    Turn(2, mirrored=True): ("-flip", "vertical"),
    Turn(1, mirrored=True): ("-transpose",),
    Turn(3, mirrored=True): ("-transverse",),
}
_OF_PILLOW = {
    Turn(1): Image.Transpose.ROTATE_90,
    Turn(2): Image.Transpose.ROTATE_180,
    Turn(3): Image.Transpose.ROTATE_270,
    Turn(0, mirrored=True): Image.Transpose.FLIP_LEFT_RIGHT,
    Turn(2, mirrored=True): Image.Transpose.FLIP_TOP_BOTTOM,
    Turn(1, mirrored=True): Image.Transpose.TRANSPOSE,
    Turn(3, mirrored=True): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class TurnedFile:
    """Hold a turned image file.

    Attributes:
        contents: of the file.
        way: "pixels": they were turned, without loss; "tag": only the orientation tag is another;
            "re-encoded": pixels were turned, and encoded again in a format with loss; "levelled":
            they were tilted by one interpolation, and encoded again.
    """

    contents: bytes
    way: str


def turn_file(data: bytes, turn: Turn, max_pixels: "int | None" = None) -> TurnedFile:
    """Turn an image file as it is seen, with its orientation tag applied.

    Args:
        data: contents of a JPEG, PNG, WebP, BMP or TIFF file of one image.
        turn: by index.
        max_pixels: files that claim more are refused; None for Pillow's limit.

    Returns:
        a file of the same format with its metadata, which differ in what the turn makes another:
        orientation, size, thumbnail.

    Raises:
        InputError: the file is broken, of another format, or of several images.
    """
    with opened_to_turn(data, max_pixels) as (image, form):
        return _FORMATS[form](data, image, turn)


@contextmanager
def opened_to_turn(data: bytes, max_pixels: "int | None") -> "Iterator[tuple[Image.Image, str]]":
    """Open and decode an image file for a block that turns it: Pillow's image, and the format.

    Args:
        data, max_pixels: see :func:`turn_file`.

    Raises:
        InputError: as :func:`turn_file`, also for whatever goes wrong in the block.
    """
    try:
        with open_within(io.BytesIO(data), max_pixels) as image:
            load_within(image, max_pixels)
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise InputError("holds several images, of which none is turned")
            form = {"MPO": "JPEG"}.get(image.format or "", image.format) or "unknown"
            if form not in _FORMATS:
                raise InputError(
                    f"is of the format {form}, which is not turned; known are "
                    + ", ".join(_FORMATS)
                )
            yield image, form
    except InputError:
        raise
    # Pillow's readers raise nearly anything on broken files.
    except Exception as error:
        raise InputError(f"cannot be turned ({error})") from error


def _seen(image: Image.Image, turn: Turn) -> Turn:
    """Return the turn of the stored pixels after which they are the image as seen, turned."""
    return compose(ORIENTATIONS.get(image.getexif().get(ORIENTATION, 1), Turn()), turn)


# --- JPEG -----------------------------------------------------------------------------------------


def _turn_jpeg(data: bytes, image: Image.Image, turn: Turn) -> TurnedFile:
    pixels = _seen(image, turn)
    segments, end = jpeg_segments(data)
    # jpegtran drops what follows the image: further ones, depth maps, clips.
    is_alone = not data[end:].strip(b"\0") and not any(
        kind == _APP2 and payload.startswith(b"MPF\0") for kind, payload in segments
    )
    if is_alone:
        turned = data if pixels == Turn() else _jpegtran(data, pixels)
        if turned is not None:
            width, height = image.size[:: -1 if pixels.quarters % 2 else 1]
            contents = _rewrite(
                turned, lambda kind, part: _upright(kind, part, pixels, turn, (width, height))
            )
            if contents is not None:
                return TurnedFile(contents, "tag" if pixels == Turn() else "pixels")
    value = orientation_for(pixels)
    if not any(kind == _APP1 and part.startswith(EXIF) for kind, part in segments):
        after = 2 + (4 + len(segments[0][1]) if segments and segments[0][0] == _APP0 else 0)
        data = data[:after] + jpeg_segment(_APP1, EXIF + set_orientation(b"", value)) + data[after:]
    contents = _rewrite(data, lambda kind, part: _tagged(kind, part, turn, value))
    if contents is None:
        raise InputError("has no room for an orientation tag beside its other metadata")
    return TurnedFile(contents, "tag")


def jpeg_segments(data: bytes) -> "tuple[list[tuple[int, bytes]], int]":
    """Return marker and payload of the segments before the pixels, and where the image ends."""
    segments = []
    place = 2
    while True:
        kind, size = struct.unpack_from(">xBH", data, place)
        if kind == _SOS:
            break
        segments.append((kind, data[place + 4 : place + 2 + size]))
        place += 2 + size
    # Within pixels, 0xFF is followed by 0, or by the number of a restart.
    for found in re.finditer(rb"\xff+([^\x00\xd0-\xd7\xff])", data[place + 2 :]):
        if found[1][0] == _EOI:
            return segments, place + 2 + found.end()
    return segments, len(data)


def jpeg_segment(kind: int, payload: bytes) -> bytes:
    """Make a segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, kind, 2 + len(payload)) + payload


def _rewrite(data: bytes, change: Callable[[int, bytes], bytes]) -> "bytes | None":
    """Change the segments before the pixels; return None where one grows too long."""
    segments, _ = jpeg_segments(data)
    changed = [(kind, change(kind, payload)) for kind, payload in segments]
    if any(len(payload) > _MAX_SEGMENT for _, payload in changed):
        return None
    length = 2 + sum(4 + len(payload) for _, payload in segments)
    return data[:2] + b"".join(jpeg_segment(*part) for part in changed) + data[length:]


def _jpegtran(data: bytes, pixels: Turn) -> "bytes | None":
    """Turn a JPEG file's coefficients; return None without jpegtran, or where its size forbids."""
    program = shutil.which("jpegtran")
    if program is None:
        return None
    segments, _ = jpeg_segments(data)
    options = ["-copy", "all", "-perfect", "-optimize", *_OF_JPEGTRAN[pixels]]
    if any(kind == _PROGRESSIVE for kind, _ in segments):
        options.append("-progressive")
    done = subprocess.run(  # noqa: S603 - the file goes through a pipe
        [program, *options], input=data, capture_output=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


def _upright(kind: int, payload: bytes, pixels: Turn, turn: Turn, size: "tuple[int, int]") -> bytes:
    """Change the metadata of a JPEG file whose pixels were turned to where they are seen."""
    if kind == _APP1 and payload.startswith(EXIF):
        return EXIF + _upright_exif(payload[len(EXIF) :], pixels, turn, size)
    if kind == _APP1 and payload.startswith(XMP):
        return set_xmp_orientation(payload, 1)
    return payload


def _tagged(kind: int, payload: bytes, turn: Turn, value: int) -> bytes:
    """Change the metadata of a JPEG file that is turned by its tag."""
    if kind == _APP1 and payload.startswith(EXIF):
        block = turn_thumbnail_tag(payload[len(EXIF) :], turn)
        return EXIF + set_orientation(block, value)
    if kind == _APP1 and payload.startswith(XMP):
        return set_xmp_orientation(payload, value)
    return payload


def _upright_exif(block: bytes, pixels: Turn, turn: Turn, size: "tuple[int, int]") -> bytes:
    """Change EXIF data, and the thumbnail in them, for pixels that now lie as they are seen.

    Args:
        block: EXIF data.
        pixels: the turn that the stored pixels got.
        turn: that of the image as it is seen, which a thumbnail with a tag of its own gets.
        size: (width, height) of the image now, in pixels.
    """
    try:
        found = find_thumbnail(block)
        if found is not None:
            thumbnail, tag = found
            own = pixels if tag is None else compose(ORIENTATIONS.get(tag, Turn()), turn)
            room = _MAX_SEGMENT - len(EXIF) - len(block)
            small = _turned_thumbnail(thumbnail, own, room)
            # Without one, viewers make their own; the old one would be shown turned.
            block = remove_thumbnail(block) if small is None else replace_thumbnail(block, small)
        return remove_orientation(block, *size)
    except ValueError as error:
        if pixels != turn:  # the pixels would be turned once more by the tag that is left
            raise InputError(f"has an orientation tag that cannot be set ({error})") from error
        return block  # what no viewer can read stays as it is


def _turned_thumbnail(thumbnail: bytes, pixels: Turn, room: int) -> "bytes | None":
    """Turn a thumbnail, which may grow by ``room`` bytes; return None where it cannot be turned."""
    if pixels == Turn():
        return thumbnail
    try:
        without_loss = _jpegtran(thumbnail, pixels)
        if without_loss is not None and len(without_loss) - len(thumbnail) <= room:
            return without_loss
        with Image.open(io.BytesIO(thumbnail)) as image:
            turned = image.transpose(_OF_PILLOW[pixels])
            for quality in _THUMBNAIL_QUALITIES:
                encoded = encode(turned, "JPEG", quality=quality)
                if len(encoded) - len(thumbnail) <= room:
                    return encoded
    # Pillow's readers raise nearly anything on broken files.
    except Exception:
        return None
    return None


# --- formats whose pixels are encoded anew --------------------------------------------------------


def _turn_png(data: bytes, image: Image.Image, turn: Turn) -> TurnedFile:
    """Encode the pixels anew, and take all other chunks from the file."""
    pixels = _seen(image, turn)
    array = deep_colours(data)
    if array is not None:
        encoded = encode_deep(turn_image(array, pixels))
    else:
        encoded = encode(transposed(image, pixels), "PNG")

    def change(block: bytes, size: "tuple[int, int]") -> bytes:
        return _upright_exif(block, pixels, turn, size)

    contents = png_with_chunks(encoded, data, change, swaps=pixels.quarters % 2 == 1)
    return TurnedFile(contents, "pixels")


def png_with_chunks(
    encoded: bytes,
    source: bytes,
    change_exif: "Callable[[bytes, tuple[int, int]], bytes]",
    swaps: bool,
) -> bytes:
    """Give a PNG file of new pixels all other chunks of the file that it was made of.

    Args:
        encoded: the new file.
        source: the old one.
        change_exif: function of EXIF data and (width, height) in pixels to the new EXIF data.
        swaps: whether width and height were exchanged.
    """
    old = list(_chunks(source))
    new: dict[bytes, list[bytes]] = {}
    for kind, payload in _chunks(encoded):
        new.setdefault(kind, []).append(payload)
    is_same_form = new[b"IHDR"][0][8:10] == old[0][1][8:10]
    width, height = struct.unpack(">II", new[b"IHDR"][0][:8])
    chunks = []
    for kind, payload in old:
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            chunks += [(kind, part) for part in new.pop(kind, [])]  # all of a kind at the first
        elif kind == b"eXIf":
            chunks.append((kind, change_exif(payload, (width, height))))
        elif kind == b"pHYs" and swaps:
            chunks.append((kind, payload[4:8] + payload[:4] + payload[8:]))
        elif kind not in (b"bKGD", b"sBIT", b"hIST") or is_same_form:
            chunks.append((kind, set_xmp_orientation(payload, 1) if kind == b"iTXt" else payload))
    return _PNG + b"".join(_chunk(*chunk) for chunk in chunks)


def deep_colours(data: bytes) -> "np.ndarray | None":
    """Read a PNG file of 16-bit colours, of which Pillow keeps 8 bits; None where it has others.

    Returns:
        (H, W, 3 or 4) uint16 array, BGR or BGRA.

    Raises:
        InputError: for colours of another kind.
    """
    _, header = next(_chunks(data))
    depth, colours = header[8], header[9]
    if depth != 16 or colours == 0:
        return None
    array: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = 4 if colours in (4, 6) else 3
    if array is None or array.dtype != np.uint16 or array.shape[2] != channels:
        raise InputError("has 16-bit colours of a kind that cannot be kept")
    return array


def encode_deep(array: np.ndarray) -> bytes:
    """Make a PNG file of an array as :func:`deep_colours` gives it."""
    return bytes(cv2.imencode(".png", np.ascontiguousarray(array))[1].tobytes())


def _chunks(data: bytes) -> "Iterator[tuple[bytes, bytes]]":
    place = len(_PNG)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IEND":
            return


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def _turn_webp(data: bytes, image: Image.Image, turn: Turn) -> TurnedFile:
    pixels = _seen(image, turn)
    turned = transposed(image, pixels)
    contents = encode_webp(
        turned, data, image, lambda block: _upright_exif(block, pixels, turn, turned.size)
    )
    return TurnedFile(contents, "pixels" if is_lossless_webp(data) else "re-encoded")


def is_lossless_webp(data: bytes) -> bool:
    """Return whether a WebP file keeps every value of its pixels."""
    return b"VP8L" in [data[place : place + 4] for place in _riff_chunks(data)]


def encode_webp(
    turned: Image.Image, data: bytes, image: Image.Image, change_exif: "Callable[[bytes], bytes]"
) -> bytes:
    """Make a WebP file of new pixels, with loss or without as the one that it was made of was.

    Args:
        turned: the new pixels.
        data, image: the old file, and as Pillow opened it: its metadata are kept.
        change_exif: function of its EXIF data to the new ones.
    """
    options: dict[str, object] = (
        {"lossless": True, "exact": True} if is_lossless_webp(data) else {"quality": _WEBP_QUALITY}
    )
    for name in ("icc_profile", "xmp", "exif"):
        if image.info.get(name):
            options[name] = image.info[name]
    if "xmp" in options:
        options["xmp"] = set_xmp_orientation(image.info["xmp"], 1)
    if "exif" in options:
        block = image.info["exif"].removeprefix(EXIF)
        options["exif"] = EXIF + change_exif(block)
    return encode(turned, "WEBP", **options)


def _riff_chunks(data: bytes) -> Iterator[int]:
    place = 12
    while place + 8 <= len(data):
        yield place
        length = struct.unpack_from("<I", data, place + 4)[0]
        place += 8 + length + length % 2


def _turn_bmp(data: bytes, image: Image.Image, turn: Turn) -> TurnedFile:
    pixels = _seen(image, turn)
    options = {}
    if dpi := image.info.get("dpi"):
        options["dpi"] = dpi[:: -1 if pixels.quarters % 2 else 1]
    return TurnedFile(encode(transposed(image, pixels), "BMP", **options), "pixels")


def _turn_tiff(data: bytes, image: Image.Image, turn: Turn) -> TurnedFile:
    """Set the tag, which every viewer of TIFF files applies."""
    return TurnedFile(set_orientation(data, turned_orientation(get_orientation(data), turn)), "tag")


def transposed(image: Image.Image, pixels: Turn) -> Image.Image:
    """Turn the stored pixels of a Pillow image by index; its mode stays, whatever it is."""
    return image.copy() if pixels == Turn() else image.transpose(_OF_PILLOW[pixels])


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    """Make a file of a Pillow image, in a format and with options of Pillow's."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


_FORMATS = {
    "JPEG": _turn_jpeg,
    "PNG": _turn_png,
    "WEBP": _turn_webp,
    "BMP": _turn_bmp,
    "TIFF": _turn_tiff,
}
