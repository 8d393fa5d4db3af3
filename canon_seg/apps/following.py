"""Give masks numbers that stay with them: over the frames of a video, over the turns of a photo."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

LEAST_IOU = 0.5
PATIENCE = 10  # pictures that a mask may be missing from until its number is forgotten
SIDE = 256  # masks are compared with no more pixels along each axis


@dataclass(frozen=True, eq=False)
class Followed:
    """Hold a mask as it was last seen.

    Attributes:
        number: 0 or more, of no other mask that is followed.
        mask: (h, w) bool, thinned out.
        missing: in how many pictures since.
    """

    number: int
    mask: np.ndarray
    missing: int = 0


def follow(
    before: Sequence[Followed], masks: Sequence[np.ndarray], least: float = LEAST_IOU
) -> tuple[list[int], tuple[Followed, ...]]:
    """Give masks the numbers of those before that they overlap with, so that colours stay.

    Pairs are made in the order of their intersections over union, the largest first. A mask
    without one that reaches ``least`` gets the least number that is free. Of no masks before,
    numbers are 0, 1, 2...

    Args:
        before: what was returned for the picture before; empty for the first.
        masks: (H, W) bool arrays of one frame of reference; those of another size than before have
            nothing to do with them.
        least: intersection over union of masks that are taken for the same.

    Returns:
        (number of each mask, what is followed now).
    """
    small = [_thinned(mask) for mask in masks]
    known = [one for one in before if small and one.mask.shape == small[0].shape]
    pairs: dict[int, Followed] = {}
    if known:
        overlaps = _ious(small, [one.mask for one in known])
        for index in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = divmod(int(index), len(known))
            if overlaps[row, column] < least:
                break
            if row not in pairs and known[column] not in pairs.values():
                pairs[row] = known[column]
    taken = {one.number for one in known}
    free = (number for number in range(len(taken) + len(small)) if number not in taken)
    numbers = [pairs[row].number if row in pairs else next(free) for row in range(len(small))]
    seen = [Followed(number, mask) for number, mask in zip(numbers, small, strict=True)]
    others = before if not small else [one for one in known if one.number not in numbers]
    missed = [replace(one, missing=one.missing + 1) for one in others if one.missing < PATIENCE]
    return numbers, (*seen, *missed)


def _thinned(mask: np.ndarray) -> np.ndarray:
    """Keep every n-th pixel of a mask at most ``SIDE`` along each axis."""
    height, width = mask.shape
    step = -(-max(height, width) // SIDE)
    return np.ascontiguousarray(mask[::step, ::step])


def _ious(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Return (N, M) intersections over union; two empty masks have none."""
    one, other = (
        np.stack(each).reshape(len(each), -1).astype(np.float32) for each in (masks, others)
    )
    both = one @ other.T
    either = one.sum(axis=1)[:, None] + other.sum(axis=1) - both
    return both / np.maximum(either, 1)
