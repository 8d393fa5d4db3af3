"""Register how turns act on what detectron2's models give: ``Instances`` and all that they hold.

Fields of detectron2's own types are turned under any name. Plain tensors and lists say nothing
about their meaning, so these are known by name: masks (``pred_masks``, ``gt_masks``: (N, H, W) in
the image, (N, C, M, M) in the boxes, or a list of RLEs; ``pred_masks_rle``), ``pred_keypoints``
(N, K, 3), ``pred_keypoint_heatmaps`` (N, K, S, S in the boxes), and ``INVARIANT_FIELDS``. For a
field of your own see :mod:`canon_seg.core.action`.
"""

from typing import Any

import torch

from canon_seg.coco.masks import turn_rle
from canon_seg.coco.panoptic import turn_panoptic
from canon_seg.core import action
from canon_seg.core.turn import IDENTITY, Turn, as_turn, exact_turn, turned_size
from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import (
    PIXEL_STEP,
    snap,
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
        "pred_stabilities",
        "gt_classes",
        "objectness_logits",
    }
)
"""Fields of one value per instance that a turn leaves alone."""

action.register_invariant(*INVARIANT_FIELDS)


def turn_instances(instances: Instances, turn: "Turn | int") -> Instances:
    """Turn all that detectron2 knows of an image's instances.

    Args:
        instances: not changed.
        turn: by index; the identity leaves fields of any kind as they are.

    Returns:
        New ``Instances`` with the turned ``image_size``; invariant fields are shared.

    Raises:
        TypeError: for a field of unknown name or type, naming it.
        ValueError: for masks of another size than the image.
    """
    turn = as_turn(turn)
    height, width = (int(side) for side in instances.image_size)
    turned = Instances(turned_size(height, width, turn))
    for name, value in instances.get_fields().items():
        try:
            turned.set(name, action.act(value, turn, height, width, name))
        except ValueError as error:
            raise ValueError(f"Instances field {name!r}: {error}") from error
        except TypeError as error:
            raise TypeError(f"Instances field {name!r}: {error}") from error
    return turned


def turn_own_instances(instances: Instances, turn: "Turn | int") -> Instances:
    """Turn instances as :func:`turn_instances` does, but masks on the CPU in their own memory.

    They must belong to nobody else: a segmenter's are its result, and the cache gives copies. New
    memory for masks costs several times as much as turning them.

    Args:
        instances: of no use afterwards.
        turn: by index.
    """
    turn = exact_turn(turn)
    fields = instances.get_fields()
    masks = fields.get("pred_masks")
    if (
        turn == IDENTITY
        or not isinstance(masks, torch.Tensor)
        or masks.device.type != "cpu"
        or not masks.is_contiguous()
        or masks.shape[1:] != torch.Size(instances.image_size)
    ):
        return turn_instances(instances, turn)
    # A turn is a flip and, for an odd number of quarters, an exchange of the axes, which is a view.
    flipped = {1: {-1}, 2: {-2, -1}, 3: {-2}}.get(turn.quarters, set())
    axes = sorted(flipped ^ ({-1} if turn.mirrored else set()))
    if axes:
        for mask in masks:
            mask.copy_(mask.flip(axes))
    others = {name: value for name, value in fields.items() if value is not masks}
    turned = turn_instances(Instances(instances.image_size, **others), turn)
    turned.pred_masks = masks.transpose(-2, -1) if turn.quarters % 2 else masks
    return turned


def snap_instances(instances: Instances) -> Instances:
    """Round predicted coordinates to the grid on which turning is exact in float32.

    Args:
        instances: not changed; boxes of any kind and ``pred_keypoints`` are rounded.
    """
    snapped = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, Boxes):  # rotated ones too
            snapped.set(name, type(value)(snap(value.tensor, PIXEL_STEP)))
        elif name == "pred_keypoints":
            rounded = snap(value[..., :2], PIXEL_STEP)
            snapped.set(name, torch.cat([rounded, value[..., 2:]], dim=-1))
        else:
            snapped.set(name, value)
    return snapped


