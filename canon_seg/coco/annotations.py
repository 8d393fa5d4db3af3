"""Turn COCO annotations, results and whole data sets (the parsed JSON) by quarter turns.

No input is changed. Turning by 0 takes the same way as any other turn (same rounding, same mask
encoding), so that all four angles of an evaluation are treated alike.
"""

import numpy as np

from canon_seg.coco.masks import annotation_to_rle, check_polygons, turn_rle, with_str_counts
from canon_seg.errors import InputError
from canon_seg.images.arrays import turned_size
from canon_seg.images.coordinates import (
    ANNOTATION_STEP,
    snap,
    turn_boxes_xywh,
    turn_pixels,
    turn_polygons,
)

_INVARIANT_KEYS = frozenset(
    {"id", "image_id", "category_id", "area", "iscrowd", "ignore", "num_keypoints", "score"}
)


def turn_annotation(annotation, turns, height, width):
    """Turn a COCO annotation or result; its mask is turned pixel by pixel.

    Args:
        annotation: dict. "segmentation" (polygons or RLE) becomes a compressed RLE with str
            counts: polygons are rasterised upright, then the raster is turned. "bbox" (x, y, w,
            h) is snapped to ``ANNOTATION_STEP`` and turned in float64. "keypoints" (flat x, y, v;
            pixel indices) turn, unlabelled ones (v = 0) are 0, 0, 0. An empty segmentation and
            ids, category, area, iscrowd, ignore, num_keypoints and score are kept.
        turns: quarter turns counterclockwise.
        height, width: size of the annotated image before turning.

    Returns:
        A new annotation for the turned image.

    Raises:
        InputError: for malformed values, and for a key that is not known to survive a turn.
    """
    return _turn(annotation, turns, height, width, _turn_mask)


def turn_polygon_annotation(annotation, turns, height, width):
    """Do as :func:`turn_annotation`, but keep polygons as polygons: for export and editing.

    Their vertices are snapped to ``ANNOTATION_STEP`` and turned. Not for evaluation: the mask
    that pycocotools makes of turned polygons differs from the turned mask.
    """
    return _turn(annotation, turns, height, width, _turn_outline)


def turn_coco(dataset, turns):
    """Turn a whole COCO data set: every annotation, and height and width of every image.

    Args:
        dataset: dict as parsed from a COCO JSON file.
        turns: quarter turns counterclockwise.

    Returns:
        A new dict. File names are kept: whoever reads an image turns its pixels.

    Raises:
        InputError: for an image without its size, an annotation without its image, and whatever
            :func:`turn_annotation` refuses.
    """
    sizes = {image.get("id"): _image_size(image) for image in dataset["images"]}
    images = []
    for image in dataset["images"]:
        height, width = turned_size(*sizes[image.get("id")], turns)
        images.append({**image, "height": height, "width": width})
    annotations = []
    for annotation in dataset.get("annotations", []):
        image_id = annotation.get("image_id")
        if image_id not in sizes:
            raise InputError(
                f"annotation {annotation.get('id')}: image_id {image_id} is not among the images"
            )
        annotations.append(turn_annotation(annotation, turns, *sizes[image_id]))
    return {**dataset, "images": images, "annotations": annotations}


def _turn(annotation, turns, height, width, turn_segmentation):
    turned = {}
    for key, value in annotation.items():
        try:
            if key == "segmentation" and value:
                turned[key] = turn_segmentation(value, turns, height, width)
            elif key == "bbox":
                turned[key] = _turn_bbox(value, turns, height, width)
            elif key == "keypoints":
                turned[key] = _turn_keypoints(value, turns, height, width)
            elif key == "segmentation" or key in _INVARIANT_KEYS:
                turned[key] = value
            else:
                raise InputError(f"not known how it turns; remove it, or add it to {__name__}")
        except InputError as error:
            raise InputError(f"annotation {annotation.get('id')}, key {key!r}: {error}") from error
    return turned


def _turn_mask(segmentation, turns, height, width):
    return with_str_counts(turn_rle(annotation_to_rle(segmentation, height, width), turns))


def _turn_outline(segmentation, turns, height, width):
    if isinstance(segmentation, dict):
        return _turn_mask(segmentation, turns, height, width)
    polygons = [snap(polygon, ANNOTATION_STEP) for polygon in check_polygons(segmentation)]
    return [polygon.tolist() for polygon in turn_polygons(polygons, turns, height, width)]


def _turn_bbox(bbox, turns, height, width):
    box = _numbers(bbox)
    if box.shape != (4,):
        raise InputError(f"expected four numbers x, y, w, h, got {bbox}")
    return turn_boxes_xywh(snap(box, ANNOTATION_STEP), turns, height, width).tolist()


def _turn_keypoints(keypoints, turns, height, width):
    numbers = _numbers(keypoints)
    if numbers.ndim != 1 or len(numbers) % 3:
        raise InputError(f"expected a flat list x, y, v, x, y, v, ..., got {str(keypoints)[:40]}")
    numbers = numbers.reshape(-1, 3)
    xy, v = snap(numbers[:, :2], ANNOTATION_STEP), numbers[:, 2:]
    turned = np.concatenate([turn_pixels(xy, turns, height, width), v], axis=1)
    turned[v[:, 0] == 0] = 0
    if all(isinstance(number, int) for number in keypoints):
        turned = turned.astype(np.int64)
    return turned.ravel().tolist()


def _numbers(values):
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a list of numbers, got {str(values)[:40]}") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"expected finite numbers, got {str(values)[:80]}")
    return numbers


def _image_size(image):
    size = image.get("height"), image.get("width")
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(
            f"image {image.get('id')}: height {size[0]} and width {size[1]} must be positive "
            "integers; add them to the file"
        )
    return size
