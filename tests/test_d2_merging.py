import copy

import pytest
import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.d2.merging import merge_detections, merge_prompted

from detectron2.structures import Boxes, Instances, pairwise_iou

SIZE = (20, 30)


def instances(boxes, scores, classes=None, ious=None):
    """Detections whose masks are their boxes."""
    boxes = torch.tensor(boxes).reshape(-1, 4)
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist()):
        mask[y0:y1, x0:x1] = True
    result = Instances(SIZE, pred_boxes=Boxes(boxes), pred_masks=masks)
    result.scores = torch.tensor(scores, dtype=torch.float32)
    result.pred_classes = torch.tensor(classes or [0] * len(boxes))
    if ious is not None:
        result.pred_ious = torch.tensor(ious)
    return result


LEFT, NEARLY_LEFT, RIGHT = [0.0, 0, 10, 10], [0.0, 0, 10, 9], [15.0, 5, 25, 15]


def same(ours, theirs):
    def tensor(value):
        return getattr(value, "tensor", value)

    return ours.image_size == theirs.image_size and all(
        torch.equal(tensor(value), tensor(theirs.get(name)))
        for name, value in ours.get_fields().items()
    )


def test_each_prompt_gets_the_mask_with_the_best_predicted_iou():
    first = instances([LEFT, RIGHT, LEFT], [0.9, 0.8, 0.7], ious=[0.2, 0.6, 0.5])
    second = instances([RIGHT, LEFT, RIGHT], [0.9, 0.8, 0.7], ious=[0.3, 0.1, 0.5])
    before = copy.deepcopy((first, second))
    merged = merge_prompted([first, second])
    assert merged.pred_boxes.tensor.tolist() == [RIGHT, RIGHT, LEFT]  # the first of two equal ones
    assert torch.equal(merged.pred_masks[0], second.pred_masks[0])
    assert torch.equal(merged.pred_masks[1:], first.pred_masks[1:])
    assert torch.equal(merged.pred_ious, torch.tensor([0.3, 0.6, 0.5]))
    assert torch.equal(merged.scores, torch.tensor([0.9, 0.8, 0.7]))
    merged.pred_masks.fill_(True)
    merged.pred_boxes.tensor.zero_()
    assert all(same(now, then) for now, then in zip((first, second), before))


def test_merging_by_prompt_without_prompts():
    empty = instances([], [], ious=[])
    assert len(merge_prompted([empty, empty])) == 0


def test_detections_are_suppressed_within_their_class_only():
    first = instances([LEFT, RIGHT], [0.6, 0.5], [0, 1])
    second = instances([NEARLY_LEFT, LEFT], [0.7, 0.4], [0, 2])
    merged = merge_detections([first, second], 0.5, 100)
    assert merged.scores.tolist() == pytest.approx([0.7, 0.5, 0.4])
    assert merged.pred_boxes.tensor.tolist() == [NEARLY_LEFT, RIGHT, LEFT]
    assert merged.pred_classes.tolist() == [0, 1, 2]
    assert torch.equal(merged.pred_masks[0], second.pred_masks[0])
    assert torch.equal(merged.pred_masks[1], first.pred_masks[1])
    assert len(merge_detections([first, second], 0.95, 100)) == 4
    assert merge_detections([first, second], 0.5, 2).scores.tolist() == pytest.approx([0.7, 0.5])


def test_of_equal_detections_the_first_stays():
    first, second = instances([LEFT], [0.5]), instances([NEARLY_LEFT], [0.5])
    assert merge_detections([first, second], 0.5, 9).pred_boxes.tensor.tolist() == [LEFT]
    assert merge_detections([second, first], 0.5, 9).pred_boxes.tensor.tolist() == [NEARLY_LEFT]


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (3, 0), (40, 60)])
def test_random_detections_against_suppression_by_hand(counts):
    generator = torch.Generator().manual_seed(0)

    def some(count):
        corners = torch.rand((count, 2, 2), generator=generator).sort(dim=1).values
        boxes = (corners * torch.tensor([30.0, 20.0])).reshape(count, 4)
        classes = torch.randint(0, 3, (count,), generator=generator).tolist()
        return instances(boxes.tolist(), torch.rand(count, generator=generator).tolist(), classes)

    results = [some(count) for count in counts]
    merged = merge_detections(results, 0.4, 1000)
    everything = Instances.cat(results)
    kept = []
    for index in everything.scores.argsort(descending=True).tolist():
        one = everything[index]
        rivals = [other for other in kept if other.pred_classes == one.pred_classes]
        if all(pairwise_iou(one.pred_boxes, other.pred_boxes) <= 0.4 for other in rivals):
            kept.append(one)
    assert same(merged, Instances.cat(kept) if kept else everything)
