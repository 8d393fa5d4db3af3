"""Turn square images of one size: the protocol by which classifiers are tested and canonicalized.

A turn is applied about the centre of the image, onto a canvas of the same size: a mirror by index,
then a tilt, bilinear between pixel centres with the edges of the image repeated around it, rounded
to 8 bits, then quarter turns by index. What a tilt moves out of the square is lost; nothing is
masked. All that is measured, and all that a canonicalizer does to undo a turn, goes this one way.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

from canon_seg.core.group import PlanarGroup, elements_of
from canon_seg.core.tilting import cos_sin
from canon_seg.core.turn import Turn, inverse
from canon_seg.images.arrays import turn_maps

_POSITION_BITS, _FRACTION_BITS = 10, 5
"""Of the fixed-point positions of pixels, before and after rounding, as in OpenCV 4."""


def check_square(images: torch.Tensor) -> None:
    """Raise ValueError unless images are a (B, 3, S, S) uint8 tensor."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"square images (B, 3, S, S) are needed, got the shape {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8:
        raise ValueError(f"8-bit images (uint8, 0..255) are needed, got {images.dtype}")


def turn_squares(images: torch.Tensor, turn: "Turn | Sequence[Turn]") -> torch.Tensor:
    """Turn square images, see the module.

    >>> image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    >>> turn_squares(image, Turn(1))[0, 0]
    tensor([[1, 3],
            [0, 2]], dtype=torch.uint8)

    Args:
        images: (B, 3, S, S) uint8 tensor.
        turn: one for all, or one for each.

    Returns:
        (B, 3, S, S) uint8 tensor; for the identity the images themselves.

    Raises:
        ValueError: for images of another form.
    """
    check_square(images)
    if isinstance(turn, Turn):
        return _turn_all(images, turn)
    turned = torch.empty_like(images)
    places: dict[Turn, list[int]] = {}
    for k, one in enumerate(turn):
        places.setdefault(one, []).append(k)
    for one, where in places.items():
        at = torch.tensor(where).to(images.device, non_blocking=True)
        turned[at] = _turn_all(images[at], one)
    return turned


def all_canonical(images: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Return what images would be in their canonical form for each pose that they may have.

    Args:
        images: (B, 3, S, S) uint8 tensor.
        group: of N poses.

    Returns:
        (B, N, 3, S, S) uint8 tensor, in the order of the group's elements.
    """
    turns = [inverse(pose) for pose in elements_of(group)]
    # Each tilt is done once; its quarter turns are copies of it.
    starts = {Turn(tilt=t.tilt, mirrored=t.mirrored): None for t in turns}
    tilted = {start: _turn_all(images, start) for start in starts}
    candidates = [
        turn_maps(tilted[Turn(tilt=t.tilt, mirrored=t.mirrored)], t.quarters) for t in turns
    ]
    return torch.stack(candidates, dim=1)


def unique_images(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find images that occur more than once, byte for byte.

    Args:
        images: (B, 3, S, S) uint8 tensor.

    Returns:
        (images, places): the (U, 3, S, S) different ones in the order of their first appearance,
        and (B,) where each of those given is among them.
    """
    known: dict[bytes, int] = {}
    rows = images.cpu().contiguous().numpy()
    places = [known.setdefault(row.tobytes(), len(known)) for row in rows]
    first = [places.index(k) for k in range(len(known))]
    return images[first], torch.tensor(places, dtype=torch.int64)


def tilt_squares(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Tilt square images about their centre, bilinear between pixels, with their edges repeated.

    The arithmetic is that of OpenCV 4's ``warpAffine`` with 8 bits, in whole numbers: the bytes are
    the same on every device.

    Args:
        images: (B, 3, S, S) uint8 tensor.
        degrees: counterclockwise.

    Returns:
        (B, 3, S, S) uint8 tensor on the same device.
    """
    side = images.shape[-1]
    left, right, across = _neighbours(side, degrees, False, images.device)
    upper, lower, down = _neighbours(side, degrees, True, images.device)
    whole = 1 << _FRACTION_BITS
    values = images.int()

    def between(row: torch.Tensor) -> torch.Tensor:
        start, end = values[:, :, row, left], values[:, :, row, right]
        return start * (whole - across) + end * across

    mixed = between(upper) * (whole - down) + between(lower) * down
    return ((mixed + (whole * whole >> 1)) >> (2 * _FRACTION_BITS)).to(torch.uint8)


@lru_cache(maxsize=64)
def _neighbours(
    side: int, degrees: float, rows: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the pixels before and after each pixel's source, along an axis, and the share."""
    cos, sin = cos_sin(degrees)
    by_column, by_row = (sin, cos) if rows else (cos, -sin)
    centre = (side - 1) / 2
    steps = torch.arange(side, dtype=torch.float64)
    unit = 1 << _POSITION_BITS
    half_a_step = 1 << (_POSITION_BITS - _FRACTION_BITS - 1)
    along = (steps * by_column * unit).round().int()
    start = ((steps * by_row + centre * (1 - by_column - by_row)) * unit).round().int()
    places = (start[:, None] + half_a_step + along) >> (_POSITION_BITS - _FRACTION_BITS)
    before = places >> _FRACTION_BITS
    share = places & ((1 << _FRACTION_BITS) - 1)
    found = (before.clamp(0, side - 1), (before + 1).clamp(0, side - 1), share)
    before, after, share = (tensor.to(device) for tensor in found)
    return before, after, share


def _turn_all(images: torch.Tensor, turn: Turn) -> torch.Tensor:
    if turn.mirrored:
        images = images.flip(-1)
    if turn.tilt:
        images = tilt_squares(images, turn.tilt)
    return turn_maps(images, turn.quarters)
