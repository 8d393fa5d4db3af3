"""Read image files into arrays: every common pixel format to 8-bit colour, upright by EXIF tag."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from canon_seg.core.turn import inverse
from canon_seg.errors import InputError, warn
from canon_seg.images.arrays import turn_image
from canon_seg.images.exif import ORIENTATION, ORIENTATIONS
from canon_seg.io.kinds import describe_contents

AnyPath = str | os.PathLike[str]

_LIMIT = threading.Lock()  # held while Pillow's limit is another one


@dataclass(frozen=True)
class ReadingOptions:
    """Say how image files are read.

    Attributes:
        exif: whether the orientation in a file's EXIF data is applied. False gives the raw frame,
            as the file stores it (of HEIC files, which turn by other means, the upright one).
        max_pixels: files that claim more pixels are refused before they are decoded; None for
            Pillow's limit, which is 178,956,970 unless someone has changed it.
    """

    exif: bool = True
    max_pixels: int | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> "ReadingOptions":
        """Take the options of a config, INPUT.EXIF and INPUT.MAX_PIXELS.

        Raises:
            InputError: naming the key whose value is no option.
        """
        exif, most = cfg.INPUT.EXIF, cfg.INPUT.MAX_PIXELS
        if most < 0:
            raise InputError(f"INPUT.MAX_PIXELS is {most}; give a number of pixels, or 0")
        return cls(exif, most or None)


@dataclass(frozen=True)
class ImageFacts:
    """Hold what a file says of its image.

    Attributes:
        height, width: of the raw frame, in pixels.
        orientation: of the EXIF data, 1 to 8; 1 where there are none, 0 where they are broken.
    """

    height: int
    width: int
    orientation: int

    def size(self, exif: bool) -> tuple[int, int]:
        """Return (height, width) of the image as it is read, with its orientation or without."""
        is_swapped = exif and _swaps(self.orientation)
        return (self.width, self.height) if is_swapped else (self.height, self.width)


def read_image(
    path: AnyPath,
    format: str = "BGR",  # noqa: A002 - detectron2's name
    options: ReadingOptions = ReadingOptions(),
) -> np.ndarray:
    """Read an image file into an array, with its EXIF orientation applied.

    For 8-bit files the pixels are those of ``detectron2.data.detection_utils.read_image``, except
    for turned TIFF files, which that function turns twice. Of other formats:

    - transparency is dropped, not blended: the colours stored under it are kept;
    - 16-bit grey keeps the high byte, as Pillow does for 16-bit colour, so that the full range
      0 to 65535 becomes 0 to 255 (a file that uses only its lower bits becomes dark);
    - of several frames or pages the first is read.

    Broken EXIF data are an :class:`canon_seg.errors.InputWarning`: the raw frame is read then.

    Args:
        path: str or path of a file in any format that Pillow reads.
        format: "BGR" or "RGB", the order of the channels.
        options: whether orientations are applied, and the most pixels.

    Returns:
        uint8 array, H x W x 3, contiguous and writable.

    Raises:
        InputError: the file is missing, empty, cut short, not an image, too large to be opened
            safely, or has 32-bit pixels, whose range nothing tells.
    """
    if format not in ("BGR", "RGB"):
        raise ValueError(f'format must be "BGR" or "RGB", got {format!r}')
    with _opened(path, options) as image:
        orientation, reason = _orientation(image)
        _load(image, options)
        pixels = _to_rgb(image, path)
        is_turned = orientation != _orientation(image)[0]  # Pillow turns TIFF files as it loads
    if options.exif and reason:
        warn(
            f"{os.fspath(path)}: its EXIF data cannot be read ({reason}); the pixels are taken as "
            "they are stored"
        )
    turn = ORIENTATIONS[orientation]
    if options.exif and not is_turned:
        pixels = turn_image(pixels, turn)
    if not options.exif and is_turned:
        pixels = turn_image(pixels, inverse(turn))
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


def image_size(path: AnyPath, options: ReadingOptions = ReadingOptions()) -> tuple[int, int]:
    """Return the size that :func:`read_image` will return, without decoding pixels if possible.

    TIFF files, and PNG files without an orientation before their pixels, must be decoded.

    Returns:
        (height, width), with the EXIF orientation applied if ``options`` say so.

    Raises:
        InputError: as for :func:`read_image`, for what the file's header can show.
    """
    return image_facts(path, options).size(options.exif)


def image_facts(
    path: AnyPath, options: ReadingOptions = ReadingOptions(), decode: bool = False
) -> ImageFacts:
    """Return what a file says of its image.

    Args:
        path: of the file.
        options: the most pixels; ``exif`` changes nothing here.
        decode: whether to decode all pixels, which is what finds files that are cut short.

    Raises:
        InputError: as for :func:`read_image`; without ``decode`` for what the header can show.
    """
    with _opened(path, options) as image:
        orientation, reason = _orientation(image)
        if decode or image.format == "TIFF":
            _load(image, options)
        if decode:
            _to_rgb(image, path)
        is_turned = orientation != _orientation(image)[0]
        width, height = image.size
    if is_turned and _swaps(orientation):
        height, width = width, height
    return ImageFacts(height, width, 0 if reason else orientation)


def count_pixels(path: AnyPath, options: ReadingOptions = ReadingOptions()) -> int:
    """Return height times width that an image file claims, without decoding any pixel.

    Raises:
        InputError: as for :func:`read_image`, for what the file's header can show.
    """
    with _opened(path, options) as image:
        return int(image.width * image.height)


def _swaps(orientation: int) -> bool:
    """Return whether an orientation exchanges height and width; one that is unknown does not."""
    return orientation in ORIENTATIONS and ORIENTATIONS[orientation].quarters % 2 == 1


def open_within(file: "str | IO[bytes]", max_pixels: "int | None") -> Image.Image:
    """Open an image as Pillow does, but by a limit that holds for this image alone.

    Pillow keeps its own limit in a variable of its module, which is as before afterwards. Nothing
    is decoded yet: :func:`load_within` does that.

    Args:
        file: path or open file.
        max_pixels: the most that it may claim; None for twice Pillow's limit, which is what Pillow
            refuses.

    Raises:
        Image.DecompressionBombError: if it claims more.
    """
    if max_pixels is None:
        return Image.open(file)
    with _without_pillows_limit():
        image = Image.open(file)
    if image.width * image.height > max_pixels:
        image.close()
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} are more than {max_pixels} pixels"
        )
    return image


def load_within(image: Image.Image, max_pixels: "int | None") -> None:
    """Decode an image that :func:`open_within` opened by the same limit."""
    if max_pixels is None or image.format != "TIFF":
        image.load()
        return
    with _without_pillows_limit():  # Pillow looks at the size of TIFF files once more
        image.load()


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    with _LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixel_limit(options: ReadingOptions) -> float:
    """Return the most pixels that a file may claim, infinity where there is no limit."""
    if options.max_pixels is not None:
        return options.max_pixels
    with _LIMIT:
        return 2 * (Image.MAX_IMAGE_PIXELS or math.inf)


@contextmanager
def _opened(path: AnyPath, options: ReadingOptions) -> Iterator[Image.Image]:
    """Open an image file for a block that decodes it, and name the file in whatever goes wrong."""
    path = os.fspath(path)
    try:
        with _open(path, options) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not an image file; name a file in it") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: claims more pixels than can be opened safely ({error}); make it smaller, or, "
            "if you trust it and have the memory, give the option INPUT.MAX_PIXELS a larger number "
            "(in Python: ReadingOptions.max_pixels)"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: {_no_image(path)}") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; change its permissions") from error
    # Pillow's readers raise nearly anything on broken files: OSError, SyntaxError, struct.error...
    except Exception as error:
        raise InputError(
            f"{path}: cannot be decoded, it is cut short or broken ({error}); get the file again"
        ) from error


def _load(image: Image.Image, options: ReadingOptions) -> None:
    """Decode an image; uncompressed TIFF files without Pillow's memory map, which does not turn."""
    if image.format == "TIFF":
        cast(ImageFile.ImageFile, image).filename = ""
    load_within(image, options.max_pixels)


