"""Choose shapes of a given number of pixels that are close to an aspect, and cut images to them."""

import math

import torch
from torch.nn import functional as F

STRIDE = 16  # pixels: sides are multiples of it
MAX_ASPECT = 2.0  # more of a panorama is cut off at its ends


def shape_of_area(side: int, aspect: float) -> tuple[int, int]:
    """Return the (height, width) of about ``side`` ** 2 pixels, in steps of 16.

    >>> shape_of_area(192, 1.0), shape_of_area(192, 4 / 3), shape_of_area(192, 1.5)
    ((192, 192), (160, 224), (160, 240))

    Args:
        side: pixels.
        aspect: width over height; beyond 2, or below a half, that counts.
    """
    root = math.sqrt(min(max(aspect, 1 / MAX_ASPECT), MAX_ASPECT))
    height, width = (max(1, round(length / STRIDE)) for length in (side / root, side * root))
    return STRIDE * height, STRIDE * width


def cut_to_aspect(image: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Cut the centre of a shape's proportions out of an image.

    Args:
        image: (3, H, W) tensor.
        shape: (height, width) of the proportions.

    Returns:
        (3, h, w) view, the largest of these proportions to the pixel.
    """
    height, width = image.shape[-2:]
    high = min(height, max(1, round(width * shape[0] / shape[1])))
    wide = min(width, max(1, round(height * shape[1] / shape[0])))
    top, left = (height - high) // 2, (width - wide) // 2
    return image[..., top : top + high, left : left + wide]


def to_area(image: torch.Tensor, side: int) -> torch.Tensor:
    """Resize an image to about ``side`` ** 2 pixels, its proportions kept, with anti-aliasing.

    A few rows or columns at the edges are cut off, so that the sides can be multiples of 16.

    Args:
        image: (3, H, W) tensor, uint8 or float, values 0..255.
        side: pixels.

    Returns:
        (3, h, w) float32 tensor, values 0..255, of the shape that :func:`shape_of_area` gives.
    """
    shape = shape_of_area(side, image.shape[-1] / image.shape[-2])
    image = cut_to_aspect(image, shape)
    if image.dtype == torch.uint8 and image.device.type != "cpu":
        image = image.float()  # the uint8 kernel exists for CPUs only
    return F.interpolate(
        image[None], size=shape, mode="bilinear", align_corners=False, antialias=True
    )[0].float()
