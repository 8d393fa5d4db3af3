"""Choose what to ask a small SAM for, where nothing is asked: boxes of regions of like colour.

A SAM that was trained on few images is good at boxes and not at single clicks, of which
segment_anything's automatic mask generator is made.
"""

import numpy as np
import torch

from canon_seg.errors import InputError

SCALES = (100, 300, 1000)  # from parts of objects to whole ones
LEAST_AREA, LEAST_SIDE = 0.002, 8  # of the image; pixels
LARGEST_BOX = 0.95  # of the image
SAME_IOU = 0.5  # of masks that show the same thing


def find_regions(image):
    """Find regions of like colour at several scales.

    By Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation" (IJCV 2004).

    Args:
        image: (H, W, 3) uint8 array, RGB; some hundred pixels wide, for which the scales are made.

    Returns:
        (masks (N, H, W) bool, boxes (N, 4) float32 XYXY edges) tensors.

    Raises:
        InputError: if scikit-image is not installed.
    """
    try:
        from skimage.measure import regionprops
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise InputError(
            "to segment everything, a tiny SAM needs scikit-image: pip install scikit-image, or "
            "give --points-per-side, --box or --point"
        ) from error
    height, width = image.shape[:2]
    least_side = min(LEAST_SIDE, height, width)
    masks, boxes = [], []
    for scale in SCALES:
        labels = (
            felzenszwalb(image, scale=scale, sigma=0.8, min_size=int(LEAST_AREA * height * width))
            + 1
        )
        for region in regionprops(labels):
            y0, x0, y1, x1 = region.bbox
            large = (y1 - y0) * (x1 - x0) > LARGEST_BOX * height * width
            if not large and min(y1 - y0, x1 - x0) >= least_side:
                masks.append(labels == region.label)
                boxes.append((x0, y0, x1, y1))
    masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, height, width))
    return masks, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def choose_masks(masks, regions, ious, count):
    """Choose the masks to show: good ones that follow their region, each thing once.

    Args:
        masks, regions: (N, H, W) bool, each mask with the region that asked for it.
        ious: (N,) predicted IoU.
        count: how many at most.

    Returns:
        indices, best first: by the predicted IoU times the IoU of mask and region.
    """
    flat = masks.flatten(1).float()  # areas below 2 ** 24 pixels are exact
    followed = [_iou(mask, region) for mask, region in zip(masks, regions, strict=True)]
    scores, chosen = ious * torch.tensor(followed).reshape(ious.shape), []
    areas, overlaps = flat.sum(dim=1), flat @ flat.T
    alike = overlaps / (areas[:, None] + areas - overlaps).clamp(min=1) > SAME_IOU
    for index in scores.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count:
            break
        if areas[index] and not alike[index, chosen].any():
            chosen.append(index)
    return chosen


def _iou(first, second):
    return ((first & second).sum() / (first | second).sum().clamp(min=1)).item()
