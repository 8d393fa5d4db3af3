"""Decode masks in two stages: over the whole picture, then in a window around each of them."""

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn import functional as F

from canon_seg.sam.backbone_encoder import BackboneEncoder
from canon_seg.sam.geometry import (
    Geometry,
    GeometryPromptEncoder,
    box_of_mask,
    click_features,
    hull_of_clicks,
    read_geometry,
    through_windows,
)
from canon_seg.sam.models import (
    Comparison,
    box_features,
    box_shape,
    mixing,
    only_embedding,
    pixelwise_mlp,
    unpack,
    unpack_coarse,
)
from canon_seg.sam.windows import align, paste, windows_around, within_reach

MASKS = 4  # the one mask, and the three of an ambiguous prompt


def build_two_stage_sam(
    image_size: int, backbone: str, embed_dim: int, freeze_stages: int = 0
) -> Sam:
    """Build a `Sam` on a backbone that was pretrained on ImageNet.

    `Sam`, `SamPredictor` and the mask generator of segment_anything run on its parts.

    Args:
        image_size: side of the square input in pixels, a multiple of 32.
        backbone, freeze_stages: see :class:`canon_seg.sam.backbone_encoder.BackboneEncoder`.
        embed_dim: channels of the prompts and of the mask decoder at stride 8, a multiple of 16.

    Returns:
        `Sam` in eval mode with random weights.
    """
    return Sam(
        image_encoder=BackboneEncoder(image_size, backbone, embed_dim, freeze_stages),
        prompt_encoder=GeometryPromptEncoder(
            embed_dim, image_size, image_size // BackboneEncoder.STRIDE
        ),
        mask_decoder=TwoStageDecoder(embed_dim, image_size),
        # What EfficientNet-Lite was trained with.
        pixel_mean=[127.5, 127.5, 127.5],
        pixel_std=[127.5, 127.5, 127.5],
    ).eval()


@dataclass(frozen=True, eq=False)
class Decoded:
    """Hold masks of N prompts, M of each, in windows.

    Attributes:
        logits: (N, M, k, k).
        ious: (N, M) predicted IoU.
        windows: (N, M, 4) XYXY in pixels of the square: equal for all M of a prompt, or not.
    """

    logits: torch.Tensor
    ious: torch.Tensor
    windows: torch.Tensor


