"""The training step of SAM: prompts, the decoder of many images at once, and losses."""

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

from canon_seg.sam import training as sam_training
from canon_seg.sam.models import LongestSide, build_tiny_sam
from canon_seg.sam.training import (
    PromptBatch,
    coverage,
    decode,
    training_losses,
)
from canon_seg.sam.windows import paste

KINDS = ["official", "tiny"]


def small_sam(kind="tiny", side=64):
    """A `Sam` with the tiny encoder, and with official prompt encoder and decoder if so wanted."""
    torch.manual_seed(0)
    sam = build_tiny_sam(side, (8, 8, 16, 64), (1, 1, 1, 1), 32)
    if kind == "official":
        sam.prompt_encoder = PromptEncoder(
            embed_dim=128,
            image_embedding_size=(side // 8, side // 8),
            input_image_size=(side, side),
            mask_in_chans=16,
        )
        sam.mask_decoder = MaskDecoder(
            transformer_dim=128,
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=128, mlp_dim=64, num_heads=4),
        )
    return sam


def toy_batch(boxes, side=64):
    """Rectangles of which every second lies in image 1."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    x, y = torch.arange(side) + 0.5, (torch.arange(side) + 0.5)[:, None]
    targets = torch.stack(
        [((x > x0) & (x < x1) & (y > y0) & (y < y1)).float() for x0, y0, x1, y1 in boxes.tolist()]
    )
    return PromptBatch(torch.arange(len(boxes)) % 2, boxes, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_equals_the_decoder(kind):
    sam, embeddings = small_sam(kind), torch.randn(2, 128, 8, 8)
    boxes = torch.tensor([[3.0, 4, 30, 40], [10, 2, 60, 20], [5, 5, 50, 50]])
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    images = torch.tensor([1, 0, 1])
    logits, ious, windows = decode(sam, embeddings, images, sparse, dense)
    whole = paste(logits, windows, 32 if kind == "official" else 64, 64)
    for n, image in enumerate(images):
        masks, iou = sam.mask_decoder.predict_masks(
            embeddings[image][None],
            sam.prompt_encoder.get_dense_pe(),
            sparse[n : n + 1],
            dense[n : n + 1],
        )
        torch.testing.assert_close(whole[n], masks[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ious[n], iou[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "loss"), [("official", "focal"), ("tiny", "cross_entropy")])
def test_training_lowers_the_loss(kind, loss):
    sam = small_sam(kind).train()
    batch = toy_batch([[8, 8, 20, 24], [30, 30, 60, 50], [40, 4, 50, 14], [2, 40, 12, 60]])
    embeddings = torch.randn(2, 128, 8, 8)
    parameters = [*sam.prompt_encoder.parameters(), *sam.mask_decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    totals = []
    for _ in range(40):
        losses = training_losses(sam, embeddings, batch, loss=loss)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


@pytest.mark.parametrize("kind", ["box", "click", "corrected"])
@pytest.mark.parametrize("model", KINDS)
def test_prompts_of_every_kind(monkeypatch, kind, model):
    sam, given_prompts = small_sam(model), []
    batch = toy_batch([[8, 8, 20, 24], [30, 30, 40, 44]])
    encode = type(sam.prompt_encoder).forward

    def record(encoder, points, boxes, masks):
        given_prompts.append((points, boxes, masks))
        return encode(encoder, points, boxes, masks)

    monkeypatch.setattr(type(sam.prompt_encoder), "forward", record)
    monkeypatch.setattr(sam_training, "BOX_FRACTION", 0.0 if kind == "click" else 1.0)
    monkeypatch.setattr(sam_training, "CORRECTED_FRACTION", float(kind == "corrected"))
    training_losses(sam, torch.randn(2, 128, 8, 8), batch)
    points, boxes, masks = given_prompts[0]
    assert masks is None and len(given_prompts) == 1 + (kind == "corrected")
    if kind == "click":
        assert boxes is None and points[1].tolist() == [[1], [1]]
        for (x, y), target in zip(points[0][:, 0].long(), batch.targets):
            assert target[y, x] > 0.5
    else:
        assert points is None and boxes.shape == (2, 4)
    if kind == "corrected":
        points, boxes, masks = given_prompts[1]
        side = 32 if model == "official" else 64
        assert masks.shape == (2, 1, side, side) and not masks.requires_grad
        # The click lies where the first mask was wrong, and says whether the object is there.
        found = torch.nn.functional.interpolate(masks, 64, mode="bilinear")[:, 0] > 0
        for n, ((x, y), (label,)) in enumerate(zip(points[0][:, 0].long(), points[1].tolist())):
            inside = bool(batch.targets[n, y, x] > 0.5)
            assert inside == bool(label) and bool(found[n, y, x]) != inside


def test_targets_lie_where_the_masks_do(monkeypatch):
    """Targets are cut out by the windows that the logits belong to."""
    sam, batch = small_sam(), toy_batch([[8, 8, 40, 56], [16, 24, 56, 40]])
    seen = []

    def record(logits, ious, targets, warmup, loss):
        seen.append(targets)
        return {}

    monkeypatch.setattr(sam_training, "mask_losses", record)
    monkeypatch.setattr(sam_training, "jitter_boxes", lambda boxes: boxes)
    monkeypatch.setattr(sam_training, "BOX_FRACTION", 1.0)
    training_losses(sam, torch.randn(2, 128, 8, 8), batch)
    # The box fills the middle two thirds of its window, whatever its size.
    k = seen[0].shape[-1]
    x = ((torch.arange(k) + 0.5) / k * 1.5 - 0.75).abs()
    expected = (x < 0.5) & (x[:, None] < 0.5)
    border = ((x - 0.5).abs() < 0.05) | ((x - 0.5).abs() < 0.05)[:, None]
    for target in seen[0]:
        assert torch.equal((target > 0.5)[~border], expected[~border])


def test_coverage_keeps_the_area():
    masks = torch.zeros(1, 50, 80, dtype=torch.bool)
    masks[0, 11:30, 7:33] = True
    grid = coverage(masks, 32, lambda h, w: LongestSide.get_preprocess_shape(h, w, 32))
    assert grid.shape == (1, 32, 32) and grid[:, 20:].sum() == 0
    assert abs(grid.sum() / (20 * 32) - 19 * 26 / 4000) < 0.006  # bins that overlap a little
    assert ((grid > 0) & (grid < 1)).any()
