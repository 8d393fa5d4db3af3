"""Prompts as users give them, with a predictor that answers what it is told to."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from canon_seg.sam.interaction import MaskQuality, mask_iou, mean_qualities, measure_prompts


class FakePredictor:
    """Grow a box around the clicks inside; three masks, of which the second is scored best."""

    device = torch.device("cpu")

    def __init__(self, size):
        self.original_size, self.transform, self.calls = size, ResizeLongestSide(64), []

    def predict_torch(self, coords, labels, boxes, mask_input):
        self.calls.append((coords, labels, boxes, mask_input))
        count = len(coords if coords is not None else boxes)
        masks = torch.zeros((count, 3, *self.original_size), dtype=torch.bool)
        masks[:, 0] = True
        masks[:, 1, 10:20, 10 : 15 + len(self.calls)] = True
        logits = torch.full((count, 3, 16, 16), float(len(self.calls)))
        logits[:, 1] += 100
        return masks, torch.tensor([[0.1, 0.9, 0.5]]).expand(count, -1), logits


def test_dialogue():
    size = 30, 40
    predictor = FakePredictor(size)
    wanted = np.zeros(size, bool)
    wanted[10:20, 10:17] = True
    boxes = np.array([[10, 10, 17, 20]], np.float32)
    found = measure_prompts(predictor, [wanted], boxes, (1, 3))
    assert list(found) == ["clicks_1", "clicks_3", "box", "box_click"]
    # Clicks answer 6, 7 and 8 columns, of which 7 are right.
    assert found["clicks_1"] == [MaskQuality(6 / 7, 6 / 7)]
    assert found["clicks_3"] == [MaskQuality(7 / 8, 7 / 8)]
    coords, labels, given, before = predictor.calls[0]
    assert given is None and before is None and labels.tolist() == [[1]]
    x, y = coords[0, 0].tolist()  # deepest in the object, in the frame of the input
    assert (x / 1.6, y / 1.6) == pytest.approx((13, 13))
    coords, labels, _, before = predictor.calls[1]
    assert labels.tolist() == [[1, 1]] and coords[0, 1, 0] / 1.6 == pytest.approx(16)
    assert (before == 101).all() and before.shape == (1, 1, 16, 16)
    # After the second click nothing is wrong: the third one is padding.
    assert predictor.calls[2][1].tolist() == [[1, 1, -1]]
    coords, labels, given, before = predictor.calls[3]
    assert coords is None and before is None
    assert (given / 1.6).tolist() == [pytest.approx([10, 10, 17, 20])]
    coords, labels, given, before = predictor.calls[4]
    assert labels.tolist() == [[0]] and given is not None and (before == 104).all()


def test_iou_is_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.random((2, 20, 30)) < rng.random((2, 1, 1))
        encoded = [mask_util.encode(np.asfortranarray(m.astype(np.uint8))) for m in (one, other)]
        expected = mask_util.iou(encoded[:1], encoded[1:], [0])[0, 0]
        assert mask_iou(one, other) == pytest.approx(expected)
    assert mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0


def test_means():
    parts = [
        {"box": [MaskQuality(0.2, 0.4), MaskQuality(0.4, 0.6)]},
        {"box": [MaskQuality(0.9, 1)]},
        {},
    ]
    assert mean_qualities(parts) == {
        "box": {
            "iou_best_scored": pytest.approx(0.5),
            "iou_best": pytest.approx(2 / 3),
        }
    }
