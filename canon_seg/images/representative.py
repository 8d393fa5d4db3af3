"""Choose a representative of an image's orbit from the pixels themselves.

Floating-point noise makes the scores of a network only nearly equivariant, and a near tie could
flip the pose from one turn of an image to the next. So the network never sees the image as it was
given: it sees the one of the turned images whose height, width and bytes come first in
lexicographic order. All images of an orbit lead to the same bytes, so to the same pose and the same
masks, for any network.

Only an image that equals a turn of itself has more than one such turn; :func:`representative_turns`
returns them all and the caller breaks the tie, by the prompts where there are some.
"""

from typing import Any

import numpy as np
import torch

from canon_seg.core.group import C4, PlanarGroup
from canon_seg.core.turn import Turn, turned_size
from canon_seg.images.arrays import turn_image

Pixels = Any
"""A numpy array or a torch tensor of integers, H x W or H x W x C."""


def representative_turns(
    image: "np.ndarray | torch.Tensor", group: PlanarGroup = C4
) -> tuple[Turn, ...]:
    """Return the turns that take an image to the representative of its orbit.

    A tensor on another device than the CPU is compared there.

    Args:
        image: H x W or H x W x C array or tensor of booleans, integers or floats, any strides.
        group: of turns by index; its exact part is taken.

    Returns:
        non-empty tuple of turns, in the order of the group's elements, such that
        ``turn_image(image, turn)`` is the representative. Longer than 1 only where the image
        equals a turn of itself.
    """
    pixels = _as_integers(image)
    size = int(pixels.shape[0]), int(pixels.shape[1])
    candidates = list(group.exact.elements or ())
    height = min(turned_size(*size, turn)[0] for turn in candidates)
    candidates = [turn for turn in candidates if turned_size(*size, turn)[0] == height]
    # Rows are compared in blocks that double: photographs differ in the first one nearly always,
    # and a fully symmetric image costs one pass.
    start, stop = 0, 1
    while len(candidates) > 1 and start < height:
        blocks = [_rows(pixels, turn, start, min(stop, height)) for turn in candidates]
        candidates = _first_in_order(candidates, blocks)
        start, stop = stop, 2 * stop
    return tuple(candidates)


def _as_integers(image: "np.ndarray | torch.Tensor") -> Pixels:
    """View pixels as integers of the same order: floats as their bits.

    Bits are ordered totally, and tell 0.0 from -0.0 and one NaN from another.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach()
        if image.dtype.is_floating_point:
            # Views of other types need a contiguous tensor.
            bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[image.element_size()]
            image = image.contiguous().view(bits)
        elif image.dtype == torch.bool:
            image = image.to(torch.uint8)
        if image.device.type != "cpu":
            return image
        # Signed bits of floats are ordered as unsigned ones, on every device: see _value.
        return image.numpy()
    if image.dtype.kind == "f":
        image = np.ascontiguousarray(image).view(f"i{image.dtype.itemsize}")
    return image


def _rows(pixels: Pixels, turn: Turn, start: int, stop: int) -> Pixels:
    """Return rows of the turned image, flat, from the part of the image that they come from."""
    height, width = pixels.shape[:2]
    if turn.quarters % 2:
        # Columns of the mirrored image, from its right edge for one turn.
        from_right = (turn.quarters == 1) != turn.mirrored
        first, last = (width - stop, width - start) if from_right else (start, stop)
        part = pixels[:, first:last]
    else:
        first, last = (height - stop, height - start) if turn.quarters else (start, stop)
        part = pixels[first:last]
    part = turn_image(part, turn)
    return part.reshape(-1)


def _first_in_order(candidates: list[Turn], blocks: list[Pixels]) -> list[Turn]:
    """Return those of the candidates whose blocks come first in lexicographic order."""
    first, first_block = candidates[:1], blocks[0]
    for turn, block in zip(candidates[1:], blocks[1:], strict=True):
        different = block != first_block
        if isinstance(different, torch.Tensor):
            different = different.byte()  # argmax is not there for booleans
        position = int(different.argmax())
        if not different[position]:
            first.append(turn)
        elif _value(block[position]) < _value(first_block[position]):
            first, first_block = [turn], block
    return first


def _value(element: Any) -> int:
    """Return an integer of a block as an unsigned number of as many bits."""
    bits: int = 8 * (
        element.element_size() if isinstance(element, torch.Tensor) else element.itemsize
    )
    value: int = int(element) % 2**bits
    return value
