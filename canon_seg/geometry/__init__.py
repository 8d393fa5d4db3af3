"""Keep the names of earlier versions: what turns things lives in :mod:`canon_seg.images`.

Masks and annotations in COCO's formats are turned by :mod:`canon_seg.coco`.
"""

from canon_seg.coco.annotations import turn_annotation, turn_coco, turn_polygon_annotation
from canon_seg.coco.masks import annotation_to_rle, decode_rle, encode_mask, turn_rle
from canon_seg.coco.panoptic import turn_panoptic
from canon_seg.geometry.group import C4, CyclicGroup
from canon_seg.images.arrays import turn_image, turn_maps, turned_size
from canon_seg.images.coordinates import (
    ANNOTATION_STEP,
    PIXEL_STEP,
    snap,
    turn_boxes,
    turn_boxes_xywh,
    turn_keypoints,
    turn_pixels,
    turn_points,
    turn_polygons,
    turn_rotated_boxes,
)

__all__ = [
    "ANNOTATION_STEP",
    "C4",
    "PIXEL_STEP",
    "CyclicGroup",
    "annotation_to_rle",
    "decode_rle",
    "encode_mask",
    "snap",
    "turn_annotation",
    "turn_boxes",
    "turn_boxes_xywh",
    "turn_coco",
    "turn_image",
    "turn_keypoints",
    "turn_maps",
    "turn_panoptic",
    "turn_pixels",
    "turn_points",
    "turn_polygon_annotation",
    "turn_polygons",
    "turn_rle",
    "turn_rotated_boxes",
    "turned_size",
]
