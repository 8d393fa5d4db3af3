"""Merge the results that a segmenter gave for several poses of one image.

All results have to be in one frame. Pure functions: the same results in the same order give the
same bytes, which is what keeps a vote over poses exactly equivariant.
"""

import torch

from canon_seg.d2.instances import upright_boxes
from canon_seg.sam import prompted

from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances


def merge_prompted(results):
    """Choose for each prompt the instance with the best predicted IoU; of equal ones the first.

    Args:
        results: non-empty list of `Instances`, one for each pose, each with one row per prompt in
            the same order and the field ``pred_ious`` (N,); other fields are tensors or `Boxes`.

    Returns:
        new `Instances` of as many rows; nothing is shared with ``results``.
    """
    merged = prompted.merge_prompted(
        [
            {name: _tensor_of(value) for name, value in result.get_fields().items()}
            for result in results
        ],
        "pred_ious",
    )
    for name, value in results[0].get_fields().items():
        if isinstance(value, Boxes):
            merged[name] = Boxes(merged[name])
    return Instances(results[0].image_size, **merged)


def with_the_same_fields(results):
    """Return the results of several poses with the fields that tilts add, where any has them.

    A pose that was not tilted to the frame of the others has no mask that vanished, and its boxes
    are rotated ones of 0 degrees.

    Args:
        results: list of `Instances` in one frame; they are changed.
    """
    known = {name for result in results for name in result.get_fields()}
    for result in results:
        if "pred_vanished" in known and not result.has("pred_vanished"):
            result.pred_vanished = torch.zeros(
                len(result), dtype=torch.bool, device=result.scores.device
            )
        if "pred_rotated_boxes" in known and not result.has("pred_rotated_boxes"):
            result.pred_rotated_boxes = upright_boxes(result.pred_boxes)
        if "pred_rotated_boxes" in known and result.has("pred_keypoint_heatmaps"):
            result.remove("pred_keypoint_heatmaps")  # a tilt leaves them out
    return results


def merge_detections(results, iou_threshold, max_detections):
    """Return the detections of all results after non-maximum suppression within each class.

    Args:
        results: non-empty list of `Instances`, one for each pose, with ``pred_boxes``, ``scores``
            and ``pred_classes``, any number of rows each.
        iou_threshold: of two boxes of one class with a larger IoU, the one with the lower score
            goes, 0..1.
        max_detections: how many to keep, those with the highest scores.

    Returns:
        new `Instances`, by descending score.
    """

    def gathered(name):
        return torch.cat([_tensor_of(result.get(name)) for result in results])

    kept = batched_nms(
        gathered("pred_boxes"), gathered("scores"), gathered("pred_classes"), iou_threshold
    )[:max_detections]
    # Rows are chosen before they are brought together: masks of all poses would take much memory.
    chosen, order, first = [], [], 0
    for result in results:
        mine = (kept >= first) & (kept < first + len(result))
        chosen.append(result[kept[mine] - first])
        order.append(mine.nonzero()[:, 0])
        first += len(result)
    return Instances.cat(chosen)[torch.cat(order).argsort()]


def _tensor_of(value):
    return value.tensor if isinstance(value, Boxes) else value
