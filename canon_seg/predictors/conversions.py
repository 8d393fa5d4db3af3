"""Return results in the formats of other tools: COCO's JSON, and supervision's `Detections`."""

import numpy as np
import torch

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
    image_id = _plain(image_id)
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


def to_supervision(instances, class_names=None, pose=None):
    """Return detections of one image for the library supervision (extra ``supervision``).

    Args:
        instances: detectron2 `Instances` with ``pred_boxes``, ``scores``, ``pred_classes`` and,
            where the model finds them, ``pred_masks`` (N, H, W).
        class_names: name of each class 0, 1, ..., as a sequence or dict, such as
            ``metadata.thing_classes``; None for none.
        pose: :class:`canon_seg.core.pose.Pose` of the image, a predictor's ``result["pose"]``; or
            None.

    Returns:
        `supervision.Detections`. Its ``data`` hold, for each object, ``class_name`` where there are
        names, and ``pose`` (degrees counterclockwise, 0 is upright) and ``pose_probability`` where
        there is a pose. (Records of the automatic mask generator are taken by its
        ``Detections.from_sam``.)

    Raises:
        InputError: for a class that has no name.
        ModuleNotFoundError: if supervision is not installed.
    """
    supervision = import_supervision("to_supervision")
    masks = instances.pred_masks.cpu().numpy() if instances.has("pred_masks") else None
    classes = instances.pred_classes.cpu().numpy().astype(int)
    data = {} if pose is None else pose_data(pose, len(classes))
    if class_names is not None:
        names = [_class_name(class_names, label) for label in classes.tolist()]
        data["class_name"] = np.array(names, dtype=str)
    return supervision.Detections(
        xyxy=instances.pred_boxes.tensor.cpu().numpy().astype(np.float32),
        mask=None if masks is None else masks.astype(bool),
        confidence=instances.scores.cpu().numpy(),
        class_id=classes,
        data=data,
    )


def pose_data(pose, count):
    """Return the pose of an image as supervision's ``data`` of ``count`` objects in it.

    Args:
        pose: :class:`canon_seg.core.pose.Pose`.
        count: number of objects.

    Returns:
        dict of two (count,) float64 arrays: ``pose``, degrees counterclockwise, and
        ``pose_probability``, 0..1.
    """
    return {
        "pose": np.full(count, pose.turn.degrees),
        "pose_probability": np.full(count, pose.probability),
    }


def import_supervision(who):
    """Import the library supervision for ``who``, whom the message names if it is missing.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        raise ModuleNotFoundError(
            f"{who} needs the library supervision: pip install supervision", name=error.name
        ) from error
    return supervision


def _class_name(class_names, label):
    try:
        return class_names[label]
    except (IndexError, KeyError) as error:
        raise InputError(
            f"class_names has {len(class_names)} entries and none for class {label}; give the name "
            "of every class"
        ) from error


def _category_id(category_ids, label):
    if category_ids is None:
        return label
    try:
        return _plain(category_ids[label])
    except (IndexError, KeyError) as error:
        raise InputError(
            f"category_ids has {len(category_ids)} entries and none for class {label}; give the id "
            "of every class"
        ) from error


def _plain(value):
    """Return a number of numpy's or torch's as Python's, which JSON can hold."""
    return value.item() if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) else value
