"""Rotate images by any angle, and the boxes, polygons and masks that belong to them.

Angles are in degrees, counterclockwise as seen on screen, of any sign and size. An angle is split
into a *tilt* of at most 45 degrees and the nearest quarter turn
(:func:`canon_seg.core.turn.split_angle`). The tilt comes first and goes by coordinates, about the
centre (W/2, H/2) of the continuous frame, onto a canvas with a centre of its own; the quarter turn
comes last and goes by index, as everywhere in :mod:`canon_seg.images`. Two things follow, both to
the last bit: multiples of 90 degrees are the quarter turns of that package, and what is rotated by
15, 105, 195 and 285 degrees are the four turns of one tilted thing.

Canvas
    ``"expand"`` is just large enough to hold the whole picture, in whole pixels. ``"crop"`` is as
    large as the picture and cuts off what leaves it; being a frame of the tilted picture, it turns
    with the quarter turn: for 60 degrees it is W x H, as it is for 90. ``"inscribed"`` is the
    largest frame, in whole pixels, that lies inside the tilted picture: it shows nothing but the
    picture, so that no edge tells the angle.

Images
    Warped once, bilinear between pixel centres. The canvas around the picture is filled with
    ``FILL``.
"""

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from canon_seg.core.tilting import FILL, Tilting
from canon_seg.core.turn import split_angle
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image, turned_size
from canon_seg.images.coordinates import ANNOTATION_STEP, snap, turn_boxes, turn_points

__all__ = [
    "CANVASES",
    "FILL",
    "box_of",
    "clip_boxes",
    "rotate_boxes",
    "rotate_image",
    "rotate_points",
    "rotate_polygons",
    "rotated_size",
    "slices",
    "tilt_points",
    "tilted_size",
    "warp",
    "warp_boxes",
    "warp_mask",
    "warp_points",
    "warp_scores",
    "warp_to",
    "window_of",
]

CANVASES = ("expand", "crop", "inscribed")

MAX_SIDE = 32_766
"""Pixels of the longest side that OpenCV can warp."""

# In pixels: a canvas does not grow by a row for less than this.
_SIZE_TOLERANCE = 1e-3


def rotated_size(
    height: int, width: int, degrees: float, canvas: str = "expand"
) -> tuple[int, int]:
    """Return (height, width) of the canvas for a ``height`` x ``width`` picture."""
    turns, tilt = split_angle(degrees)
    return turned_size(*tilted_size(height, width, tilt, canvas), turns)


def rotate_image(image: np.ndarray, degrees: float, canvas: str = "expand") -> np.ndarray:
    """Rotate an image; see the module for interpolation and fill.

    Args:
        image: uint8 or float32 array, H x W or H x W x C with C of at most 4.
        degrees, canvas: see the module.

    Returns:
        Array of the same dtype, of the size :func:`rotated_size`. It may be a view of ``image``.
    """
    turns, tilt = split_angle(degrees)
    return turn_image(warp(image, tilt, canvas, cv2.INTER_LINEAR, FILL), turns)


def rotate_points(
    points: np.ndarray, degrees: float, height: int, width: int, canvas: str = "expand"
) -> np.ndarray:
    """Rotate points of the continuous frame.

    Args:
        points: (..., 2) array of x, y.
        degrees, canvas: see the module.
        height, width: of the picture before rotating.

    Returns:
        New array, in the frame of the canvas; points that are cut off lie outside it. Off the
        quarter turns it is float64, on the grid of ``ANNOTATION_STEP``.
    """
    turns, tilt = split_angle(degrees)
    points = tilt_points(points, tilt, height, width, canvas)
    return turn_points(points, turns, *tilted_size(height, width, tilt, canvas))


def rotate_polygons(
    polygons: Iterable[np.ndarray],
    degrees: float,
    height: int,
    width: int,
    canvas: str = "expand",
) -> list[np.ndarray]:
    """Rotate polygons, a list of flat arrays x0, y0, x1, y1, ..., as :func:`rotate_points` does."""
    return [
        rotate_points(polygon.reshape(-1, 2), degrees, height, width, canvas).reshape(-1)
        for polygon in polygons
    ]


def rotate_boxes(
    boxes: np.ndarray, degrees: float, height: int, width: int, canvas: str = "expand"
) -> np.ndarray:
    """Return the upright boxes around rotated boxes; larger than these, if not at a quarter turn.

    Args:
        boxes: (..., 4) array of edges x0, y0, x1, y1.
        degrees, height, width, canvas: see :func:`rotate_points`.

    Returns:
        New array, of the dtype that :func:`rotate_points` gives; not clipped, see
        :func:`clip_boxes`.
    """
    turns, tilt = split_angle(degrees)
    if tilt:
        corners = boxes[..., [[0, 1], [2, 1], [2, 3], [0, 3]]]
        corners = tilt_points(corners, tilt, height, width, canvas)
        boxes = np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)
    return turn_boxes(boxes, turns, *tilted_size(height, width, tilt, canvas))


