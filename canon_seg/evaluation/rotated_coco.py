"""detectron2's COCO evaluation on ground truth that was turned with the images."""

import copy
import json
import secrets
import tempfile
from pathlib import Path

from canon_seg import compat  # noqa: F401
from canon_seg.errors import InputError
from canon_seg.geometry.annotations import turn_coco
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""What ``RotatedCOCOEvaluator.evaluate`` gives for each task, on the scale of 0 to 100."""

# What COCO's evaluation reads of an annotation. Other keys (an attribute, a caption) say nothing
# about how they turn, and nothing here needs them.
_SCORED_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")


def contiguous_ids(dataset):
    """detectron2's class index of each category: ids in ascending order become 0, 1, 2, ...

    Args:
        dataset: dict of a COCO instances file.
    Returns:
        dict from category id to index.
    """
    ids = sorted(category["id"] for category in dataset["categories"])
    return {category_id: index for index, category_id in enumerate(ids)}


class RotatedCOCOEvaluator(COCOEvaluator):
    """detectron2's ``COCOEvaluator`` for images that are turned by quarter turns.

    Only the ground truth differs: every annotation is turned by index, and so is every height and
    width. Angle 0 goes the same way, so that the angles can be compared to the last bit. Boxes and
    masks are scored, other predictions (keypoints, proposals) are left out.
    """

    def __init__(self, dataset, turns):
        """
        Args:
            dataset: dict as returned by :func:`canon_seg.data.coco.load_coco`; not changed.
            turns: quarter turns counterclockwise of the images that will be processed.
        """
        turned = turn_coco(_scored(dataset), turns)
        name = f"canon_seg.turned.{secrets.token_hex(8)}"
        # detectron2 takes ground truth from a file, by way of a registered name. Neither is needed
        # any longer once it was read.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "instances.json"
            path.write_text(json.dumps(turned))
            metadata = MetadataCatalog.get(name)
            metadata.set(
                json_file=str(path), thing_dataset_id_to_contiguous_id=contiguous_ids(dataset)
            )
            try:
                super().__init__(name, distributed=False, use_fast_impl=False)
            finally:
                MetadataCatalog.remove(name)
        self._num_classes = len(dataset["categories"])
        self.reset()

    def sibling(self):
        """Another evaluator on the same turned ground truth, which is shared, not copied."""
        other = copy.copy(self)
        other.reset()
        return other

    def process(self, inputs, outputs):
        """Take in predictions for turned images, in the turned frame.

        Args:
            inputs: list of dicts with ``image_id``.
            outputs: list of dicts with ``instances``: ``pred_boxes``, ``scores``,
                ``pred_classes`` and, if the model has them, ``pred_masks``.
        Raises:
            InputError: if the model does not segment instances, or not those of this data set.
        """
        super().process(inputs, [{"instances": self._checked(output)} for output in outputs])

    def _checked(self, output):
        if "instances" not in output:
            raise InputError(
                "MODEL.SEGMENTER.META_ARCHITECTURE: this segmenter gives "
                f"{', '.join(sorted(output))} but no instances; COCO's evaluation needs instances"
            )
        instances = output["instances"]
        fields = {
            name: value for name, value in instances.get_fields().items()
            if name != "pred_keypoints"
        }
        largest = int(instances.pred_classes.max()) if len(instances) else 0
        if largest >= self._num_classes:
            raise InputError(
                f"the segmenter predicted class {largest}, but the data set has only "
                f"{self._num_classes} categories; evaluate on the categories that the segmenter "
                "was trained on, or give it weights for these"
            )
        return Instances(instances.image_size, **fields)


def _scored(dataset):
    annotations = [
        {key: annotation[key] for key in _SCORED_KEYS} for annotation in dataset["annotations"]
    ]
    return {**dataset, "annotations": annotations}
