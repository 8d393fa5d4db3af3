"""Level image files: tilt their pixels by one interpolation, in their own format, metadata kept."""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from canon_seg.core.turn import Turn, compose
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.images.exif import (
    ORIENTATION,
    ORIENTATIONS,
    remove_orientation,
    remove_thumbnail,
    set_xmp_orientation,
)
from canon_seg.images.file_turning import (
    EXIF,
    XMP,
    TurnedFile,
    deep_colours,
    encode,
    encode_deep,
    encode_webp,
    jpeg_segment,
    jpeg_segments,
    opened_to_turn,
    png_with_chunks,
)
from canon_seg.images.tilt import warp

LEVEL_CANVASES = ("inscribed", "expand")
"""What is left of a levelled photograph: the largest frame inside of it, or all of it."""

_JPEG_QUALITY = 95
# Description, maker, model, software, time, artist, XMP, copyright, IPTC.
_TIFF_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x02BC, 0x8298, 0x83BB)
_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE


def level_file(
    data: bytes, turn: Turn, canvas: str = "inscribed", max_pixels: "int | None" = None
) -> TurnedFile:
    """Turn an image file as it is seen by any angle: quarter turns by index, a tilt by a warp.

    The thumbnail, if there is one, is taken out, since it would show the photograph as it was.

    Args:
        data: contents of a JPEG, PNG, WebP, BMP or TIFF file of one image.
        turn: without a mirror.
        canvas: "inscribed", or "expand", where white (transparent, if the file has that) is around
            the photograph; see :mod:`canon_seg.images.tilt`.
        max_pixels: files that claim more are refused; None for Pillow's limit.

    Returns:
        a file of the same format, with its metadata.

    Raises:
        InputError: the file is broken, of another format, or of several images.
    """
    with opened_to_turn(data, max_pixels) as (image, form):
        # Pillow has turned the pixels of TIFF files already, and forgotten the tag.
        tag = image.getexif().get(ORIENTATION, 1)
        whole = compose(ORIENTATIONS.get(tag, Turn()), turn)

        def change_exif(block: bytes, size: "tuple[int, int]") -> bytes:
            try:
                return remove_orientation(remove_thumbnail(block), *size)
            except ValueError as error:
                if tag != 1:  # the pixels would be turned once more by the tag that is left
                    raise InputError(
                        f"has an orientation tag that cannot be set ({error})"
                    ) from error
                return block

        if form == "PNG":
            deep = deep_colours(data)
            encoded = (
                encode(level_pillow(image, whole, canvas), "PNG")
                if deep is None
                else encode_deep(level_array(deep, whole, canvas))
            )
            contents = png_with_chunks(encoded, data, change_exif, whole.quarters % 2 == 1)
            return TurnedFile(contents, "levelled")
        levelled = level_pillow(image, whole, canvas)
        if form == "JPEG":
            contents = _jpeg(levelled, data, image, lambda block: change_exif(block, levelled.size))
        elif form == "WEBP":
            contents = encode_webp(
                levelled, data, image, lambda block: change_exif(block, levelled.size)
            )
        else:
            contents = _with_dpi(levelled, image, form, whole.quarters % 2 == 1)
        return TurnedFile(contents, "levelled")


def level_array(image: np.ndarray, turn: Turn, canvas: str = "inscribed") -> np.ndarray:
    """Turn an image by any angle: bicubic between pixel centres, then quarter turns by index.

    Args:
        image: H x W, or H x W x C of up to four channels, uint8, uint16 or float32. Of four, the
            fourth is taken for transparency.
        turn: its mirror and its tilt come first.
        canvas: "inscribed" or "expand", which is white around the image, or transparent.

    Returns:
        contiguous array of the same type.
    """
    white = float(np.iinfo(image.dtype).max) if image.dtype.kind in "iu" else 1.0
    return _turned(image, turn, canvas, (white, white, white, 0.0))


