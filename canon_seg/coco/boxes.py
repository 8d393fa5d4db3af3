"""Compare the boxes of annotations with their masks: boxes in another notation look like boxes."""

import pycocotools.mask as mask_util

_EDGE = 2.0  # px; an edge that is off by no more agrees with the mask
_SHARE = 0.2  # of the mask's longer side: one that is off by no more agrees, too
_LISTED = 10

# What (x, y, width, height) has to be, if its four numbers a, b, c, d were written otherwise.
_NOTATIONS = {
    "corners x0, y0, x1, y1": lambda a, b, c, d, height, width: (a, b, c - a, d - b),
    "a centre, width and height": lambda a, b, c, d, height, width: (a - c / 2, b - d / 2, c, d),
    "fractions of the image, x, y, width, height": lambda a, b, c, d, height, width: (
        a * width,
        b * height,
        c * width,
        d * height,
    ),
    "fractions of the image, corners x0, y0, x1, y1": lambda a, b, c, d, height, width: (
        a * width,
        b * height,
        (c - a) * width,
        (d - b) * height,
    ),
    "fractions of the image, a centre, width and height": lambda a, b, c, d, height, width: (
        (a - c / 2) * width,
        (b - d / 2) * height,
        c * width,
        d * height,
    ),
    "y before x": lambda a, b, c, d, height, width: (b, a, d, c),
}


def box_problem(box, height, width):
    """Describe why a box can enclose nothing of its image, or return None.

    Args:
        box: x, y, width, height in pixels.
        height, width: of the image.
    """
    x, y, w, h = box
    if not (w > 0 and h > 0):
        return f"bbox {box} has no area"
    if not (x < width and y < height and x + w > 0 and y + h > 0):
        return f"bbox {box} lies outside the image, {width} wide and {height} high"
    return None


def impossible_box(box, segmentation, height, width):
    """Describe why a box cannot be that of a mask, or return None.

    Of a mask without a pixel in the image the box may be anything: such objects are left out.

    Args:
        box, height, width: see :func:`box_problem`.
        segmentation: polygons or RLE, well-formed.
    """
    problem = box_problem(box, height, width)
    if problem is None or box_of_mask(segmentation, height, width) is None:
        return None
    return f"{problem}, though its mask has pixels; correct the box"


def box_of_mask(segmentation, height, width):
    """Return the box around a mask as (x, y, width, height), or None if it has no area.

    Args:
        segmentation: polygons, whose corners count, or RLE, well-formed.
        height, width: of the image, at whose edges the box ends.
    """
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, height, width)
        x, y, w, h = mask_util.toBbox(segmentation).tolist()
    else:
        xs = [value for polygon in segmentation for value in polygon[::2]]
        ys = [value for polygon in segmentation for value in polygon[1::2]]
        x, y = max(0, min(xs)), max(0, min(ys))
        w, h = min(width, max(xs)) - x, min(height, max(ys)) - y
    return (x, y, w, h) if w > 0 and h > 0 else None


def compare_boxes(dataset):
    """Say how many boxes disagree with their masks, and the likely cause if most do.

    Crowds, and masks without an area, do not count.

    Args:
        dataset: dict of a COCO instances file whose entries are well-formed.

    Returns:
        the end of a sentence, or None where all agree.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    count, wrong = 0, []
    for entry in dataset["annotations"]:
        if entry.get("iscrowd"):
            continue
        size = sizes[entry["image_id"]]
        own = box_of_mask(entry["segmentation"], *size)
        if own is not None:
            count += 1
            if not _agrees(entry["bbox"], own, *size):
                wrong.append((entry, own, size))
    if not wrong:
        return None
    ids = ", ".join(str(entry["id"]) for entry, _, _ in wrong[:_LISTED])
    message = (
        f"{len(wrong)} of {count} boxes disagree with their masks (annotations {ids}"
        f"{', ...' if len(wrong) > _LISTED else ''})"
    )
    if 2 * len(wrong) <= count:
        return message
    best, name = max(
        (
            sum(_agrees(read(*entry["bbox"], *size), own, *size) for entry, own, size in wrong),
            name,
        )
        for name, read in _NOTATIONS.items()
    )
    if 2 * best > len(wrong):
        return (
            f"{message}: they are probably {name}, where COCO has x, y, width, height in pixels; "
            "convert them, or they will count as wrong prompts and boxes"
        )
    return f"{message}: do they belong to other images, or to other sizes of these?"


def compare_results(results, sizes):
    """Say what the boxes of detections probably are, if most cannot be x, y, width, height.

    There are no masks to compare these with, but detectors cut their boxes at the edges of images.

    Args:
        results: entries of a COCO results file, well-formed.
        sizes: dict from image id to (height, width); entries of other images do not count.

    Returns:
        the end of a sentence, or None.
    """
    boxes = [
        (entry["bbox"], sizes[entry["image_id"]]) for entry in results if entry["image_id"] in sizes
    ]
    fractions = sum(max(box) <= 1 < min(size) for box, size in boxes)
    beyond = sum(
        x + w > width + max(_EDGE, _SHARE * w) or y + h > height + max(_EDGE, _SHARE * h)
        for (x, y, w, h), (height, width) in boxes
    )
    for count, what, name in (
        (fractions, "lie within one pixel", "fractions of the image"),
        (beyond, "reach far beyond their images", "corners x0, y0, x1, y1"),
    ):
        if 2 * count > len(boxes):
            return (
                f"{count} of {len(boxes)} boxes {what}: they are probably {name}, where COCO has "
                "x, y, width, height in pixels; convert them, or they will be wrong prompts"
            )
    return None


def _agrees(box, own, height, width):
    """Return whether the edges of a box, cut at the image's, are near those of the mask."""
    (x, y, w, h), (left, top, wide, high) = box, own
    near = max(_EDGE, _SHARE * max(wide, high))
    return (
        abs(max(0, x) - left) <= near
        and abs(max(0, y) - top) <= near
        and abs(min(width, x + w) - (left + wide)) <= near
        and abs(min(height, y + h) - (top + high)) <= near
    )
