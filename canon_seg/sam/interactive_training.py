"""Compute a training step of the SAM of two stages: boxes, and clicks as users correct with them.

As in Kirillov et al., "Segment Anything" (ICCV 2023), section 3 and appendix A, but that the clicks
before the last one are simulated without gradients, as in Sofiiuk et al., "Reviving Iterative
Training with Mask Guidance for Interactive Segmentation" (ICIP 2022), which saves most of their
time.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch.nn import functional as F

from canon_seg.sam.clicks import deepest_point, random_point
from canon_seg.sam.geometry import read_geometry
from canon_seg.sam.losses import jitter_boxes, losses_of_each
from canon_seg.sam.training import PromptBatch
from canon_seg.sam.two_stage import MASKS, Decoded
from canon_seg.sam.windows import align, paste

# How often a step ends with the first, second, ... click.
CLICK_CHANCES = (0.5, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)
# Of the steps: the boxes are followed by a click that corrects the mask.
CORRECTED_FRACTION = 0.15
DEEPEST_FRACTION = 0.5  # of the clicks lie deepest in the region, the others anywhere in it
CLICK_STRIDE = 2  # pixels of the square, of the grid that clicks are found on
# Of the proposals other than the best one, so that none of them is never trained.
OTHERS_WEIGHT = 0.05
OTHERS_FRACTION = 0.4
PROPOSAL_WEIGHT, MASK_WEIGHT, IOU_WEIGHT = 1.0, 1.0, 1.0


@dataclass(frozen=True, eq=False)
class _Step:
    """Hold what does not change over the clicks of a step."""

    sam: Sam
    embeddings: torch.Tensor
    batch: PromptBatch
    wanted: torch.Tensor  # (N, S / 2, S / 2) bool
    rng: np.random.Generator

    @property
    def side(self) -> int:
        return self.sam.image_encoder.img_size

    def encode(self, boxes, points, masks):
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        return self.sam.prompt_encoder.get_dense_pe(), sparse, dense


def interactive_losses(
    sam: Sam,
    embeddings: torch.Tensor,
    batch: PromptBatch,
    box_fraction: float,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    """Compute the losses of prompts by boxes and by clicks.

    Args:
        sam: the `Sam` of two stages.
        embeddings: (B, 4 C, h, w) image embeddings.
        batch: objects, not empty.
        box_fraction: share of them that are prompted by boxes, the others by clicks.
        rng: random numbers.

    Returns:
        dict of scalars, means over the prompts.
    """
    # Of each image, since they are drawn at random: the first ones by boxes.
    by_box = torch.as_tensor(rng.random(len(batch)) < box_fraction, device=embeddings.device)
    losses: dict[str, torch.Tensor] = {}
    for chosen, of_kind in ((by_box, _box_losses), (~by_box, _click_losses)):
        part = PromptBatch(batch.images[chosen], batch.boxes[chosen], batch.targets[chosen])
        if not len(part):
            continue
        wanted = F.avg_pool2d(part.targets[:, None], CLICK_STRIDE)[:, 0] > 0.5
        share = len(part) / len(batch)
        for name, value in of_kind(_Step(sam, embeddings, part, wanted, rng)).items():
            losses[name] = losses.get(name, 0) + share * value
    return losses


def _box_losses(step: _Step) -> dict[str, torch.Tensor]:
    boxes = jitter_boxes(step.batch.boxes)
    points = masks = None
    if step.rng.random() < CORRECTED_FRACTION:
        with torch.no_grad():
            found = _decode(step, boxes, None, None, range(1))
            masks = _whole(step, found)
        points = _click(step, None, masks[:, 0] > 0)
    found = _decode(step, boxes, points, masks)
    targets = _targets(step, found.windows[:, 0], found.logits.shape[-1])
    pixel, dice = losses_of_each(found.logits.float(), targets)
    return {
        "loss_box_mask": MASK_WEIGHT * _best_of_three(pixel, dice)[0],
        "loss_box_iou": IOU_WEIGHT * F.mse_loss(found.ious.float(), _ious(step, found)),
    }


def _click_losses(step: _Step) -> dict[str, torch.Tensor]:
    clicks = 1 + int(step.rng.choice(len(CLICK_CHANCES), p=CLICK_CHANCES))
    points, masks = _click(step, None, torch.zeros_like(step.wanted)), None
    for _ in range(clicks - 1):
        with torch.no_grad():
            # One mask alone, which takes a third of the time of three.
            number = int(step.rng.integers(1, MASKS))
            masks = _whole(step, _decode(step, None, points, masks, [number]))
        points = _click(step, points, masks[:, 0] > 0)
    pe, sparse, dense = step.encode(None, points, masks)
    decoder, batch = step.sam.mask_decoder, step.batch
    geometry = read_geometry(dense)
    proposals = decoder.proposing(step.embeddings, batch.images, pe, sparse, geometry)
    coarse = F.adaptive_avg_pool2d(batch.targets, proposals.shape[-2:])
    pixel, dice = losses_of_each(proposals.float(), coarse)
    proposal_loss, best = _best_of_three(pixel, dice)
    # The best one is decoded anew. Of some prompts another one too, whose quality alone is learned.
    count = len(batch)
    everyone = torch.arange(count, device=batch.images.device)
    some = everyone[: math.ceil(OTHERS_FRACTION * count)]
    other = (best[some] + torch.as_tensor(step.rng.integers(1, MASKS, len(some))).to(best)) % MASKS
    rows = torch.cat([everyone, some])
    chosen = torch.cat([best, other])
    found = decoder.refine(
        step.embeddings,
        batch.images[rows],
        pe,
        sparse[rows],
        geometry[rows],
        proposals[rows, chosen],
    )
    twice = _Step(
        step.sam,
        step.embeddings,
        PromptBatch(batch.images[rows], batch.boxes[rows], batch.targets[rows]),
        step.wanted,
        step.rng,
    )
    targets = _targets(step, found.windows[:count, 0], found.logits.shape[-1])
    pixel, dice = losses_of_each(found.logits[:count].float(), targets)
    return {
        "loss_proposals": PROPOSAL_WEIGHT * proposal_loss,
        "loss_click_mask": MASK_WEIGHT * (pixel + dice).mean(),
        "loss_click_iou": IOU_WEIGHT * F.mse_loss(found.ious.float(), _ious(twice, found)),
    }


def _decode(step, boxes, points, masks, chosen=range(MASKS)) -> Decoded:
    pe, sparse, dense = step.encode(boxes, points, masks)
    decoder = step.sam.mask_decoder
    return decoder.decode(step.embeddings, step.batch.images, pe, sparse, dense, chosen)


def _whole(step, found: Decoded):
    """Return (N, 1, S / 2, S / 2) logits of the first of the masks over the whole picture."""
    cells = step.side // CLICK_STRIDE
    return paste(found.logits[:, :1].float(), found.windows[:, 0], cells, step.side)


def _click(step, points, found):
    """Return the clicks so far and one more in the larger error of masks (N, S / 2, S / 2)."""
    clicks, labels = [], []
    pairs = zip(found.cpu().numpy(), step.wanted.cpu().numpy(), strict=True)
    for mask, wanted in pairs:
        x, y, label = _choose(mask, wanted, step.rng)
        clicks.append((CLICK_STRIDE * x, CLICK_STRIDE * y))
        labels.append(label)
    device = step.embeddings.device
    coords = torch.tensor(clicks, dtype=torch.float32, device=device)[:, None]
    coords = coords + (CLICK_STRIDE - 1) / 2
    kinds = torch.tensor(labels, device=device)[:, None]
    if points is None:
        return coords, kinds
    return torch.cat([points[0], coords], dim=1), torch.cat([points[1], kinds], dim=1)


def _choose(found, wanted, rng) -> tuple[int, int, int]:
    """Return x, y and label of a click: deepest in an error, or anywhere in it."""
    missing, surplus = wanted & ~found, found & ~wanted
    label = int(missing.sum() >= surplus.sum())
    region = missing if label else surplus
    deepest = rng.random() < DEEPEST_FRACTION
    point = deepest_point(region) if deepest else random_point(region, rng)
    if point is None:  # nothing is wrong; a padding click
        return 0, 0, -1
    return (*point, label)


def _targets(step, windows, cells):
    """Return the objects (N, k, k) in windows (N, 4)."""
    batch = step.batch
    everyone = torch.arange(len(batch), device=windows.device)
    return align(batch.targets[:, None], everyone, windows, cells, step.side)[:, 0]


def _best_of_three(pixel, dice):
    """Return the loss of the one mask and the best of the other three, and which that is (N,)."""
    total = pixel + dice
    best = total[:, 1:].argmin(dim=1) + 1
    least = total.gather(1, best[:, None])[:, 0]
    others = OTHERS_WEIGHT * total[:, 1:].mean(dim=1)
    return (total[:, 0] + least + others).mean(), best


@torch.no_grad()
def _ious(step, found: Decoded):
    """Return the IoU (N, M) of masks with the whole of the objects, also beyond the windows."""
    batch, cells = step.batch, found.logits.shape[-1]
    several = found.logits.shape[1]
    windows = found.windows[:, 0]  # one for all masks of a prompt
    inside = _targets(step, windows, cells) > 0.5
    masks = found.logits > 0
    both = (masks & inside[:, None]).sum(dim=(2, 3)).float()
    wide, high = ((windows[:, 2:] - windows[:, :2]) / cells).unbind(dim=1)
    wanted = (batch.targets.sum(dim=(1, 2)) / (wide * high))[:, None].expand(-1, several)
    wanted = torch.maximum(wanted, inside.sum(dim=(1, 2)).float()[:, None])
    return both / (masks.sum(dim=(2, 3)) + wanted - both).clamp(min=1)