def level_pillow(image: Image.Image, turn: Turn, canvas: str = "inscribed") -> Image.Image:
    """Turn the stored pixels of a Pillow image by any angle, see :func:`level_array`.

    Args:
        image: of any mode; palettes become colours, and images of one bit grey ones.
        turn, canvas: see :func:`level_array`.

    Raises:
        InputError: for pixels of which nothing tells what is between them.
    """
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "RGB", "RGBA"):
        return Image.fromarray(level_array(np.asarray(image), turn, canvas))
    if image.mode == "LA":
        levelled = _turned(np.asarray(image), turn, canvas, (255.0, 0.0, 0.0, 0.0))
        return Image.merge("LA", [Image.fromarray(levelled[..., k].copy()) for k in range(2)])
    if image.mode == "CMYK":
        return Image.fromarray(_turned(np.asarray(image), turn, canvas, (0.0,) * 4), "CMYK")
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)  # in this machine's order of bytes
        return Image.fromarray(level_array(pixels, turn, canvas))
    raise InputError(f"has pixels of Pillow's mode {image.mode}, which cannot be levelled")


def _turned(
    image: np.ndarray, turn: Turn, canvas: str, fill: "tuple[float, float, float, float]"
) -> np.ndarray:
    mirrored = turn_image(image, Turn(mirrored=turn.mirrored))
    tilted = warp(mirrored, turn.tilt, canvas, cv2.INTER_CUBIC, fill)
    return np.ascontiguousarray(turn_image(tilted, turn.quarters))


def _jpeg(
    levelled: Image.Image, data: bytes, image: Image.Image, change_exif: Callable[[bytes], bytes]
) -> bytes:
    """Make a JPEG file of new pixels with the colours' sampling and the metadata of the old one."""
    options: dict[str, object] = {"quality": _JPEG_QUALITY}
    sampling = JpegImagePlugin.get_sampling(image)
    if sampling in (0, 1, 2):
        options["subsampling"] = sampling
    if dpi := image.info.get("dpi"):
        options["dpi"] = dpi
    encoded = encode(levelled, "JPEG", **options)
    kept = []
    for kind, old in jpeg_segments(data)[0]:
        # Further images are left out, and so is their index; the encoder writes 0 and 14 anew.
        is_kept = (_APP1 <= kind <= _APP15 and kind != _APP14) or kind == _COMMENT
        if not is_kept or (kind == _APP2 and old.startswith(b"MPF\0")):
            continue
        new = old
        if kind == _APP1 and old.startswith(EXIF):
            new = EXIF + change_exif(old[len(EXIF) :])
        elif kind == _APP1 and old.startswith(XMP):
            new = set_xmp_orientation(old, 1)
        kept.append(jpeg_segment(kind, new))
    first, payload = jpeg_segments(encoded)[0][0]
    after = 2 + (4 + len(payload) if first == _APP0 else 0)
    return encoded[:after] + b"".join(kept) + encoded[after:]


def _tiff_metadata(image: Image.Image) -> Image.Exif:
    """Return what a TIFF file says beside how its pixels are stored."""
    old, new = image.getexif(), Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in old:
            new[tag] = old[tag]
    for tag in (0x8769, 0x8825):  # of the camera, of the place
        if inner := old.get_ifd(tag):
            new.get_ifd(tag).update(inner)
    return new


def _with_dpi(levelled: Image.Image, image: Image.Image, form: str, swaps: bool) -> bytes:
    """Make a BMP or TIFF file of new pixels with the resolution of the old one."""
    options: dict[str, object] = {}
    if dpi := image.info.get("dpi"):
        options["dpi"] = dpi[:: -1 if swaps else 1]
    if form == "TIFF":
        options["exif"] = _tiff_metadata(image)
        for name, nothing in (("icc_profile", b""), ("compression", "raw")):
            if image.info.get(name, nothing) != nothing:
                options[name] = image.info[name]
    return encode(levelled, form, **options)
