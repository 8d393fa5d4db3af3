"""Measure what a SAM finds in photographs where nothing is asked: how much, how alike, how fast."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from tabulate import tabulate
from tqdm import tqdm

from canon_seg.coco.dataset import describe_empty, without_empty_masks
from canon_seg.evaluation.prompts import MIN_AREA, object_masks, objects_by_image
from canon_seg.images.arrays import contiguous, turn_image, turn_maps
from canon_seg.images.reading import ReadingOptions, read_image

Image: TypeAlias = npt.NDArray[np.uint8]
Masks: TypeAlias = npt.NDArray[np.bool_]

FOUND_IOU, SAME_IOU = 0.5, 0.9
JPEG_QUALITY = 95
QUARTER = 1  # turns counterclockwise, of the image that is segmented again turned


def iou_matrix(first: Masks, second: Masks) -> npt.NDArray[np.float64]:
    """Return the IoU of each mask of one set with each one of another.

    Args:
        first, second: (N, H, W) and (M, H, W) bool.

    Returns:
        (N, M), 0 for two empty masks.
    """
    one, other = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (first, second))
    both = (one @ other.T).astype(np.float64)  # areas below 2 ** 24 pixels are exact
    either = one.sum(axis=1)[:, None] + other.sum(axis=1)[None] - both
    return both / np.maximum(either, 1)


def share_found(wanted: Masks, found: Masks, iou: float) -> tuple[int, int]:
    """Return (how many of the wanted masks have a found one of at least that IoU, how many).

    Args:
        wanted, found: (N, H, W) and (M, H, W) bool; none may be given of either.
        iou: 0..1.
    """
    if not len(wanted) or not len(found):
        return 0, len(wanted)
    return int((iou_matrix(wanted, found).max(axis=1) >= iou).sum()), len(wanted)


def through_jpeg(image: Image) -> Image:
    """Return an (H, W, 3) RGB image after it was saved as JPEG at quality 95."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(decoded, np.uint8)[..., ::-1])


def measure_everything(
    finders: Mapping[str, Callable[[Image], Masks]],
    dataset: Mapping[str, Any],
    images_dir: str | Path,
    *,
    min_area: int = MIN_AREA,
    progress: bool = True,
    reading: ReadingOptions = ReadingOptions(),
) -> dict[str, Any]:
    """Segment everything in the images of a data set.

    Args:
        finders: mode -> function from an (H, W, 3) RGB image to (N, H, W) masks, the ones to show.
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`.
        images_dir: folder that ``file_name`` is relative to.
        min_area: pixels; only larger objects are looked for.
        progress: whether to show a progress bar.
        reading: how images are read.

    Returns:
        dict that JSON can hold: ``num_objects``, ``num_images``; ``instances_empty``: ids of the
        annotations whose mask has no pixel, which are left out; ``modes``: mode -> ``recall``,
        the share of the objects that a mask finds at IoU 0.5; ``masks_per_image``;
        ``kept_after_jpeg`` and ``kept_after_jpeg_turned``, the shares of the masks that are there
        again (IoU 0.9) when the image is saved as JPEG, upright and turned by 90 degrees;
        ``seconds_per_image``. Shares of nothing are None.
    """
    dataset, empty = without_empty_masks(dataset)
    objects = objects_by_image(dataset, min_area)
    entries = [entry for entry in dataset["images"] if entry["id"] in objects]
    counts: dict[str, dict[str, float]] = {
        mode: dict.fromkeys(("hit", "wanted", "masks", "kept", "turned", "seconds"), 0.0)
        for mode in finders
    }
    with tqdm(total=3 * len(finders) * len(entries), unit="image", disable=not progress) as bar:
        for entry in entries:
            image = read_image(Path(images_dir) / entry["file_name"], "RGB", reading)
            wanted = object_masks(objects[entry["id"]], *image.shape[:2])
            for mode, find in finders.items():
                count = counts[mode]
                start = time.perf_counter()
                masks = find(image)
                count["seconds"] += time.perf_counter() - start
                bar.update()
                hit, number = share_found(wanted, masks, FOUND_IOU)
                count["hit"] += hit
                count["wanted"] += number
                count["masks"] += len(masks)
                count["kept"] += share_found(masks, find(through_jpeg(image)), SAME_IOU)[0]
                bar.update()
                turned = through_jpeg(contiguous(turn_image(image, QUARTER)))
                expected = contiguous(turn_maps(masks, QUARTER))
                count["turned"] += share_found(expected, find(turned), SAME_IOU)[0]
                bar.update()
    return {
        "num_images": len(entries),
        "num_objects": sum(map(len, objects.values())),
        "instances_empty": empty,
        "modes": {mode: _summary(count, len(entries)) for mode, count in counts.items()},
    }


def _summary(count: Mapping[str, float], images: int) -> dict[str, float | None]:
    masks = count["masks"]
    return {
        "recall": count["hit"] / count["wanted"] if count["wanted"] else None,
        "masks_per_image": masks / images,
        "kept_after_jpeg": count["kept"] / masks if masks else None,
        "kept_after_jpeg_turned": count["turned"] / masks if masks else None,
        "seconds_per_image": count["seconds"] / images,
    }


def format_everything(result: Mapping[str, Any]) -> str:
    """Format what :func:`measure_everything` found as a table."""
    names = list(next(iter(result["modes"].values())))
    rows = [[mode, *values.values()] for mode, values in result["modes"].items()]
    table = tabulate(rows, headers=["mode", *names], floatfmt=".3f", missingval="-")
    return "\n\n".join([table, *describe_empty(result["instances_empty"])])
