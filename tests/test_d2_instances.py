"""Quarter turns of detectron2's Instances: every field it knows, and clear errors for the rest."""

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")
from pycocotools import mask as coco_mask

import canon_seg.d2.compat  # noqa: F401 - before detectron2
from canon_seg.d2.instances import INVARIANT_FIELDS, turn_instances
from canon_seg.geometry import C4, turned_size

from detectron2.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
)

SIZES = [(6, 9), (7, 4), (1, 5), (8, 1), (5, 5)]


def all_fields(height, width, count=3):
    """Instances with every kind of field; coordinates on the 1/256 grid."""
    generator = torch.Generator().manual_seed(0)

    def grid(*shape):
        return torch.randint(0, 2560, shape, generator=generator) / 256

    def maps(*shape):
        return torch.rand(shape, generator=generator)

    masks = maps(count, height, width) > 0.5
    rles = [coco_mask.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)) for mask in masks]
    polygons = [[grid(6).double().numpy(), grid(8).double().numpy()] for _ in range(count)]
    keypoints = torch.cat([grid(count, 2, 2), torch.full((count, 2, 1), 2.0)], dim=-1)
    keypoints[:, 0] = 0  # not labelled
    fields = {
        "gt_boxes": Boxes(grid(count, 4)),
        "proposal_boxes": Boxes(grid(count, 4)),
        "pred_boxes": RotatedBoxes(grid(count, 5)),
        "gt_masks": BitMasks(masks),
        "gt_polygons": PolygonMasks(polygons),
        "roi_masks": ROIMasks(maps(count, 4, 4)),
        "gt_keypoints": Keypoints(keypoints),
        "pred_masks": masks.to(torch.uint8),
        "pred_masks_rle": rles,
        "pred_keypoints": torch.cat([grid(count, 2, 2), maps(count, 2, 1)], dim=-1),
        "pred_keypoint_heatmaps": maps(count, 2, 4, 4),
        **{name: torch.arange(count) for name in sorted(INVARIANT_FIELDS)},
    }
    return Instances((height, width), **fields)


def plain(value):
    """A field as nested lists, to compare."""
    if isinstance(value, PolygonMasks):
        return [[polygon.tolist() for polygon in polygons] for polygons in value.polygons]
    if isinstance(value, list):
        return value
    return getattr(value, "tensor", value).tolist()


def assert_same(a, b):
    assert a.image_size == b.image_size
    assert list(a.get_fields()) == list(b.get_fields())
    for name, value in a.get_fields().items():
        assert type(value) is type(b.get(name)), name
        assert plain(value) == plain(b.get(name)), name


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("a", C4.elements)
def test_turns_compose_and_invert(height, width, a):
    instances = all_fields(height, width)
    once = turn_instances(instances, a)
    assert once.image_size == turned_size(height, width, a)
    assert_same(turn_instances(once, C4.inverse(a)), instances)
    for b in C4.elements:
        assert_same(turn_instances(once, b), turn_instances(instances, C4.compose(a, b)))


@pytest.mark.parametrize("turns", C4.elements)
def test_no_instances(turns):
    turned = turn_instances(all_fields(6, 9, count=0), turns)
    assert len(turned) == 0
    assert turned.pred_masks.shape == (0, *turned_size(6, 9, turns))


def test_no_fields():
    turned = turn_instances(Instances((6, 9)), 1)
    assert turned.image_size == (9, 6) and not turned.get_fields()


@pytest.mark.parametrize("turns", C4.elements)
def test_input_is_unchanged(turns):
    instances = all_fields(6, 9)
    before = copy.deepcopy(instances)
    turn_instances(instances, turns)
    assert_same(instances, before)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("turns", C4.elements)
def test_boxes_stay_tight_around_masks(height, width, turns):
    masks = BitMasks(torch.rand(4, height, width, generator=torch.Generator().manual_seed(1)) > 0.6)
    masks = masks[masks.nonempty()]
    instances = Instances((height, width), masks=masks, boxes=masks.get_bounding_boxes())
    turned = turn_instances(instances, turns)
    assert torch.equal(turned.boxes.tensor, turned.masks.get_bounding_boxes().tensor)


@pytest.mark.parametrize("turns", C4.elements)
def test_masks_in_boxes_paste_to_the_turned_mask(turns):
    """detectron2 pastes the turned RoI mask into the turned box: the oracle for RoI fields."""
    from detectron2.modeling.postprocessing import detector_postprocess

    roi = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    boxes = Boxes(torch.tensor([[4.0, 3, 20, 19], [10, 1, 26, 9]]))
    instances = Instances((24, 32), pred_boxes=boxes, pred_masks=roi)
    pasted = detector_postprocess(copy.deepcopy(instances), 24, 32)
    turned = turn_instances(instances, turns)
    pasted_turned = detector_postprocess(turned, *turned.image_size)
    expected = turn_instances(pasted, turns).pred_masks
    assert expected.any() and torch.equal(pasted_turned.pred_masks, expected)


@pytest.mark.parametrize("turns", C4.elements)
def test_maps_in_boxes_turn_with_their_box(turns):
    maps = torch.arange(2.0 * 16).reshape(2, 4, 4)
    instances = Instances((6, 9), roi_masks=ROIMasks(maps), pred_keypoint_heatmaps=maps[:, None])
    turned = turn_instances(instances, turns)
    expected = torch.rot90(maps, turns, (1, 2))
    assert torch.equal(turned.roi_masks.tensor, expected)
    assert torch.equal(turned.pred_keypoint_heatmaps[:, 0], expected)


def test_unlabelled_keypoints_stay_at_zero():
    keypoints = torch.tensor([[[0.0, 0, 0], [0, 0, 2]]])
    instances = Instances((6, 9), gt_keypoints=Keypoints(keypoints), pred_keypoints=keypoints)
    turned = turn_instances(instances, 2)
    assert turned.gt_keypoints.tensor.tolist() == [[[0, 0, 0], [9, 6, 2]]]
    assert turned.pred_keypoints.tolist() == [[[9, 6, 0], [9, 6, 2]]]  # there it is a score


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pred_densepose", torch.zeros(2, 3)),
        ("pred_boxes", torch.zeros(2, 4)),
        ("pred_masks", np.zeros((2, 6, 9), dtype=bool)),
        ("gt_keypoints", torch.zeros(2, 1, 3)),
        ("notes", ["a", "b"]),
    ],
)
def test_unknown_fields_are_named(name, value, turns):
    with pytest.raises(TypeError, match=name):
        turn_instances(Instances((6, 9), **{name: value}), turns)


def test_the_identity_needs_no_action():
    value = {"any": "thing"}
    instances = Instances((6, 9))
    instances._fields["notes"] = value
    assert turn_instances(instances, 0).get("notes") is value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pred_masks", torch.zeros(2, 9, 6)),
        ("pred_masks", torch.zeros(6, 9)),
        ("gt_masks", BitMasks(torch.zeros(2, 9, 6))),
        ("pred_masks_rle", [{"size": [9, 6], "counts": [54]}]),
        ("pred_masks_rle", [{"size": [6, 9], "counts": [53]}]),
        ("pred_keypoints", torch.zeros(2, 5, 2)),
    ],
)
def test_values_that_do_not_fit_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        turn_instances(Instances((6, 9), **{name: value}), 1)
