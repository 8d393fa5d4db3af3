"""Click as a user would who wants an object: in it first, then where the mask is most wrong."""

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]


def depths(mask: Mask) -> npt.NDArray[np.float32]:
    """Return how far each pixel of a mask lies from what is not the mask.

    Args:
        mask: (H, W) bool. What is beyond the image is not the mask.

    Returns:
        (H, W) distances in pixels, 0 outside of the mask.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    found = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(found[1:-1, 1:-1], np.float32)


def deepest_point(mask: Mask) -> tuple[int, int] | None:
    """Return (x, y) of the pixel that lies deepest in a mask, or None of an empty mask.

    Args:
        mask: (H, W) bool. Of pixels that lie equally deep it is the first, row by row.
    """
    if not mask.any():
        return None
    y, x = divmod(int(depths(mask).argmax()), mask.shape[1])
    return x, y


def next_click(found: Mask, wanted: Mask) -> tuple[int, int, int] | None:
    """Return the click that corrects a mask: the deepest point of its larger error.

    Args:
        found: (H, W) bool, the mask so far; an empty one before the first click.
        wanted: (H, W) bool, the object.

    Returns:
        (x, y, label): label 1 where something is missing, 0 where there is too much. None where
        nothing is wrong.
    """
    missing, surplus = wanted & ~found, found & ~wanted
    deep_missing, deep_surplus = depths(missing), depths(surplus)
    label = int(deep_missing.max(initial=0) >= deep_surplus.max(initial=0))
    point = deepest_point(missing if label else surplus)
    return None if point is None else (*point, label)


def random_point(mask: Mask, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return (x, y) of any pixel of a mask, each as likely, or None of an empty mask."""
    indices = np.flatnonzero(mask)
    if not len(indices):
        return None
    y, x = divmod(int(rng.choice(indices)), mask.shape[1])
    return x, y
