"""Rotate COCO masks, annotations and whole data sets by any angle.

What a canvas is, and how pixels and coordinates rotate, is in :mod:`canon_seg.images.tilt`.

Masks
    Polygons are turned as geometry, then rasterised by pycocotools on the canvas. RLE is sampled
    at the nearest pixel centre, which keeps areas right on average, thin parts included; a
    threshold on interpolated values would wear these away.
"""

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from canon_seg.coco.annotations import turn_annotation
from canon_seg.coco.masks import (
    check_polygons,
    decode_rle,
    decode_rle_of_image,
    encode_window,
    turn_rle,
    with_str_counts,
)
from canon_seg.core.turn import split_angle
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps, turned_size
from canon_seg.images.coordinates import turn_boxes_xywh
from canon_seg.images.tilt import (
    clip_boxes,
    rotate_boxes,
    rotated_size,
    tilt_points,
    tilted_size,
    warp,
)

_TURNED_KEYS = frozenset({"segmentation", "bbox", "area"})
_INVARIANT_KEYS = frozenset({"id", "image_id", "category_id", "iscrowd", "ignore", "score"})


def rotate_rle(rle, degrees, canvas="expand"):
    """Rotate a COCO RLE of any kind, crowds included.

    Args and errors:
        as for :func:`canon_seg.coco.masks.turn_rle`; for ``canvas`` see the module.

    Returns:
        A compressed RLE of the canvas's size, with str counts where the input's were str.
    """
    turns, tilt = split_angle(degrees)
    if tilt == 0:
        return turn_rle(rle, turns)
    mask = warp(decode_rle(rle), tilt, canvas, cv2.INTER_NEAREST, 0)
    rotated = encode_window(turn_maps(mask, turns), 0, 0, *turned_size(*mask.shape, turns))
    return with_str_counts(rotated) if isinstance(rle["counts"], str) else rotated


def rotate_annotation(annotation, degrees, height, width, canvas="expand"):
    """Rotate a COCO annotation or result.

    Args:
        annotation: dict. At quarter turns all is as in
            :func:`canon_seg.coco.annotations.turn_annotation`. At other angles "segmentation"
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


def _rotate_mask(segmentation, name, turns, tilt, height, width, canvas):
    """Return an annotation's mask, box and area off the quarter turns; None if nothing is left."""
    frame = tilted_size(height, width, tilt, canvas)
    try:
        if isinstance(segmentation, dict):
            mask = decode_rle_of_image(segmentation, height, width)
            mask = warp(mask, tilt, canvas, cv2.INTER_NEAREST, 0)
            left = top = 0
        else:
            polygons = [
                tilt_points(polygon.reshape(-1, 2), tilt, height, width, canvas)
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
    """Do as :func:`_rotate_mask` for an annotation that has a box (x, y, w, h) only."""
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
    """Rasterise the union of polygons in a frame as a window: (mask, left, top), mask h x w."""
    points = np.concatenate(polygons)
    size = np.array([width, height])
    first = np.clip(np.floor(points.min(axis=0)), 0, size - 1).astype(int)
    last = np.clip(np.ceil(points.max(axis=0)), first + 1, size).astype(int)
    window_width, window_height = (last - first).tolist()
    shifted = [(polygon - first).ravel().tolist() for polygon in polygons]
    rle = coco_mask.merge(coco_mask.frPyObjects(shifted, window_height, window_width))
    return coco_mask.decode(rle), *first.tolist()
