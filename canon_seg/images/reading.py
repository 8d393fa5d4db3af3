"""Read image files into arrays: every common pixel format to 8-bit colour, upright by EXIF tag."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from canon_seg.errors import InputError

_EXIF_ORIENTATION = 0x0112

# What each value of the EXIF tag asks for, on H x W x ... arrays.
AnyPath = str | os.PathLike[str]

_ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def read_image(path: AnyPath, format: str = "BGR") -> np.ndarray:  # noqa: A002 - detectron2's name
    """Read an image file into an array, with its EXIF orientation applied.

    For 8-bit files the pixels are those of ``detectron2.data.detection_utils.read_image``, except
    for turned TIFF files, which that function turns twice. Of other formats:

    - transparency is dropped, not blended: the colours stored under it are kept;
    - 16-bit grey keeps the high byte, as Pillow does for 16-bit colour, so that the full range
      0 to 65535 becomes 0 to 255 (a file that uses only its lower bits becomes dark);
    - of several frames or pages the first is read.

    Args:
        path: str or path of a file in any format that Pillow reads.
        format: "BGR" or "RGB", the order of the channels.

    Returns:
        uint8 array, H x W x 3, contiguous and writable.

    Raises:
        InputError: the file is missing, empty, cut short, not an image, too large to be opened
            safely, or has 32-bit pixels, whose range nothing tells.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f'format must be "BGR" or "RGB", got {format!r}')
    with _opened(path) as image:
        # Pillow turns TIFF files itself while it loads them, so ask for the tag after that.
        image.load()
        pixels = _to_rgb(image, path)
        turn = _ORIENTATIONS.get(_orientation(image) or 1)
    if turn is not None:
        pixels = turn(pixels)
    if format == "BGR":
        pixels = pixels[:, :, ::-1]
    return np.array(pixels, order="C")


def from_pillow(image: Image.Image, format: str = "BGR") -> np.ndarray:  # noqa: A002
    """Convert an open Pillow image to an array as :func:`read_image` does, but for its EXIF tag.

    Args:
        image: of any mode; its pixels are taken as they are stored.
        format: "BGR" or "RGB", the order of the channels.

    Returns:
        uint8 array, H x W x 3, contiguous and writable.

    Raises:
        InputError: for pixels of 32 bits, whose range nothing tells, or a file that is cut short.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f'format must be "BGR" or "RGB", got {format!r}')
    name = getattr(image, "filename", "") or "the Pillow image"
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{name}: cannot be decoded, it is cut short or broken ({error}); get the file again"
        ) from error
    pixels = _to_rgb(image, name)
    return np.array(pixels if format == "RGB" else pixels[:, :, ::-1], order="C")


def image_size(path: AnyPath) -> tuple[int, int]:
    """Return the size that :func:`read_image` will return, without decoding pixels if possible.

    TIFF files, and PNG files without an orientation before their pixels, must be decoded.

    Returns:
        (height, width), with the EXIF orientation applied.

    Raises:
        InputError: as for :func:`read_image`, for what the file's header can show.
    """
    with _opened(path) as image:
        if image.format == "TIFF":
            image.load()
        swapped = _orientation(image) in (5, 6, 7, 8)
        width, height = image.size
    return (width, height) if swapped else (height, width)


def count_pixels(path: AnyPath) -> int:
    """Return height times width that an image file claims, without decoding any pixel.

    Raises:
        InputError: as for :func:`read_image`, for what the file's header can show.
    """
    with _opened(path) as image:
        return image.width * image.height


@contextmanager
def _opened(path: AnyPath) -> Iterator[Image.Image]:
    """Open an image file for a block that decodes it, and name the file in whatever goes wrong."""
    path = os.fspath(path)
    try:
        with Image.open(path) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not an image file; name a file in it") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: claims more pixels than can be opened safely ({error}); make it smaller, or "
            "raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except UnidentifiedImageError as error:
        if Path(path).stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes); get the file again") from error
        raise InputError(
            f"{path}: is not an image, or its beginning is broken; give a JPEG, PNG or another "
            "format that Pillow reads"
        ) from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; change its permissions") from error
    # Pillow's readers raise nearly anything on broken files: OSError, SyntaxError, struct.error...
    except Exception as error:
        raise InputError(
            f"{path}: cannot be decoded, it is cut short or broken ({error}); get the file again"
        ) from error


def _orientation(image: Image.Image) -> int | None:
    try:
        tag: int | None = image.getexif().get(_EXIF_ORIENTATION)
        return tag
    except Exception:  # broken EXIF data: read the pixels as they are stored
        return None


def _to_rgb(image: Image.Image, path: AnyPath) -> np.ndarray:
    """Return the loaded Pillow image as a uint8 array, H x W x 3, as stored."""
    # Grey of 16 bits: Pillow's own conversion to RGB would clip at 255.
    is_16_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if is_16_bit:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit integer"
        raise InputError(
            f"{path}: has {kind} pixels, whose range is not known; save it with 8 or 16 bits for "
            "each channel"
        )
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise InputError(
            f"{path}: has pixels of Pillow's mode {image.mode}, which cannot become RGB; save it "
            "as RGB"
        ) from error
