"""Return results in the formats of other tools: COCO's JSON, and supervision's `Detections`."""

import numpy as np

from canon_seg.coco.masks import encode_mask, with_str_counts
from canon_seg.errors import InputError


def to_coco_json(instances, image_id, category_ids=None):
    """Return detections of one image as entries of a COCO results file.

    Args:
        instances: detectron2 `Instances` with ``pred_boxes``, ``scores``, ``pred_classes`` and,
            where the model finds them, ``pred_masks`` (N, H, W), ``pred_keypoints`` (N, K, 3).
        image_id: the image's id in the data set.
        category_ids: the data set's id of each class 0, 1, ..., as a sequence or dict; None leaves
            the classes as they are.

    Returns:
        list of dicts that `json.dump` writes: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h
        in pixels), ``score``, and ``segmentation`` (compressed RLE) and ``keypoints`` (x, y, score
        of each, as COCO counts them, in pixel indices).

    Raises:
        InputError: for a class that has no category id.
    """
    fields = instances.get_fields()
    return coco_entries(
        image_id,
        instances.pred_boxes.tensor,
        instances.pred_classes,
        instances.scores,
        masks=fields.get("pred_masks"),
        keypoints=fields.get("pred_keypoints"),
        category_ids=category_ids,
    )


def coco_entries(
    image_id, boxes, classes, scores, masks=None, keypoints=None, category_ids=None
) -> list:
    """Describe the objects of one image as entries of a COCO results file.

    Args:
        image_id, category_ids: see :func:`to_coco_json`, and so for what is returned and raised.
        boxes: (N, 4) tensor of XYXY edges in pixels.
        classes, scores: (N,) tensors.
        masks: (N, H, W) bool tensor, or None.
        keypoints: (N, K, 3) tensor of x, y in the continuous frame and a score, or None.
    """
    boxes = np.array(boxes.cpu(), dtype=np.float64)  # copies: what was given stays as it is
    boxes[:, 2:] -= boxes[:, :2]
    entries = [
        {
            "image_id": image_id,
            "category_id": _category_id(category_ids, label),
            "bbox": box,
            "score": score,
        }
        for label, box, score in zip(classes.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    ]
    if masks is not None:
        for entry, mask in zip(entries, masks.cpu().numpy(), strict=True):
            entry["segmentation"] = with_str_counts(encode_mask(mask))
    if keypoints is not None:
        keypoints = np.array(keypoints.cpu(), dtype=np.float64)
        keypoints[..., :2] -= 0.5  # detectron2's are continuous, COCO's pixel indices
        for entry, one in zip(entries, keypoints, strict=True):
            entry["keypoints"] = one.reshape(-1).tolist()
    return entries


def to_supervision(instances):
    """Return detections of one image for the library supervision (extra ``supervision``).

    Args:
        instances: detectron2 `Instances` with ``pred_boxes``, ``scores``, ``pred_classes`` and,
            where the model finds them, ``pred_masks`` (N, H, W).

    Returns:
        `supervision.Detections`. (Records of the automatic mask generator are taken by its
        ``Detections.from_sam``.)

    Raises:
        ModuleNotFoundError: if supervision is not installed.
    """
    try:
        from supervision import Detections
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        raise ModuleNotFoundError(
            "to_supervision needs the library supervision: pip install supervision", name=error.name
        ) from error
    masks = instances.pred_masks.cpu().numpy() if instances.has("pred_masks") else None
    return Detections(
        xyxy=instances.pred_boxes.tensor.cpu().numpy().astype(np.float32),
        mask=None if masks is None else masks.astype(bool),
        confidence=instances.scores.cpu().numpy(),
        class_id=instances.pred_classes.cpu().numpy().astype(int),
    )


def _category_id(category_ids, label):
    if category_ids is None:
        return label
    try:
        return category_ids[label]
    except (IndexError, KeyError) as error:
        raise InputError(
            f"category_ids has {len(category_ids)} entries and none for class {label}; give the id "
            "of every class"
        ) from error
