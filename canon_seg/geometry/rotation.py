"""Rotation by any angle: of images, and of the boxes, polygons and masks that belong to them.

Angles are in degrees, counterclockwise as seen on screen, of any sign and size. An angle is split
into a *tilt* of at most 45 degrees and the nearest quarter turn (:func:`split_angle`). The tilt
comes first and goes by coordinates, about the centre (W/2, H/2) of the continuous frame, onto a
canvas with a centre of its own; the quarter turn comes last and goes by index, as everywhere in
:mod:`canon_seg.geometry`. Two things follow, both to the last bit: multiples of 90 degrees are the
quarter turns of that package, and what is rotated by 15, 105, 195 and 285 degrees are the four
turns of one tilted thing.

Canvas
    ``"expand"`` is just large enough to hold the whole picture, in whole pixels. ``"crop"`` is as
    large as the picture and cuts off what leaves it; being a frame of the tilted picture, it turns
    with the quarter turn: for 60 degrees it is W x H, as it is for 90.

Images
    Warped once, bilinear between pixel centres. The canvas around the picture is filled with
    ``FILL``.

Masks
    Polygons are turned as geometry, then rasterised by pycocotools on the canvas. RLE is sampled
    at the nearest pixel centre, which keeps areas right on average, thin parts included; a
    threshold on interpolated values would wear these away.
"""

import math

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from canon_seg.errors import InputError
from canon_seg.geometry.annotations import turn_annotation
from canon_seg.geometry.arrays import turn_image, turn_maps, turned_size
from canon_seg.geometry.coordinates import (
    ANNOTATION_STEP,
    snap,
    turn_boxes,
    turn_boxes_xywh,
    turn_points,
)
from canon_seg.geometry.masks import (
    check_polygons,
    decode_rle,
    encode_window,
    turn_rle,
    with_str_counts,
)

CANVASES = ("expand", "crop")

MAX_SIDE = 32_766
"""Pixels of the longest side that OpenCV can warp."""

FILL = 114
"""Grey level around a tilted picture: the mean of ImageNet's three channel means, in RGB and BGR
alike. Models subtract such means and pad with zeros, so that this is nearest to their own padding;
black would draw an edge around the picture."""

# In pixels: a canvas does not grow by a row for less than this.
_SIZE_TOLERANCE = 1e-3

_TURNED_KEYS = frozenset({"segmentation", "bbox", "area"})
_INVARIANT_KEYS = frozenset({"id", "image_id", "category_id", "iscrowd", "ignore", "score"})


def normalise_angle(degrees):
    """The same angle as a float in [0, 360).

    Raises:
        ValueError: if it is not finite.
    """
    if not math.isfinite(degrees):
        raise ValueError(f"an angle must be a finite number of degrees, got {degrees}")
    return float(degrees) % 360 % 360  # the modulo of a tiny negative rounds to 360


def split_angle(degrees):
    """The nearest quarter turn, and what is left to it.

    Returns:
        (turns, tilt) with ``90 * turns + tilt`` equal to ``degrees`` modulo 360: ``turns`` in
        0..3, ``tilt`` in (-45, 45] degrees. Halfway between two quarter turns the one before
        counts, so that 45, 135, 225 and 315 all have the tilt 45.
    """
    # Rounded, so that 112.1 has the tilt of 22.1 to the last bit.
    degrees = round(normalise_angle(degrees), 9)
    steps = math.ceil((degrees - 45) / 90)
    return steps % 4, round(degrees - 90 * steps, 9)


def rotated_size(height, width, degrees, canvas="expand"):
    """(height, width) of the canvas for a ``height`` x ``width`` picture."""
    turns, tilt = split_angle(degrees)
    return turned_size(*_tilted_size(height, width, tilt, canvas), turns)


def rotate_image(image, degrees, canvas="expand"):
    """Rotate an image; see the module for interpolation and fill.

    Args:
        image: uint8 or float32 array, H x W or H x W x C with C of at most 4.
        degrees, canvas: see the module.
    Returns:
        Array of the same dtype, of the size :func:`rotated_size`. It may be a view of ``image``.
    """
    turns, tilt = split_angle(degrees)
    return turn_image(_warp(image, tilt, canvas, cv2.INTER_LINEAR, FILL), turns)


def rotate_points(points, degrees, height, width, canvas="expand"):
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
    points = _tilt_points(points, tilt, height, width, canvas)
    return turn_points(points, turns, *_tilted_size(height, width, tilt, canvas))


def rotate_polygons(polygons, degrees, height, width, canvas="expand"):
    """Rotate polygons, a list of flat arrays x0, y0, x1, y1, ..., as :func:`rotate_points` does."""
    return [
        rotate_points(polygon.reshape(-1, 2), degrees, height, width, canvas).reshape(-1)
        for polygon in polygons
    ]


