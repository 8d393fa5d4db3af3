"""Measure how well a `Sam` segments known objects, prompted by boxes and by clicks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor

from canon_seg.sam.clicks import Mask, next_click

CLICKS = (1, 3, 5, 10)
PER_BATCH = 16  # objects that go through the mask decoder at once
PADDING = (0, 0, -1)  # a click that says nothing, where there is nothing to correct


@dataclass(frozen=True)
class MaskQuality:
    """Hold the IoU of an object's mask, 0 to 1.

    Attributes:
        best_scored: of the one of three masks that SAM thinks the best of.
        best: of the best one of the three.
    """

    best_scored: float
    best: float


def measure_prompts(
    predictor: SamPredictor,
    masks: Sequence[Mask],
    boxes: npt.NDArray[np.float32],
    clicks: Sequence[int] = CLICKS,
) -> dict[str, list[MaskQuality]]:
    """Prompt for objects of one image, and compare the masks with them.

    The first click lies deepest in the object, each next one deepest in the larger error of the
    best-scored mask before, which SAM is given along with all clicks so far.

    Args:
        predictor: of segment_anything, or one that stands for it; its image is set.
        masks: (H, W) bool of each object, not empty.
        boxes: (N, 4) XYXY of the objects in pixels.
        clicks: numbers of clicks after which the masks are measured.

    Returns:
        dict from ``clicks_1``, ..., ``box`` and ``box_click`` (the box, then a click that corrects
        the mask) to one :class:`MaskQuality` for each object, in order.
    """
    found: dict[str, list[MaskQuality]] = {f"clicks_{count}": [] for count in clicks}
    found |= {"box": [], "box_click": []}
    for start in range(0, len(masks), PER_BATCH):
        part = slice(start, start + PER_BATCH)
        dialogue = _Dialogue(predictor, masks[part])
        for count in range(1, max(clicks, default=0) + 1):
            dialogue.click()
            if count in clicks:
                found[f"clicks_{count}"] += dialogue.quality
        dialogue = _Dialogue(predictor, masks[part], boxes[part])
        dialogue.predict()
        found["box"] += dialogue.quality
        dialogue.click()
        found["box_click"] += dialogue.quality
    return found


class _Dialogue:
    """Prompt for some objects of an image over and over."""

    def __init__(
        self,
        predictor: SamPredictor,
        wanted: Sequence[Mask],
        boxes: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.predictor, self.wanted, self.boxes = predictor, wanted, boxes
        self.found: Sequence[Mask] = [np.zeros_like(mask) for mask in wanted]
        self.clicks: list[list[tuple[int, int, int]]] = [[] for _ in wanted]
        self.logits: torch.Tensor | None = None
        self.quality: list[MaskQuality] = []

    def click(self) -> None:
        """Click where each mask is most wrong, and predict anew."""
        for done, found, wanted in zip(self.clicks, self.found, self.wanted, strict=True):
            done.append(next_click(found, wanted) or PADDING)
        self.predict()

    def predict(self) -> None:
        """Predict the masks of all prompts so far."""
        size, transform = self.predictor.original_size, self.predictor.transform
        device = self.predictor.device
        coords = labels = boxes = None
        if self.clicks[0]:
            array = np.array(self.clicks)
            coords = transform.apply_coords(array[..., :2].astype(np.float64), size)
            coords = torch.as_tensor(coords, dtype=torch.float, device=device)
            labels = torch.as_tensor(array[..., 2], device=device)
        if self.boxes is not None:
            boxes = transform.apply_boxes(self.boxes, size)
            boxes = torch.as_tensor(boxes, dtype=torch.float, device=device)
        masks, scores, low = self.predictor.predict_torch(coords, labels, boxes, self.logits)
        chosen = scores.argmax(dim=1)
        everyone = torch.arange(len(masks), device=chosen.device)
        self.logits = low[everyone, chosen][:, None]
        self.found = list(masks[everyone, chosen].cpu().numpy())
        self.quality = []
        for best, three, wanted in zip(
            chosen.tolist(), masks.cpu().numpy(), self.wanted, strict=True
        ):
            ious = [mask_iou(mask, wanted) for mask in three]
            self.quality.append(MaskQuality(ious[best], max(ious)))


def mask_iou(found: Mask, wanted: Mask) -> float:
    """Return the intersection over union of two masks, 0 for two empty ones."""
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 0.0


def mean_qualities(
    parts: Iterable[dict[str, list[MaskQuality]]],
) -> dict[str, dict[str, float]]:
    """Average what :func:`measure_prompts` found on several images.

    Returns:
        dict from the names of prompts to ``iou_best_scored`` and ``iou_best``, means over all
        objects.
    """
    joined: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in part.items():
            joined.setdefault(name, []).extend(values)
    return {
        name: {
            "iou_best_scored": float(np.mean([value.best_scored for value in values])),
            "iou_best": float(np.mean([value.best for value in values])),
        }
        for name, values in joined.items()
        if values
    }
