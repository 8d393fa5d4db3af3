"""Turn panoptic predictions by quarter turns."""

import numpy as np

from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import turn_boxes_xywh

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


def _turn_segment(info, turns, height, width):
    unknown = sorted(set(info) - _INVARIANT_KEYS - {"bbox"})
    if unknown:
        raise ValueError(
            f"segments_info holds {unknown}: it is not known how that turns; "
            f"remove it, or add it to {__name__}"
        )
    turned = dict(info)
    if "bbox" in info:
        turned["bbox"] = turn_boxes_xywh(np.array(info["bbox"]), turns, height, width).tolist()
    return turned
