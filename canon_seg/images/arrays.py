"""Quarter turns of arrays: images, masks, logits, label maps. Pixels move by index, none is mixed.

The convention is in :mod:`canon_seg.geometry`. ``turns`` is an element of ``C4`` everywhere.
"""

import numpy as np
import torch

from canon_seg.core.group import C4


def turned_size(height, width, turns):
    """(height, width) of a ``height`` x ``width`` frame after ``turns`` quarter turns."""
    return (width, height) if C4.element(turns) % 2 else (height, width)


def turn_image(image, turns):
    """Turn an H x W or H x W x C image, as images are read from files.

    Args:
        image: numpy array or torch tensor; axis 0 is height, axis 1 width.
        turns: quarter turns counterclockwise.

    Returns:
        The turned image, of the same type and dtype. It may share memory with the input: numpy
        gives a view for every turn, torch (which has no negative strides) only for none.
    """
    return _turn(image, turns, (0, 1))


def turn_maps(maps, turns):
    """Turn maps of shape ... x H x W: bitmasks, logits, label maps, C x H x W images.

    Args:
        maps: numpy array or torch tensor; the last two axes are height and width.
        turns: quarter turns counterclockwise.

    Returns:
        The turned maps, of the same type and dtype; memory may be shared as in
        :func:`turn_image`.
    """
    return _turn(maps, turns, (-2, -1))


def _turn(array, turns, axes):
    turns = C4.element(turns)
    if not isinstance(array, (np.ndarray, torch.Tensor)):
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(array).__name__}")
    if array.ndim < 2:
        raise ValueError(f"expected height and width axes, got the shape {tuple(array.shape)}")
    if isinstance(array, np.ndarray):
        return np.rot90(array, turns, axes)
    if turns == 0:  # torch.rot90 would copy
        return array.view_as(array)
    return torch.rot90(array, turns, axes)
