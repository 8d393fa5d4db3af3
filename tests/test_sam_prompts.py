import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import random_prompts

from canon_seg.geometry.group import C4
from canon_seg.sam.prompts import Prompts, clip_boxes

SIZES = st.integers(1, 4000)


@given(SIZES, SIZES, st.sampled_from(["boxes", "points", "both"]), st.sampled_from(C4.elements))
def test_turning_is_undone_exactly_once_snapped(height, width, kind, turns):
    prompts = random_prompts(height, width, kind).snapped()
    size = (width, height) if turns % 2 else (height, width)
    back = prompts.turned(turns, height, width).turned(C4.inverse(turns), *size)
    assert back.key() == prompts.key()
    assert torch.equal(back.classes, prompts.classes)


@given(SIZES, SIZES, st.sampled_from(C4.elements))
def test_snapping_commutes_with_turning_of_float64(height, width, turns):
    prompts = random_prompts(height, width, "both")
    prompts = Prompts(
        boxes=prompts.boxes.double(),
        points=prompts.points.double(),
        point_labels=prompts.point_labels,
    )
    # On a fine grid in float64 turning is exact, so that what is compared is snapping alone.
    prompts = Prompts(
        boxes=(prompts.boxes * 2**20).round() / 2**20,
        points=(prompts.points * 2**20).round() / 2**20,
        point_labels=prompts.point_labels,
    )
    first = prompts.snapped().turned(turns, height, width)
    last = prompts.turned(turns, height, width).snapped()
    assert first.key() == last.key()


def test_boxes_are_edges_and_clicks_are_pixel_indices():
    prompts = Prompts(
        boxes=torch.tensor([[0.0, 0.0, 2.0, 1.0]]),
        points=torch.tensor([[[0.0, 0.0]]]),
        point_labels=torch.tensor([[1]]),
    ).turned(1, 10, 20)
    # One turn counterclockwise takes the left top corner to the left bottom one.
    assert prompts.boxes.tolist() == [[0, 18, 1, 20]]
    assert prompts.points.tolist() == [[[0, 19]]]


def test_the_key_orders_turns_of_the_same_prompts():
    prompts = random_prompts(30, 40, "both")
    keys = [prompts.turned(turns, 30, 40).key() for turns in C4.elements]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "boxes, points"),
        ({"points": torch.zeros(2, 1, 2)}, "belong together"),
        ({"boxes": torch.zeros(2, 5)}, "boxes"),
        ({"boxes": torch.zeros(4)}, "boxes"),
        ({"boxes": torch.zeros(2, 4, dtype=torch.int64)}, "floating point"),
        ({"boxes": torch.zeros(2, 4), "classes": torch.zeros(3)}, "classes"),
        ({"boxes": torch.zeros(2, 4), "scores": torch.zeros(2, 1)}, "scores"),
        ({"points": torch.zeros(2, 2), "point_labels": torch.zeros(2)}, "points"),
        (
            {
                "boxes": torch.zeros(2, 4),
                "points": torch.zeros(3, 1, 2),
                "point_labels": torch.zeros(3, 1),
            },
            "points",
        ),
    ],
)
def test_malformed_prompts_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Prompts(**values)


def test_moving_keeps_what_is_absent_absent():
    moved = random_prompts(30, 40, "boxes").to("meta")
    assert moved.boxes.is_meta and moved.classes.is_meta
    assert moved.points is None and moved.scores is None and len(moved) == 5


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_boxes_are_cut_at_the_edges_of_the_image(kind, dtype):
    boxes = np.array([[-5, 3, 61, 45], [1, 2, 30, 40], [60, 39, 99, 99]], dtype)
    cut = clip_boxes(kind(boxes), (40, 60))
    assert type(cut) is type(kind(boxes)) and cut.dtype == kind(boxes).dtype
    assert cut.tolist() == [[0, 3, 60, 40], [1, 2, 30, 40], [60, 39, 60, 40]]
    assert boxes[0, 0] == -5


def test_cutting_commutes_with_turning():
    boxes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 100 - 20
    prompts = Prompts(boxes=boxes).snapped()
    for turns in range(4):
        size = (40, 60) if turns % 2 == 0 else (60, 40)
        turned = prompts.clipped(40, 60).turned(turns, 40, 60)
        assert torch.equal(turned.boxes, prompts.turned(turns, 40, 60).clipped(*size).boxes)


def test_clicks_are_not_cut():
    points = torch.tensor([[[70.0, 3.0]]])
    prompts = Prompts(points=points, point_labels=torch.ones((1, 1), dtype=torch.int64))
    assert prompts.clipped(40, 60).points is points


def test_arrays_and_lists_become_tensors():
    prompts = Prompts(
        boxes=np.array([[1, 2, 3, 4]]),
        classes=[5],
        scores=np.array([0.5]),
        points=[[[1.5, 2]]],
        point_labels=np.array([[1]], np.int8),
    )
    assert prompts.boxes.tolist() == [[1, 2, 3, 4]] and prompts.boxes.dtype == torch.float32
    assert prompts.points.dtype == torch.float32 and prompts.point_labels.dtype == torch.int64
    assert prompts.classes.tolist() == [5] and prompts.scores.dtype == torch.float32
    assert prompts.turned(1, 10, 10).boxes.tolist() == [[2, 7, 4, 9]]
    with pytest.raises(ValueError, match="boxes of 1 prompts have shape"):
        Prompts(boxes=np.zeros((1, 3)))