def clip_boxes(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes to the parts that lie in a frame.

    Args:
        boxes: (N, 4) array of edges x0, y0, x1, y1.
        height, width: of the frame.

    Returns:
        (the clipped boxes of which some area is left, (N,) bool array of which these are).
    """
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
    kept = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return clipped[kept], kept


def tilted_size(height: int, width: int, tilt: float, canvas: str) -> tuple[int, int]:
    """Return (height, width) of the canvas for a picture tilted by ``tilt`` degrees."""
    if canvas not in CANVASES:
        raise ValueError(f"canvas must be one of {', '.join(CANVASES)}, got {canvas!r}")
    if tilt == 0 or canvas == "crop":
        return height, width
    cos, sin = _cos_sin(tilt)
    if canvas == "inscribed":
        inner_height, inner_width = _inscribed_size(height, width, cos, abs(sin))
        return (
            max(1, math.floor(inner_height + _SIZE_TOLERANCE)),
            max(1, math.floor(inner_width + _SIZE_TOLERANCE)),
        )
    tilted_height = height * cos + width * abs(sin)
    tilted_width = width * cos + height * abs(sin)
    return math.ceil(tilted_height - _SIZE_TOLERANCE), math.ceil(tilted_width - _SIZE_TOLERANCE)


def _inscribed_size(height: float, width: float, cos: float, sin: float) -> tuple[float, float]:
    """Return (height, width) of the largest upright rectangle inside a tilted one.

    Either two corners lie on the two longer sides, in the middle of the picture, or all four sides
    carry one corner each.
    """
    shorter, longer = min(height, width), max(height, width)
    if shorter <= 2 * sin * cos * longer:
        half = shorter / 2
        along, across = half / sin, half / cos
        return (across, along) if width >= height else (along, across)
    rest = cos * cos - sin * sin
    return (height * cos - width * sin) / rest, (width * cos - height * sin) / rest


def _cos_sin(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def tilt_points(
    points: np.ndarray, tilt: float, height: int, width: int, canvas: str
) -> np.ndarray:
    """Map (..., 2) points (x, y) of a frame to the canvas of its tilt by ``tilt`` degrees."""
    if tilt == 0:
        return points
    tilted_height, tilted_width = tilted_size(height, width, tilt, canvas)
    cos, sin = _cos_sin(tilt)
    x, y = np.moveaxis(points.astype(np.float64), -1, 0)
    x, y = x - width / 2, y - height / 2
    tilted = np.stack(
        [cos * x + sin * y + tilted_width / 2, cos * y - sin * x + tilted_height / 2], axis=-1
    )
    return snap(tilted, ANNOTATION_STEP)


def warp(
    image: np.ndarray,
    tilt: float,
    canvas: str,
    interpolation: int,
    fill: "float | Sequence[float]",
) -> np.ndarray:
    """Tilt an H x W (x C) array; each pixel of the canvas asks what is at its centre.

    Args:
        image: the array, of up to four channels.
        tilt, canvas: see the module.
        interpolation: OpenCV's, such as ``cv2.INTER_LINEAR``.
        fill: value of the canvas around the image, or one for each channel.
    """
    if tilt == 0:
        return image
    height, width = image.shape[:2]
    tilted_height, tilted_width = tilted_size(height, width, tilt, canvas)
    tilting = Tilting(
        tilt,
        (height, width),
        (tilted_height, tilted_width),
        (width / 2, height / 2),
        (tilted_width / 2, tilted_height / 2),
    )
    fills = tuple(fill) if isinstance(fill, Sequence) else (fill,) * 4
    return warp_to(image, tilting, interpolation, fills)


def warp_to(
    image: np.ndarray,
    tilting: Tilting,
    interpolation: int,
    fill: Sequence[float] | None,
    window: "tuple[int, int, int, int] | None" = None,
) -> np.ndarray:
    """Tilt an H x W (x C) array into another frame, or a window of it.

    Args:
        image: in the source frame of ``tilting``.
        tilting: where it goes.
        interpolation: OpenCV's, such as ``cv2.INTER_LINEAR``.
        fill: value of each of up to four channels around the image; None repeats its edges.
        window: (top, left, height, width) in pixels of the target; None for all of it.
    """
    height, width = image.shape[:2]
    top, left, high, wide = (0, 0, *tilting.target) if window is None else window
    if max(height, width, high, wide) > MAX_SIDE:
        raise InputError(
            f"an image of height {height} and width {width} cannot be rotated by "
            f"{tilting.degrees:g} degrees, to height {high} and width {wide}: {MAX_SIDE} px are "
            "the most for a side; make it smaller, or take quarter turns "
            "(MODEL.CANONICALIZER.GROUP C4)"
        )
    (xx, xy), (yx, yy) = _matrix(tilting.inverse())
    # From pixel indices of the target to those of the source: centres lie half a pixel on.
    x, y = tilting.target_centre[0] - 0.5 - left, tilting.target_centre[1] - 0.5 - top
    to_source = np.array(
        [
            [xx, xy, tilting.source_centre[0] - 0.5 - xx * x - xy * y],
            [yx, yy, tilting.source_centre[1] - 0.5 - yx * x - yy * y],
        ]
    )
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        to_source,
        (wide, high),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
        borderValue=(0,) * 4 if fill is None else fill,
    )


def warp_points(points: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Tilt (..., 2) points x, y of the continuous frame into another frame, in float64."""
    (xx, xy), (yx, yy) = _matrix(tilting)
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    x, y = x - tilting.source_centre[0], y - tilting.source_centre[1]
    return np.stack(
        [
            xx * x + xy * y + tilting.target_centre[0],
            yy * y + yx * x + tilting.target_centre[1],
        ],
        axis=-1,
    )


def _matrix(tilting: Tilting) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the matrix that takes differences (x, y) of the source to those of the target."""
    cos, sin = _cos_sin(tilting.degrees)
    (from_x, from_y), (to_x, to_y) = tilting.source_scale, tilting.target_scale
    return (
        (cos * to_x / from_x, sin * to_x / from_y),
        (-sin * to_y / from_x, cos * to_y / from_y),
    )


def warp_boxes(boxes: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Return the upright hulls (..., 4) of tilted boxes x0, y0, x1, y1, cut to the target frame."""
    corners = warp_points(np.asarray(boxes)[..., [[0, 1], [2, 1], [2, 3], [0, 3]]], tilting)
    height, width = tilting.target
    limits = np.array([width, height], np.float64)
    return np.concatenate(
        [corners.min(axis=-2).clip(0, limits), corners.max(axis=-2).clip(0, limits)], axis=-1
    )


def warp_mask(mask: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Tilt an H x W bool or uint8 mask, sampled at the nearest pixel centre.

    Only the window that it reaches is warped: most objects are small.
    """
    warped = np.zeros(tilting.target, mask.dtype)
    box = box_of(mask)
    if box is not None and (window := window_of(box, tilting)):
        part = warp_to(mask.view(np.uint8), tilting, cv2.INTER_NEAREST, (0,) * 4, window)
        warped[slices(window)] = part.view(mask.dtype)
    return warped


def warp_scores(scores: np.ndarray, threshold: float, tilting: Tilting) -> np.ndarray:
    """Tilt the scores of a mask, interpolated once, and cut them in the target frame.

    Only the window that the mask reaches is warped. Around the source scores are at their least.

    Args:
        scores: (H, W) float array in the source frame.
        threshold: scores above it are inside.
        tilting: where they go.

    Returns:
        bool mask of the target's size.
    """
    mask = np.zeros(tilting.target, bool)
    box = box_of(scores > threshold)
    if box is None:
        return mask
    height, width = scores.shape
    # One pixel more on each side: beyond it nothing that is interpolated is inside.
    left, top = max(0, int(box[0]) - 1), max(0, int(box[1]) - 1)
    right, bottom = min(width, int(box[2]) + 1), min(height, int(box[3]) + 1)
    window = window_of(np.array([left, top, right, bottom]), tilting)
    if window:
        source = tilting.from_window(top, left, bottom - top, right - left)
        least = (float(scores.min()),) * 4
        part = scores[top:bottom, left:right]
        mask[slices(window)] = warp_to(part, source, cv2.INTER_LINEAR, least, window) > threshold
    return mask


def box_of(mask: np.ndarray) -> "np.ndarray | None":
    """Return the edges x0, y0, x1, y1 around an H x W mask, or None around an empty one."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def window_of(box: np.ndarray, tilting: Tilting) -> "tuple[int, int, int, int] | None":
    """Return (top, left, height, width) of what a box of the source can reach in the target.

    Returns:
        the window in pixels, or None where the box goes out of the target.
    """
    x0, y0, x1, y1 = warp_boxes(box, tilting)
    top, left = max(0, math.floor(y0) - 1), max(0, math.floor(x0) - 1)
    bottom = min(tilting.target[0], math.ceil(y1) + 1)
    right = min(tilting.target[1], math.ceil(x1) + 1)
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def slices(window: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a window (top, left, height, width)."""
    top, left, height, width = window
    return slice(top, top + height), slice(left, left + width)
