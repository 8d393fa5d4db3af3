"""Keep the old name of :mod:`canon_seg.images.tilt` and :mod:`canon_seg.coco.rotation`."""

from canon_seg.coco.rotation import rotate_annotation, rotate_coco, rotate_rle
from canon_seg.core.turn import normalise_angle, split_angle
from canon_seg.images.tilt import (
    CANVASES,
    FILL,
    MAX_SIDE,
    clip_boxes,
    rotate_boxes,
    rotate_image,
    rotate_points,
    rotate_polygons,
    rotated_size,
)

__all__ = [
    "CANVASES",
    "FILL",
    "MAX_SIDE",
    "clip_boxes",
    "normalise_angle",
    "rotate_annotation",
    "rotate_boxes",
    "rotate_coco",
    "rotate_image",
    "rotate_points",
    "rotate_polygons",
    "rotate_rle",
    "rotated_size",
    "split_angle",
]
