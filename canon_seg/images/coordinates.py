"""Turn coordinates: points, clicks, boxes, keypoints, polygons, rotated boxes.

The convention is in :mod:`canon_seg.images`. Every function takes
``(coords, turn, height, width)``: a :class:`canon_seg.core.turn.Turn` without a tilt, or an integer
of quarter turns, and the size in pixels of the frame that the coordinates live in *before* turning.
It returns new memory of the same type (numpy or torch) and dtype (float32, float64, int32, int64).
A subtraction from the frame's width or height is exact for coordinates on a dyadic grid: see
:func:`snap`.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from canon_seg.core.turn import Turn, exact_turn

Array = TypeVar("Array", np.ndarray, torch.Tensor)

PIXEL_STEP = 1 / 256
"""Grid of prompts and of predicted boxes, in pixels: exact in float32."""

ANNOTATION_STEP = 2.0**-20
"""Grid of COCO boxes, in pixels: exact in float64, and finer than any annotation is written."""


def turn_points(points: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn points of the continuous frame (pixel edges at integers), shape (..., 2) as x, y."""
    x, y = _columns(points, 2)
    return _turn_xy(x, y, turn, *_sizes(points, height, width))


def turn_pixels(pixels: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn clicks, which are pixel indices (pixel centres at integers), shape (..., 2) as x, y."""
    x, y = _columns(pixels, 2)
    height, width = _sizes(pixels, height, width)
    return _turn_xy(x, y, turn, height - 1, width - 1)


def turn_boxes(boxes: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn boxes given by edges, shape (..., 4) as x0, y0, x1, y1; x0 <= x1, y0 <= y1 is kept.

    >>> turn_boxes(np.array([0, 0, 10, 20]), 1, height=100, width=200)
    array([  0, 190,  20, 200])
    """
    turn = exact_turn(turn)
    x0, y0, x1, y1 = _columns(boxes, 4)
    height, width = _sizes(boxes, height, width)
    if turn.mirrored:
        x0, x1 = width - x1, width - x0
    corners = {
        0: (x0, y0, x1, y1),
        1: (y0, width - x1, y1, width - x0),
        2: (width - x1, height - y1, width - x0, height - y0),
        3: (height - y1, x0, height - y0, x1),
    }
    return _join(corners[turn.quarters])


def turn_boxes_xywh(boxes: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn boxes given by top left edge and size (COCO), shape (..., 4) as x, y, w, h."""
    turn = exact_turn(turn)
    x, y, w, h = _columns(boxes, 4)
    height, width = _sizes(boxes, height, width)
    if turn.mirrored:
        x = width - x - w
    turned = {
        0: (x, y, w, h),
        1: (y, width - x - w, h, w),
        2: (width - x - w, height - y - h, w, h),
        3: (height - y - h, x, h, w),
    }
    return _join(turned[turn.quarters])


def turn_keypoints(keypoints: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn keypoints as detectron2's ``Instances`` hold them.

    Args:
        keypoints: shape (..., K, 3): x, y in the continuous frame, then a visibility or score,
            which is kept. A mirror moves a keypoint and does not rename it: what was called the
            left hand is called so still.
        turn, height, width: see the module.
    """
    x, y, last = _columns(keypoints, 3)
    return _join((_turn_xy(x, y, turn, *_sizes(keypoints, height, width)), last))


def turn_polygons(
    polygons: Sequence[Array], turn: "Turn | int", height: int, width: int
) -> list[Array]:
    """Turn polygons as geometry: a list of flat arrays x0, y0, x1, y1, ... in the continuous frame.

    Rasterising the result does not give the turned raster: pycocotools' rasteriser is not
    equivariant. Masks are turned by :func:`canon_seg.coco.masks.turn_rle`.
    """
    return [
        turn_points(polygon.reshape(-1, 2), turn, height, width).reshape(-1) for polygon in polygons
    ]


def turn_rotated_boxes(boxes: Array, turn: "Turn | int", height: int, width: int) -> Array:
    """Turn detectron2's rotated boxes.

    Args:
        boxes: shape (..., 5): centre x, y in the continuous frame, width, height, and the angle
            in degrees, counterclockwise. Width and height belong to the box and are kept.
        turn, height, width: see the module.

    Returns:
        The turned boxes, angles in [-180, 180). The angle is exact to the bit where
        ``angle + 270`` is, for example for multiples of 2 ** -12 degrees in float32.
    """
    turn = exact_turn(turn)
    cx, cy, w, h, angle = _columns(boxes, 5)
    centre = _turn_xy(cx, cy, turn, *_sizes(boxes, height, width))
    if turn.mirrored:
        angle = -angle
    angle = (angle + (90 * turn.quarters + 180)) % 360 - 180
    # The modulo of a tiny negative rounds to 360.
    if isinstance(angle, torch.Tensor):
        angle = torch.where(angle < 180, angle, angle - 360)
    else:
        angle = np.where(angle < 180, angle, angle - 360)
    return _join((centre, w, h, angle))


def snap(coords: Array, step: float = PIXEL_STEP) -> Array:
    """Round coordinates to a dyadic grid, half to even, in their own dtype.

    On the grid ``width - x`` is exact (for ``PIXEL_STEP`` in float32 below 2 ** 15 px), so that
    turned inputs carry exactly the same coordinates as the original. Rounding half to even is
    what commutes with turning: ``width / step`` is an even integer, so a tie between grid points
    k and k + 1 becomes one between n - k - 1 and n - k with n even, and the even one of either
    pair is the turn of the other. (Half up would take opposite ends.)

    Snap before anything that rounds: before turning, and before float64 is narrowed to float32.
    In x, y, w, h boxes the far edge x + w is rounded by parts, so that these don't commute: snap
    the edges, or the upright box once.

    Args:
        coords: float32 or float64 numpy array or torch tensor of any shape.
        step: grid width in pixels, a power of two of at most 1/2.

    Returns:
        New memory, same type and dtype; zeros are positive.
    """
    if not 0 < step <= 0.5 or math.frexp(step)[0] != 0.5:
        raise ValueError(f"step must be a power of two of at most 1/2, got {step}")
    if getattr(coords, "dtype", None) not in (np.float32, np.float64, torch.float32, torch.float64):
        raise TypeError(
            "snap needs a float32 or float64 numpy array or torch tensor, "
            f"got {getattr(coords, 'dtype', type(coords).__name__)}"
        )
    if isinstance(coords, torch.Tensor):
        return torch.round(coords / step) * step + 0.0  # + 0.0 makes -0.0 positive
    # numpy widens 0-d operands; rounding there is the same, the dtype is not
    return np.asarray(np.rint(coords / step) * step + 0.0, dtype=coords.dtype)


def _turn_xy(x: Array, y: Array, turn: "Turn | int", height: Any, width: Any) -> Array:
    turn = exact_turn(turn)
    if turn.mirrored:
        x = width - x
    turned: dict[int, tuple[Array, Array]] = {
        0: (x, y),
        1: (y, width - x),
        2: (width - x, height - y),
        3: (height - y, x),
    }
    return _join(turned[turn.quarters])


def _sizes(coords: Array, height: int, width: int) -> tuple[Any, Any]:
    height, width = operator.index(height), operator.index(width)
    if isinstance(coords, np.ndarray):  # else numpy widens float32 where a size is above 65535
        return coords.dtype.type(height), coords.dtype.type(width)
    return height, width


def _columns(coords: Array, count: int) -> list[Array]:
    """Split the last axis of ``coords`` into ``count`` columns of length 1."""
    if not isinstance(coords, (np.ndarray, torch.Tensor)):
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(coords).__name__}")
    if coords.ndim == 0 or coords.shape[-1] != count:
        raise ValueError(f"expected the shape (..., {count}), got {tuple(coords.shape)}")
    dtype = str(coords.dtype).removeprefix("torch.")
    if dtype not in ("float32", "float64", "int32", "int64"):
        # unsigned ones wrap around below 0, shorter ones can't hold the coordinates of an image
        raise TypeError(f"expected float32, float64, int32 or int64 coordinates, got {dtype}")
    return [coords[..., i : i + 1] for i in range(count)]


def _join(columns: Sequence[Array]) -> Array:
    if isinstance(columns[0], torch.Tensor):
        return torch.cat(list(columns), dim=-1)
    return np.concatenate(columns, axis=-1)
