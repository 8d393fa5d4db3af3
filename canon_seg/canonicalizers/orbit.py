"""A representative of an image's orbit, chosen from the pixels themselves.

Floating-point noise makes the logits of a network only nearly equivariant, and a near tie could
flip the pose from one turn of an image to the next. So the network never sees the image as it was
given: it sees the one of the four turned images whose height, width and bytes come first in
lexicographic order. All four inputs lead to the same bytes, so to the same pose and the same masks,
for any network.

Only an image that equals a turn of itself has more than one such turn; :func:`representative_turns`
returns them all and the caller breaks the tie, by the prompts where there are some.
"""

import numpy as np
import torch

from canon_seg.geometry.arrays import turn_image
from canon_seg.geometry.group import C4

_FIRST_ROWS = 1  # rows compared at first; photographs differ there nearly always


def representative_turns(image):
    """The turns that take an image to the representative of its orbit under quarter turns.

    Args:
        image: H x W or H x W x C array or tensor of any dtype and any strides.
    Returns:
        non-empty tuple of turns r in 0..3, ascending, such that ``turn_image(image, r)`` is the
        representative. Longer than 1 only where the image equals a turn of itself: 2 for a
        symmetry by 180 degrees, 4 for one by 90 degrees.
    """
    views = {turns: turn_image(image, turns) for turns in C4.elements}
    height = min(view.shape[0] for view in views.values())
    candidates = [turns for turns, view in views.items() if view.shape[0] == height]
    start, stop = 0, _FIRST_ROWS
    # Rows are compared in blocks that double, so that a difference near the top costs next to
    # nothing, and a fully symmetric image costs one pass.
    while len(candidates) > 1 and start < height:
        blocks = {turns: _ordered(views[turns][start:stop]) for turns in candidates}
        candidates = _first_in_order(candidates, blocks)
        start, stop = stop, 2 * stop
    return tuple(candidates)


def _ordered(block):
    """The values of a block of rows in row-major order, as unsigned or signed integers."""
    if isinstance(block, torch.Tensor):
        block = block.detach().cpu().numpy()
    block = np.ascontiguousarray(block)
    if block.dtype.kind == "f":
        # By bits: total, and it tells 0.0 from -0.0 and one NaN from another.
        block = block.view(f"u{block.dtype.itemsize}")
    return block.reshape(-1)


def _first_in_order(candidates, blocks):
    best = [candidates[0]]
    for turns in candidates[1:]:
        ours, theirs = blocks[turns], blocks[best[0]]
        different = ours != theirs
        if not different.any():
            best.append(turns)
            continue
        position = int(different.argmax())
        if ours[position] < theirs[position]:
            best = [turns]
    return best