def rotate_boxes(boxes, degrees, height, width, canvas="expand"):
    """The upright boxes around rotated boxes; larger than these, if not at a quarter turn.

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
        corners = _tilt_points(corners, tilt, height, width, canvas)
        boxes = np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)
    return turn_boxes(boxes, turns, *_tilted_size(height, width, tilt, canvas))


def clip_boxes(boxes, height, width):
    """The parts of boxes that lie in a frame.

    Args:
        boxes: (N, 4) array of edges x0, y0, x1, y1.
        height, width: of the frame.
    Returns:
        (the clipped boxes of which some area is left, (N,) bool array of which these are).
    """
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
    kept = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return clipped[kept], kept


def rotate_rle(rle, degrees, canvas="expand"):
    """Rotate a COCO RLE of any kind, crowds included.

    Args and errors:
        as for :func:`canon_seg.geometry.masks.turn_rle`; for ``canvas`` see the module.
    Returns:
        A compressed RLE of the canvas's size, with str counts where the input's were str.
    """
    turns, tilt = split_angle(degrees)
    if tilt == 0:
        return turn_rle(rle, turns)
    mask = _warp(decode_rle(rle), tilt, canvas, cv2.INTER_NEAREST, 0)
    rotated = encode_window(turn_maps(mask, turns), 0, 0, *turned_size(*mask.shape, turns))
    return with_str_counts(rotated) if isinstance(rle["counts"], str) else rotated


def rotate_annotation(annotation, degrees, height, width, canvas="expand"):
    """Rotate a COCO annotation or result.

    Args:
        annotation: dict. At quarter turns all is as in
            :func:`canon_seg.geometry.annotations.turn_annotation`. At other angles "segmentation"
            becomes a compressed RLE with str counts, "bbox" (x, y, w, h) the tight box of that
            mask, and "area" the number of its pixels. Without a segmentation, "bbox" becomes the
            box around the rotated box, clipped to the canvas. Ids, category, iscrowd, ignore and
            score are kept.
        degrees, canvas: see the module.
        height, width: of the picture before rotating.
    Returns:
        A new annotation, or None if no pixel of it is left on the canvas.
    Raises:
        InputError: for malformed values, and, off the quarter turns, for any other key.
    """
    turns, tilt = split_angle(degrees)
    if tilt == 0:
        return turn_annotation(annotation, turns, height, width)
    name = f"annotation {annotation.get('id')}"
    for key in annotation.keys() - _TURNED_KEYS - _INVARIANT_KEYS:
        raise InputError(
            f"{name}, key {key!r}: not known how it rotates by other angles than quarter turns; "
            "remove it"
        )
    if annotation.get("segmentation"):
        rotated = _rotate_mask(annotation["segmentation"], name, turns, tilt, height, width, canvas)
    else:
        rotated = _rotate_box(annotation.get("bbox"), name, degrees, height, width, canvas)
    return rotated and {**annotation, **rotated}


def rotate_coco(dataset, degrees, canvas="expand", progress=False):
    """Rotate a whole COCO data set.

    Args:
        dataset: dict as parsed from a COCO JSON file, sizes of the images included; not changed.
        degrees, canvas: see the module.
        progress: whether to show a progress bar.
    Returns:
        (a new dict with the new sizes of images, how many annotations were cut away wholly).
    Raises:
        InputError: whatever :func:`rotate_annotation` refuses, and an annotation of no image.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    images = []
    for image in dataset["images"]:
        height, width = rotated_size(*sizes[image["id"]], degrees, canvas)
        images.append({**image, "height": height, "width": width})
    annotations = []
    for annotation in tqdm(
        dataset["annotations"], desc=f"rotating annotations by {degrees:g}", disable=not progress
    ):
        if annotation["image_id"] not in sizes:
            raise InputError(
                f"annotation {annotation.get('id')}: image_id {annotation['image_id']} is not "
                "among the images"
            )
        rotated = rotate_annotation(annotation, degrees, *sizes[annotation["image_id"]], canvas)
        if rotated is not None:
            annotations.append(rotated)
    cut = len(dataset["annotations"]) - len(annotations)
    return {**dataset, "images": images, "annotations": annotations}, cut


def _tilted_size(height, width, tilt, canvas):
    if canvas not in CANVASES:
        raise ValueError(f"canvas must be one of {', '.join(CANVASES)}, got {canvas!r}")
    if tilt == 0 or canvas == "crop":
        return height, width
    cos, sin = _cos_sin(tilt)
    spans = height * cos + width * abs(sin), width * cos + height * abs(sin)
    return tuple(math.ceil(span - _SIZE_TOLERANCE) for span in spans)


