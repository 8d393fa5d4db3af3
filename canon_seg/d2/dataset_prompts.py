"""Read the box prompts of a data set: from its ground truth, or a detector's COCO results file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from canon_seg.coco.boxes import box_problem, compare_results
from canon_seg.coco.dataset import contiguous_ids, without_empty_masks
from canon_seg.errors import InputError, warn
from canon_seg.images.coordinates import ANNOTATION_STEP, PIXEL_STEP, snap, turn_boxes_xywh
from canon_seg.sam.prompts import Prompts


@dataclass(frozen=True)
class BoxPrompts:
    """Hold the boxes of one upright image, exact until the moment they are given to a model.

    Attributes:
        boxes: (N, 4) float64 x, y, w, h on the grid of ``ANNOTATION_STEP``.
        classes: (N,) int64 contiguous class of each box.
        scores: (N,) float32, the detector's, or None.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None

    def turned(self, turns, height, width, snapped):
        """Turn the boxes into prompts for the turned image.

        Args:
            turns: quarter turns counterclockwise.
            height, width: of the upright image.
            snapped: round to the grid of ``PIXEL_STEP`` while the coordinates are still exact, for
                models that snap prompts. Rounding to float32 first could move a tie.

        Returns:
            :class:`canon_seg.sam.prompts.Prompts`.
        """
        edges = turn_boxes_xywh(self.boxes, turns, height, width)
        edges[:, 2:] += edges[:, :2]
        if snapped:
            edges = snap(edges, PIXEL_STEP)
        return Prompts(
            boxes=torch.from_numpy(edges.astype(np.float32)),
            classes=torch.from_numpy(self.classes),
            scores=None if self.scores is None else torch.from_numpy(self.scores),
        )


def load_box_prompts(source, dataset, ignored_image_ids=()):
    """Load the box prompts of every image of a data set.

    Args:
        source: "boxes" for the boxes of the ground truth, without crowds and empty masks; else the
            path of a COCO results file, whose boxes are those of the upright images.
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`.
        ignored_image_ids: ids that a results file may name although ``dataset`` lacks them.

    Returns:
        dict from image id to :class:`BoxPrompts`.

    Raises:
        InputError: naming the file and the entry that cannot be used.
    """
    image_ids = [image["id"] for image in dataset["images"]]
    if source == "boxes":
        kept, _ = without_empty_masks(dataset)
        entries = [entry for entry in kept["annotations"] if not entry["iscrowd"]]
    else:
        entries = _read_results(source, dataset, {*image_ids, *ignored_image_ids})
    by_image = {image_id: [] for image_id in image_ids}
    for entry in entries:
        by_image.get(entry["image_id"], []).append(entry)
    classes = contiguous_ids(dataset)
    return {
        image_id: BoxPrompts(
            boxes=snap(_array([entry["bbox"] for entry in own], (-1, 4)), ANNOTATION_STEP),
            classes=np.array([classes[entry["category_id"]] for entry in own], np.int64),
            scores=None
            if source == "boxes"
            else _array([entry["score"] for entry in own], -1).astype(np.float32),
        )
        for image_id, own in by_image.items()
    }


def _array(values, shape):
    return np.array(values, np.float64).reshape(shape)


def _read_results(path, dataset, image_ids):
    key = f"MODEL.SAM.PROMPTS: {path}"
    try:
        results = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"{key}: cannot be read ({error.strerror}); give the path of a COCO results file, or "
            '"boxes" for the ground truth\'s'
        ) from error
    except (ValueError, RecursionError) as error:  # the second of lists within lists
        raise InputError(
            f"{key}: is not valid JSON ({error}); it may be cut short, write it again"
        ) from error
    if not isinstance(results, list):
        raise InputError(
            f"{key}: holds a {type(results).__name__} where COCO's results format has a list"
            + (" (an annotation file?)" if isinstance(results, dict) else "")
        )
    categories = {category["id"] for category in dataset["categories"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    for index, entry in enumerate(results):
        problem = _result_problem(entry, image_ids, categories)
        if problem is None and entry["image_id"] in sizes:
            problem = box_problem(entry["bbox"], *sizes[entry["image_id"]])
        if problem:
            raise InputError(f"{key}: entry {index}: {problem}")
    if suspicion := compare_results(results, sizes):
        warn(f"{key}: {suspicion}")
    return results


def _result_problem(entry, image_ids, category_ids):
    if not isinstance(entry, dict):
        return f"{entry!r:.60} is not an object"
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in entry:
            return f"has no {key}; image_id, category_id, bbox and score are needed"
    if not _is_number(entry["score"]):
        return f"score is {entry['score']!r:.60}, not a number"
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox is {box!r:.60}, not [x, y, width, height]"
    if box[2] < 0 or box[3] < 0:
        return f"bbox {box} has a negative width or height"
    for key, known in (("image_id", image_ids), ("category_id", category_ids)):
        if not isinstance(entry[key], int) or entry[key] not in known:
            return (
                f"{key} {entry[key]!r:.60} is not in the data set; use detections of the images "
                "that are evaluated, with its category ids"
            )
    return None


def _is_number(value):
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
