"""Maps of where prompts lie, against what is computed cell by cell."""

import numpy as np
import pytest
import torch

from canon_seg.sam.geometry import (
    GeometryPromptEncoder,
    box_of_mask,
    click_features,
    hull_of_clicks,
    nearest_clicks,
    read_geometry,
)

SIDE, CELLS = 64, 8


def encoder():
    torch.manual_seed(0)
    return GeometryPromptEncoder(16, SIDE, CELLS).eval()


def test_nearest_clicks():
    coords = torch.tensor([[[3.0, 5], [40, 60], [20, 20]], [[9.5, 9.5], [1, 2], [50, 3]]])
    labels = torch.tensor([[1, 1, 0], [0, -1, -1]])
    found = nearest_clicks(coords, labels, SIDE, CELLS)
    assert found.shape == (2, 6, CELLS, CELLS)
    for n, row, column in np.ndindex(2, CELLS, CELLS):
        centre = np.array([column + 0.5, row + 0.5]) * SIDE / CELLS
        for kind, channels in ((1, slice(0, 3)), (0, slice(3, 6))):
            steps = (coords[n, labels[n] == kind].numpy() + 0.5) - centre
            expected = [0.0, 0, 0]
            if len(steps):
                expected = [*steps[np.hypot(*steps.T).argmin()], 1]
            assert found[n, channels, row, column].tolist() == pytest.approx(expected)


def test_features_and_hull_of_clicks():
    coords = torch.tensor([[[3.5, 3.5], [43.5, 59.5]], [[9.0, 9], [1, 2]]])
    clicks = nearest_clicks(coords, torch.tensor([[1, 1], [0, -1]]), SIDE, CELLS)
    features = click_features(clicks, torch.tensor([8.0, 32.0]))
    assert features.shape == (2, 6, CELLS, CELLS)
    assert features[0, 0, 0, 0] == 1  # the click is the cell's centre
    assert features[0, 0, 0, 1].item() == pytest.approx(np.exp(-0.5))
    assert (features[0, 3:] == 0).all() and (features[1, :3] == 0).all()
    assert (features[1, 5] == 1).all()
    assert hull_of_clicks(clicks, SIDE).tolist() == [[4, 4, 44, 60], [32, 32, 32, 32]]


def test_what_is_encoded_is_read():
    boxes = torch.tensor([[1.5, 2, 30, 40], [10, 20, 60, 64]])
    points = torch.rand(2, 3, 2) * SIDE, torch.tensor([[1, 0, -1], [1, 1, 1]])
    masks = torch.linspace(-3, 3, 32)[None, None, None].expand(2, 1, 32, 32)
    sparse, dense = encoder()(points=points, boxes=boxes, masks=masks)
    assert sparse.shape == (2, 5, 16) and dense.shape == (2, 16, CELLS, CELLS)
    geometry = read_geometry(dense)
    assert geometry.has_box and torch.equal(geometry.boxes, boxes)
    assert torch.equal(geometry.clicks, nearest_clicks(*points, SIDE, CELLS))
    assert geometry.masks.shape == (2, 1, 16, 16) and geometry.has_mask.tolist() == [1, 1]
    torch.testing.assert_close(
        geometry.masks[0, 0, 5, 1:-1], masks[0, 0, 0].view(16, 2).mean(dim=1)[1:-1]
    )
    part = geometry[torch.tensor([1, 1, 0])]
    assert torch.equal(part.boxes, boxes[[1, 1, 0]])


def test_what_is_absent_is_zero():
    sparse, dense = encoder()(points=None, boxes=None, masks=torch.zeros(1, 1, 32, 32))
    assert sparse.shape == (1, 0, 16)
    geometry = read_geometry(dense)
    assert not geometry.has_box and geometry.has_mask.tolist() == [1]
    assert not geometry.clicks.any()
    points = torch.zeros(3, 1, 2), torch.ones(3, 1)
    _, dense = encoder()(points=points, boxes=None, masks=None)
    assert read_geometry(dense).has_mask.tolist() == [0, 0, 0]


def test_some_boxes_are_refused():
    _, dense = encoder()(points=None, boxes=torch.tensor([[1.0, 2, 30, 40]]), masks=None)
    with pytest.raises(ValueError, match="all have a box, or none"):
        read_geometry(torch.cat([dense, torch.zeros_like(dense)]))


def test_box_of_mask():
    probabilities = torch.zeros(3, 16, 16)
    probabilities[0, 4:8, 2:13] = 0.9
    probabilities[0, 10:, 13:] = 0.4  # not in the mask
    probabilities[1, 1:15, 1:15] = 0.8
    probabilities[1, 15, 0] = 0.9  # a stray pixel, which is left out
    boxes, there = box_of_mask(probabilities, SIDE)
    assert there.tolist() == [True, True, False]
    assert boxes[:2].tolist() == [[8, 16, 52, 32], [4, 4, 60, 60]]
