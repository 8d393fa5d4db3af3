"""Evaluate COCO on ground truth that was turned with the images."""

from canon_seg.coco.dataset import contiguous_ids
from canon_seg.coco.scoring import METRICS, only_scored_keys
from canon_seg.d2.coco_evaluator import CocoEvaluator

__all__ = ["METRICS", "RotatedCOCOEvaluator"]


class RotatedCOCOEvaluator(CocoEvaluator):
    """Compute the COCO AP of images that are rotated.

    At quarter turns every annotation is turned by index, and so is every height and width. Angle 0
    goes the same way, so that the angles can be compared to the last bit. The figures are those of
    pycocotools, and so of detectron2's ``COCOEvaluator``.

    Attributes:
        instances_cut: number of annotations that the view cuts away wholly.
    """

    def __init__(self, dataset, view):
        """Turn the ground truth as the images will be turned.

        Args:
            dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`; not changed.
            view: :class:`canon_seg.evaluation.views.View` of the images that will be processed.
        """
        rotated, self.instances_cut = view.dataset(only_scored_keys(dataset))
        super().__init__(rotated, list(contiguous_ids(dataset)))