def _open(path: str, options: ReadingOptions) -> Image.Image:
    try:
        return open_within(path, options.max_pixels)
    except UnidentifiedImageError:
        if _brand(path) not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: is an HEIC image, which the library pillow-heif reads; pip install "
            "pillow-heif (or canon_seg[heic]), or convert it to JPEG"
        ) from error
    register_heif_opener()
    return open_within(path, options.max_pixels)


# Four bytes after "ftyp" in files of the ISO family, by which formats are known.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def _brand(path: str) -> bytes:
    with Path(path).open("rb") as file:
        start = file.read(12)
    return start[8:] if start[4:8] == b"ftyp" else b""


def _no_image(path: str) -> str:
    """Return the end of the message about a file that Pillow does not know."""
    if _brand(path) in (b"avif", b"avis"):
        return f"is an AVIF image, which Pillow {PIL.__version__} cannot read here; update Pillow"
    with Path(path).open("rb") as file:
        if file.read(12)[:8] in (b"\0\0\0\x0cjP  ", b"\xffO\xffQ\0/\0\0"):
            return "is a JPEG 2000 image, for which this Pillow was not built; convert it"
    found = describe_contents(path)
    if found is None:
        return (
            "is not an image, or its beginning is broken; give a JPEG, PNG or another format that "
            "Pillow reads"
        )
    what, advice = found
    return f"is {'' if what.startswith('empty') else 'not an image but '}{what}; {advice}"


def _orientation(image: Image.Image) -> tuple[int, str | None]:
    """Return (orientation 1 to 8 of an opened image, why its EXIF data cannot be read or None)."""
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    # Pillow raises nearly anything on broken data: SyntaxError, struct.error, KeyError...
    except Exception as error:
        return 1, " ".join(str(error).split()) or type(error).__name__
    return (tag if tag in ORIENTATIONS else 1), None


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
