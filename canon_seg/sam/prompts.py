"""Hold prompts of a promptable segmenter, boxes and clicks, and turn them with their image."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.images.actions import tilt_boxes, tilt_pixels
from canon_seg.images.coordinates import (
    PIXEL_STEP,
    snap,
    turn_boxes,
    turn_pixels,
    turn_points,
)
from canon_seg.images.tilt import warp_points

_DTYPES = {
    "boxes": torch.float32,
    "points": torch.float32,
    "point_labels": torch.int64,
    "classes": torch.int64,
    "scores": torch.float32,
}


@dataclass(frozen=True, eq=False)  # tensors have no truth value to compare by
class Prompts:
    """Hold N prompts for one image, each a box, some clicks, or both.

    numpy arrays and lists become tensors of these types.

    Attributes:
        boxes: (N, 4) float32 XYXY edges in pixels of the image, or None.
        points: (N, P, 2) float32 (x, y) clicks as pixel indices, or None.
        point_labels: (N, P) int64, 1 for foreground, 0 for background, -1 for a padding click;
            there if and only if ``points`` are.
        classes: (N,) int64 contiguous class of each prompt, or None for class 0.
        scores: (N,) float32 in 0..1, the detector's, or None.
        corners: (N, 4, 2) float32 (x, y) corners of boxes that lie tilted in the image, or None.
            ``boxes`` are then around these. In a frame in which they lie upright, the boxes are
            tight.
        drawn: (N, 4, 2) float32 corners of the boxes as they were drawn in another frame, or None.
            ``boxes`` are the hulls around these, and so larger than what is meant.
    """

    boxes: torch.Tensor | None = None
    points: torch.Tensor | None = None
    point_labels: torch.Tensor | None = None
    classes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    corners: torch.Tensor | None = None
    drawn: torch.Tensor | None = None

    def __post_init__(self):
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, torch.Tensor):
                object.__setattr__(self, name, torch.tensor(np.asarray(value), dtype=dtype))
        if self.boxes is None and self.points is None:
            raise ValueError("prompts need boxes, points, or both")
        if (self.points is None) != (self.point_labels is None):
            raise ValueError("points and point_labels belong together")
        if self.corners is not None and self.boxes is None:
            raise ValueError("corners need the boxes around them")
        shapes = {"boxes": (4,), "points": (None, 2), "point_labels": (None,)}
        shapes.update(corners=(4, 2), drawn=(4, 2))
        for name, shape in {**shapes, "classes": (), "scores": ()}.items():
            value = getattr(self, name)
            if value is None:
                continue
            fits = value.dim() == 1 + len(shape) and all(
                want in (None, have) for want, have in zip(shape, value.shape[1:], strict=True)
            )
            if not fits or len(value) != len(self):
                raise ValueError(f"{name} of {len(self)} prompts have shape {tuple(value.shape)}")
            if name in ("boxes", "points", "corners") and not value.is_floating_point():
                raise ValueError(f"{name} must be floating point, got {value.dtype}")

    def __len__(self):
        return len(self.boxes if self.boxes is not None else self.points)

    def __getitem__(self, part):
        """Return a slice of the prompts."""
        return replace(self, **{name: value[part] for name, value in self._tensors().items()})

    def snapped(self):
        """Snap to the grid of 1/256 px, where turning is exact in float32."""
        return replace(
            self,
            boxes=None if self.boxes is None else snap(self.boxes, PIXEL_STEP),
            points=None if self.points is None else snap(self.points, PIXEL_STEP),
            corners=None if self.corners is None else snap(self.corners, PIXEL_STEP),
        )

    def clipped(self, height, width):
        """Return the same prompts with boxes that end where the image ends."""
        boxes = None if self.boxes is None else clip_boxes(self.boxes, (height, width))
        return replace(self, boxes=boxes)

    def turned(self, turn: "Turn | int", height: int, width: int) -> "Prompts":
        """Return the same prompts on the turned image.

        Args:
            turn: by index; an integer stands for quarter turns counterclockwise.
            height, width: of the image before turning.
        """
        boxes, points, corners = self.boxes, self.points, self.corners
        return replace(
            self,
            boxes=None if boxes is None else turn_boxes(boxes, turn, height, width),
            points=None if points is None else turn_pixels(points, turn, height, width),
            corners=None if corners is None else turn_points(corners, turn, height, width),
            drawn=None if self.drawn is None else turn_points(self.drawn, turn, height, width),
        )

    def tilted(self, tilting: Tilting) -> "Prompts":
        """Return the same prompts in another frame.

        Boxes become those around the tilted ones, or around their own corners where they have any.
        """
        boxes, points, corners, drawn = self.boxes, self.points, self.corners, None
        if corners is not None:
            corners = _tilt_corners(corners, tilting)
            around = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
            boxes = clip_boxes(around, tilting.target)
        elif boxes is not None:
            drawn = _tilt_corners(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]], tilting)
            boxes = tilt_boxes(boxes, tilting)
        return replace(
            self,
            boxes=boxes,
            points=None if points is None else tilt_pixels(points, tilting),
            corners=corners,
            drawn=drawn,
        )

    def key(self):
        """Return coordinates as nested tuples: an order among the turns of one set of prompts."""
        return tuple(
            tuple(value.flatten().tolist())
            for value in (self.boxes, self.points)
            if value is not None
        )

    def to(self, device):
        """Return the same prompts on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def _tensors(self):
        return {name: v for name, v in vars(self).items() if isinstance(v, torch.Tensor)}


def _tilt_corners(corners, tilting):
    tilted = torch.from_numpy(warp_points(corners.cpu().numpy(), tilting)).to(corners)
    return snap(tilted, PIXEL_STEP)


def clip_boxes(boxes, size):
    """Cut what of boxes reaches beyond the image; boxes inside stay as they are, to the last bit.

    Cutting commutes with turning. What lies outside altogether is for
    :func:`canon_seg.predictors.checks.boxes_problem` to refuse.

    Args:
        boxes: (..., 4) array or tensor of x0, y0, x1, y1 edges in pixels.
        size: (height, width) of the image.

    Returns:
        new array or tensor of the same type.
    """
    height, width = size
    if isinstance(boxes, torch.Tensor):
        return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