@action.register(Instances)
def _instances(instances: Instances, turn: Turn, height: int, width: int) -> Instances:
    return turn_instances(instances, turn)


@action.register(Instances, "instances")
@action.register(Instances, "proposals")
def _own_instances(instances: Instances, turn: Turn, height: int, width: int) -> Instances:
    """Turn what a segmenter returned, which belongs to nobody else."""
    return turn_own_instances(instances, turn)


@action.register(torch.Tensor, "sem_seg")
def _sem_seg(maps: torch.Tensor, turn: Turn, height: int, width: int) -> torch.Tensor:
    return turn_maps(maps, turn)


@action.register(tuple, "panoptic_seg")
def _panoptic_seg(panoptic: tuple, turn: Turn, height: int, width: int) -> tuple:
    maps, segments = panoptic
    return turn_panoptic(maps, segments, turn)


@action.register(Boxes)
def _boxes(boxes: Boxes, turn: Turn, height: int, width: int) -> Boxes:
    return Boxes(turn_boxes(boxes.tensor, turn, height, width))


@action.register(RotatedBoxes)
def _rotated_boxes(boxes: RotatedBoxes, turn: Turn, height: int, width: int) -> RotatedBoxes:
    return RotatedBoxes(turn_rotated_boxes(boxes.tensor, turn, height, width))


@action.register(BitMasks)
def _bit_masks(masks: BitMasks, turn: Turn, height: int, width: int) -> BitMasks:
    return BitMasks(_mask_tensor(masks.tensor, turn, height, width))


@action.register(ROIMasks)
def _roi_masks(masks: ROIMasks, turn: Turn, height: int, width: int) -> ROIMasks:
    return ROIMasks(turn_maps(masks.tensor, turn))


@action.register(PolygonMasks)
def _polygon_masks(masks: PolygonMasks, turn: Turn, height: int, width: int) -> PolygonMasks:
    return PolygonMasks([turn_polygons(one, turn, height, width) for one in masks.polygons])


@action.register(Keypoints)
def _keypoint_annotations(keypoints: Keypoints, turn: Turn, height: int, width: int) -> Keypoints:
    turned = turn_keypoints(keypoints.tensor, turn, height, width)
    unlabelled = turned[..., 2:] == 0  # by COCO's convention their x and y are 0
    return Keypoints(torch.where(unlabelled, torch.zeros_like(turned), turned))


@action.register(torch.Tensor, "pred_masks")
@action.register(torch.Tensor, "gt_masks")
def _mask_tensor(masks: torch.Tensor, turn: Turn, height: int, width: int) -> torch.Tensor:
    if masks.ndim == 3:
        _check_size(masks.shape[1:], height, width)
    elif masks.ndim != 4:  # (N, C, M, M) is relative to the boxes, which turn with it
        raise ValueError(f"expected masks (N, H, W) or (N, C, M, M), got {tuple(masks.shape)}")
    return turn_maps(masks, turn)


@action.register(torch.Tensor, "pred_keypoint_heatmaps")
def _heatmaps(heatmaps: torch.Tensor, turn: Turn, height: int, width: int) -> torch.Tensor:
    return turn_maps(heatmaps, turn)


@action.register(list, "pred_masks")
@action.register(list, "gt_masks")
@action.register(list, "pred_masks_rle")
def _rles(rles: list, turn: Turn, height: int, width: int) -> list:
    for rle in rles:
        _check_size(rle["size"], height, width)
    return [turn_rle(rle, turn) for rle in rles]


action.register(torch.Tensor, "pred_keypoints")(turn_keypoints)


def _check_size(size: Any, height: int, width: int) -> None:
    if tuple(size) != (height, width):
        raise ValueError(
            f"a mask of size {tuple(size)} in an image of height {height} and width {width}"
        )
