"""Evaluate COCO on ground truth that was turned with the images."""

import torch
from faster_coco_eval import COCO, COCOeval_faster

from canon_seg.coco.dataset import contiguous_ids
from canon_seg.coco.masks import areas_of_rles
from canon_seg.d2.coco_results import DatasetEvaluator, coco_results

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""What ``RotatedCOCOEvaluator.evaluate`` gives for each task, on the scale of 0 to 100."""

# What COCO's evaluation reads of an annotation. Other keys (an attribute, a caption) say nothing
# about how they turn, and nothing here needs them.
_SCORED_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")

_KEYS_OF_TASKS = {"segm": "segmentation", "bbox": "bbox"}


class RotatedCOCOEvaluator(DatasetEvaluator):
    """Compute the COCO AP of images that are rotated, by faster-coco-eval.

    At quarter turns every annotation is turned by index, and so is every height and width. Angle 0
    goes the same way, so that the angles can be compared to the last bit. The figures are those of
    pycocotools, and so of detectron2's ``COCOEvaluator``.

    Attributes:
        instances_cut: number of annotations that the view cuts away wholly.
    """

    def __init__(self, dataset, view):
        """Hold the ground truth, turned as the images will be.

        Args:
            dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`; not changed.
            view: :class:`canon_seg.evaluation.views.View` of the images that will be processed.
        """
        rotated, self.instances_cut = view.dataset(_scored(dataset))
        self._ground_truth = COCO(rotated)
        self._category_ids = list(contiguous_ids(dataset))
        self.reset()

    def reset(self):
        """Forget all predictions taken in so far."""
        self._results = []

    def process(self, inputs, outputs):
        """Take in predictions for rotated images, in their own frame.

        Args:
            inputs: list of dicts with ``image_id``.
            outputs: list of dicts as :func:`coco_results` takes.

        Raises:
            InputError: see there.
        """
        for image, output in zip(inputs, outputs, strict=True):
            self.extend(coco_results(output, image["image_id"], self._category_ids))

    def extend(self, results):
        """Take in entries of COCO's results format, of rotated images, in their own frame."""
        self._results.extend(results)

    def evaluate(self):
        """Return the scores of what was taken in since the last ``reset``.

        Returns:
            dict from "segm" and "bbox" to a dict from ``METRICS`` to 0..100, NaN where there is
            nothing of that size to be found. Without predictions, or without masks, the tasks are
            left out that nothing can be said about.
        """
        scores = {}
        for task, key in _KEYS_OF_TASKS.items():
            if self._results and key in self._results[0]:
                scores[task] = self._score(task)
        return scores

    def _score(self, task):
        evaluation = COCOeval_faster(
            self._ground_truth,
            COCO({**self._ground_truth.dataset, "annotations": _detections(self._results, task)}),
            task,
            rle_iou_max_workers=torch.get_num_threads(),
        )
        evaluation.run()
        return {
            metric: 100 * float(value) if value >= 0 else float("nan")
            for metric, value in zip(METRICS, evaluation.stats, strict=False)
        }


def _detections(results, task):
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
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "score": entry["score"],
            "area": area,
            "iscrowd": 0,
            key: entry[key],
        }
        for number, (entry, area) in enumerate(zip(results, areas, strict=True), start=1)
    ]


def _scored(dataset):
    annotations = [
        {key: annotation[key] for key in _SCORED_KEYS} for annotation in dataset["annotations"]
    ]
    return {**dataset, "annotations": annotations}
