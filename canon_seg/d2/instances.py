"""Quarter turns of detectron2's ``Instances``: the one file here that needs detectron2."""

import torch

import canon_seg.d2.compat  # noqa: F401 - before detectron2
from canon_seg.coco.masks import turn_rle
from canon_seg.images.arrays import turn_maps, turned_size
from canon_seg.images.coordinates import (
    turn_boxes,
    turn_keypoints,
    turn_polygons,
    turn_rotated_boxes,
)

from detectron2.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
)

INVARIANT_FIELDS = frozenset(
    {
        "scores",
        "pred_classes",
        "pred_ious",
        "gt_classes",
        "objectness_logits",
    }
)
"""Fields of one value per instance that a turn leaves alone."""


def turn_instances(instances, turns):
    """Turn all that detectron2 knows of an image's instances.

    Fields of detectron2's own types are turned under any name. Plain tensors and lists say
    nothing about their meaning, so these are known by name: masks (``pred_masks``, ``gt_masks``:
    (N, H, W) in the image, (N, C, M, M) in the boxes, or a list of RLEs; ``pred_masks_rle``),
    ``pred_keypoints`` (N, K, 3), ``pred_keypoint_heatmaps`` (N, K, S, S in the boxes), and
    ``INVARIANT_FIELDS``.

    Args:
        instances: ``detectron2.structures.Instances``; not changed.
        turns: quarter turns counterclockwise.

    Returns:
        New ``Instances`` with the turned ``image_size``; invariant fields are shared.

    Raises:
        TypeError: for a field of unknown name or type, naming it.
        ValueError: for masks of another size than the image.
    """
    height, width = (int(side) for side in instances.image_size)
    turned = Instances(turned_size(height, width, turns))
    for name, value in instances.get_fields().items():
        turned.set(name, _turn_field(name, value, turns, height, width))
    return turned


def _turn_field(name, value, turns, height, width):
    turn = _BY_TYPE.get(type(value)) or _BY_NAME.get((name, type(value)))
    if turn is not None:
        try:
            return turn(value, turns, height, width)
        except ValueError as error:
            raise ValueError(f"Instances field {name!r}: {error}") from error
    if name in INVARIANT_FIELDS:
        return value
    raise TypeError(
        f"Instances field {name!r} of type {type(value).__name__}: it is not known how it turns; "
        f"remove it, or add it to {__name__}"
    )


def _turn_boxes(boxes, *frame):
    return Boxes(turn_boxes(boxes.tensor, *frame))


def _turn_rotated_boxes(boxes, *frame):
    return RotatedBoxes(turn_rotated_boxes(boxes.tensor, *frame))


def _turn_bit_masks(masks, *frame):
    return BitMasks(_turn_mask_tensor(masks.tensor, *frame))


def _turn_roi_masks(masks, turns, height, width):
    return ROIMasks(turn_maps(masks.tensor, turns))


def _turn_polygon_masks(masks, *frame):
    return PolygonMasks([turn_polygons(polygons, *frame) for polygons in masks.polygons])


def _turn_keypoint_annotations(keypoints, *frame):
    turned = turn_keypoints(keypoints.tensor, *frame)
    unlabelled = turned[..., 2:] == 0  # by COCO's convention their x and y are 0
    return Keypoints(torch.where(unlabelled, torch.zeros_like(turned), turned))


def _turn_mask_tensor(masks, turns, height, width):
    if masks.ndim == 3:
        _check_size(masks.shape[1:], height, width)
    elif masks.ndim != 4:  # (N, C, M, M) is relative to the boxes, which turn with it
        raise ValueError(f"expected masks (N, H, W) or (N, C, M, M), got {tuple(masks.shape)}")
    return turn_maps(masks, turns)


def _turn_heatmaps(heatmaps, turns, height, width):
    return turn_maps(heatmaps, turns)


def _turn_rles(rles, turns, height, width):
    for rle in rles:
        _check_size(rle["size"], height, width)
    return [turn_rle(rle, turns) for rle in rles]


def _check_size(size, height, width):
    if tuple(size) != (height, width):
        raise ValueError(
            f"a mask of size {tuple(size)} in an image of height {height} and width {width}"
        )


_BY_TYPE = {
    Boxes: _turn_boxes,
    RotatedBoxes: _turn_rotated_boxes,
    BitMasks: _turn_bit_masks,
    PolygonMasks: _turn_polygon_masks,
    ROIMasks: _turn_roi_masks,
    Keypoints: _turn_keypoint_annotations,
}

_BY_NAME = {
    ("pred_masks", torch.Tensor): _turn_mask_tensor,
    ("gt_masks", torch.Tensor): _turn_mask_tensor,
    ("pred_masks", list): _turn_rles,
    ("gt_masks", list): _turn_rles,
    ("pred_masks_rle", list): _turn_rles,
    ("pred_keypoints", torch.Tensor): turn_keypoints,
    ("pred_keypoint_heatmaps", torch.Tensor): _turn_heatmaps,
}
