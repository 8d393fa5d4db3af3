"""Cut the SAM of two stages into modules that can be exported to ONNX, at fixed sizes."""

from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional as F

from canon_seg.sam.geometry import MASK_LOGIT, Geometry, nearest_clicks
from canon_seg.sam.two_stage import MASKS
from canon_seg.sam.windows import paste_windows, windows_around, within_reach


class EncoderForExport(nn.Module):
    """Encode (1, 3, S, S) RGB pixels 0..255, what lies beyond the picture being 0..255 too.

    segment_anything pads normalised images by zeros: pad pixels by 127.5 for the same.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.register_buffer("mean", sam.pixel_mean)
        self.register_buffer("std", sam.pixel_std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embedding (1, 4 C, S / 8, S / 8)."""
        embedding: torch.Tensor = self.encoder((pixels - self.mean) / self.std)
        return embedding


class _Decoder(nn.Module):
    prompts: Any
    decoder: Any
    pe: torch.Tensor
    first: torch.Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.prompts = sam.prompt_encoder
        self.side = sam.image_encoder.img_size
        self.cells = sam.prompt_encoder.image_embedding_size[0]
        with torch.no_grad():
            self.register_buffer("pe", sam.prompt_encoder.get_dense_pe().clone())
        self.register_buffer("first", torch.zeros(1, dtype=torch.int64))

    def _tokens(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return segment_anything's tokens of clicks, by operations that suit all labels."""
        encoder = self.prompts
        places = encoder.pe_layer.forward_with_coords(coords + 0.5, encoder.input_image_size)
        kinds = labels[..., None]
        found: torch.Tensor = places * (kinds != -1)
        found = found + encoder.not_a_point_embed.weight * (kinds == -1)
        for number in (0, 1):
            found = found + encoder.point_embeddings[number].weight * (kinds == number)
        return found

    def _pasted(self, logits: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return paste_windows(logits, windows, self.side // 2, self.side)


class ClickDecoderForExport(_Decoder):
    """Decode three masks of one prompt by clicks."""

    def forward(
        self,
        embedding: torch.Tensor,
        coords: torch.Tensor,
        labels: torch.Tensor,
        mask: torch.Tensor,
        has_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode the masks.

        Args:
            embedding: of the encoder.
            coords: (1, P, 2) float32 x, y in pixels of the square.
            labels: (1, P) int64: 1 inside, 0 outside; -1 for no click, which has a token all the
                same, so that masks change with their number.
            mask: (1, 1, S / 2, S / 2) logits of a mask before, or anything.
            has_mask: (1,) float32, 1 where there is such a mask, else 0.

        Returns:
            (1, 3, S / 2, S / 2) logits, (1, 3) predicted IoU.
        """
        padding = torch.full_like(labels[:, :1], -1)
        tokens = self._tokens(
            torch.cat([coords, torch.zeros_like(coords[:, :1])], dim=1),
            torch.cat([labels, padding], dim=1),
        )
        size = (2 * self.cells, 2 * self.cells)
        smaller = F.interpolate(
            mask.clamp(-MASK_LOGIT, MASK_LOGIT), size, mode="bilinear", antialias=True
        )
        geometry = Geometry(
            boxes=coords.new_zeros((1, 4)),
            has_box=False,
            clicks=nearest_clicks(coords, labels, self.side, self.cells),
            masks=smaller * has_mask[:, None, None, None],
            has_mask=has_mask,
        )
        proposals = self.decoder.proposing(embedding, self.first, self.pe, tokens, geometry)
        rows = self.first.expand(MASKS - 1)
        found = self.decoder.refine(
            embedding, rows, self.pe, tokens[rows], geometry[rows], proposals[0, 1:]
        )
        masks = self._pasted(found.logits, found.windows[:, 0])
        return masks.transpose(0, 1), found.ious.transpose(0, 1)


class BoxDecoderForExport(_Decoder):
    """Decode three masks of one box."""

    def forward(
        self, embedding: torch.Tensor, box: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode the masks.

        Args:
            embedding: of the encoder.
            box: (1, 4) float32 XYXY in pixels of the square.

        Returns:
            (1, 3, S / 2, S / 2) logits, (1, 3) predicted IoU.
        """
        tokens = self.prompts.pe_layer.forward_with_coords(
            box.reshape(1, 2, 2) + 0.5, self.prompts.input_image_size
        )
        corners = [self.prompts.point_embeddings[number].weight for number in (2, 3)]
        tokens = tokens + torch.stack(corners, dim=1)
        geometry = Geometry(
            boxes=box,
            has_box=True,
            clicks=box.new_zeros((1, 6, self.cells, self.cells)),
            masks=box.new_zeros((1, 1, 2 * self.cells, 2 * self.cells)),
            has_mask=box.new_zeros(1),
        )
        boxes = within_reach(box, self.side)
        logits, ious = self.decoder.refining(
            embedding, self.first, self.pe, tokens, geometry, boxes
        )
        return self._pasted(logits[:, 1:], windows_around(boxes)), ious[:, 1:]
