"""Score detections against a COCO ground truth."""

from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster

from canon_seg.coco.masks import areas_of_rles

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""What :meth:`Scorer.score` gives for each task, on the scale of 0 to 100."""

_KEYS_OF_TASKS = {"segm": "segmentation", "bbox": "bbox"}

# What COCO's evaluation reads of an annotation. Other keys (an attribute, a caption) say nothing
# about how they turn, and nothing here needs them.
_SCORED_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")


class Scorer:
    """Compute the COCO AP of detections, by faster-coco-eval; the figures are pycocotools'."""

    def __init__(self, ground_truth: dict[str, Any]) -> None:
        """Index the ground truth.

        Args:
            ground_truth: dict as returned by :func:`canon_seg.coco.dataset.load_coco`, its masks
                as RLE with str counts; not changed.
        """
        self._image_ids = _numbered(ground_truth["images"])
        self._category_ids = _numbered(ground_truth["categories"])
        self._ground_truth = COCO(self._with_own_ids(ground_truth))
        self._names = [
            category["name"]
            for category in sorted(ground_truth["categories"], key=lambda entry: entry["id"])
        ]

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
                evaluation = self._run(results, task)
                scores[task] = _metrics(evaluation)
                if by_class:
                    scores[task].update(_by_class(evaluation, self._names))
        return scores

    def _run(self, results, task):
        evaluation = COCOeval_faster(
            self._ground_truth,
            COCO({**self._ground_truth.dataset, "annotations": self._detections(results, task)}),
            task,
            rle_iou_max_workers=torch.get_num_threads(),
        )
        evaluation.run()
        return evaluation

    def _with_own_ids(self, dataset):
        """Return the data set numbered from 1: 0 means "no match" there, and no large id fits."""
        annotations = [
            {**self._renumbered(entry), "id": number}
            for number, entry in enumerate(dataset["annotations"], start=1)
        ]
        return {
            **dataset,
            "images": [
                {**entry, "id": self._image_ids[entry["id"]]} for entry in dataset["images"]
            ],
            "categories": [
                {**entry, "id": self._category_ids[entry["id"]]} for entry in dataset["categories"]
            ],
            "annotations": annotations,
        }

    def _renumbered(self, entry):
        return {
            **entry,
            "image_id": self._image_ids[entry["image_id"]],
            "category_id": self._category_ids[entry["category_id"]],
        }

    def _detections(self, results, task):
        """Return COCO results as annotations, sized by their mask in "segm", else by their box.

        What ``COCO.loadRes`` does, but that goes through the masks one by one, and twice.
        """
        key = _KEYS_OF_TASKS[task]
        if task == "segm":
            areas = areas_of_rles([entry[key] for entry in results])
        else:
            areas = [entry[key][2] * entry[key][3] for entry in results]
        return [
            {
                "id": number,
                "image_id": self._image_ids[entry["image_id"]],
                "category_id": self._category_ids[entry["category_id"]],
                "score": entry["score"],
                "area": area,
                "iscrowd": 0,
                key: entry[key],
            }
            for number, (entry, area) in enumerate(zip(results, areas, strict=True), start=1)
        ]


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


def _metrics(evaluation):
    return {
        metric: 100 * float(value) if value >= 0 else float("nan")
        for metric, value in zip(METRICS, evaluation.stats, strict=False)
    }


def _by_class(evaluation, names):
    precision = evaluation.eval["precision"]  # IoU, recall, class, area, number of detections
    by_class = {}
    for index, name in enumerate(names):
        values = precision[:, :, index, 0, -1]
        values = values[values > -1]
        by_class[f"AP-{name}"] = 100 * float(np.mean(values)) if values.size else float("nan")
    return by_class
