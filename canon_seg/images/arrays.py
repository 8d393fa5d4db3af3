"""Turn arrays by index: images, masks, logits, label maps. No two pixels are mixed.

The convention is in :mod:`canon_seg.images`. A turn is a :class:`canon_seg.core.turn.Turn` without
a tilt; an integer stands for that many quarter turns.
"""

from typing import TypeVar

import cv2
import numpy as np
import torch

from canon_seg.core.turn import Turn, exact_turn, turned_size

__all__ = ["contiguous", "turn_image", "turn_maps", "turned_copy", "turned_size"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)

_OF_CV2 = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def turn_image(image: Array, turn: "Turn | int") -> Array:
    """Turn an H x W or H x W x C image, as images are read from files.

    >>> turn_image(np.array([[1, 2], [3, 4]]), 1)
    array([[2, 4],
           [1, 3]])

    Args:
        image: numpy array or torch tensor; axis 0 is height, axis 1 width.
        turn: by index.

    Returns:
        The turned image, of the same type and dtype. It may share memory with the input: numpy
        gives a view for every turn, torch (which has no negative strides) only for none.
    """
    return _turn(image, turn, (0, 1))


def turn_maps(maps: Array, turn: "Turn | int") -> Array:
    """Turn maps of shape ... x H x W: bitmasks, logits, label maps, C x H x W images.

    Args:
        maps: numpy array or torch tensor; the last two axes are height and width.
        turn: by index.

    Returns:
        The turned maps, of the same type and dtype; memory may be shared as in
        :func:`turn_image`.
    """
    return _turn(maps, turn, (-2, -1))


def turned_copy(image: torch.Tensor, turn: "Turn | int") -> torch.Tensor:
    """Copy and turn an image; the strides of the copy depend on size, type and device alone.

    Which kernels run on an image, and so how they round, may depend on its strides. 8-bit images on
    the CPU lie in memory as H x W x 3, as files are read: they are turned ten times as fast that
    way, and shrunk without another copy.

    Args:
        image: (3, H, W) tensor, any strides.
        turn: by index.

    Returns:
        (3, h, w) tensor of the same type, on the same device.
    """
    turn = exact_turn(turn)
    if image.dtype != torch.uint8 or image.device.type != "cpu":
        return turn_maps(image, turn).clone(memory_format=torch.contiguous_format)
    pixels = image.numpy()
    if image.is_contiguous():
        pixels = cv2.merge(list(pixels))
    else:
        pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if turn.mirrored:
        pixels = cv2.flip(pixels, 1)
    if turn.quarters:
        pixels = cv2.rotate(pixels, _OF_CV2[turn.quarters])
    elif np.shares_memory(pixels, image.numpy()):
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def contiguous(array: Array) -> Array:
    """Return the same values in row-major order, for kernels whose rounding depends on strides.

    The strides are those of a new array. numpy and torch do not look at strides along axes of one
    element and call an array contiguous that has negative ones there, which torch then refuses.
    """
    if isinstance(array, torch.Tensor):
        return array.contiguous()
    return array.copy(order="C") if 1 in array.shape else np.ascontiguousarray(array)


def _turn(array: Array, turn: "Turn | int", axes: tuple[int, int]) -> Array:
    turn = exact_turn(turn)
    if not isinstance(array, (np.ndarray, torch.Tensor)):
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(array).__name__}")
    if array.ndim < 2:
        raise ValueError(f"expected height and width axes, got the shape {tuple(array.shape)}")
    if isinstance(array, np.ndarray):
        if turn.mirrored:
            array = np.flip(array, axes[1])
        return np.rot90(array, turn.quarters, axes)
    if turn.mirrored:
        array = array.flip(axes[1])
    if turn.quarters == 0:  # torch.rot90 would copy
        return array.view_as(array)
    return torch.rot90(array, turn.quarters, axes)
