"""Turn what a model found in an image into entries of COCO's results format."""

import torch

from canon_seg.d2 import compat  # noqa: F401 - before detectron2
from canon_seg.errors import InputError

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances


def coco_results(output, image_id, category_ids):
    """Return what a model found in one image, as entries of COCO's results format.

    Args:
        output: dict with ``instances``: ``pred_boxes``, ``scores``, ``pred_classes`` and, if the
            model has them, ``pred_masks``. Other predictions (keypoints) are left out.
        image_id: int.
        category_ids: sequence of the id of each class.

    Returns:
        list of dicts that JSON can hold, masks as compressed RLE.

    Raises:
        InputError: if the model does not segment instances, or not those of these categories.
    """
    if "instances" not in output:
        raise InputError(
            "MODEL.SEGMENTER.META_ARCHITECTURE: this segmenter gives "
            f"{', '.join(sorted(output))} but no instances; COCO's evaluation needs instances"
        )
    instances = output["instances"].to(torch.device("cpu"))
    largest = int(instances.pred_classes.max()) if len(instances) else 0
    if largest >= len(category_ids):
        raise InputError(
            f"the segmenter predicted class {largest}, but the data set has only "
            f"{len(category_ids)} categories; evaluate on the categories that the segmenter "
            "was trained on, or give it weights for these"
        )
    fields = instances.get_fields()
    fields = {name: value for name, value in fields.items() if name != "pred_keypoints"}
    results = instances_to_coco_json(Instances(instances.image_size, **fields), image_id)
    return [{**entry, "category_id": category_ids[entry["category_id"]]} for entry in results]
