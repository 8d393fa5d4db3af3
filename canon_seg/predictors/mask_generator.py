"""Find everything in an image: segment_anything's mask generator on the canonical image."""

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import mask_to_rle_pytorch

from canon_seg.coco.masks import decode_rle, turn_rle
from canon_seg.core import action
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous, turn_maps
from canon_seg.images.coordinates import (
    ANNOTATION_STEP,
    snap,
    turn_boxes_xywh,
    turn_pixels,
)
from canon_seg.predictors.checks import image_problem
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.models import LongestSide


class CanonicalSamAutomaticMaskGenerator(SamAutomaticMaskGenerator):
    """Put `SamAutomaticMaskGenerator` behind a canonicalizer.

        generator = CanonicalSamAutomaticMaskGenerator(sam)  # or SamAutomaticMaskGenerator(sam)
        records = generator.generate(image)

    The image is turned to its canonical pose, the official generator runs there, crops and
    non-maximum suppression included, and its records are turned back. So the records of a turned
    image are the turned records, in the same order, exact to the last bit (of an image that equals
    a turn of itself, only the canonical result is defined). There are no votes of several poses.

    Args:
        model: a `Sam` in eval mode.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`; in eval mode. With
            `IdentityCanonicalizer` the records are the official generator's own. None for the
            embedded one, on the device of the model.
        **options: the official generator's, with its defaults. These are made for ViT-H: a small
            model may need lower ``pred_iou_thresh`` and ``stability_score_thresh``.
    """

    def __init__(self, model, canonicalizer=None, **options):
        super().__init__(model, **options)
        self.canonicalizer = canonicalizer_or_default(canonicalizer, model.device)
        self.predictor.transform = LongestSide(model.image_encoder.img_size)

    def generate(self, image):
        """Generate as the official generator does: :meth:`generate_with_pose`, without the pose."""
        return self.generate_with_pose(image)[1]

    def generate_with_pose(self, image):
        """Find the pose of an image and all masks in it.

        Args:
            image: (H, W, 3) uint8 array, RGB, as read: before any resizing.

        Returns:
            (pose, records): :class:`canon_seg.images.canonicalizer.Pose`, and the official
            generator's list of dicts in the frame of ``image``, as :func:`turn_record` says. Unless
            the canonicalizer is the identity, ``point_coords`` are rounded to 2 ** -20 px, since
            turning is exact there.
        """
        if problem := image_problem(image):
            super().generate(image)  # segment_anything's own error, where it has one
            raise InputError(problem)
        frame = CanonicalFrame(
            self.canonicalizer, as_canonicalizer_takes_it(image, self.canonicalizer), votes=False
        )
        records = super().generate(contiguous(frame.there(image, "image")))
        if self.canonicalizer.snaps:
            records = [_snapped(record) for record in records]
        return frame.pose, [frame.back(record, "mask_record") for record in records]


@action.register(dict, "mask_record")
def turn_record(record: dict, turn: "Turn | int", height: int, width: int) -> dict:
    """Turn one record of segment_anything's automatic mask generator.

    Args:
        record: dict. ``segmentation``: (height, width) bool array, or RLE of either kind;
            ``bbox``: x, y, w, h of the mask's outermost pixel *indices* (segment_anything counts
            so: a mask of one pixel has w = h = 0), zeros for an empty mask; ``area``;
            ``point_coords``: list of x, y clicks, pixel indices; ``crop_box``: x, y, w, h in pixel
            edges; other values don't depend on the frame.
        turn: by index; an integer stands for quarter turns counterclockwise.
        height, width: of the image before turning, in pixels.

    Returns:
        new dict with the same keys and types.
    """
    frame = turn, height, width
    turned = {
        "segmentation": _turn_segmentation(record["segmentation"], turn),
        "point_coords": turn_pixels(np.array(record["point_coords"]), *frame).tolist(),
        "crop_box": turn_boxes_xywh(np.array(record["crop_box"]), *frame).tolist(),
    }
    if record["area"]:
        # An extent in pixel indices: the image's own goes from 0 to size - 1.
        turned["bbox"] = turn_boxes_xywh(
            np.array(record["bbox"]), turn, height - 1, width - 1
        ).tolist()
    return {**record, **turned}


def _turn_segmentation(segmentation, turn):
    if isinstance(segmentation, np.ndarray):
        return np.ascontiguousarray(turn_maps(segmentation, turn))
    if isinstance(segmentation["counts"], list):  # segment_anything's uncompressed RLE
        mask = np.ascontiguousarray(turn_maps(decode_rle(segmentation), turn))
        return mask_to_rle_pytorch(torch.from_numpy(mask)[None].bool())[0]
    return turn_rle(segmentation, turn)


def _snapped(record):
    return {
        **record,
        "point_coords": snap(np.array(record["point_coords"]), ANNOTATION_STEP).tolist(),
    }
