"""Register how turns act on what detectron2's models give: ``Instances`` and all that they hold.

Fields of detectron2's own types are turned under any name. Plain tensors and lists say nothing
about their meaning, so these are known by name: masks (``pred_masks``, ``gt_masks``: (N, H, W) in
the image, (N, C, M, M) in the boxes, or a list of RLEs; ``pred_masks_rle``), ``pred_keypoints``
(N, K, 3), ``pred_keypoint_heatmaps`` (N, K, S, S in the boxes), and ``INVARIANT_FIELDS``. For a
field of your own see :mod:`canon_seg.core.action`.
"""

from typing import Any

import cv2
import numpy as np
import torch

from canon_seg.coco.masks import decode_rle, encode_mask, turn_rle, with_str_counts
from canon_seg.coco.panoptic import tilt_panoptic, turn_panoptic
from canon_seg.core import action
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import IDENTITY, Turn, as_turn, exact_turn, turned_size
from canon_seg.images.actions import tilt_boxes, tilt_mask_tensor
from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import (
    PIXEL_STEP,
    snap,
    turn_boxes,
    turn_keypoints,
    turn_polygons,
    turn_rotated_boxes,
)
from canon_seg.images.soft_masks import SoftMasks, tilt_with_vanished
from canon_seg.images.tilt import warp_mask, warp_points, warp_to
from canon_seg.sam.prompted import boxes_around

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
        "pred_vanished",
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


def tilt_instances(instances: Instances, tilting: Tilting) -> Instances:
    """Tilt all that detectron2 knows of an image's instances into another frame.

    Masks of the image that are not cut yet (:mod:`canon_seg.images.soft_masks`) are interpolated
    once and cut; others are sampled at the nearest pixel centres. One of which nothing is left
    stays there, empty, with its score, and is marked in ``pred_vanished`` (N,). ``pred_boxes``
    become the tight boxes of the masks. Without masks
    they become the hulls of the tilted boxes, and ``pred_rotated_boxes`` are these themselves.
    Heatmaps of keypoints, which lie in the boxes, are left out: the keypoints are kept.

    Args:
        instances: not changed.
        tilting: from their frame.

    Returns:
        New ``Instances`` of the target's size; invariant fields are shared.

    Raises:
        TypeError: for a field of which it is not known how it tilts, naming it.
        ValueError: for masks of another size than the image.
    """
    tilted, vanished = Instances(tilting.target), None
    fields = instances.get_fields()
    for name, value in fields.items():
        if name == "pred_keypoint_heatmaps":
            continue
        try:
            if name == "pred_masks" and isinstance(value, (torch.Tensor, SoftMasks)):
                _check_masks(value)
                tilted.pred_masks, vanished = tilt_with_vanished(value, tilting)
                continue
            tilted.set(name, action.tilt(value, tilting, name))
        except ValueError as error:
            raise ValueError(f"Instances field {name!r}: {error}") from error
        except TypeError as error:
            raise TypeError(f"Instances field {name!r}: {error}") from error
    if vanished is not None:
        earlier = fields.get("pred_vanished")
        tilted.pred_vanished = vanished if earlier is None else vanished | earlier
        if "pred_boxes" in fields:
            tilted.pred_boxes = Boxes(boxes_around(tilted.pred_masks.bool()))
    elif isinstance(fields.get("pred_boxes"), Boxes):
        tilted.pred_rotated_boxes = _tilt_rotated_boxes(
            upright_boxes(fields["pred_boxes"]), tilting
        )
    return tilted


def upright_boxes(boxes: Boxes) -> RotatedBoxes:
    """Return boxes as rotated ones of 0 degrees."""
    edges = boxes.tensor
    sizes = edges[:, 2:] - edges[:, :2]
    return RotatedBoxes(
        torch.cat([edges[:, :2] + sizes / 2, sizes, torch.zeros_like(sizes[:, :1])], dim=1)
    )


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


