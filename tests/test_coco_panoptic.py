"""Quarter turns of panoptic predictions."""

import copy

import numpy as np
import pytest
import torch

from canon_seg.geometry import C4, turn_panoptic, turned_size

SEGMENTS = [
    {"id": 1, "isthing": True, "category_id": 3, "score": 0.5, "instance_id": 0},
    {"id": 2, "isthing": False, "category_id": 9, "area": 4, "bbox": [1, 0, 3, 2]},
]


def panoptic_map(kind):
    labels = np.zeros((3, 5), dtype=np.int32)
    labels[:2, 1:4] = 2
    labels[2, 0] = 1
    return kind(labels)


kinds = pytest.mark.parametrize("kind", [np.copy, torch.from_numpy])


@kinds
@pytest.mark.parametrize("a", C4.elements)
@pytest.mark.parametrize("b", C4.elements)
def test_turns_compose_and_invert(kind, a, b):
    labels = panoptic_map(kind)
    once = turn_panoptic(labels, SEGMENTS, a)
    for turns, expected in [
        (b, turn_panoptic(labels, SEGMENTS, C4.compose(a, b))),
        (C4.inverse(a), (labels, SEGMENTS)),
    ]:
        turned_labels, turned_segments = turn_panoptic(*once, turns)
        np.testing.assert_array_equal(turned_labels, expected[0])
        assert turned_segments == expected[1]


@kinds
@pytest.mark.parametrize("turns", C4.elements)
def test_boxes_follow_their_segment(kind, turns):
    labels, segments = turn_panoptic(panoptic_map(kind), SEGMENTS, turns)
    assert tuple(labels.shape) == turned_size(3, 5, turns)
    ys, xs = np.nonzero(np.asarray(labels) == 2)
    x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    assert segments[1]["bbox"] == [x0, y0, x1 - x0, y1 - y0]


def test_input_is_unchanged():
    before = copy.deepcopy(SEGMENTS)
    turn_panoptic(panoptic_map(np.copy), SEGMENTS, 1)
    assert before == SEGMENTS


def test_without_segments_info():
    assert turn_panoptic(panoptic_map(np.copy), None, 1)[1] is None


def test_unknown_key():
    with pytest.raises(ValueError, match="centroid"):
        turn_panoptic(panoptic_map(np.copy), [{"id": 1, "centroid": [2, 3]}], 1)
