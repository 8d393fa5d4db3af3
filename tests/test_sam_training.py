"""The training step of SAM: prompts, windows and the decoder that runs on them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.segmenters import sam_training
from canon_seg.segmenters.sam_models import LongestSide, build_tiny_sam
from canon_seg.segmenters.sam_training import (
    PromptBatch,
    coverage,
    cut_windows,
    decode,
    training_losses,
    window_corners,
    window_index,
)


def tiny_sam(side=64):
    torch.manual_seed(0)
    return build_tiny_sam(side, (8, 8, 16, 16), (1, 1, 1, 1), 32)


def toy_batch(sam, boxes):
    """Rectangles of which every second lies in image 1."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    side = sam.prompt_encoder.mask_input_size[0]
    cells = boxes / (sam.image_encoder.img_size / side)
    x, y = torch.arange(side) + 0.5, (torch.arange(side) + 0.5)[:, None]
    targets = torch.stack([
        ((x > x0) & (x < x1) & (y > y0) & (y < y1)).float() for x0, y0, x1, y1 in cells.tolist()
    ])
    return PromptBatch(torch.arange(len(boxes)) % 2, boxes, targets)


def test_decode_equals_the_official_decoder():
    sam = tiny_sam()
    embedding = torch.randn(1, 32, 8, 8)
    boxes = torch.tensor([[3.0, 4, 30, 40], [10, 2, 60, 20]])
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    pe = sam.prompt_encoder.get_dense_pe()
    official = sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)
    ours = decode(
        sam.mask_decoder, embedding.expand(2, -1, -1, -1), pe.expand(2, -1, -1, -1), sparse, dense
    )
    for theirs, own in zip(official, ours):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)


@given(st.data())
def test_windows_hold_their_boxes(data):
    side = data.draw(st.integers(8, 48))
    size = data.draw(st.integers(4, side))
    extent = data.draw(st.floats(0.5, size - 1.01))
    x, y = (data.draw(st.floats(0, side - extent)) for _ in range(2))
    box = torch.tensor([[x, y, x + extent, y + extent]])
    column, row = window_corners(box, size, side)[0].tolist()
    assert 0 <= column <= side - size and 0 <= row <= side - size
    assert column <= x and x + extent <= column + size
    assert row <= y and y + extent <= row + size


def test_windows_lie_everywhere_around_their_boxes():
    box = torch.tensor([[20.0, 20, 24, 24]]).expand(300, -1)
    columns = window_corners(box, 16, 48)[:, 0]
    assert set(columns.tolist()) == set(range(8, 21))


def test_windows_are_cut_where_they_should():
    maps = torch.arange(2 * 36.0).reshape(2, 1, 6, 6)
    windows = cut_windows(maps, torch.tensor([[1, 2], [3, 0]]), 3)
    assert torch.equal(windows[0], maps[0, :, 2:5, 1:4])
    assert torch.equal(windows[1], maps[1, :, 0:3, 3:6])


def test_large_objects_get_large_windows(monkeypatch):
    monkeypatch.setattr(sam_training, "LARGER_FRACTION", 0.0)
    boxes = torch.tensor([[0.0, 0, 5, 5], [0, 0, 10, 3], [0, 0, 20, 20], [0, 0, 48, 9]])
    assert window_index(boxes, [16, 24, 48]).tolist() == [0, 1, 2, 2]
    monkeypatch.setattr(sam_training, "LARGER_FRACTION", 1.0)
    assert window_index(boxes, [16, 24, 48]).tolist() == [1, 2, 2, 2]


@pytest.mark.parametrize("windows, loss", [((), "focal"), ((4, 6), "cross_entropy")])
def test_training_lowers_the_loss(windows, loss):
    sam = tiny_sam().train()
    batch = toy_batch(sam, [[8, 8, 20, 24], [30, 30, 60, 50], [40, 4, 50, 14], [2, 40, 12, 60]])
    embeddings = torch.randn(2, 32, 8, 8)
    parameters = [*sam.prompt_encoder.parameters(), *sam.mask_decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    totals = []
    for _ in range(40):
        losses = training_losses(sam, embeddings, batch, windows=windows, loss=loss)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


@pytest.mark.parametrize("kind", ["box", "click", "corrected"])
@pytest.mark.parametrize("windows", [(), (7,)])
def test_prompts_of_every_kind(monkeypatch, kind, windows):
    sam, given_prompts = tiny_sam(), []
    batch = toy_batch(sam, [[8, 8, 20, 24], [30, 30, 40, 44]])
    encode = sam_training._encode

    def record(encoder, boxes, points, logits, corners, size):
        given_prompts.append((boxes, points, logits, corners, size))
        return encode(encoder, boxes, points, logits, corners, size)

    monkeypatch.setattr(sam_training, "_encode", record)
    monkeypatch.setattr(sam_training, "LARGER_FRACTION", 0.0)
    monkeypatch.setattr(sam_training, "BOX_FRACTION", 0.0 if kind == "click" else 1.0)
    monkeypatch.setattr(sam_training, "CORRECTED_FRACTION", float(kind == "corrected"))
    training_losses(sam, torch.randn(2, 32, 8, 8), batch, windows=windows)
    boxes, points, logits, corners, size = given_prompts[0]
    assert logits is None and size == (7 if windows else 8)
    if kind == "click":
        assert boxes is None and points[1].tolist() == [[1], [1]]
        for (x, y), target in zip(points[0][:, 0], batch.targets):
            assert target[int((y + 0.5) / 2), int((x + 0.5) / 2)] > 0.5
    else:
        assert points is None and boxes.shape == (2, 4)
    assert len(given_prompts) == 1 + (kind == "corrected")
    if kind == "corrected":
        boxes, points, logits, corners, size = given_prompts[1]
        assert logits.shape == (2, 1, 4 * size, 4 * size) and not logits.requires_grad
        # The click lies in the frame of the picture: where the first mask was wrong.
        for number, ((x, y), (label,)) in enumerate(zip(points[0][:, 0], points[1].tolist())):
            column, row = int((x + 0.5) / 2), int((y + 0.5) / 2)
            inside = bool(batch.targets[number, row, column] > 0.5)
            assert inside == bool(label)
            local = logits[number, 0, row - 4 * corners[number, 1], column - 4 * corners[number, 0]]
            assert (local > 0) != inside


def test_a_window_sees_what_the_whole_sees():
    """The mask embedding of a window is that of the whole, but for its borders."""
    sam = tiny_sam()
    encoder, corners = sam.prompt_encoder, torch.tensor([[1, 2]])
    boxes, logits = torch.tensor([[16.0, 20, 40, 44]]), torch.randn(1, 1, 32, 32)
    _, whole = encoder(points=None, boxes=boxes, masks=logits)
    part = cut_windows(logits, 4 * corners, 24)
    _, window = sam_training._encode(encoder, boxes, None, part, corners, 6)
    torch.testing.assert_close(window, cut_windows(whole, corners, 6), rtol=1e-4, atol=1e-5)


def test_coverage_keeps_the_area():
    masks = torch.zeros(1, 50, 80, dtype=torch.bool)
    masks[0, 11:30, 7:33] = True
    grid = coverage(masks, 32, lambda h, w: LongestSide.get_preprocess_shape(h, w, 32))
    assert grid.shape == (1, 32, 32) and grid[:, 20:].sum() == 0
    assert abs(grid.sum() / (20 * 32) - 19 * 26 / 4000) < 0.006  # bins that overlap a little
    assert ((grid > 0) & (grid < 1)).any()
