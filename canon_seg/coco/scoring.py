"""Score detections against a COCO ground truth."""

import functools
import os
from typing import Any

import hotcoco
import numpy as np
import numpy.typing as npt

# IoU thresholds (0.5, 0.55, ..., 0.95) and range of areas that each metric is the mean over.
_PARTS_OF_METRICS = {
    "AP": (slice(None), 0),
    "AP50": (slice(0, 1), 0),
    "AP75": (slice(5, 6), 0),
    "APs": (slice(None), 1),
    "APm": (slice(None), 2),
    "APl": (slice(None), 3),
}
METRICS = tuple(_PARTS_OF_METRICS)
"""What :meth:`Scorer.score` gives for each task, on the scale of 0 to 100."""

MAX_DETECTIONS = (1, 10, 100)
"""Numbers of detections, of each class in each image, that COCO's evaluation looks at."""

_KEYS_OF_TASKS = {"segm": "segmentation", "bbox": "bbox"}

# What COCO's evaluation reads of an annotation. Other keys (an attribute, a caption) say nothing
# about how they turn, and nothing here needs them.
_SCORED_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")


class Scorer:
    """Compute the COCO AP of detections, by hotcoco; the figures are pycocotools' to the last bit.

    hotcoco works in threads that a forked process does not have. So a process that is forked after
    its parent has scored cannot score: it raises RuntimeError. Spawned processes can.
    """

    def __init__(self, ground_truth: dict[str, Any]) -> None:
        """Index the ground truth.

        Args:
            ground_truth: dict as returned by :func:`canon_seg.coco.dataset.load_coco`, its masks
                as compressed RLE; not changed.
        """
        # Numbered from 1: 0 means "no match" in the evaluation, and no large id fits.
        self._image_ids = _numbered(ground_truth["images"])
        self._category_ids = _numbered(ground_truth["categories"])
        self._names = [
            category["name"]
            for category in sorted(ground_truth["categories"], key=lambda entry: entry["id"])
        ]
        annotations = ground_truth["annotations"]
        boxes = np.array([entry["bbox"] for entry in annotations], np.float64)
        self._ground_truth = hotcoco.COCO.from_arrays(
            [
                {
                    "id": self._image_ids[image["id"]],
                    "height": image["height"],
                    "width": image["width"],
                }
                for image in ground_truth["images"]
            ],
            [{"id": number, "name": str(number)} for number in self._category_ids.values()],
            [self._image_ids[entry["image_id"]] for entry in annotations],
            [self._category_ids[entry["category_id"]] for entry in annotations],
            boxes.reshape(-1, 4),
            area=[entry["area"] for entry in annotations],
            iscrowd=[entry["iscrowd"] for entry in annotations],
            segmentation=[entry["segmentation"] for entry in annotations],
        )

    def score(
        self, results: list[dict[str, Any]], by_class: bool = False
    ) -> dict[str, dict[str, float]]:
        """Score entries of COCO's results format.

        Args:
            results: list of dicts, not changed.
            by_class: whether to add the AP of each class, as "AP-" and the class's name.

        Returns:
            dict from "segm" and "bbox" to a dict from ``METRICS`` to 0..100, NaN where there is
            nothing of that size to be found. Without predictions, or without masks, the tasks are
            left out that nothing can be said about.
        """
        scores = {}
        for task, key in _KEYS_OF_TASKS.items():
            if results and key in results[0]:
                precision = self.curves(results, task)["precision"]
                scores[task] = _metrics(precision)
                if by_class:
                    scores[task].update(_by_class(precision, self._names))
        return scores

    def curves(
        self,
        results: list[dict[str, Any]],
        task: str,
        max_detections: tuple[int, ...] = MAX_DETECTIONS,
        by_class: bool = True,
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Return the curves of one task, the arrays in ``COCOeval.eval`` of pycocotools.

        Args:
            results: list of dicts of COCO's results format; not changed. A score that is NaN comes
                last, as in pycocotools.
            task: "segm" or "bbox".
            max_detections: three ascending numbers of detections of one class in an image.
            by_class: whether a detection has to be of the object's class.

        Returns:
            dict of arrays, -1 where there is nothing to be found: ``precision`` (10 IoU thresholds,
            101 recalls, classes, 4 area ranges, maximal detections), 0..1; ``recall``, the same
            without recalls; ``scores``, the score at each precision, -inf for NaN.
        """
        if _process_that_scores() != os.getpid():
            raise RuntimeError(
                "this process was forked after its parent had scored, and cannot score itself; "
                'start it by spawning: multiprocessing.get_context("spawn")'
            )
        evaluation = hotcoco.COCOeval(self._ground_truth, self._detections(results, task), task)
        evaluation.params.max_dets = list(max_detections)
        evaluation.params.use_cats = by_class
        evaluation.evaluate()
        evaluation.accumulate()
        curves = evaluation.eval
        return {name: curves[name] for name in ("precision", "recall", "scores")}

    def _detections(self, results, task):
        """Return COCO results as annotations, sized by their mask in "segm", else by their box."""
        numbers = np.array(
            [
                (
                    self._image_ids[entry["image_id"]],
                    entry["score"],
                    self._category_ids[entry["category_id"]],
                )
                for entry in results
            ],
            np.float64,
        ).reshape(-1, 3)
        image_ids, scores, categories = numbers.T
        scores = np.where(np.isnan(scores), -np.inf, scores)
        if task == "bbox":
            boxes = np.array([entry["bbox"] for entry in results], np.float64).reshape(-1, 4)
            masks, areas = None, None
        else:
            # Only the mask counts. With a box hotcoco, as pycocotools, takes the size from that.
            boxes = np.zeros((len(results), 4))
            masks = [entry["segmentation"] for entry in results]
            areas = hotcoco.mask.area(masks)
        table = np.column_stack([image_ids, boxes, scores, categories])
        detections = self._ground_truth.load_res(table, segmentation=masks)
        if areas is not None:
            detections.update_anns(ids=np.arange(1, len(results) + 1), area=areas)
        return detections


@functools.cache
def _process_that_scores():
    """Return the id of the process that scored first; a forked process has its parent's."""
    return os.getpid()


def _numbered(entries):
    """Return a dict from id to 1, 2, ... in ascending order, the order that ties are broken in."""
    ids = sorted(entry["id"] for entry in entries)
    return {own: number for number, own in enumerate(ids, start=1)}


def only_scored_keys(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return a data set whose annotations have only the keys that COCO's evaluation reads."""
    annotations = [
        {key: annotation[key] for key in _SCORED_KEYS} for annotation in dataset["annotations"]
    ]
    return {**dataset, "annotations": annotations}


def _metrics(precision):
    return {
        metric: _mean(precision[thresholds, :, :, area, -1])
        for metric, (thresholds, area) in _PARTS_OF_METRICS.items()
    }


def _by_class(precision, names):
    return {f"AP-{name}": _mean(precision[:, :, i, 0, -1]) for i, name in enumerate(names)}


def _mean(precisions):
    """Return the mean of what is defined, in percent, added up in pycocotools' order."""
    defined = precisions[precisions > -1]
    return 100 * float(np.mean(defined)) if defined.size else float("nan")
