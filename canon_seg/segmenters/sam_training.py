"""One training step of SAM: prompts drawn from masks, windows of the embedding, losses.

As in Kirillov et al., "Segment Anything" (ICCV 2023), section 3 and appendix A, with one addition:
the mask decoder is run on a window of the embedding around each object, not on the whole of it,
where a model is trained on CPUs. The decoder does not know how large its grid is, so that what it
learns in windows holds for the whole; its cost goes with the area.
"""

from dataclasses import dataclass

import torch
from segment_anything.modeling import PromptEncoder
from torch.nn import functional as F

from canon_seg.segmenters.sam_losses import jitter_boxes, mask_losses, sample_pixel

# Of the prompts: given as boxes first (else by a click). Of the groups of prompts: given a second
# time with the first mask and a click that corrects it. Of the windows: taken larger than needed.
BOX_FRACTION = 0.85
CORRECTED_FRACTION = 0.15
LARGER_FRACTION = 0.15

CELL = 4  # logits in a cell of the embedding, along each axis


@dataclass(frozen=True)
class PromptBatch:
    """Objects of several images, in pixels of SAM's square input.

    Attributes:
        images: (N,) int64, which image's embedding each belongs to.
        boxes: (N, 4) ground-truth XYXY.
        targets: (N, 4 S, 4 S) coverage 0..1 of each cell of the logits, for an embedding S x S.
    """

    images: torch.Tensor
    boxes: torch.Tensor
    targets: torch.Tensor

    def __getitem__(self, chosen):
        return PromptBatch(self.images[chosen], self.boxes[chosen], self.targets[chosen])

    def __len__(self):
        return len(self.images)


def training_losses(sam, embeddings, batch, *, windows=(), warmup=False, loss="focal"):
    """Losses of all prompts.

    Args:
        sam: the `Sam`.
        embeddings: (B, C, S, S) image embeddings.
        batch: :class:`PromptBatch`, not empty.
        windows: sides in cells of the windows that the decoder is run on, ascending; an object
            takes the smallest that holds it with a margin, or the whole embedding.
        warmup, loss: see :func:`canon_seg.segmenters.sam_losses.mask_losses`.
    Returns:
        dict of scalars, means over the prompts.
    """
    side = embeddings.shape[-1]
    stride = sam.image_encoder.img_size / side
    sizes = [size for size in windows if size < side] + [side]
    needed = window_index(batch.boxes / stride, sizes)
    sums = {}
    for index, size in enumerate(sizes):
        group = batch[needed == index]
        if len(group) == 0:
            continue
        for name, value in _group_losses(sam, embeddings, group, size, warmup, loss).items():
            sums[name] = sums.get(name, 0) + value * (len(group) / len(batch))
    return sums


def window_index(boxes, sizes):
    """(N,) index of the window size for each box, both in cells; some take the next larger one."""
    extent = 1.4 * (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) + 4
    index = torch.bucketize(extent, torch.tensor(sizes[:-1], dtype=extent.dtype).to(extent))
    larger = torch.rand(len(index)).to(index.device) < LARGER_FRACTION
    return torch.clamp(index + larger, max=len(sizes) - 1)


def window_corners(boxes, size, side):
    """(N, 2) first column and row of windows that hold the boxes, at random places around them.

    Args:
        boxes: (N, 4) XYXY in cells.
        size, side: sides of the window and of the whole grid in cells.
    """
    lowest = torch.clamp(boxes[:, 2:].ceil() - size, min=0)
    highest = torch.clamp(boxes[:, :2].floor(), max=side - size)
    lowest, highest = torch.minimum(lowest, highest), torch.maximum(lowest, highest)
    random = torch.rand(lowest.shape).to(lowest)
    corners = (lowest + random * (highest - lowest + 1)).floor().long()
    return torch.clamp(corners, min=0, max=side - size)


def cut_windows(maps, corners, size):
    """Windows of maps.

    Args:
        maps: (N, C, S, S).
        corners: (N, 2) column and row of the first cell of each window.
        size: side of the windows.
    Returns:
        (N, C, size, size).
    """
    if size == maps.shape[-1]:
        return maps
    return torch.stack([
        map_[:, row : row + size, column : column + size]
        for map_, (column, row) in zip(maps, corners.tolist())
    ])


