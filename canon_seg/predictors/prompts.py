"""Hold the prompts of drop-in predictors: what one call to ``predict`` is given, as arrays."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from canon_seg.core.action import act, tilt
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.images.arrays import contiguous
from canon_seg.images.coordinates import PIXEL_STEP, snap
from canon_seg.sam.prompts import clip_boxes

Array = Any
"""A numpy array or a torch tensor."""


@dataclass(frozen=True, eq=False)
class PredictorPrompts:
    """Hold clicks, boxes and mask logits, each a numpy array or a torch tensor, or None.

    Attributes:
        points: (..., 2) float x, y clicks as pixel indices.
        boxes: (..., 4) float x0, y0, x1, y1 edges in pixels.
        logits: (..., S, S) mask logits as an earlier prediction gave them.
    """

    points: "Array | None" = None
    boxes: "Array | None" = None
    logits: "Array | None" = None

    def snapped(self) -> "PredictorPrompts":
        """Return the prompts with coordinates on the grid of 1/256 px."""
        return replace(
            self,
            points=None if self.points is None else snap(self.points, PIXEL_STEP),
            boxes=None if self.boxes is None else snap(self.boxes, PIXEL_STEP),
        )

    def turned(self, turn: Turn, height: int, width: int) -> "PredictorPrompts":
        """Return the prompts for the image after a turn, in row-major order."""
        turned = {
            field.name: contiguous(act(value, turn, height, width, field.name))
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **turned)

    def tilted(self, tilting: Tilting) -> "PredictorPrompts":
        """Return the prompts in another frame; logits stay as they are."""
        tilted = {
            field.name: tilt(value, tilting, field.name)
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **tilted)

    def key(self) -> tuple:
        """Return coordinates and logits as something ordered."""
        coords = [
            tuple(part.reshape(-1).tolist())
            for part in (self.boxes, self.points)
            if part is not None
        ]
        logits = b"" if self.logits is None else np.ascontiguousarray(to_numpy(self.logits))
        return (*coords, logits if isinstance(logits, bytes) else logits.tobytes())


def prompts_in(frame: CanonicalFrame, prompts: PredictorPrompts) -> PredictorPrompts:
    """Return prompts with boxes that end where the image ends, as everywhere in this package.

    Behind the identity canonicalizer a predictor gets just what was given, to the last bit.

    Args:
        frame: of the image.
        prompts: in the frame of the given image.
    """
    if prompts.boxes is None or not frame.canonicalizer.snaps:
        return prompts
    return replace(prompts, boxes=clip_boxes(prompts.boxes, frame.size))


def to_numpy(array: Any) -> np.ndarray:
    """Return a tensor on any device, an array, or nested lists as an array."""
    if isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    return np.asarray(array)


def as_canonicalizer_takes_it(
    image: np.ndarray, canonicalizer: Any, image_format: str = "RGB"
) -> torch.Tensor:
    """Return an (H, W, 3) array as the (3, H, W) tensor that a canonicalizer takes.

    Args:
        image: in the channel order ``image_format``.
        canonicalizer: a :class:`canon_seg.core.canonicalizer.Canonicalizer`.
        image_format: "RGB" or "BGR".
    """
    if canonicalizer.image_format != image_format:
        image = image[..., ::-1]
    # A copy: a turned image of one row counts as contiguous, with strides that torch refuses.
    return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)