class TwoStageDecoder(nn.Module):
    """Decode masks as segment_anything: over the whole picture first, then in windows.

    A box has its window, in which four masks are decoded. Clicks alone do not say how large the
    object is: a first stage looks at the whole picture at stride 16 and proposes four masks at
    stride 8, and the second one decodes each of them anew in the window around it, at the size that
    all objects have there (He et al., "Mask R-CNN", ICCV 2017), with details of strides 4 and 2
    (Ke et al., "Segment Anything in High Quality", NeurIPS 2023).
    """

    MIN_SIDE = 16.0  # pixels of the windows' boxes around proposals

    def __init__(self, dim: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.proposing = ProposingStage(dim, image_size)
        self.refining = RefiningStage(dim, image_size)

    def forward(
        self,
        image_embeddings,
        image_pe,
        sparse_prompt_embeddings,
        dense_prompt_embeddings,
        multimask_output,
    ):
        """Decode as segment_anything, for one image embedding (1, 4 C, h, w).

        Returns:
            masks (N, 1 or 3, S / 2, S / 2), one logit for each second pixel of the square input
            (SAM's stride 4 would lose the details that the windows of small boxes have), and
            predicted IoU (N, 1 or 3).

        Raises:
            ValueError: for embeddings of several images, or boxes for some of the prompts only.
        """
        embedding = only_embedding(image_embeddings, image_pe)
        images = torch.zeros(len(sparse_prompt_embeddings), dtype=torch.int64)
        chosen = range(1, MASKS) if multimask_output else range(1)
        found = self.decode(
            embedding,
            images.to(embedding.device),
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            chosen,
        )
        return self.pasted(found), found.ious

    def pasted(self, found: Decoded) -> torch.Tensor:
        """Lay decoded masks over the square: (N, M, S / 2, S / 2) logits."""
        count, several = found.ious.shape
        cells = self.image_size // 2
        masks = paste(
            found.logits.flatten(0, 1)[:, None], found.windows.flatten(0, 1), cells, self.image_size
        )
        return masks.view(count, several, cells, cells)

    def decode(self, embeddings, images, pe, sparse, dense, chosen=range(MASKS)) -> Decoded:
        """Decode some of the four masks of N prompts on B images.

        Args:
            embeddings: (B, 4 C, h, w), packed.
            images: (N,) int64, which embedding each prompt belongs to.
            pe: (1, C, h, w).
            sparse: (N, tokens, C).
            dense: (N, 16, h, w), of prompts that all have a box, or none.
            chosen: which of the masks.

        Raises:
            ValueError: if some of the prompts have a box.
        """
        geometry, chosen = read_geometry(dense), list(chosen)
        if geometry.has_box:
            boxes = within_reach(geometry.boxes, self.image_size)
            logits, ious = self.refining(embeddings, images, pe, sparse, geometry, boxes)
            windows = windows_around(boxes)[:, None].expand(-1, len(chosen), -1)
            return Decoded(logits[:, chosen], ious[:, chosen], windows)
        proposals = self.proposing(embeddings, images, pe, sparse, geometry)[:, chosen]
        rows = torch.arange(len(images), device=images.device).repeat_interleave(len(chosen))
        found = self.refine(
            embeddings, images[rows], pe, sparse[rows], geometry[rows], proposals.flatten(0, 1)
        )
        shape = len(images), len(chosen)
        return Decoded(
            found.logits.unflatten(0, shape)[:, :, 0],
            found.ious.unflatten(0, shape)[:, :, 0],
            found.windows.unflatten(0, shape)[:, :, 0],
        )

    def refine(self, embeddings, images, pe, sparse, geometry: Geometry, proposals) -> Decoded:
        """Decode one mask each around proposals (N, h, w), logits over the whole picture."""
        proposals = proposals.detach()
        boxes = self.boxes_around(proposals, geometry)
        logits, ious = self.refining(embeddings, images, pe, sparse, geometry, boxes, proposals)
        return Decoded(logits[:, :1], ious[:, :1], windows_around(boxes)[:, None])

    def boxes_around(self, proposals, geometry: Geometry):
        """Return boxes (N, 4) around proposals (N, h, w) and the clicks that are to be inside."""
        boxes, there = box_of_mask(proposals.float().sigmoid(), self.image_size)
        hull = hull_of_clicks(geometry.clicks, self.image_size)
        clicked = geometry.clicks[:, 2, :1, 0] > 0
        low = torch.where(clicked, torch.minimum(boxes[:, :2], hull[:, :2]), boxes[:, :2])
        high = torch.where(clicked, torch.maximum(boxes[:, 2:], hull[:, 2:]), boxes[:, 2:])
        boxes = torch.where(there[:, None], torch.cat([low, high], dim=1), hull)
        # Of no proposal a larger window is taken, in which something may be found.
        side = torch.where(there, self.MIN_SIDE, self.image_size / 8)[:, None]
        grow = ((side - (boxes[:, 2:] - boxes[:, :2])) / 2).clamp(min=0)
        return torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], dim=1)


