import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.sam.losses import dice_loss, jitter_boxes, mask_losses, sample_pixel


def focal_by_hand(logit, target):
    p = 1 / (1 + math.exp(-logit))
    p_t, alpha = (p, 0.25) if target else (1 - p, 0.75)
    return -alpha * (1 - p_t) ** 2 * math.log(p_t)


def by_hand(logits, target):
    """(focal x 20, dice, IoU) of one mask given as flat lists."""
    focal = sum(map(focal_by_hand, logits, target)) / len(logits)
    probabilities = [1 / (1 + math.exp(-logit)) for logit in logits]
    overlap = sum(p * t for p, t in zip(probabilities, target))
    dice = 1 - (2 * overlap + 1) / (sum(probabilities) + sum(target) + 1)
    found = [logit > 0 for logit in logits]
    union = sum(f or bool(t) for f, t in zip(found, target))
    iou = sum(f and bool(t) for f, t in zip(found, target)) / max(union, 1)
    return 20 * focal, dice, iou


def test_losses_by_hand():
    torch.manual_seed(0)
    logits, targets = 2 * torch.randn(3, 4, 2, 3), (torch.rand(3, 2, 3) > 0.5).float()
    logits[1, 0] = 4 * targets[1] - 2  # the single-mask token is the best, and stays apart
    predicted = torch.rand(3, 4)
    mask = dice = iou = 0.0
    for n in range(3):
        tokens = [
            by_hand(logits[n, k].flatten().tolist(), targets[n].flatten().tolist())
            for k in range(4)
        ]
        best = min(tokens[1:], key=lambda token: token[0] + token[1])
        mask += (tokens[0][0] + best[0]) / 3
        dice += (tokens[0][1] + best[1]) / 3
        iou += sum((predicted[n, k].item() - tokens[k][2]) ** 2 for k in range(4)) / 12
    losses = mask_losses(logits, predicted, targets, warmup=False)
    assert losses["loss_mask"].item() == pytest.approx(mask, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(dice, rel=1e-5)
    assert losses["loss_iou"].item() == pytest.approx(iou, rel=1e-5)


def test_only_the_single_mask_token_and_the_best_other_one_learn_masks():
    torch.manual_seed(1)
    targets = (torch.rand(1, 8, 8) > 0.5).float()
    logits = torch.randn(1, 4, 8, 8)
    logits[0, 2] = 4 * (2 * targets[0] - 1)  # right everywhere
    logits.requires_grad_(True)
    losses = mask_losses(logits, torch.zeros(1, 4), targets, warmup=False)
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    learns = [bool(logits.grad[0, token].abs().max() > 0) for token in range(4)]
    assert learns == [True, False, True, False]


def test_the_iou_loss_does_not_move_the_masks():
    logits = torch.randn(2, 4, 5, 5, requires_grad=True)
    predicted = torch.zeros(2, 4, requires_grad=True)
    mask_losses(logits, predicted, torch.ones(2, 5, 5), warmup=False)["loss_iou"].backward()
    assert logits.grad is None and predicted.grad is not None


def test_warmup_is_cross_entropy_with_heavy_positives():
    logits = torch.zeros(1, 4, 1, 2)
    losses = mask_losses(logits, torch.zeros(1, 4), torch.tensor([[[1.0, 0.0]]]), warmup=True)
    assert losses["loss_mask"].item() == pytest.approx(2 * (3 + 1) * math.log(2) / 2)


def test_losses_are_computed_in_full_precision():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 4, 64, 64).bfloat16(), (torch.rand(2, 64, 64) > 0.5).float()
    iou = torch.rand(2, 4).bfloat16()
    ours = mask_losses(logits, iou, targets, warmup=False)
    exact = mask_losses(logits.double(), iou.double(), targets.double(), warmup=False)
    for name, value in ours.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=1e-5)


def test_dice_of_perfect_and_of_disjoint_masks():
    target = torch.zeros(1, 30, 30)
    target[:, :15] = 1
    assert dice_loss(100 * (2 * target - 1), target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(100 * (1 - 2 * target), target).item() == pytest.approx(1, abs=2e-3)
    assert dice_loss(torch.full((1, 4, 4), -100.0), torch.zeros(1, 4, 4)).item() == 0


@given(st.integers(0, 10_000), st.floats(0, 3000), st.floats(0, 3000))
def test_jitter_never_turns_boxes_inside_out(seed, width, height):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[5.0, 7.0, 5.0 + width, 7.0 + height]]).repeat(50, 1)
    jittered = jitter_boxes(boxes, generator)
    assert (jittered[:, 2:] >= jittered[:, :2]).all()
    sides = torch.tensor([width, height, width, height])
    assert ((jittered - boxes).abs() <= torch.clamp(0.3 * sides, max=20) + 1e-3).all()


def test_jitter_is_small_for_many_boxes_and_up_to_a_tenth_of_the_side():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.0, 0.0, 100.0, 40.0]]).repeat(20_000, 1)
    noise = jitter_boxes(boxes, generator) - boxes
    assert noise.mean(dim=0).abs().max() < 0.3
    # The standard deviation is 0.1 u^2 of a side, u uniform: the mean of its square is 1/5 of that
    # at u = 1. Of the wide side, a little is cut at 20 px.
    torch.testing.assert_close(
        noise.std(dim=0), torch.tensor([4.4, 1.79, 4.4, 1.79]), atol=0.1, rtol=0
    )
    # P(|noise| < 1 % of the side) at u: P(|z| < 0.1 / u^2); averaged over u it is 0.46.
    near = (noise[:, 1].abs() < 0.4).float().mean()
    assert 0.44 < near < 0.49
    per_box = noise.abs() / torch.tensor([100.0, 40.0, 100.0, 40.0])
    correlation = torch.corrcoef(per_box.T)[0, 1]  # one deviation for all sides of a box
    assert correlation > 0.3


def test_sampled_pixels_lie_in_their_masks_and_reach_all_of_them():
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(3, 6, 9, dtype=torch.bool)
    masks[0, 2, 7] = True
    masks[1, 1:3, 4:6] = True
    masks[2] = True
    seen = [set(), set(), set()]
    for _ in range(400):
        for index, (x, y) in enumerate(sample_pixel(masks, generator).long().tolist()):
            assert masks[index, y, x]
            seen[index].add((x, y))
    assert [len(pixels) for pixels in seen] == [1, 4, 54]


def test_an_empty_mask_gives_some_pixel():
    x, y = sample_pixel(torch.zeros(1, 6, 9, dtype=torch.bool))[0].tolist()
    assert 0 <= x < 9 and 0 <= y < 6
