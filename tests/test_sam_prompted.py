import pytest
import torch

from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.sam.models import build_tiny_sam
from canon_seg.sam.prompted import (
    PromptedMasks,
    PromptedSam,
    boxes_around,
    merge_prompted,
    turn_prompted_masks,
)
from canon_seg.sam.prompts import Prompts


def answers(count=3, size=(20, 30), seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, *size, generator=generator) < 0.01
    return PromptedMasks(
        size=size,
        masks=masks,
        boxes=boxes_around(masks),
        ious=torch.rand(count, generator=generator),
        scores=torch.rand(count, generator=generator),
        classes=torch.arange(count),
        stabilities=torch.rand(count),
    )


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(3)
    return build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32)


def test_boxes_are_those_of_detectron2():
    structures = pytest.importorskip("detectron2.structures")
    masks = torch.rand(50, 9, 14, generator=torch.Generator().manual_seed(0)) < 0.02
    masks[7] = False
    masks[8] = True
    boxes = boxes_around(masks)
    assert torch.equal(boxes, structures.BitMasks(masks).get_bounding_boxes().tensor)
    assert boxes.dtype == torch.float32 and boxes[7].tolist() == [0] * 4
    assert boxes[8].tolist() == [0, 0, 14, 9]
    assert boxes_around(masks[:0]).shape == (0, 4)


def test_answers_are_those_that_detectron2s_segmenter_gives(sam):
    pytest.importorskip("detectron2")
    from tiny_models import random_image, random_prompts

    from canon_seg.d2.sam import SamSegmenter

    image, prompts = random_image(40, 61), random_prompts(40, 61, "both")
    segmenter = SamSegmenter(sam=sam, image_format="BGR", prompts_per_batch=2).eval()
    inputs = {"image": image, "prompts": prompts, "height": 50, "width": 70}
    theirs = segmenter([inputs])[0]["instances"]
    ours = PromptedSam(sam, "BGR", prompts_per_batch=2)(image, prompts, 50, 70)
    assert ours.size == theirs.image_size == (50, 70) and ours.masks.any()
    assert torch.equal(ours.masks, theirs.pred_masks)
    assert torch.equal(ours.boxes, theirs.pred_boxes.tensor)
    assert torch.equal(ours.ious, theirs.pred_ious) and torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.classes, theirs.pred_classes)


def test_rows_are_selected_and_joined():
    found = answers()
    part = found[torch.tensor([True, False, True])]
    assert len(part) == 2 and part.size == found.size and part.classes.tolist() == [0, 2]
    assert torch.equal(part.masks, found.masks[[0, 2]])
    whole = PromptedMasks.cat([found[:1], found[1:]])
    assert all(torch.equal(whole.rows()[name], value) for name, value in found.rows().items())
    assert found.to("cpu").size == found.size


@pytest.mark.parametrize("turns", C4.elements)
def test_answers_turn_with_their_image(turns):
    found = answers()
    turned = turn_prompted_masks(found, turns, *found.size)
    assert turned.size == tuple(turned.masks.shape[1:])
    assert torch.equal(turned.masks, turn_maps(found.masks, turns))
    assert torch.equal(turned.boxes, boxes_around(turned.masks)) and turned.boxes.any()
    assert turned.scores is found.scores
    back = turn_prompted_masks(turned, C4.inverse(turns), *turned.size)
    assert back.size == found.size and torch.equal(back.boxes, found.boxes)


def test_each_prompt_gets_the_row_with_the_best_score():
    first = {"iou": torch.tensor([0.2, 0.6, 0.5]), "box": torch.zeros(3, 4)}
    second = {"iou": torch.tensor([0.3, 0.1, 0.5]), "box": torch.ones(3, 4)}
    merged = merge_prompted([first, second], "iou")
    assert merged["iou"].tolist() == pytest.approx([0.3, 0.6, 0.5])
    assert merged["box"][:, 0].tolist() == [1, 0, 0]  # the first of two equal ones
    merged["box"].fill_(7)
    assert first["box"].max() == 0 and second["box"].min() == 1


def test_without_prompts_the_image_is_not_looked_at(sam):
    found = PromptedSam(sam)(
        torch.full((3, 40, 61), float("nan")), Prompts(boxes=torch.zeros(0, 4))
    )
    assert len(found) == 0 and found.masks.shape == (0, 40, 61) and found.boxes.shape == (0, 4)