@action.register_tilt(Instances)
def _tilt_instances(instances: Instances, tilting: Tilting) -> Instances:
    return tilt_instances(instances, tilting)


@action.register_tilt(Boxes)
def _tilt_boxes(boxes: Boxes, tilting: Tilting) -> Boxes:
    return Boxes(tilt_boxes(boxes.tensor, tilting))


@action.register_tilt(RotatedBoxes)
def _tilt_rotated_boxes(boxes: RotatedBoxes, tilting: Tilting) -> RotatedBoxes:
    centres = torch.from_numpy(warp_points(boxes.tensor[:, :2].cpu().numpy(), tilting))
    # What was resized is no rotated box any more; detectron2 knows the nearest one.
    shapes = boxes.clone()
    (x, y), (to_x, to_y) = tilting.source_scale, tilting.target_scale
    if (x, y) != (1.0, 1.0):
        shapes.scale(1 / x, 1 / y)
    shapes.tensor[:, 4] += tilting.degrees
    if (to_x, to_y) != (1.0, 1.0):
        shapes.scale(to_x, to_y)
    values = shapes.tensor
    # On the grid on which rotated boxes turn exactly.
    angles = snap((values[:, 4:] + 180) % 360 - 180, 2.0**-12)
    return RotatedBoxes(
        torch.cat([snap(centres, PIXEL_STEP).to(values), values[:, 2:4], angles], dim=1)
    )


def _check_masks(masks: Any) -> None:
    if isinstance(masks, torch.Tensor) and masks.ndim != 3:
        raise TypeError(
            f"masks in their boxes, of the shape {tuple(masks.shape)}, do not turn by an angle "
            "between quarter turns; paste them into the image first"
        )


@action.register_tilt(torch.Tensor, "pred_masks")
def _tilt_masks(masks: torch.Tensor, tilting: Tilting) -> torch.Tensor:
    _check_masks(masks)
    return tilt_mask_tensor(masks, tilting)


@action.register_tilt(BitMasks)
def _tilt_bit_masks(masks: BitMasks, tilting: Tilting) -> BitMasks:
    return BitMasks(tilt_mask_tensor(masks.tensor, tilting))


@action.register_tilt(PolygonMasks)
def _tilt_polygon_masks(masks: PolygonMasks, tilting: Tilting) -> PolygonMasks:
    return PolygonMasks(
        [
            [warp_points(flat.reshape(-1, 2), tilting).reshape(-1) for flat in polygons]
            for polygons in masks.polygons
        ]
    )


@action.register_tilt(list, "pred_masks")
@action.register_tilt(list, "pred_masks_rle")
def _tilt_rles(rles: list, tilting: Tilting) -> list:
    tilted = []
    for rle in rles:
        _check_size(rle["size"], *tilting.source)
        one = encode_mask(warp_mask(decode_rle(rle), tilting))
        tilted.append(with_str_counts(one) if isinstance(rle["counts"], str) else one)
    return tilted


@action.register_tilt(torch.Tensor, "pred_keypoints")
def _tilt_keypoints(keypoints: torch.Tensor, tilting: Tilting) -> torch.Tensor:
    points = torch.from_numpy(warp_points(keypoints[..., :2].cpu().numpy(), tilting))
    return torch.cat([snap(points, PIXEL_STEP).to(keypoints), keypoints[..., 2:]], dim=-1)


@action.register_tilt(torch.Tensor, "sem_seg")
def _tilt_sem_seg(maps: torch.Tensor, tilting: Tilting) -> torch.Tensor:
    """Interpolate the scores of each class; beyond the edges of the map they go on as there."""
    planes = [
        warp_to(plane, tilting, cv2.INTER_LINEAR, None) for plane in maps.float().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(planes)).to(maps)


@action.register_tilt(tuple, "panoptic_seg")
def _tilt_panoptic_seg(panoptic: tuple, tilting: Tilting) -> tuple:
    maps, segments = panoptic
    return tilt_panoptic(maps, segments, tilting)
