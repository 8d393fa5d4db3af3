"""Prepare images as read for pose networks that are not equivariant, which look at squares.

Black bars, frames and darkness say nothing about the pose and mislead a network: plain borders are
trimmed, and dark images are made brighter. The image is the representative of its orbit (see
:mod:`canon_seg.images.representative`), so that whatever is done to it here leaves the pose exactly
equivariant. It is squashed to a square, which all quarter turns map onto itself and which shows no
aspect ratio.
"""

import torch
from torch.nn import functional as F

BORDER_TOLERANCE = 16  # of 255: JPEG noise in plain borders stays below
MIN_KEPT = 0.25  # fraction of each side that trimming leaves at least
BRIGHT = 220.0  # of 255: what the brightest places of a well-exposed photo reach
BRIGHT_PLACES = 0.98  # quantile of the pixels that counts as the brightest places
MAX_GAIN = 10.0
_SAMPLES = 256  # pixels of a line that are looked at


def trim_borders(image: torch.Tensor) -> torch.Tensor:
    """Cut plain borders off an image: letterboxes, pillarboxes, frames.

    A line of pixels belongs to the border if it is of one colour, the same as the outermost line's.

    Args:
        image: (3, H, W) tensor, values 0..255, any type.

    Returns:
        (3, h, w) view of it; at least a quarter of each side stays, or that side stays whole.
    """
    for _ in range(2):  # bars along the sides can hide that a line above them is plain
        size = image.shape
        image = _trim_rows(image)
        image = _trim_rows(image.transpose(1, 2)).transpose(1, 2)
        if image.shape == size:
            break
    return image


def _trim_rows(image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape[1:]
    lines = image[:, :, :: max(1, width // _SAMPLES)]
    low, high = lines.amin(dim=2).float(), lines.amax(dim=2).float()
    plain = (high - low <= BORDER_TOLERANCE).all(dim=0)
    if not (plain[0] or plain[-1]):
        return image
    middle = (low + high) / 2

    def border(order: torch.Tensor) -> int:
        same = ((middle - middle[:, order[:1]]).abs() <= BORDER_TOLERANCE).all(dim=0) & plain
        return int(same[order].cumprod(dim=0).sum())

    order = torch.arange(height, device=image.device)
    top, bottom = border(order), border(order.flip(0))
    if height - top - bottom < MIN_KEPT * height:
        return image
    return image[:, top : height - bottom]


def to_square(image: torch.Tensor, side: int) -> torch.Tensor:
    """Squash an image to a square, with anti-aliasing.

    Args:
        image: (3, H, W) tensor, uint8 or float, values 0..255.
        side: pixels.

    Returns:
        (3, side, side) float32 tensor, values 0..255.
    """
    if image.dtype == torch.uint8 and image.device.type != "cpu":
        image = image.float()  # the uint8 kernel exists for CPUs only
    return F.interpolate(
        image[None], size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )[0].float()


def brighten(images: torch.Tensor) -> torch.Tensor:
    """Scale the brightness of dark images so that their brightest places are bright.

    Args:
        images: (B, 3, h, w) float tensor, values 0..255.

    Returns:
        (B, 3, h, w) float tensor, values 0..255; well-exposed images are unchanged.
    """
    brightest = images.amax(dim=1).flatten(1)
    rank = max(1, round(BRIGHT_PLACES * brightest.shape[1]))
    level = brightest.kthvalue(rank, dim=1).values
    gain = (BRIGHT / level.clamp(min=1.0)).clamp(1.0, MAX_GAIN)
    return (images * gain[:, None, None, None]).clamp(max=255.0)
