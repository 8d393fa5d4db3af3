"""Turn panoptic predictions by quarter turns, and tilt them."""

import cv2
import numpy as np
import torch

from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import turn_boxes_xywh
from canon_seg.images.tilt import warp_to

_INVARIANT_KEYS = frozenset(
    {"id", "isthing", "category_id", "area", "score", "instance_id", "iscrowd"}
)


def turn_panoptic(panoptic_seg, segments_info, turns):
    """Turn detectron2's ``panoptic_seg`` output.

    Args:
        panoptic_seg: (H, W) numpy array or torch tensor of segment ids.
        segments_info: list of dicts that describe the segments, or None. A "bbox" is COCO's
            x, y, w, h and is turned.
        turns: quarter turns counterclockwise.

    Returns:
        (turned map, new list of new dicts or None).

    Raises:
        ValueError: for a key of a segment that is not known to survive a turn.
    """
    turned_map = turn_maps(panoptic_seg, turns)
    if segments_info is None:
        return turned_map, None
    height, width = panoptic_seg.shape
    return turned_map, [_turn_segment(info, turns, height, width) for info in segments_info]


def tilt_panoptic(panoptic_seg, segments_info, tilting):
    """Tilt detectron2's ``panoptic_seg`` output into another frame.

    Args:
        panoptic_seg: (H, W) numpy array or torch tensor of segment ids, below 2 ** 24.
        segments_info: see :func:`turn_panoptic`.
        tilting: :class:`canon_seg.core.tilting.Tilting` from the frame of the map.

    Returns:
        (map, new list of new dicts or None). Ids are those of the nearest pixel centres, and 0,
        no segment, where nothing is; ``area`` and ``bbox`` are counted anew.

    Raises:
        ValueError: as :func:`turn_panoptic`.
    """
    is_tensor = isinstance(panoptic_seg, torch.Tensor)
    ids = panoptic_seg.cpu().numpy() if is_tensor else panoptic_seg
    # As floats, which OpenCV samples and which hold such numbers exactly.
    tilted = warp_to(ids.astype(np.float32), tilting, cv2.INTER_NEAREST, (0,) * 4)
    tilted = tilted.astype(ids.dtype)
    segments = None
    if segments_info is not None:
        segments = [_tilt_segment(info, tilted == info["id"]) for info in segments_info]
    if is_tensor:
        tilted = torch.from_numpy(tilted).to(panoptic_seg.device)
    return tilted, segments


def _tilt_segment(info, mask):
    _check_keys(info)
    tilted = dict(info)
    if "area" in info:
        tilted["area"] = int(np.count_nonzero(mask))
    if "bbox" in info:
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = [0, 0, 0, 0]
        if len(rows):
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        tilted["bbox"] = [int(value) for value in box]
    return tilted


def _turn_segment(info, turns, height, width):
    _check_keys(info)
    turned = dict(info)
    if "bbox" in info:
        turned["bbox"] = turn_boxes_xywh(np.array(info["bbox"]), turns, height, width).tolist()
    return turned


def _check_keys(info):
    unknown = sorted(set(info) - _INVARIANT_KEYS - {"bbox"})
    if unknown:
        raise ValueError(
            f"segments_info holds {unknown}: it is not known how that turns; "
            f"remove it, or add it to {__name__}"
        )
