"""A representative of an image's orbit, chosen from the pixels themselves.

Floating-point noise makes the logits of a network only nearly equivariant, and a near tie could
flip the pose from one turn of an image to the next. So the network never sees the image as it was
given: it sees the one of the four turned images whose height, width and bytes come first in
lexicographic order. All four inputs lead to the same bytes, so to the same pose and the same masks,
for any network.

Only an image that equals a turn of itself has more than one such turn; :func:`representative_turns`
returns them all and the caller breaks the tie, by the prompts where there are some.
"""

import cv2
import numpy as np
import torch

from canon_seg.core.group import C4
from canon_seg.images.arrays import turn_image, turn_maps

_OF_CV2 = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def representative_turns(image):
    """The turns that take an image to the representative of its orbit under quarter turns.

    Args:
        image: H x W or H x W x C array or tensor of booleans, integers or floats, any strides.
    Returns:
        non-empty tuple of turns r in 0..3, ascending, such that ``turn_image(image, r)`` is the
        representative. Longer than 1 only where the image equals a turn of itself: 2 for a
        symmetry by 180 degrees, 4 for one by 90 degrees.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()  # whose turns are views
    views = [turn_image(image, turns) for turns in C4.elements]
    height = min(view.shape[0] for view in views)
    candidates = [turns for turns in C4.elements if views[turns].shape[0] == height]
    # Rows are compared in blocks that double: photographs differ in the first one nearly always,
    # and a fully symmetric image costs one pass.
    start, stop = 0, 1
    while len(candidates) > 1 and start < height:
        candidates = _first_in_order(
            candidates, [_ordered(views[turns][start:stop]) for turns in candidates]
        )
        start, stop = stop, 2 * stop
    return tuple(candidates)


def turned_copy(image, turns):
    """A turned copy of an image; its strides depend on its size, type and device alone.

    8-bit images on the CPU lie in memory as H x W x 3, as files are read: they are turned ten times
    as fast that way, and shrunk without another copy.

    Args:
        image: (3, H, W) tensor, any strides.
        turns: quarter turns counterclockwise.
    Returns:
        (3, h, w) tensor of the same type, on the same device.
    """
    if image.dtype != torch.uint8 or image.device.type != "cpu":
        return turn_maps(image, turns).clone(memory_format=torch.contiguous_format)
    pixels = image.numpy()
    if image.is_contiguous():
        pixels = cv2.merge(list(pixels))
    else:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    turns = C4.element(turns)
    if turns:
        pixels = cv2.rotate(pixels, _OF_CV2[turns])
    elif np.shares_memory(pixels, image.numpy()):
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _ordered(block):
    """The values of a block of rows in row-major order; floats as their bits.

    Bits are ordered totally, and tell 0.0 from -0.0 and one NaN from another.
    """
    block = np.ascontiguousarray(block)
    if block.dtype.kind == "f":
        block = block.view(f"u{block.dtype.itemsize}")
    return block.reshape(-1)


def _first_in_order(candidates, blocks):
    """Those of the candidates whose blocks come first in lexicographic order."""
    first, first_block = candidates[:1], blocks[0]
    for turns, block in zip(candidates[1:], blocks[1:]):
        different = block != first_block
        position = different.argmax()
        if not different[position]:
            first.append(turns)
        elif block[position] < first_block[position]:
            first, first_block = [turns], block
    return first
