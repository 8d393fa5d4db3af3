"""Say where prompts lie, as maps: what the decoder of two stages is given beside SAM's tokens."""

import math
from dataclasses import dataclass

import torch
from segment_anything.modeling import PromptEncoder
from torch.nn import functional as F

from canon_seg.sam.windows import align, cell_centres, whole_windows

BOX, CLICKS, MASK = 5, 6, 5
CHANNELS = BOX + CLICKS + MASK
MASK_LOGIT = 12.0  # logits of masks are cut there, as those of clicked pixels are no numbers to sum


class GeometryPromptEncoder(PromptEncoder):
    """Encode prompts as segment_anything's tokens, and as maps of where they lie.

    The official dense embedding is one of masks. Here it is what all prompts say, unlearned, so
    that the decoder may look at it through windows (callers hand both embeddings on, and nothing
    else): a map of 16 channels, see :func:`read_geometry`.

    It works in float32, also under autocast, whose 8 bits are too few for coordinates.
    """

    def __init__(self, embed_dim: int, image_size: int, cells: int) -> None:
        """Prepare for prompts in pixels of a square of ``image_size``, an embedding of ``cells``.

        Masks have stride 2.
        """
        super().__init__(embed_dim, (cells, cells), (image_size, image_size), mask_in_chans=16)
        # Learned layers of the official dense embedding, which this one does without.
        del self.mask_downscaling, self.no_mask_embed
        self.mask_input_size = (4 * cells, 4 * cells)
        # From whole pictures down to small objects: the official encoding has coarse waves only.
        frequencies = self.pe_layer.positional_encoding_gaussian_matrix
        frequencies *= torch.logspace(-0.5, 0.8, frequencies.shape[1])

    def forward(self, points, boxes, masks):
        """Encode as segment_anything: (N, tokens, C) sparse, (N, 16, h, w) dense.

        Args:
            points: ((N, P, 2) x, y in pixels of the square, (N, P) labels) or None.
            boxes: (N, 4) XYXY in pixels of the square, or None.
            masks: (N, 1, 4 h, 4 w) logits of a mask before, or None; one for all is expanded.
        """
        with torch.autocast(self._get_device().type, enabled=False):
            count = self._get_batch_size(points, boxes, masks)
            sparse = torch.empty((count, 0, self.embed_dim), device=self._get_device())
            if points is not None:
                tokens = self._embed_points(*points, pad=boxes is None)
                sparse = torch.cat([sparse, tokens], dim=1)
            if boxes is not None:
                sparse = torch.cat([sparse, self._embed_boxes(boxes)], dim=1)
            return sparse, self._geometry(count, points, boxes, masks)

    def get_dense_pe(self):
        """Return segment_anything's position encoding, in float32 even under autocast."""
        with torch.autocast(self._get_device().type, enabled=False):
            return super().get_dense_pe()

    def _geometry(self, count, points, boxes, masks):
        side, cells = self.input_image_size[0], self.image_embedding_size[0]
        like = self.point_embeddings[0].weight
        box = like.new_zeros((count, BOX))
        if boxes is not None:
            box = F.pad(boxes.reshape(-1, 4).to(like), (0, 1), value=1.0)
        box = box[..., None, None].expand(-1, -1, cells, cells)
        clicks = like.new_zeros((count, CLICKS, cells, cells))
        if points is not None:
            clicks = nearest_clicks(*points, side, cells).to(like)
        mask = like.new_zeros((count, MASK, cells, cells))
        if masks is not None:
            finer = F.interpolate(
                masks.to(like).clamp(-MASK_LOGIT, MASK_LOGIT),
                (2 * cells, 2 * cells),
                mode="bilinear",
                antialias=True,
            )
            mask = F.pad(F.pixel_unshuffle(finer, 2), (0, 0, 0, 0, 0, 1), value=1.0)
            mask = mask.expand(count, -1, -1, -1)
        return torch.cat([box, clicks, mask], dim=1)


