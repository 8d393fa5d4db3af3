"""Windows around boxes: where they lie, what is seen through them, and how it is laid back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.sam.windows import (
    OUTSIDE,
    align,
    cell_centres,
    paste,
    whole_windows,
    windows_around,
    within_reach,
)


def draw_box(data, side=64.0, least=0.0):
    x0, y0 = (data.draw(st.floats(0, side - least)) for _ in range(2))
    return torch.tensor(
        [[x0, y0, data.draw(st.floats(x0 + least, side)), data.draw(st.floats(y0 + least, side))]]
    )


@given(st.data())
def test_windows_show_their_box_and_a_quarter_around_it(data):
    box = draw_box(data)
    window = windows_around(box)
    sides = (box[:, 2:] - box[:, :2]).clamp(min=4)
    torch.testing.assert_close(window[:, 2:] - window[:, :2], 1.5 * sides)
    torch.testing.assert_close(window[:, 2:] + window[:, :2], box[:, 2:] + box[:, :2])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_boxes_that_are_nowhere_do_no_harm(wrong):
    boxes = within_reach(torch.tensor([[wrong, 1, 2, 3], [1, 2, 3, wrong]]), 64)
    windows = windows_around(boxes)
    seen = align(torch.ones(1, 2, 8, 8), torch.zeros(2, dtype=torch.int64), windows, 4, 64)
    assert windows.isfinite().all() and seen.isfinite().all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_windows_that_are_nowhere_show_something_and_harm_nobody(wrong):
    windows = torch.tensor([[wrong, 1, 2, 3], [1, 2, 3, wrong], [wrong] * 4])
    seen = align(torch.ones(1, 2, 8, 8), torch.zeros(3, dtype=torch.int64), windows, 4, 64)
    assert seen.shape == (3, 2, 4, 4) and seen.isfinite().all()


def test_boxes_are_cut_a_little_beyond_the_square():
    boxes = torch.tensor([[-20.0, 0, 84, 64], [-600, 3, 1112, 1000]])
    expected = [[-20, 0, 84, 64], [-20, 3, 84, 84]]
    assert within_reach(boxes, 64).tolist() == expected


def test_centres_of_cells():
    x, y = cell_centres(torch.tensor([[10.0, 20, 18, 28]]), 4)
    assert x.tolist() == [[[11, 13, 15, 17]]] and y[0, :, 0].tolist() == [21, 23, 25, 27]


def ramp(cells, side):
    """(1, 2, cells, cells): x and y of the centres of the cells in pixels."""
    x, y = cell_centres(whole_windows(1, side, torch.zeros(1)), cells)
    return torch.stack(torch.broadcast_tensors(x, y), dim=1)


@given(st.data())
def test_coordinates_seen_through_windows_are_those_of_their_cells(data):
    side, cells = 64, 5
    # Well inside, where bilinear interpolation of a ramp is exact.
    box = 16 + draw_box(data, 32, least=4.0)
    window = windows_around(box).clamp(min=8, max=56)
    seen = align(ramp(16, side), torch.zeros(1, dtype=torch.int64), window, cells, side)
    x, y = cell_centres(window, cells)
    torch.testing.assert_close(seen[0, 0], x[0].expand(cells, -1), rtol=0, atol=1e-3)
    torch.testing.assert_close(seen[0, 1], y[0].expand(-1, cells), rtol=0, atol=1e-3)


def test_each_window_looks_at_its_image():
    maps = torch.arange(3.0)[:, None, None, None].expand(-1, 1, 8, 8)
    windows = whole_windows(2, 64, maps)
    assert align(maps, torch.tensor([2, 0]), windows, 4, 64)[:, 0, 0, 0].tolist() == [2, 0]


def test_whole_windows_show_everything_as_it_is():
    maps = torch.rand(1, 3, 8, 8)
    seen = align(maps, torch.zeros(1, dtype=torch.int64), whole_windows(1, 64, maps), 4, 64)
    torch.testing.assert_close(seen, torch.nn.functional.avg_pool2d(maps, 2))
    torch.testing.assert_close(paste(maps, whole_windows(1, 64, maps), 8, 64), maps)
    # The short way gives what the other one does, for which one window is moved a little.
    logits, windows = torch.randn(2, 3, 8, 8), whole_windows(2, 64, maps).clone()
    short = paste(logits, windows, 32, 64)
    windows[1, 0] -= 1
    torch.testing.assert_close(paste(logits, windows, 32, 64)[0], short[0], rtol=1e-4, atol=1e-5)


def test_masks_are_laid_back_where_they_belong():
    window = torch.tensor([[16.0, 24, 32, 56]])
    logits = torch.full((1, 1, 8, 8), 5.0)
    logits[..., :4] = -5.0
    pasted = paste(logits, window, 32, 64)[0, 0]  # cells of 2 px
    assert pasted.shape == (32, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[12:28, 8:16] = True
    assert torch.equal(pasted > OUTSIDE, inside)
    assert (pasted[12:28, 8:11] < 0).all() and (pasted[12:28, 13:16] > 0).all()


@given(st.data())
def test_there_and_back(data):
    """An ellipse drawn in a window's cells is the ellipse of the box when it is laid back."""
    box = draw_box(data, 64.0, least=12.0)
    window = windows_around(box)

    def ellipse(x, y):
        u = (2 * x - box[:, 0] - box[:, 2]) / (box[:, 2] - box[:, 0])
        v = (2 * y - box[:, 1] - box[:, 3]) / (box[:, 3] - box[:, 1])
        return 1 - u * u - v * v

    drawn = ellipse(*cell_centres(window, 64))[:, None]
    pasted = paste(drawn, window, 64, 64)[0, 0]
    expected = ellipse(*cell_centres(whole_windows(1, 64, box), 64))[0]
    near_the_edge = expected.abs() < 0.05
    assert torch.equal((pasted > 0)[~near_the_edge], (expected > 0)[~near_the_edge])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_are_kept(dtype):
    maps = torch.rand(1, 2, 8, 8).to(dtype)
    windows = whole_windows(1, 64, maps)
    assert align(maps, torch.zeros(1, dtype=torch.int64), windows, 4, 64).dtype == dtype
    assert paste(maps, windows, 16, 64).dtype == dtype
