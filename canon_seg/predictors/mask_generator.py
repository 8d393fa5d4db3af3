"""Find everything in an image: segment_anything's mask generator on the canonical image."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import generate_crop_boxes, mask_to_rle_pytorch
from tqdm import tqdm

from canon_seg.coco.masks import decode_rle, encode_mask, turn_rle, with_str_counts
from canon_seg.core import action
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.images.actions import tilt_pixels
from canon_seg.images.arrays import contiguous, turn_maps
from canon_seg.images.coordinates import (
    ANNOTATION_STEP,
    snap,
    turn_boxes_xywh,
    turn_pixels,
)
from canon_seg.images.tilt import warp_boxes, warp_mask
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.confidence import bound_to_sam
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompted import PromptedSam


class CanonicalSamAutomaticMaskGenerator(SamAutomaticMaskGenerator):
    """Put `SamAutomaticMaskGenerator` behind a canonicalizer.

        generator = CanonicalSamAutomaticMaskGenerator(sam)  # or SamAutomaticMaskGenerator(sam)
        records = generator.generate(image)

    The image is turned to its canonical pose, the official generator runs there, crops and
    non-maximum suppression included, and its records are turned back. So the records of a turned
    image are the turned records, in the same order, exact to the last bit (of an image that equals
    a turn of itself, only the canonical result is defined). There are no votes of several poses.

    Args:
        model: a `Sam` in eval mode; or any predictor with `SamPredictor`'s pair ``set_image`` and
            ``predict``, as :class:`canon_seg.predictors.adapters.CanonicalImagePredictor` takes it
            (SAM 2's, transformers'), which is asked for one point after the other.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`; in eval mode. With
            `IdentityCanonicalizer` the records are the official generator's own. None for the
            embedded one, on the device of the model.
        **options: the official generator's, with its defaults. These are made for ViT-H: a small
            model may need lower ``pred_iou_thresh`` and ``stability_score_thresh``.
    """

    def __init__(self, model, canonicalizer=None, **options):
        is_sam = hasattr(model, "image_encoder")
        super().__init__(model if is_sam else _NO_SAM, **options)
        device = getattr(model, "device", "cpu")
        self.canonicalizer = canonicalizer_or_default(canonicalizer, device)
        if is_sam:
            prompted = PromptedSam(model, self.canonicalizer.image_format)
            self.canonicalizer = bound_to_sam(self.canonicalizer, prompted)
            self.predictor.transform = LongestSide(model.image_encoder.img_size)
        else:
            self.predictor = _PointByPoint(model)

    def generate(self, image):
        """Generate as the official generator does: :meth:`generate_with_pose`, without the pose."""
        return self.generate_with_pose(image)[1]

    def generate_with_pose(self, image, progress=False, last=None):
        """Find the pose of an image and all masks in it.

        Args:
            image: (H, W, 3) uint8 array, RGB, as read, before any resizing; or a Pillow image, or
                the path of a file, see :func:`canon_seg.predictors.inputs.as_image`.
            progress: whether to show a bar of the batches of clicks, with the time that is left.
            last: dict, empty at first, that keeps the last canonical image and its records from
                call to call, all with the same model and options: the turns of one image are one
                canonical image, which is then segmented once. None keeps nothing.

        Returns:
            (pose, records): :class:`canon_seg.images.canonicalizer.Pose`, and the official
            generator's list of dicts in the frame of ``image``, as :func:`turn_record` says. Unless
            the canonicalizer is the identity, ``point_coords`` are rounded to 2 ** -20 px, since
            turning is exact there.
        """
        image = as_image(image)
        frame = CanonicalFrame(
            self.canonicalizer, as_canonicalizer_takes_it(image, self.canonicalizer), votes=False
        )
        canonical = contiguous(frame.there(image, "image"))
        last = {} if last is None else last
        if not np.array_equal(last.get("image"), canonical):
            # Copies, since callers may write into what they gave and got.
            last["image"], last["records"] = canonical.copy(), self._generate(canonical, progress)
        records = copy.deepcopy(last["records"])
        return frame.pose, [frame.back(record, "mask_record") for record in records]

    def _generate(self, canonical, progress):
        """Return the records of an image in its canonical pose, in its frame."""
        with tqdm(
            total=self._count_batches(*canonical.shape[:2]),
            desc="everything",
            unit="batch",
            leave=False,
            disable=None if progress else True,
        ) as self._bar:
            records = super().generate(canonical)
        if self.canonicalizer.snaps:
            records = [_snapped(record) for record in records]
        return records

    def _count_batches(self, height, width):
        """Count the batches of clicks for an image of a size in pixels, in all its crops."""
        _, layers = generate_crop_boxes(
            (height, width), self.crop_n_layers, self.crop_overlap_ratio
        )
        return sum(
            math.ceil(len(self.point_grids[layer]) / self.points_per_batch) for layer in layers
        )

    def _process_batch(self, *args, **kwargs):
        found = super()._process_batch(*args, **kwargs)
        self._bar.update()
        return found


# What segment_anything's generator looks at in a model before its predictor is replaced.
_NO_SAM = SimpleNamespace(image_encoder=SimpleNamespace(img_size=1024))


class _PointByPoint:
    """Show segment_anything's mask generator any predictor as if it were a `SamPredictor`.

    Args:
        predictor: with ``set_image`` and ``predict``; clicks are pixel indices.
    """

    def __init__(self, predictor):
        self.official = predictor
        self.device = getattr(predictor, "device", "cpu")
        self.model = SimpleNamespace(mask_threshold=0.0)
        # The predictor itself brings clicks to its input frame.
        self.transform = SimpleNamespace(apply_coords=lambda points, size: points)

    def set_image(self, image):
        self.official.set_image(contiguous(image))

    def reset_image(self):
        """Keep the image: not every predictor can forget, and the next one takes its place."""

    def predict_torch(self, points, labels, multimask_output=True, return_logits=False):
        found = [
            self.official.predict(
                point_coords=point.cpu().numpy().astype(float),
                point_labels=label.cpu().numpy(),
                multimask_output=multimask_output,
                return_logits=return_logits,
            )
            for point, label in zip(points, labels, strict=True)
        ]
        masks, scores, logits = (
            torch.stack([torch.as_tensor(np.asarray(part)) for part in parts])
            for parts in zip(*found, strict=True)
        )
        return masks.float() if return_logits else masks, scores.float(), logits.float()


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
        return contiguous(turn_maps(segmentation, turn))
    if isinstance(segmentation["counts"], list):  # segment_anything's uncompressed RLE
        mask = contiguous(turn_maps(decode_rle(segmentation), turn))
        return mask_to_rle_pytorch(torch.from_numpy(mask)[None].bool())[0]
    return turn_rle(segmentation, turn)


@action.register_tilt(dict, "mask_record")
def tilt_record(record: dict, tilting: Tilting) -> dict:
    """Tilt one record into another frame.

    Args:
        record: see :func:`turn_record`.
        tilting: from the frame of the record.

    Returns:
        new dict with the same keys and types. The mask is sampled at the nearest pixel centres,
        ``area`` and ``bbox`` are counted anew, and ``crop_box`` is the hull of the tilted one. Of a
        mask of which nothing is left there is an empty one, and ``vanished``, True.
    """
    segmentation = record["segmentation"]
    is_array = isinstance(segmentation, np.ndarray)
    mask = warp_mask(segmentation if is_array else decode_rle(segmentation).view(bool), tilting)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = [0, 0, 0, 0]
    if len(rows):
        first, last = (columns[0], rows[0]), (columns[-1], rows[-1])
        box = [int(value) for value in (*first, last[0] - first[0], last[1] - first[1])]
    if is_array:
        segmentation = mask
    elif isinstance(segmentation["counts"], list):
        segmentation = mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    else:
        rle = encode_mask(mask)
        segmentation = with_str_counts(rle) if isinstance(segmentation["counts"], str) else rle
    x, y, w, h = record["crop_box"]
    x0, y0, x1, y1 = warp_boxes(np.array([x, y, x + w, y + h]), tilting).tolist()
    return {
        **record,
        "segmentation": segmentation,
        "area": int(np.count_nonzero(mask)),
        "bbox": box,
        "point_coords": tilt_pixels(np.array(record["point_coords"]), tilting).tolist(),
        "crop_box": [x0, y0, x1 - x0, y1 - y0],
        **({"vanished": True} if record["area"] and not len(rows) else {}),
    }


def _snapped(record):
    return {
        **record,
        "point_coords": snap(np.array(record["point_coords"]), ANNOTATION_STEP).tolist(),
    }
