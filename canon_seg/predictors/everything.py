"""Find everything in an image in one call, with any SAM."""

import cv2
import numpy as np
from segment_anything.utils.amg import batched_mask_to_box, box_xyxy_to_xywh
from tqdm import tqdm

from canon_seg.core.frame import CanonicalFrame
from canon_seg.images.arrays import contiguous
from canon_seg.images.soft_masks import filled
from canon_seg.images.tensors import to_chw
from canon_seg.predictors.defaults import canonicalizer_or_default, load_default_sam
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompted import PromptedSam
from canon_seg.sam.prompts import Prompts
from canon_seg.sam.regions import choose_masks, find_regions

MOST_REGIONS = 20  # masks of a small SAM: the best, after which there is little but noise


def segment_everything(image, sam=None, canonicalizer=None, *, progress=False, **options):
    """Find all masks in an image, in its canonical pose.

    Models are not kept between calls: for many images give your own, or keep a
    :class:`canon_seg.predictors.mask_generator.CanonicalSamAutomaticMaskGenerator`, which also
    tells the pose.

    Args:
        image: (H, W, 3) uint8 array, RGB; or a Pillow image, or the path of a file, see
            :func:`canon_seg.predictors.inputs.as_image`.
        sam: segment_anything's `Sam`; or any predictor with ``set_image`` and ``predict``, such as
            `SAM2ImagePredictor(model)` or ``TransformersSam(model, processor)``; None for the
            embedded one. That one is better at boxes than at clicks, and is asked for the boxes of
            regions of like colour (:mod:`canon_seg.sam.regions`, which needs scikit-image), unless
            there are ``options``.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`; None for the embedded one.
        progress: whether to show a bar with the time that is left, on a terminal.
        **options: those of segment_anything's `SamAutomaticMaskGenerator`, such as
            ``points_per_side``, with its defaults.

    Returns:
        list of segment_anything's records, in the frame of the image: dicts with ``segmentation``
        (an (H, W) bool array), ``area`` (pixels), ``bbox`` (x, y, w, h), ``predicted_iou``,
        ``crop_box``; of points also ``point_coords`` and ``stability_score``.

    Raises:
        InputError: for an image that is no good.
    """
    image = as_image(image)
    if sam is None and not options:
        prompted = PromptedSam(load_default_sam(), multimask=False)
        _, found = segment_regions(
            prompted, canonicalizer_or_default(canonicalizer, "cpu"), image, progress=progress
        )
        return _records(found)
    sam = load_default_sam() if sam is None else sam
    generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **options)
    return generator.generate_with_pose(image, progress)[1]


def segment_regions(
    prompted, canonicalizer, image, count=MOST_REGIONS, min_iou=0.0, progress=False
):
    """Find everything by a SAM that is better at boxes than at clicks.

    It is asked for the boxes of regions of like colour in the canonical image: once for all of
    them, on an image no larger than its own input, to choose some, and once for these.

    Args:
        prompted: :class:`canon_seg.sam.prompted.PromptedSam`.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`.
        image: (H, W, 3) uint8 array, RGB.
        count: how many masks at most.
        min_iou: least predicted IoU of a mask, 0..1.
        progress: whether to show a bar of the three steps, on a terminal.

    Returns:
        (pose, found): the image's :class:`canon_seg.core.pose.Pose`, and
        :class:`canon_seg.sam.prompted.PromptedMasks` in its frame, best first.

    Raises:
        InputError: if scikit-image is not installed.
    """
    frame = CanonicalFrame(
        canonicalizer, as_canonicalizer_takes_it(image, canonicalizer), votes=False
    )
    canonical = contiguous(frame.there(image, "image"))
    height, width = canonical.shape[:2]
    side = min(prompted.sam.image_encoder.img_size, max(height, width))
    size = LongestSide.get_preprocess_shape(height, width, side)
    small = cv2.resize(canonical, size[::-1], interpolation=cv2.INTER_AREA)

    def ask(pixels, wanted, soft=False):
        pixels = pixels if prompted.image_format == "RGB" else pixels[..., ::-1]
        return prompted(to_chw(pixels), Prompts(boxes=wanted), soft=soft).to("cpu")

    with tqdm(
        total=3, desc="everything", unit="step", leave=False, disable=None if progress else True
    ) as bar:
        regions, boxes = find_regions(small)
        bar.update()
        found = ask(small, boxes)
        fits = found.ious >= min_iou
        chosen = choose_masks(found.masks[fits], regions[fits], found.ious[fits], count)
        bar.update()
        enlarged = boxes.new_tensor([width / size[1], height / size[0]] * 2)
        found = ask(canonical, boxes[fits][chosen] * enlarged, soft=frame.tilts)
        bar.update()
    found = found[filled(found.masks) & (found.ious >= min_iou)]
    return frame.pose, frame.back(found)


def _records(found):
    """Return :class:`PromptedMasks` as records of segment_anything's generator."""
    height, width = found.size
    boxes = [box_xyxy_to_xywh(box).tolist() for box in batched_mask_to_box(found.masks)]
    return [
        {
            "segmentation": mask,
            "area": int(np.count_nonzero(mask)),
            "bbox": box,
            "predicted_iou": iou,
            "crop_box": [0, 0, width, height],
        }
        for mask, box, iou in zip(found.masks.numpy(), boxes, found.ious.tolist(), strict=True)
    ]
