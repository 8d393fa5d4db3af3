"""Score detections as the paper's own code does, to compare with its figures: no COCO AP.

What equiadapt, the code of Mondal et al. 2023, calls mAP is computed for batches of 12 images, each
as if it were a data set, and averaged over the batches. A class then counts in those batches alone
where there is an object of it, and detections compete with those of 12 images at most. Besides:

- an image in which nothing is detected counts as if its ground truth had been found with score 1;
- crowds count as objects;
- objects of no area, or less than a pixel wide or high, are left out, and images without objects;
- a size of which a batch has no object counts as 0.

Its images are resized to squares before; here they are as they are.
"""

import math
from collections.abc import Sequence
from typing import Any

from canon_seg.coco.masks import areas_of_rles
from canon_seg.coco.scoring import METRICS, Scorer

BATCH_SIZE = 12
"""Images that are scored together."""

_KEYS_OF_TASKS = {"segm": "segmentation", "bbox": "bbox"}


class PaperScorer:
    """Average the mAP of batches of images.

    Args:
        ground_truth: dict as :class:`canon_seg.coco.scoring.Scorer` takes it; not changed.
        order: ids of its images in the order of the annotation file, by which they are batched.
        batch_size: images of a batch; the last may have fewer.

    Attributes:
        num_images: how many images have objects, and count.
        num_batches: how many batches they make.
    """

    def __init__(
        self, ground_truth: dict[str, Any], order: Sequence[int], batch_size: int = BATCH_SIZE
    ) -> None:
        objects: dict[int, list[dict[str, Any]]] = {}
        for entry in _as_objects(ground_truth["annotations"]):
            objects.setdefault(entry["image_id"], []).append(entry)
        images = {image["id"]: image for image in ground_truth["images"]}
        ids = [image_id for image_id in order if image_id in objects]
        self.num_images = len(ids)
        self._objects = objects
        self._batches = []
        for start in range(0, len(ids), batch_size):
            batch = ids[start : start + batch_size]
            own = {
                **ground_truth,
                "images": [images[image_id] for image_id in batch],
                "annotations": [entry for image_id in batch for entry in objects[image_id]],
            }
            self._batches.append((batch, Scorer(own)))
        self.num_batches = len(self._batches)

    def score(self, results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """Score entries of COCO's results format.

        Args:
            results: of all images, not changed.

        Returns:
            dict from "segm" and "bbox" to a dict from :data:`canon_seg.coco.scoring.METRICS` to
            0..100. A task of which no result has a mask, or a box, is left out.
        """
        tasks = [
            task
            for task, key in _KEYS_OF_TASKS.items()
            if not results or any(key in entry for entry in results)
        ]
        by_image: dict[int, list[dict[str, Any]]] = {}
        for entry in results:
            by_image.setdefault(entry["image_id"], []).append(entry)
        scored = []
        for batch, scorer in self._batches:
            detected = [
                entry
                for image_id in batch
                for entry in by_image.get(image_id) or _as_found(self._objects[image_id], tasks)
            ]
            scored.append(scorer.score(detected))
        if not scored:
            return {}
        return {
            task: {
                metric: math.fsum(_at_least_0(scores[task][metric]) for scores in scored)
                / len(scored)
                for metric in METRICS
            }
            for task in tasks
        }


def _as_objects(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what counts as an object, sized by its mask."""
    kept = [
        entry
        for entry in annotations
        if entry["area"] > 0 and entry["bbox"][2] >= 1 and entry["bbox"][3] >= 1
    ]
    areas = areas_of_rles([entry["segmentation"] for entry in kept])
    return [{**entry, "iscrowd": 0, "area": area} for entry, area in zip(kept, areas, strict=True)]


def _as_found(objects: Sequence[dict[str, Any]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the objects of an image as if they had been detected."""
    keys = ("image_id", "category_id", *(_KEYS_OF_TASKS[task] for task in tasks))
    return [{**{key: entry[key] for key in keys}, "score": 1.0} for entry in objects]


def _at_least_0(value: float) -> float:
    return value if value > 0 else 0.0  # NaN too