def decode(decoder, embeddings, pe, sparse, dense):
    """segment_anything's mask decoder with one image embedding for each prompt.

    Args:
        decoder: its `MaskDecoder`.
        embeddings, pe, dense: (N, C, h, w).
        sparse: (N, tokens, C).
    Returns:
        ((N, 4, 4 h, 4 w) mask logits, (N, 4) predicted IoU), as its ``predict_masks``.
    """
    queries = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    queries = torch.cat([queries.expand(len(sparse), -1, -1), sparse], dim=1)
    queries, pixels = decoder.transformer(embeddings + dense, pe, queries)
    pixels = pixels.transpose(1, 2).unflatten(2, embeddings.shape[-2:])
    pixels = decoder.output_upscaling(pixels)
    filters = torch.stack(
        [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    logits = torch.einsum("nmc,nchw->nmhw", filters, pixels)
    return logits, decoder.iou_prediction_head(queries[:, 0])


def _group_losses(sam, embeddings, group, size, warmup, loss):
    side = embeddings.shape[-1]
    stride = sam.image_encoder.img_size / side
    corners = window_corners(group.boxes / stride, size, side)
    image_windows = cut_windows(embeddings[group.images], corners, size)
    pe = sam.prompt_encoder.get_dense_pe().expand(len(group), -1, -1, -1)
    pe = cut_windows(pe, corners, size)
    targets = cut_windows(group.targets[:, None], CELL * corners, CELL * size)[:, 0]
    boxes, points = _first_prompts(group, stride / CELL)
    rounds = 1 + int(torch.rand(()) < CORRECTED_FRACTION)
    losses, logits = {}, None
    for index in range(rounds):
        if index > 0:
            logits = logits[:, :1].detach().float()
            points = _corrected(points, logits[:, 0], targets, corners, stride / CELL)
        sparse, dense = _encode(sam.prompt_encoder, boxes, points, logits, corners, size)
        logits, predicted_iou = decode(sam.mask_decoder, image_windows, pe, sparse, dense)
        for name, value in mask_losses(logits, predicted_iou, targets, warmup, loss).items():
            losses[name] = losses.get(name, 0) + value / rounds
    return losses


def _first_prompts(group, pixels_per_logit):
    """(boxes, (points, labels)): one of the two is None."""
    if torch.rand(()) < BOX_FRACTION:
        return jitter_boxes(group.boxes), None
    points = (sample_pixel(group.targets > 0.5) + 0.5) * pixels_per_logit - 0.5
    labels = torch.ones((len(group), 1), dtype=torch.int64, device=points.device)
    return None, (points[:, None], labels)


def _encode(encoder, boxes, points, logits, corners, size):
    """Sparse and dense embeddings of the prompts, the dense ones in the windows alone."""
    sparse, dense = PromptEncoder.forward(encoder, points, boxes, None)
    if logits is None:
        dense = dense[:, :, :size, :size]  # "no mask": the same everywhere
    else:
        dense = encoder.mask_downscaling(logits)
    if boxes is not None and hasattr(encoder, "box_mlp"):
        dense = dense + encoder.box_mlp(cut_windows(encoder.box_features(boxes), corners, size))
    return sparse, dense


def _corrected(points, logits, targets, corners, pixels_per_logit):
    """The clicks and one more, in the region where the mask was wrong."""
    clicks = sample_pixel((logits > 0) != (targets > 0.5))
    x, y = clicks.long().unbind(dim=1)
    labels = (targets[torch.arange(len(targets)), y, x] > 0.5).long()[:, None]
    clicks = ((clicks + CELL * corners + 0.5) * pixels_per_logit - 0.5)[:, None]
    if points is not None:
        clicks = torch.cat([points[0], clicks], dim=1)
        labels = torch.cat([points[1], labels], dim=1)
    return clicks, labels


def coverage(masks, side, resize):
    """Masks on the grid of the decoder's logits, padding included.

    Args:
        masks: (N, H, W) of 0 and 1.
        side: of the grid.
        resize: function (H, W) -> (height, width) of the image on that grid.
    Returns:
        (N, side, side) float, the fraction of each cell that the mask covers: half-covered cells
        of a boundary, and of small objects, keep what they know.
    """
    size = resize(*masks.shape[-2:])
    small = F.interpolate(masks.float()[:, None], size, mode="area")[:, 0]
    return F.pad(small, (0, side - size[1], 0, side - size[0]))
