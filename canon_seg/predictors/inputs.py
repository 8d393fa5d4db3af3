"""Take images as people have them: arrays, Pillow images, paths of files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions, from_pillow, read_image
from canon_seg.predictors.checks import image_problem


def as_image(
    image: Any, image_format: str = "RGB", options: ReadingOptions = ReadingOptions()
) -> np.ndarray:
    """Return an image as the array that predictors work on.

    Args:
        image: one of

            - (H, W, 3) uint8 array, in the channel order ``image_format``, given back as it is;
            - Pillow image of any mode, its pixels as they are stored: an EXIF tag, which Pillow
              itself leaves to its users, is not applied, so that masks have the size that the image
              says;
            - path (str or path-like) of an image file; its EXIF tag is applied, see
              :func:`canon_seg.images.reading.read_image`.
        image_format: "RGB" or "BGR".
        options: how files are read.

    Returns:
        (H, W, 3) uint8 array in the channel order ``image_format``.

    Raises:
        InputError: for all else; the message says how to make such an array of it.
    """
    if isinstance(image, (str, Path, os.PathLike)):
        return read_image(image, image_format, options)
    if isinstance(image, Image.Image):
        return from_pillow(image, image_format)
    if problem := image_problem(image):
        raise InputError(problem)
    array: np.ndarray = image
    return array
