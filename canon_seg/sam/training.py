"""Compute one training step of SAM: prompts drawn from masks, and their losses.

As in Kirillov et al., "Segment Anything" (ICCV 2023), section 3 and appendix A, but that boxes are
drawn with less noise (sam_losses.py), and that many prompts share the embedding of their image.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from canon_seg.sam.losses import jitter_boxes, mask_losses, sample_pixel
from canon_seg.sam.models import TinyMaskDecoder
from canon_seg.sam.windows import align, paste, whole_windows

# Of the steps: prompted by boxes (else by clicks), and followed by a second one, prompted by the
# first mask and a click that corrects it as well.
BOX_FRACTION = 0.85
CORRECTED_FRACTION = 0.15


@dataclass(frozen=True)
class PromptBatch:
    """Hold objects of several images, in pixels of SAM's square input, of S x S.

    Attributes:
        images: (N,) int64, which image's embedding each belongs to.
        boxes: (N, 4) ground-truth XYXY.
        targets: (N, S, S) coverage 0..1 of each pixel.
    """

    images: torch.Tensor
    boxes: torch.Tensor
    targets: torch.Tensor

    def __len__(self):
        return len(self.images)


def training_losses(sam, embeddings, batch, *, warmup=False, loss="focal"):
    """Compute the losses of all prompts.

    Args:
        sam: the `Sam`.
        embeddings: (B, C, h, w) image embeddings.
        batch: :class:`PromptBatch`, not empty.
        warmup, loss: see :func:`canon_seg.sam.losses.mask_losses`.

    Returns:
        dict of scalars, means over the prompts.
    """
    everyone = torch.arange(len(batch), device=embeddings.device)
    side = sam.image_encoder.img_size
    boxes, points = _first_prompts(batch)
    rounds = 1 + int(torch.rand(()) < CORRECTED_FRACTION)
    losses, masks, logits, windows = {}, None, None, None
    for index in range(rounds):
        if index > 0:
            cells = sam.prompt_encoder.mask_input_size[0]
            masks = paste(logits[:, :1].detach().float(), windows, cells, side)
            points = _corrected(points, masks[:, 0], batch.targets)
        sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        logits, predicted_iou, windows = decode(sam, embeddings, batch.images, sparse, dense)
        targets = align(batch.targets[:, None], everyone, windows, logits.shape[-1], side)[:, 0]
        for name, value in mask_losses(logits, predicted_iou, targets, warmup, loss).items():
            losses[name] = losses.get(name, 0) + value / rounds
    return losses


def decode(sam, embeddings, images, sparse, dense):
    """Run the mask decoder with the image embedding that belongs to each prompt.

    Args:
        sam: the `Sam`, official or tiny.
        embeddings: (B, C, h, w) image embeddings.
        images: (N,) int64, which of them each prompt belongs to.
        sparse, dense: embeddings of the prompts.

    Returns:
        ((N, 4, k, k) mask logits, (N, 4) predicted IoU, (N, 4) windows in which the masks lie, XYXY
        in pixels of the square input).
    """
    decoder, pe = sam.mask_decoder, sam.prompt_encoder.get_dense_pe()
    if isinstance(decoder, TinyMaskDecoder):
        return decoder.decode(embeddings, images, pe, sparse, dense)
    # As segment_anything's ``predict_masks``, which takes one image embedding only.
    queries = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    queries = torch.cat([queries.expand(len(sparse), -1, -1), sparse], dim=1)
    pe = pe.expand(len(sparse), -1, -1, -1)
    queries, pixels = decoder.transformer(embeddings[images] + dense, pe, queries)
    pixels = pixels.transpose(1, 2).unflatten(2, embeddings.shape[-2:])
    pixels = decoder.output_upscaling(pixels)
    filters = torch.stack(
        [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    logits = torch.einsum("nmc,nchw->nmhw", filters, pixels)
    windows = whole_windows(len(sparse), sam.image_encoder.img_size, pe)
    return logits, decoder.iou_prediction_head(queries[:, 0]), windows


def _first_prompts(batch):
    """Draw (boxes, (points, labels)): one of the two is None."""
    if torch.rand(()) < BOX_FRACTION:
        return jitter_boxes(batch.boxes), None
    points = sample_pixel(batch.targets > 0.5)
    labels = torch.ones((len(batch), 1), dtype=torch.int64, device=points.device)
    return None, (points[:, None], labels)


def _corrected(points, logits, targets):
    """Return the clicks and one more, in the region where the mask was wrong.

    Args:
        points: (coordinates, labels) or None.
        logits: (N, k, k) of the whole picture.
        targets: (N, S, S).
    """
    found = F.interpolate(logits[:, None], targets.shape[-1], mode="bilinear")[:, 0] > 0
    clicks = sample_pixel(found != (targets > 0.5))
    x, y = clicks.long().unbind(dim=1)
    labels = (targets[torch.arange(len(targets)), y, x] > 0.5).long()[:, None]
    clicks = clicks[:, None]
    if points is not None:
        clicks = torch.cat([points[0], clicks], dim=1)
        labels = torch.cat([points[1], labels], dim=1)
    return clicks, labels


def coverage(masks, side, resize):
    """Return masks in the square input, padding included.

    Args:
        masks: (N, H, W) of 0 and 1.
        side: of the square, in pixels.
        resize: function (H, W) -> (height, width) of the image in it.

    Returns:
        (N, side, side) float, the fraction of each pixel that the mask covers: half-covered pixels
        of a boundary, and of small objects, keep what they know.
    """
    size = resize(*masks.shape[-2:])
    small = masks.float()
    if tuple(masks.shape[-2:]) != size:
        small = F.interpolate(small[:, None], size, mode="area")[:, 0]
    return F.pad(small, (0, side - size[1], 0, side - size[0]))
