"""The training step of the SAM of two stages: its prompts, its losses, and that it learns."""

import numpy as np
import pytest
import torch

from canon_seg.sam import interactive_training
from canon_seg.sam.interactive_training import _choose, _ious, _Step, interactive_losses
from canon_seg.sam.training import PromptBatch
from canon_seg.sam.two_stage import Decoded, build_two_stage_sam

SIDE, DIM = 64, 32


def small_sam():
    torch.manual_seed(0)
    return build_two_stage_sam(SIDE, "tf_efficientnet_lite0", DIM, freeze_stages=6).train()


def toy_batch(boxes):
    """Rectangles of which every second lies in image 1."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    x, y = torch.arange(SIDE) + 0.5, (torch.arange(SIDE) + 0.5)[:, None]
    targets = torch.stack(
        [((x > x0) & (x < x1) & (y > y0) & (y < y1)).float() for x0, y0, x1, y1 in boxes.tolist()]
    )
    return PromptBatch(torch.arange(len(boxes)) % 2, boxes, targets)


BOXES = [[8, 8, 20, 24], [30, 30, 60, 50], [40, 4, 52, 16], [2, 40, 12, 60]]


@pytest.mark.parametrize("kind", ["box", "click"])
def test_training_lowers_the_loss(kind):
    sam, batch = small_sam(), toy_batch(BOXES)
    embeddings = torch.randn(2, 4 * DIM, 8, 8)
    parameters = [*sam.prompt_encoder.parameters(), *sam.mask_decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    rng, totals = np.random.default_rng(0), []
    for _ in range(30):
        losses = interactive_losses(sam, embeddings, batch, float(kind == "box"), rng)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])
    assert {name.split("_")[1] for name in losses} <= {kind, "proposals"}


def test_all_of_the_decoder_is_trained():
    sam, batch = small_sam(), toy_batch(BOXES)
    # Layers that start at zero would hide what is in front of them.
    for name, value in sam.mask_decoder.named_parameters():
        if "conv2" in name:
            torch.nn.init.normal_(value, std=0.05)
    embeddings = sam.image_encoder(torch.randn(2, 3, SIDE, SIDE))
    rng = np.random.default_rng(1)
    losses = [interactive_losses(sam, embeddings, batch, share, rng) for share in (0.0, 1.0)]
    sum(sum(part.values()) for part in losses).backward()
    without = [n for n, p in sam.named_parameters() if p.requires_grad and p.grad is None]
    # Tokens of prompts that were not given.
    assert all(name.startswith("prompt_encoder.") for name in without)


@pytest.mark.parametrize("clicks", [1, 3])
def test_clicks_lie_where_the_mask_is_wrong(monkeypatch, clicks):
    sam, batch = small_sam(), toy_batch(BOXES)
    chances = [0.0] * len(interactive_training.CLICK_CHANCES)
    chances[clicks - 1] = 1.0
    monkeypatch.setattr(interactive_training, "CLICK_CHANCES", tuple(chances))
    given, encode = [], type(sam.prompt_encoder).forward

    def record(encoder, points, boxes, masks):
        given.append((points, boxes, masks))
        return encode(encoder, points, boxes, masks)

    monkeypatch.setattr(type(sam.prompt_encoder), "forward", record)
    embeddings = torch.randn(2, 4 * DIM, 8, 8)
    interactive_losses(sam, embeddings, batch, 0.0, np.random.default_rng(0))
    assert len(given) == clicks and given[0][2] is None
    for before, (points, boxes, masks) in zip([None, *given], given, strict=False):
        assert boxes is None
        coords, labels = points
        if before is not None:
            assert torch.equal(coords[:, :-1], before[0][0]) and not masks.requires_grad
        for n, target in enumerate(batch.targets):
            x, y = (coords[n, -1] // 2).long().tolist()
            wanted = bool(target[2 * y, 2 * x])
            found = masks is not None and bool(masks[n, 0, y, x] > 0)
            assert labels[n, -1] == wanted and found != wanted


def test_choices_of_clicks():
    wanted = np.zeros((10, 12), bool)
    wanted[2:8, 2:8] = True
    rng = np.random.default_rng(0)
    points = {_choose(np.zeros_like(wanted), wanted, rng) for _ in range(200)}
    assert all(wanted[y, x] and label == 1 for x, y, label in points)
    assert len(points) > 20  # anywhere inside
    found = wanted.copy()
    found[:, 9:] = True
    x, _, label = _choose(found, wanted, rng)
    assert label == 0 and x >= 9
    assert _choose(wanted, wanted, rng) == (0, 0, -1)


def test_iou_counts_what_lies_beyond_the_window():
    batch = toy_batch([[0, 0, 32, 64]])
    step = _Step(small_sam(), torch.zeros(1), batch, batch.targets > 0.5, np.random.default_rng(0))
    # A window of the upper half, of which the left half is found: all of the object there.
    windows = torch.tensor([[[0.0, 0, 64, 32]]])
    logits = torch.full((1, 1, 8, 8), -1.0)
    logits[..., :4] = 1
    assert _ious(step, Decoded(logits, torch.zeros(1, 1), windows)).item() == pytest.approx(0.5)
