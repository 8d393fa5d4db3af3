import pytest
import torch
from tiny_models import random_image, tiny_segmenter

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.d2.soft_masks import BoxMasks, gives_soft_masks, run_with_soft_masks
from canon_seg.images.arrays import turn_maps
from canon_seg.images.soft_masks import tilt_with_vanished

from detectron2.layers.mask_ops import paste_masks_in_image

SIZE = (90, 120)


def masks_in_boxes():
    """Blobs of a head's resolution, in boxes of which one reaches out of the frame."""
    torch.manual_seed(0)
    probabilities = torch.nn.functional.interpolate(
        torch.rand(3, 1, 4, 4), (28, 28), mode="bicubic"
    )
    boxes = torch.tensor([[10.3, 20.1, 80.7, 60.2], [40.0, 5.0, 66.6, 88.8], [90.0, 60.0, 120, 90]])
    return BoxMasks(probabilities[:, 0].clamp(0, 1), boxes, SIZE)


def test_without_a_tilt_masks_are_those_that_detectron2_pastes():
    masks = masks_in_boxes()
    pasted = paste_masks_in_image(masks.probabilities, masks.boxes, SIZE, 0.5)
    found = masks.tilted(Tilting.expanding(0, SIZE))
    assert pasted.any() and torch.equal(masks.cut(), pasted)
    assert (found != pasted).sum() <= 3  # of another order of the same arithmetic
    assert masks.filled().tolist() == [True, True, True]


def test_they_are_interpolated_once():
    """Ten times as many pixels tell where the tilted masks end; cut masks are further off."""
    masks, tilting = masks_in_boxes(), Tilting.expanding(28, SIZE)
    fine = tilting.between(SIZE, tuple(10 * side for side in tilting.target))
    truth = masks.tilted(fine)[:, 5::10, 5::10]
    soft = masks.tilted(tilting)
    cut, _ = tilt_with_vanished(masks.cut(), tilting)
    wrong = int((soft != truth).sum()), int((cut != truth).sum())
    assert wrong[0] < 0.25 * wrong[1]


@pytest.mark.parametrize("turn", [Turn(1), Turn(2), Turn(3), Turn(2, 0, True)])
def test_turns_act_on_boxes_and_what_is_in_them(turn):
    masks = masks_in_boxes()
    turned = masks.turned(turn)
    assert (turned.cut() != turn_maps(masks.cut(), turn)).sum() <= 3
    assert len(turned[1:]) == 2 and torch.equal(turned[1:].boxes, turned.boxes[1:])


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn", "retinanet", "panoptic_fpn"])
def test_which_detectors_give_them(kind):
    assert gives_soft_masks(tiny_segmenter(kind)) == (kind == "mask_rcnn")


@torch.no_grad()
def test_the_rest_is_what_the_detector_gives():
    detector = tiny_segmenter("mask_rcnn")
    batch = [
        {"image": random_image(64, 80), "height": 90, "width": 120},
        {"image": random_image(60, 80), "height": 45, "width": 60},
    ]
    own = [found["instances"] for found in detector(batch)]
    soft, cut = [
        found["instances"]
        for found in run_with_soft_masks(detector, [{**batch[0], "soft_masks": True}, batch[1]])
    ]
    assert torch.equal(cut.pred_masks, own[1].pred_masks)
    assert soft.image_size == own[0].image_size and len(soft) == len(own[0]) > 0
    assert torch.equal(soft.pred_masks.cut(), own[0].pred_masks)
    for name in ("scores", "pred_classes"):
        assert torch.equal(soft.get(name), own[0].get(name))
    assert torch.equal(soft.pred_boxes.tensor, own[0].pred_boxes.tensor)
    # Boxes may be rounded afterwards; masks stay in those that they were found in.
    before = soft.pred_masks.boxes.clone()
    soft.pred_boxes.tensor[:] = 0
    assert torch.equal(soft.pred_masks.boxes, before)
