"""Have detectron2's detectors give masks that are not cut yet, for poses with a tilt."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn, turned_size
from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import turn_boxes
from canon_seg.images.soft_masks import SoftMasks
from canon_seg.images.tilt import slices, warp_points, window_of

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks

THRESHOLD = 0.5
"""Probability from which on a pixel is inside, as detectron2 has it."""


@dataclass(frozen=True, eq=False)
class BoxMasks(SoftMasks):
    """Hold N masks by probabilities in their boxes, as the heads of detectors give them.

    Attributes:
        probabilities: (N, M, M) float tensor.
        boxes: (N, 4) float edges x0, y0, x1, y1 in the frame, in pixels.
        size: see :class:`SoftMasks`.
    """

    probabilities: torch.Tensor
    boxes: torch.Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> "BoxMasks":
        """Return the masks of some rows, by whatever selects rows of a tensor."""
        return replace(self, probabilities=self.probabilities[rows], boxes=self.boxes[rows])

    def to(self, device: "torch.device | str") -> "BoxMasks":
        """Return the same masks on another device."""
        return replace(
            self, probabilities=self.probabilities.to(device), boxes=self.boxes.to(device)
        )

    def turned(self, turn: Turn) -> "BoxMasks":
        """Return the masks after an exact turn of their frame."""
        return BoxMasks(
            turn_maps(self.probabilities, turn),
            turn_boxes(self.boxes, turn, *self.size),
            turned_size(*self.size, turn),
        )

    def tilted(self, tilting: Tilting) -> torch.Tensor:
        """Return the masks cut in another frame.

        Probabilities are interpolated once, from the boxes right to the frame.
        """
        masks = torch.zeros((len(self), *tilting.target), dtype=torch.bool)
        back, boxes = tilting.inverse(), self.boxes.double().cpu().numpy()
        probabilities = self.probabilities.float().cpu()
        for row, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
            window = window_of(box, tilting)
            if window is None:
                continue
            # Affine from pixels to the box, whose edges are at -1 and 1: a sum of rows and columns.
            top, left, height, width = window
            steps = np.array([[left, top], [left + 1, top], [left, top + 1]]) + 0.5
            sides = np.maximum(box[2:] - box[:2], 1e-6)
            first, right, down = 2 * (warp_points(steps, back) - box[:2]) / sides - 1
            columns = np.outer(np.arange(width), right - first)
            rows = np.outer(np.arange(height), down - first) + first
            grid = torch.from_numpy(rows).float()[:, None] + torch.from_numpy(columns).float()
            found = F.grid_sample(probabilities[row][None, None], grid[None], align_corners=False)
            mask[slices(window)] = found[0, 0] >= THRESHOLD
        return masks.to(self.boxes.device)

    def filled(self) -> torch.Tensor:
        """Return which masks have any pixel in their own frame: (N,) bool tensor."""
        return self.cut().flatten(1).any(dim=1)

    def cut(self) -> torch.Tensor:
        """Return the masks in their own frame, as detectron2 cuts them: (N, H, W) bool tensor."""
        masks: torch.Tensor = (
            ROIMasks(self.probabilities).to_bitmasks(self.boxes, *self.size, THRESHOLD).tensor
        )
        return masks


def gives_soft_masks(segmenter: Any) -> bool:
    """Tell whether a segmenter is a detector of detectron2's that pastes masks in the end."""
    return (
        isinstance(segmenter, GeneralizedRCNN)
        and type(segmenter).forward is GeneralizedRCNN.forward
        and type(segmenter).inference is GeneralizedRCNN.inference
        and bool(getattr(segmenter.roi_heads, "mask_on", False))
    )


def run_with_soft_masks(
    detector: GeneralizedRCNN, batch: "list[dict[str, Any]]"
) -> "list[dict[str, Instances]]":
    """Run a detector; images with ``soft_masks`` get masks that are not cut yet.

    Args:
        detector: of which :func:`gives_soft_masks` is true, in eval mode.
        batch: its inputs.

    Returns:
        what the detector gives; ``pred_masks`` are :class:`BoxMasks` where they were asked for.
    """
    results = []
    raw = detector.inference(batch, do_postprocess=False)
    for found, inputs in zip(raw, batch, strict=True):
        height = inputs.get("height", found.image_size[0])
        width = inputs.get("width", found.image_size[1])
        if not inputs.get("soft_masks"):
            results.append({"instances": detector_postprocess(found, height, width)})
            continue
        # Under another name detectron2 scales and chooses the rest, and pastes nothing.
        fields = {
            {"pred_masks": "soft_masks"}.get(name, name): value
            for name, value in found.get_fields().items()
        }
        scaled = detector_postprocess(Instances(found.image_size, **fields), height, width)
        probabilities = getattr(scaled.soft_masks, "tensor", scaled.soft_masks)
        scaled.remove("soft_masks")
        # A copy: boxes are rounded later, and masks lie in them as they were found.
        boxes = scaled.pred_boxes.tensor.clone()
        scaled.pred_masks = BoxMasks(
            probabilities.reshape(len(scaled), *probabilities.shape[-2:]), boxes, scaled.image_size
        )
        results.append({"instances": scaled})
    return results