def _cos_sin(degrees):
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _tilt_points(points, tilt, height, width, canvas):
    if tilt == 0:
        return points
    tilted_height, tilted_width = _tilted_size(height, width, tilt, canvas)
    cos, sin = _cos_sin(tilt)
    x, y = np.moveaxis(points.astype(np.float64), -1, 0)
    x, y = x - width / 2, y - height / 2
    tilted = np.stack(
        [cos * x + sin * y + tilted_width / 2, cos * y - sin * x + tilted_height / 2], axis=-1
    )
    return snap(tilted, ANNOTATION_STEP)


def _warp(image, tilt, canvas, interpolation, fill):
    """Tilt an H x W (x C) array; each pixel of the canvas asks what is at its centre."""
    if tilt == 0:
        return image
    height, width = image.shape[:2]
    tilted_height, tilted_width = _tilted_size(height, width, tilt, canvas)
    if max(height, width, tilted_height, tilted_width) > MAX_SIDE:
        raise InputError(
            f"an image of height {height} and width {width} cannot be rotated by {tilt:g} degrees: "
            f"{MAX_SIDE} px are the most for a side; make it smaller, or take quarter turns"
        )
    cos, sin = _cos_sin(tilt)
    # From pixel indices of the canvas to those of the picture: centres are at (size - 1) / 2.
    x, y = (tilted_width - 1) / 2, (tilted_height - 1) / 2
    to_picture = np.array(
        [
            [cos, -sin, (width - 1) / 2 - cos * x + sin * y],
            [sin, cos, (height - 1) / 2 - sin * x - cos * y],
        ]
    )
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        to_picture,
        (tilted_width, tilted_height),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill,) * 4,
    )


def _rotate_mask(segmentation, name, turns, tilt, height, width, canvas):
    """What a mask off the quarter turns makes of an annotation, or None if nothing is left."""
    frame = _tilted_size(height, width, tilt, canvas)
    try:
        if isinstance(segmentation, dict):
            mask = decode_rle(segmentation)
            if mask.shape != (height, width):
                raise InputError(
                    f"RLE of size {list(mask.shape)} in an image of height {height} and width "
                    f"{width}: the annotation belongs to another image, or the sizes are swapped"
                )
            mask = _warp(mask, tilt, canvas, cv2.INTER_NEAREST, 0)
            left = top = 0
        else:
            polygons = [
                _tilt_points(polygon.reshape(-1, 2), tilt, height, width, canvas)
                for polygon in check_polygons(segmentation)
            ]
            mask, left, top = _rasterise(polygons, *frame)
    except InputError as error:
        raise InputError(f"{name}, key 'segmentation': {error}") from error
    columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
    if len(columns) == 0:
        return None
    # All else happens in the tight box, which is small: most objects are.
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = np.array([left + columns[0], top + rows[0], mask.shape[1], mask.shape[0]])
    box = turn_boxes_xywh(box, turns, *frame)
    rle = encode_window(turn_maps(mask, turns), box[0], box[1], *turned_size(*frame, turns))
    return {
        "segmentation": with_str_counts(rle),
        "bbox": box.astype(float).tolist(),
        "area": int(np.count_nonzero(mask)),
    }


def _rotate_box(bbox, name, degrees, height, width, canvas):
    """As :func:`_rotate_mask` for an annotation that has a box (x, y, w, h) only."""
    try:
        x, y, w, h = (float(number) for number in bbox)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}, key 'bbox': expected four numbers x, y, w, h where there is no "
            f"segmentation, got {bbox}"
        ) from error
    edges = rotate_boxes(np.array([[x, y, x + w, y + h]]), degrees, height, width, canvas)
    edges, kept = clip_boxes(edges, *rotated_size(height, width, degrees, canvas))
    if not kept.all():
        return None
    x0, y0, x1, y1 = edges[0].tolist()
    return {"bbox": [x0, y0, x1 - x0, y1 - y0]}


def _rasterise(polygons, height, width):
    """The union of polygons in a frame, as a window of it: (mask, left, top), mask h x w."""
    points = np.concatenate(polygons)
    size = np.array([width, height])
    first = np.clip(np.floor(points.min(axis=0)), 0, size - 1).astype(int)
    last = np.clip(np.ceil(points.max(axis=0)), first + 1, size).astype(int)
    window_width, window_height = (last - first).tolist()
    shifted = [(polygon - first).ravel().tolist() for polygon in polygons]
    rle = coco_mask.merge(coco_mask.frPyObjects(shifted, window_height, window_width))
    return coco_mask.decode(rle), *first.tolist()