def nearest_clicks(coords, labels, side, cells):
    """Return the way from each cell to the nearest click of each kind.

    Args:
        coords: (N, P, 2) x, y in pixels of the square.
        labels: (N, P), 1 for clicks inside, 0 outside, others do not count.
        side, cells: of the square, in pixels and in cells of the map.

    Returns:
        (N, 6, cells, cells): for clicks inside, then outside, x and y in pixels from the cell's
        centre to the nearest one, and 1; zeros where there is none.
    """
    x, y = cell_centres(whole_windows(1, side, coords), cells)
    x_clicks, y_clicks = (coords.float() + 0.5)[..., None, None].unbind(dim=2)
    dx, dy = (x_clicks - x[:, None]), (y_clicks - y[:, None])  # (N, P, 1, w), (N, P, h, 1)
    squares = dx**2 + dy**2
    found = []
    for kind in (1, 0):
        others = (labels != kind)[..., None, None]
        index = squares.masked_fill(others, math.inf).argmin(dim=1, keepdim=True)
        there = (~others).any(dim=1, keepdim=True)
        nearest = [d.expand_as(squares).gather(1, index) for d in (dx, dy)]
        found += [torch.where(there, value, 0.0) for value in nearest]
        found.append(there.to(dx).expand(-1, -1, cells, cells))
    return torch.cat(found, dim=1)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Hold what the dense embedding of N prompts says.

    Attributes:
        boxes: (N, 4) XYXY in pixels of the square.
        has_box: whether the prompts have a box: all of them, or none.
        clicks: (N, 6, h, w), see :func:`nearest_clicks`.
        masks: (N, 1, 2 h, 2 w) logits of a mask before, zeros where there is none.
        has_mask: (N,) 1 where there is one, else 0.
    """

    boxes: torch.Tensor
    has_box: bool
    clicks: torch.Tensor
    masks: torch.Tensor
    has_mask: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> "Geometry":
        """Return those of some prompts, in any order."""
        return Geometry(
            self.boxes[rows],
            self.has_box,
            self.clicks[rows],
            self.masks[rows],
            self.has_mask[rows],
        )


def read_geometry(dense: torch.Tensor) -> Geometry:
    """Read the dense embedding (N, 16, h, w) of :class:`GeometryPromptEncoder`.

    Raises:
        ValueError: if some of the prompts have a box, but not all.
    """
    box, clicks, mask = dense.detach().float().split([BOX, CLICKS, MASK], dim=1)
    box = box[..., 0, 0]
    has_box = bool(box[:, 4].any())
    if has_box != bool(box[:, 4].all()):
        raise ValueError("prompts that are decoded at once must all have a box, or none")
    return Geometry(
        boxes=box[:, :4],
        has_box=has_box,
        clicks=clicks,
        masks=F.pixel_shuffle(mask[:, :4], 2),
        has_mask=mask[:, 4, 0, 0],
    )


def click_features(clicks, reaches):
    """Say how near the nearest click of each kind is.

    Args:
        clicks: (N, 6, h, w), see :func:`nearest_clicks`.
        reaches: (R,) or (N, R) in pixels.

    Returns:
        (N, 2 R + 2, h, w): for each kind a value for each reach, 1 at a click and falling with the
        distance, then 1 where there is such a click; zeros where there is none.
    """
    found = []
    for kind in clicks.split(3, dim=1):
        squares = (kind[:, :2] ** 2).sum(dim=1, keepdim=True)
        near = torch.exp(-squares / (2 * reaches.view(-1, reaches.shape[-1], 1, 1) ** 2))
        found += [near * kind[:, 2:], kind[:, 2:]]
    return torch.cat(found, dim=1)


def hull_of_clicks(clicks, side):
    """Return the boxes (N, 4) XYXY in pixels around the clicks inside.

    Args:
        clicks: (N, 6, h, w), see :func:`nearest_clicks`; without a click inside, the hull is the
            square's centre.
        side: of the square in pixels.
    """
    x, y = cell_centres(whole_windows(1, side, clicks), clicks.shape[-1])
    there = clicks[:, 2] > 0
    x, y = (
        torch.where(there, centre + step, side / 2).flatten(1)
        for centre, step in ((x, clicks[:, 0]), (y, clicks[:, 1]))
    )
    return torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], dim=1)


def box_of_mask(probabilities, side):
    """Return the boxes (N, 4) XYXY in pixels that hold almost all of masks, and who has one.

    Args:
        probabilities: (N, h, w) over the square; below a half counts as nothing. A fiftieth at each
            side is left out: stray pixels are not to make windows large.
        side: of the square in pixels.

    Returns:
        (boxes, (N,) bool: whether there is any of the mask).
    """
    inside = probabilities * (probabilities > 0.5)
    total = inside.sum(dim=(1, 2))
    edges = []
    for axis in (1, 2):  # columns, then rows
        share = inside.sum(dim=axis).cumsum(dim=1) / total.clamp(min=1e-6)[:, None]
        step = side / share.shape[1]
        edges.append(step * (share < 0.02).sum(dim=1))
        edges.append(step * ((share < 0.98).sum(dim=1) + 1).clamp(max=share.shape[1]))
    return torch.stack([edges[0], edges[2], edges[1], edges[3]], dim=1).float(), total > 0


def through_windows(maps, windows, cells, side):
    """Read each prompt's own map (N, C, h, w) through its window: (N, C, cells, cells)."""
    return align(maps, torch.arange(len(maps), device=maps.device), windows, cells, side)