class ProposingStage(nn.Module):
    """Propose masks over the whole picture: the cells are those of stride 16, masks of stride 8."""

    REACHES = (10.0, 32.0, 96.0)  # pixels
    DILATIONS = (1, 3)
    KEYS = 32

    def __init__(self, dim: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.comparison = Comparison(dim, dim // 2)
        self.key = nn.Conv2d(dim, self.KEYS, 1)
        # Clicks, likeness to what was clicked on, the mask before.
        self.prompt = pixelwise_mlp(2 * len(self.REACHES) + 2 + 2 + 2, dim, dim)
        self.tokens = nn.Embedding(1 + MASKS, dim)
        self.transformer = TwoWayTransformer(
            depth=2, embedding_dim=dim, mlp_dim=2 * dim, num_heads=4
        )
        self.mixing = mixing(dim, self.DILATIONS[:2])
        self.last_mixing = mixing(dim, self.DILATIONS)
        quarter = dim // 4
        self.detail = nn.Conv2d(dim, quarter, 1)
        self.upscaling = nn.ConvTranspose2d(dim, quarter, 2, stride=2)
        self.norm = LayerNorm2d(quarter)
        self.fine_mixing = mixing(quarter, (1, 1))
        self.filters = nn.ModuleList(_filter_mlp(dim, quarter) for _ in range(MASKS))

    def forward(self, embeddings, images, pe, sparse, geometry: Geometry):
        """Return (N, 4, h, w) mask logits over the whole picture."""
        finer = unpack_coarse(embeddings)
        coarse = F.avg_pool2d(finer, 2)
        coarse = coarse + self.comparison(coarse)
        keys = F.normalize(self.key(coarse).float(), dim=1)[images]
        clicks = F.avg_pool2d(geometry.clicks, 2)
        reaches = torch.tensor(self.REACHES, device=clicks.device)
        near = click_features(clicks, reaches)
        mask = F.avg_pool2d(geometry.masks, 4).sigmoid() - 0.5
        has_mask = geometry.has_mask[:, None, None, None]
        step = 1 + len(self.REACHES)
        features = [
            near,
            likeness(keys, near[:, [0]]),
            likeness(keys, near[:, [step]]),
            mask * has_mask,
            has_mask.expand_as(mask),
        ]
        pixels = coarse[images] + self.prompt(torch.cat(features, dim=1).to(coarse))
        cells = pixels.shape[-1]
        queries = self.tokens.weight.expand(len(sparse), -1, -1)
        queries = torch.cat([queries, sparse], dim=1)
        pe = F.avg_pool2d(pe, 2).expand(len(sparse), -1, -1, -1)
        queries, pixels = self.transformer(self.mixing(pixels), pe, queries)
        pixels = self.last_mixing(pixels.transpose(1, 2).unflatten(2, (cells, cells)))
        pixels = self.norm(self.upscaling(pixels))
        pixels = self.fine_mixing(F.relu(pixels + self.detail(finer)[images]))
        return _masks(self.filters, queries, pixels)


class RefiningStage(nn.Module):
    """Decode masks in windows around boxes: a user's, or those of proposals.

    Each cell is compared with an 8 x 8 raster of the window, the outer ones of which lie outside of
    the box: what an object looks like, other than its surroundings, need not be known beforehand.
    A mask ends where the window does, a quarter of the box's side beyond the box.
    """

    CELLS = 16  # of a window, along each axis; its masks have four times as many
    BOX_FEATURES = 8
    REACHES = (1.5, 5.0)  # cells
    DILATIONS = (1, 2, 4, 1)  # a reach of 8 cells, half the window
    KEYS = 32
    MEASURES = 3

    def __init__(self, dim: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        middle, fine = dim // 4, dim // 8
        self.coarse_comparison = Comparison(dim, dim // 2)
        self.middle_comparison = Comparison(middle, middle)
        self.key = nn.Conv2d(dim, self.KEYS, 1)
        # The box and how large the window is, clicks, the proposal and the mask before, likeness.
        count = self.BOX_FEATURES + 4 + 1 + 2 * len(self.REACHES) + 2 + 4 + 4
        self.coarse_prompt = pixelwise_mlp(count, dim, dim)
        self.middle_prompt = nn.Conv2d(self.BOX_FEATURES + 2, middle, 1)
        self.fine_prompt = nn.Conv2d(self.BOX_FEATURES + 2, fine, 1)
        self.tokens = nn.Embedding(1 + MASKS, dim)
        self.transformer = TwoWayTransformer(
            depth=2, embedding_dim=dim, mlp_dim=2 * dim, num_heads=4
        )
        self.mixing = mixing(dim, self.DILATIONS)
        self.last_mixing = mixing(dim, self.DILATIONS[:2])
        self.to_middle = nn.ConvTranspose2d(dim, middle, 2, stride=2)
        self.norm = LayerNorm2d(middle)
        self.middle_mixing = mixing(middle, self.DILATIONS[:2])
        self.to_fine = nn.ConvTranspose2d(middle, fine, 2, stride=2)
        self.fine_mixing = mixing(fine, self.DILATIONS[:2])
        self.filters = nn.ModuleList(_filter_mlp(dim, fine) for _ in range(MASKS))
        self.iou_head = nn.Sequential(
            nn.Linear(2 * dim + self.MEASURES, dim), nn.ReLU(), nn.Linear(dim, 1)
        )

    def forward(self, embeddings, images, pe, sparse, geometry: Geometry, boxes, proposals=None):
        """Decode four masks in the window around each box.

        Args:
            embeddings, images, pe, sparse: see :meth:`TwoStageDecoder.decode`.
            geometry: of the prompts.
            boxes: (N, 4) XYXY in pixels of the square.
            proposals: (N, h, w) logits over the whole picture, or None for boxes that users gave.

        Returns:
            (N, 4, k, k) mask logits, (N, 4) predicted IoU.
        """
        windows, cells, side = windows_around(boxes), self.CELLS, self.image_size
        coarse, middle, fine = (
            align(maps, images, windows, factor * cells, side)
            for maps, factor in zip(unpack(embeddings), (1, 2, 4), strict=True)
        )
        coarse = coarse + self.coarse_comparison(coarse)
        middle = middle + self.middle_comparison(middle)

        given = coarse.new_tensor(float(proposals is None))
        has_mask = geometry.has_mask[:, None, None, None]
        before = has_mask * self._inside(geometry.masks, windows)
        nothing = torch.zeros_like(before)
        proposed = nothing if proposals is None else self._inside(proposals[:, None], windows)
        masks = torch.cat([proposed, before], dim=1)
        smaller = [F.avg_pool2d(masks, factor) for factor in (4, 2)]

        keys = F.normalize(self.key(coarse).float(), dim=1)
        clicks = through_windows(geometry.clicks, windows, cells, side)
        size = (windows[:, 2:] - windows[:, :2]).mean(dim=1, keepdim=True) / cells
        near = click_features(clicks, size * size.new_tensor(self.REACHES))
        step, inside = 1 + len(self.REACHES), smaller[0][:, :1] + 0.5
        own = 1 - given

        def constant(values):
            return values.expand(len(windows), -1)[..., None, None].expand(-1, -1, cells, cells)

        described = [
            given * box_features(boxes, windows, cells),
            constant(box_shape(boxes)),
            constant(given[None, None]),
            near,
            smaller[0],
            constant(torch.stack([own.expand(len(windows)), geometry.has_mask], dim=1)),
            likeness(keys, near[:, [0]]),
            likeness(keys, near[:, [step]]),
            own * likeness(keys, inside),
            own * likeness(keys, 1 - inside),
        ]
        pixels = coarse + self.coarse_prompt(torch.cat(described, dim=1).to(coarse))
        details = []
        for maps, layer, factor, mask in (
            (middle, self.middle_prompt, 2, smaller[1]),
            (fine, self.fine_prompt, 4, masks),
        ):
            box = given * box_features(boxes, windows, factor * cells)
            details.append(maps + layer(torch.cat([box, mask], dim=1).to(maps)))

        queries = self.tokens.weight.expand(len(sparse), -1, -1)
        queries = torch.cat([queries, sparse], dim=1)
        pe = align(pe, torch.zeros_like(images), windows, cells, side)
        queries, pixels = self.transformer(self.mixing(pixels), pe, queries)
        pixels = self.last_mixing(pixels.transpose(1, 2).unflatten(2, (cells, cells)))
        pixels = F.relu(self.norm(self.to_middle(pixels)) + details[0])
        pixels = self.middle_mixing(pixels)
        pixels = self.fine_mixing(F.relu(self.to_fine(pixels) + details[1]))
        logits = _masks(self.filters, queries, pixels)
        return logits, self._predict_ious(logits, queries, masks)

    def _inside(self, logits, windows):
        """Return how much of masks (N, 1, h, w) each cell of the windows is in, -0.5 to 0.5."""
        seen = through_windows(logits, windows, 4 * self.CELLS, self.image_size)
        return seen.sigmoid() - 0.5

    def _predict_ious(self, logits, queries, masks):
        """Predict (N, 4) IoU from the tokens, and from how sure the masks are of themselves."""
        probabilities = logits.detach().float().sigmoid()
        inside = (probabilities > 0.5).float()
        sure = (probabilities * inside).sum(dim=(2, 3))
        union = torch.maximum(probabilities, inside).sum(dim=(2, 3))
        before = (masks[:, :1] > 0).float()
        both = (inside * before).sum(dim=(2, 3))
        either = torch.maximum(inside, before).sum(dim=(2, 3))
        measures = torch.stack(
            [sure / union.clamp(min=1), inside.mean(dim=(2, 3)), both / either.clamp(min=1)], dim=2
        )
        own = queries[:, 1 : 1 + MASKS]
        shared = queries[:, :1].expand_as(own)
        features = torch.cat([shared, own, measures.to(own)], dim=2)
        return self.iou_head(features)[..., 0]


def likeness(keys, weights):
    """Return the cosines of cells with the mean of those that are weighted.

    Args:
        keys: (N, K, h, w), of length 1.
        weights: (N, 1, h, w), 0 or more; all zeros give zeros.

    Returns:
        (N, 1, h, w).
    """
    mean = torch.einsum("nkhw,nhw->nk", keys, weights[:, 0])
    mean = mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return torch.einsum("nkhw,nk->nhw", keys, mean)[:, None]


def _masks(filters, queries, pixels):
    """Return (N, 4, h, w) logits of the four mask tokens, which follow the first one."""
    weights = [layer(queries[:, 1 + number]) for number, layer in enumerate(filters)]
    return torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), pixels)


def _filter_mlp(dim, channels):
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, channels))
