"""Evaluate COCO on ground truth that was turned with the images."""

from canon_seg.coco.dataset import contiguous_ids, without_empty_masks
from canon_seg.coco.scoring import METRICS, only_scored_keys
from canon_seg.d2.coco_evaluator import CocoEvaluator

__all__ = ["METRICS", "RotatedCOCOEvaluator"]


class RotatedCOCOEvaluator(CocoEvaluator):
    """Compute the COCO AP of images that are rotated.

    At quarter turns every annotation is turned by index, and so is every height and width. Angle 0
    goes the same way, so that the angles can be compared to the last bit. The figures are those of
    pycocotools, and so of detectron2's ``COCOEvaluator``.

    Attributes:
        instances_empty: ids of annotations whose upright mask has no pixel, left out in any view.
        cut: ids of the other annotations that the view cuts away wholly.
        ground_truth: what is left, turned.
        instances_cut: their number.
    """

    def __init__(self, dataset, view):
        """Hold the ground truth, turned as the images will be.

        Args:
            dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`; not changed.
            view: :class:`canon_seg.evaluation.views.View` of the images that will be processed.
        """
        upright, self.instances_empty = without_empty_masks(only_scored_keys(dataset))
        rotated, self.instances_cut = view.dataset(upright)
        left = {entry["id"] for entry in rotated["annotations"]}
        self.cut = [entry["id"] for entry in upright["annotations"] if entry["id"] not in left]
        self.ground_truth = rotated
        super().__init__(rotated, list(contiguous_ids(dataset)))
