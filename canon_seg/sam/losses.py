"""Draw training prompts for SAM, and compute its losses.

As in Kirillov et al., "Segment Anything" (ICCV 2023).
"""

import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

FOCAL_WEIGHT, DICE_WEIGHT = 20.0, 1.0  # section 3 of the paper, "Losses and training"
WARMUP_POSITIVE_WEIGHT = 3.0
NEAR_WEIGHT, FAR_WEIGHT = 2.0, 1.0  # the boundary, which is what is hard, lies near the object


def jitter_boxes(boxes, generator=None):
    """Add noise to boxes, as people and detectors draw them.

    The paper's has a standard deviation of 10 % of each side, at most 20 px (appendix A). Here it
    is drawn for each box from 0 to 10 %, small ones more often: a good box tells a small model a
    great deal, which it would not learn from boxes that are all bad.

    Args:
        boxes: (N, 4) XYXY.
        generator: torch.Generator; None for the global one.

    Returns:
        (N, 4), never inside out.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    deviation = 0.1 * torch.rand((len(boxes), 1), generator=generator).to(boxes) ** 2
    noise = torch.randn(boxes.shape, generator=generator).to(boxes) * deviation * sides
    # Three of the largest standard deviations at most, so that corners cannot change places.
    limit = torch.minimum(0.3 * sides, torch.full_like(sides, 20.0))
    return boxes + torch.minimum(torch.maximum(noise, -limit), limit)


def sample_pixel(masks, generator=None):
    """Draw one pixel of each mask, uniformly.

    Args:
        masks: (N, H, W) bool; an empty mask gives any pixel.
        generator: torch.Generator; None for the global one.

    Returns:
        (N, 2) float (x, y) pixel indices.
    """
    order = torch.rand(masks.shape, generator=generator).to(masks.device) + masks.float()
    index = order.flatten(1).argmax(dim=1)
    return torch.stack([index % masks.shape[2], index // masks.shape[2]], dim=1).float()


def mask_losses(logits, iou_predictions, targets, warmup, loss="focal"):
    """Compute the losses of all four mask tokens against one target each.

    The single-mask token (0) is trained on every prompt; among the three ambiguity tokens only the
    one with the lowest mask loss is (paper, "Resolving ambiguity").

    Args:
        logits: (N, 4, h, w) mask logits.
        iou_predictions: (N, 4) predicted IoU.
        targets: (N, h, w) float masks, 0 or 1, or in between on boundaries.
        warmup: True for cross-entropy with heavier positives in place of what follows.
        loss: "focal" (the paper's, weighed 20:1 with dice) or "cross_entropy": a mean around each
            object (its box and 4 cells) and one over the rest, weighed 2:1, so that small objects
            count like large ones.

    Returns:
        dict of scalars ``loss_mask``, ``loss_dice``, ``loss_iou``.
    """
    # In float32, also under autocast: sums over thousands of pixels.
    logits, iou_predictions = logits.float(), iou_predictions.float()
    pixel, dice = losses_of_each(logits, targets, warmup, loss)
    targets = targets[:, None].expand_as(logits)
    best = (pixel + dice)[:, 1:].argmin(dim=1, keepdim=True) + 1

    def chosen(loss):
        return (loss[:, 0] + loss.gather(1, best)[:, 0]).mean()

    with torch.no_grad():
        found, wanted = logits > 0, targets > 0.5
        union = (found | wanted).sum(dim=(2, 3)).clamp(min=1)
        iou = (found & wanted).sum(dim=(2, 3)) / union
    return {
        "loss_mask": chosen(pixel),
        "loss_dice": chosen(dice),
        "loss_iou": F.mse_loss(iou_predictions, iou),
    }


def losses_of_each(logits, targets, warmup=False, loss="cross_entropy"):
    """Compute the loss by pixels and the dice loss of each of several masks.

    Args:
        logits: (N, M, h, w) mask logits, float32.
        targets: (N, h, w) float masks.
        warmup, loss: see :func:`mask_losses`.

    Returns:
        two of (N, M).
    """
    targets = targets[:, None].expand_as(logits)
    if warmup:
        weight = torch.tensor(WARMUP_POSITIVE_WEIGHT, device=logits.device)
        pixel = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weight, reduction="none"
        ).mean(dim=(2, 3))
    elif loss == "cross_entropy":
        near = _surroundings(targets[:, :1])
        pixel = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        near_mean = (pixel * near).sum(dim=(2, 3)) / near.sum(dim=(2, 3)).clamp(min=1)
        far_mean = (pixel * ~near).sum(dim=(2, 3)) / (~near).sum(dim=(2, 3)).clamp(min=1)
        pixel = NEAR_WEIGHT * near_mean + FAR_WEIGHT * far_mean
    else:
        pixel = FOCAL_WEIGHT * sigmoid_focal_loss(logits, targets).mean(dim=(2, 3))
    dice = DICE_WEIGHT * dice_loss(logits, targets)
    return pixel, dice


def _surroundings(targets, margin=4):
    """Return the boxes of masks and ``margin`` cells around them, as (N, 1, h, w) bool."""
    found = (targets > 0).float()
    sides = [
        F.max_pool1d(found.amax(dim=axis)[:, 0, None], 2 * margin + 1, stride=1, padding=margin) > 0
        for axis in (2, 3)
    ]
    return sides[1][:, :, :, None] & sides[0][:, :, None, :]


def dice_loss(logits, targets):
    """Return 1 - Dice coefficient of soft masks over the last two axes.

    By Milletari et al. 2016.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(dim=(-2, -1))
    total = probabilities.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)
