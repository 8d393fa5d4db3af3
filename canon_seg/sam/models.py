"""Build `Sam` models of segment_anything: the official sizes and a tiny one."""

import math

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torch.nn import functional as F

from canon_seg.sam.windows import (
    align,
    cell_centres,
    paste,
    whole_windows,
    windows_around,
    within_reach,
)

OFFICIAL_SIZES = ("vit_h", "vit_l", "vit_b")
OFFICIAL_IMAGE_SIZE = 1024


def build_official_sam(size):
    """Build a `Sam` of an official size ("vit_h", "vit_l", "vit_b") with random weights."""
    return sam_model_registry[size]()


class LongestSide(ResizeLongestSide):
    """Resize as segment_anything, but leave a very long image at least one pixel wide."""

    @staticmethod
    def get_preprocess_shape(oldh, oldw, long_side_length):
        """Return (height, width) of an ``oldh`` x ``oldw`` image with that longer side."""
        height, width = ResizeLongestSide.get_preprocess_shape(oldh, oldw, long_side_length)
        return max(height, 1), max(width, 1)


def build_tiny_sam(image_size, channels, blocks, embed_dim):
    """Build a `Sam` that learns from few images.

    It has a light encoder, prompts with geometry, and fine details.

    `Sam`, `SamPredictor` and the mask generator of segment_anything run on its parts (the ONNX
    export does not, which makes dense embeddings of its own). The embedding has stride 8 (SAM's:
    16), since small inputs hold small objects, and carries details of strides 4 and 2 along in
    further channels (:func:`pack`).

    Args:
        image_size: side of the square input in pixels, a multiple of 32.
        channels, blocks: of the encoder's stages at strides 4, 8, 16, 32.
        embed_dim: channels of the prompts and of the mask decoder at stride 8; the image embedding
            has four times as many.

    Returns:
        `Sam` in eval mode with random weights.
    """
    embedding_size = image_size // TinyImageEncoder.STRIDE
    return Sam(
        image_encoder=TinyImageEncoder(image_size, channels, blocks, embed_dim),
        prompt_encoder=TinyPromptEncoder(
            embed_dim=embed_dim,
            image_embedding_size=(embedding_size, embedding_size),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=TinyMaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=embed_dim, mlp_dim=2 * embed_dim, num_heads=4
            ),
            transformer_dim=embed_dim,
            image_size=image_size,
            activation=nn.ReLU,
            iou_head_depth=3,
            iou_head_hidden_dim=embed_dim,
        ),
    ).eval()


def pack(coarse, middle, fine):
    """Pack maps of strides 8, 4 and 2 as one of stride 8, in SAM's one embedding.

    Args:
        coarse, middle, fine: (N, C, h, w), (N, C / 4, 2 h, 2 w), (N, C / 8, 4 h, 4 w).

    Returns:
        (N, 4 C, h, w).
    """
    return torch.cat([coarse, F.pixel_unshuffle(middle, 2), F.pixel_unshuffle(fine, 4)], dim=1)


def unpack(packed):
    """Return the three maps that :func:`pack` was given."""
    count = packed.shape[1] // 4
    coarse, middle, fine = packed.split([count, count, 2 * count], dim=1)
    return coarse, F.pixel_shuffle(middle, 2), F.pixel_shuffle(fine, 4)


def unpack_coarse(packed):
    """Return the first of the maps of :func:`unpack`, without rearranging the others."""
    return packed[:, : packed.shape[1] // 4]


class TinyImageEncoder(nn.Module):
    """Encode in residual stages at strides 4 to 32, attention at stride 32, merged at stride 8.

    Maps are merged top-down.

    The interface of segment_anything's `ImageEncoderViT`: ``img_size``, and a call from
    (B, 3, S, S) normalised images to (B, 4 embed_dim, S / 8, S / 8). Residual blocks as in He et
    al. 2016, top-down path as in Lin et al. 2017, early features for the mask decoder as in Ke et
    al., "Segment Anything in High Quality" (NeurIPS 2023).
    """

    STRIDE = 8
    ATTENTION_LAYERS = 2
    HEAD_DIM = 32  # one head of all channels where these are no multiple of it

    def __init__(self, image_size, channels, blocks, embed_dim):
        super().__init__()
        self.img_size = image_size
        self.stem = nn.Sequential(_ConvNorm(3, channels[0], 3, stride=2), nn.ReLU(inplace=True))
        stages, before = [], channels[0]
        for after, count in zip(channels, blocks, strict=True):
            stage = [_Residual(before, after, stride=2)]
            stage += [_Residual(after, after) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            before = after
        self.stages = nn.ModuleList(stages)
        heads = 1 if before % self.HEAD_DIM else before // self.HEAD_DIM
        self.context = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    before,
                    heads,
                    2 * before,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(self.ATTENTION_LAYERS)
            )
        )
        self.laterals = nn.ModuleList(nn.Conv2d(count, embed_dim, 1) for count in channels[1:])
        self.neck = nn.Sequential(
            _ConvNorm(embed_dim, embed_dim, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )
        self.middle = nn.Conv2d(channels[0], embed_dim // 4, 1)
        self.fine = nn.Conv2d(channels[0], embed_dim // 8, 1)

    def forward(self, images):
        """Return the embedding of (B, 3, S, S) normalised images, packed as by :func:`pack`."""
        x = stem = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        # Of inputs that are not contiguous torch.compile expects other strides than torch gives.
        cells = self.context(x.flatten(2).transpose(1, 2).contiguous())
        features[-1] = cells.transpose(1, 2).unflatten(2, x.shape[-2:])
        merged = None
        for lateral, feature in zip(reversed(self.laterals), reversed(features[1:]), strict=True):
            level = lateral(feature)
            if merged is not None:
                level = level + F.interpolate(merged, scale_factor=2, mode="nearest")
            merged = level
        return pack(self.neck(merged), self.middle(features[0]), self.fine(stem))


class TinyPromptEncoder(PromptEncoder):
    """Encode prompts as segment_anything; the dense embedding also says where the prompts lie.

    The official one knows a box by its two corners alone, from which the mask decoder learns what
    "inside" means from millions of masks. Here the dense embedding, beside how near clicks are to
    each cell, carries the box itself to the mask decoder, in five more channels that are the same
    everywhere: its corners (XYXY in pixels) and 1, or zeros where none is given. (Callers hand the
    two embeddings on to the decoder, and nothing else.)

    It works in float32, also under autocast, whose 8 bits are too few for coordinates.
    """

    CLICK_REACHES = (8.0, 32.0, 96.0)  # pixels

    def __init__(self, embed_dim, **options):
        super().__init__(embed_dim=embed_dim, **options)
        self.click_mlp = pixelwise_mlp(2 * len(self.CLICK_REACHES), embed_dim, embed_dim)
        self.mask_input_size = self.input_image_size
        # From whole pictures down to small objects: the official encoding has coarse waves only.
        frequencies = self.pe_layer.positional_encoding_gaussian_matrix
        frequencies *= torch.logspace(-0.5, 0.8, frequencies.shape[1])

    def forward(self, points, boxes, masks):
        """Encode as segment_anything: (B, tokens, C) sparse, (B, C + 5, h, w) dense."""
        with torch.autocast(self._get_device().type, enabled=False):
            return self._embed(points, boxes, masks)

    def get_dense_pe(self):
        """Return segment_anything's position encoding, in float32 even under autocast."""
        with torch.autocast(self._get_device().type, enabled=False):
            return super().get_dense_pe()

    def _embed(self, points, boxes, masks):
        sparse, dense = super().forward(points, boxes, masks)
        if len(dense) == 1:  # one mask for all prompts
            dense = dense.expand(len(sparse), -1, -1, -1)
        if points is not None:
            coords, labels = points
            clicked = ((labels == 0) | (labels == 1)).any(dim=1)[:, None, None, None]
            dense = dense + clicked * self.click_mlp(self.click_features(coords, labels).to(dense))
        corners = dense.new_zeros((len(dense), 5))
        if boxes is not None:
            corners = F.pad(boxes.reshape(-1, 4), (0, 1), value=1.0)
        corners = corners[..., None, None].expand(-1, -1, *dense.shape[-2:])
        return sparse, torch.cat([dense, corners.to(dense)], dim=1)

    def _embed_masks(self, masks):
        # The tiny decoder's masks, of stride 1, at the stride that the layers are made for.
        size = [4 * cells for cells in self.image_embedding_size]
        return super()._embed_masks(F.interpolate(masks, size, mode="bilinear", antialias=True))

    def click_features(self, coords, labels):
        """Return how near the nearest click of each kind is, from each cell of the embedding.

        Args:
            coords: (B, N, 2) x, y in pixels of the square input.
            labels: (B, N), 1 for clicks inside, 0 outside, others do not count.

        Returns:
            (B, 2 * reaches, h, w), 1 at a click and falling with the distance.
        """
        side, cells = self.input_image_size[0], self.image_embedding_size[0]
        x, y = cell_centres(whole_windows(1, side, coords), cells)
        x_clicks, y_clicks = (coords.float() + 0.5)[..., None, None].unbind(dim=2)
        squares = (x[:, None] - x_clicks) ** 2 + (y[:, None] - y_clicks) ** 2  # (B, N, h, w)
        squares = F.pad(squares, (0, 0, 0, 0, 0, 1))  # one more, so that there may be no click
        features = []
        for kind in (1, 0):
            others = F.pad(labels != kind, (0, 1), value=True)[..., None, None]
            nearest = squares.masked_fill(others, math.inf).amin(dim=1)
            features += [torch.exp(-nearest / (2 * reach**2)) for reach in self.CLICK_REACHES]
        return torch.stack(features, dim=1)


def only_embedding(embeddings, like):
    """Return the embeddings of one image in at least the precision of what they are decoded with.

    They may have been made or kept in lower precision, as with segment_anything's.

    Args:
        embeddings: (1, channels, h, w).
        like: tensor of the decoder's precision.

    Raises:
        ValueError: for embeddings of several images.
    """
    if len(embeddings) != 1:
        raise ValueError(f"one image embedding at a time, not {len(embeddings)}")
    return embeddings.to(torch.promote_types(embeddings.dtype, like.dtype))


class TinyMaskDecoder(MaskDecoder):
    """Decode masks as segment_anything, at work in windows around the boxes.

    A box is seen at one size, with details of the picture (Ke et al., "Segment Anything in High
    Quality", NeurIPS 2023), and each cell is compared with an 8 x 8 raster of the window, the outer
    ones of which lie outside of the box: what an object looks like, other than its surroundings,
    need not be known beforehand. A mask ends where the window does, a quarter of the box's side
    beyond the box. Prompts without a box are seen in a window of the whole picture.
    """

    BOX_CELLS = 16  # of a box's window, along each axis; its masks have four times as many
    BOX_FEATURES = 8
    DILATIONS = (1, 2, 4, 1)  # a reach of 8 cells, half the window of a box

    def __init__(self, transformer_dim, image_size, **options):
        super().__init__(transformer_dim=transformer_dim, **options)
        self.image_size = image_size
        coarse, middle, fine = (transformer_dim // factor for factor in (1, 4, 8))
        self.coarse_comparison = Comparison(coarse, coarse // 2)
        self.middle_comparison = Comparison(middle, middle)
        self.coarse_box = pixelwise_mlp(self.BOX_FEATURES + 4, coarse, coarse)
        self.middle_box = nn.Conv2d(self.BOX_FEATURES, middle, 1)
        self.fine_box = nn.Conv2d(self.BOX_FEATURES, fine, 1)
        self.mixing = mixing(coarse, self.DILATIONS)
        self.last_mixing = mixing(coarse, self.DILATIONS[:2])
        self.middle_mixing = mixing(middle, self.DILATIONS[:2])
        self.fine_mixing = mixing(fine, self.DILATIONS[:2])

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
            masks (N, 1 or 3, S, S), one logit for each pixel of the square input, since SAM's
            stride 4 would lose the details that the windows of small boxes have (masks of other
            prompts are computed at stride 4); and predicted IoU (N, 1 or 3).

        Raises:
            ValueError: for embeddings of several images.
        """
        logits, ious, windows = self._decode_one_image(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        masks = paste(logits[:, chosen], windows, self.image_size, self.image_size)
        return masks, ious[:, chosen]

    def predict_masks(
        self, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
    ):
        """Return all four masks and predicted IoU, of which :meth:`forward` returns some."""
        logits, ious, windows = self._decode_one_image(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        return paste(logits, windows, self.image_size, self.image_size), ious

    def _decode_one_image(self, embedding, pe, sparse, dense):
        embedding = only_embedding(embedding, dense)
        images = torch.zeros(len(sparse), dtype=torch.int64, device=embedding.device)
        return self.decode(embedding, images, pe, sparse, dense)

    def decode(self, embeddings, images, pe, sparse, dense):
        """Decode masks of N prompts on B images, in the prompts' windows.

        Args:
            embeddings: (B, 4 C, h, w), packed.
            images: (N,) int64, which embedding each prompt belongs to.
            pe: (1, C, h, w).
            sparse: (N, tokens, C).
            dense: (N, C + 5, h, w), of prompts that all have a box, or none.

        Returns:
            ((N, 4, 4 k, 4 k) mask logits, (N, 4) predicted IoU, (N, 4) windows).

        Raises:
            ValueError: if some of the prompts have a box.
        """
        dense, corners = dense.split([self.transformer_dim, 5], dim=1)
        corners = corners[..., 0, 0].detach()  # they are given, not learned
        given = bool(corners[:, 4].any())
        if given != bool(corners[:, 4].all()):
            raise ValueError("prompts that are decoded at once must all have a box, or none")
        if given:
            boxes, cells = within_reach(corners[:, :4].float(), self.image_size), self.BOX_CELLS
            windows = windows_around(boxes)
            coarse, middle, fine = self._look(embeddings, images, windows, cells)
        else:
            # Stride 16: each prompt has a transformer's run over the whole picture.
            cells = embeddings.shape[-1] // 2
            windows = whole_windows(len(sparse), self.image_size, pe)
            everywhere = whole_windows(len(embeddings), self.image_size, pe)
            each = torch.arange(len(embeddings), device=images.device)
            seen = self._look(embeddings, each, everywhere, cells)
            coarse, middle, fine = (maps[images] for maps in seen)
        pe = align(pe, torch.zeros_like(images), windows, cells, self.image_size)
        everyone = torch.arange(len(images), device=images.device)
        pixels = coarse + align(dense, everyone, windows, cells, self.image_size)
        if given:
            shape = box_shape(boxes)[..., None, None].expand(-1, -1, cells, cells)
            features = torch.cat([box_features(boxes, windows, cells), shape], dim=1)
            pixels = pixels + self.coarse_box(features.to(coarse))
            middle = middle + self.middle_box(box_features(boxes, windows, 2 * cells).to(coarse))
            fine = fine + self.fine_box(box_features(boxes, windows, 4 * cells).to(coarse))

        queries = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        queries = torch.cat([queries.expand(len(sparse), -1, -1), sparse], dim=1)
        queries, pixels = self.transformer(self.mixing(pixels), pe, queries)
        pixels = self.last_mixing(pixels.transpose(1, 2).unflatten(2, (cells, cells)))
        to_middle, norm, activation, to_fine, last_activation = self.output_upscaling
        pixels = norm(to_middle(pixels)).to(middle)
        pixels = self.middle_mixing(activation(pixels + middle))
        pixels = self.fine_mixing(last_activation(to_fine(pixels) + fine))
        filters = torch.stack(
            [mlp(queries[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = torch.einsum("nmc,nchw->nmhw", filters, pixels)
        return logits, self.iou_prediction_head(queries[:, 0]), windows

    def _look(self, embeddings, images, windows, cells):
        """Return features of strides 8, 4 and 2 in windows, and what they are like."""
        coarse, middle, fine = (
            align(maps, images, windows, factor * cells, self.image_size)
            for maps, factor in zip(unpack(embeddings), (1, 2, 4), strict=True)
        )
        coarse = coarse + self.coarse_comparison(coarse)
        return coarse, middle + self.middle_comparison(middle), fine


def box_features(boxes, windows, cells):
    """Describe what a box looks like from each cell of a window.

    Args:
        boxes, windows: (N, 4) XYXY in pixels.
        cells: of the windows, along each axis.

    Returns:
        (N, 8, cells, cells): the distances of the four sides in cells, positive inside, cut at 2;
        where in the box the cell lies, along x and y, by tanh; the squared radius and the larger
        coordinate, 1 on the ellipse in the box and on the box.
    """
    x, y = cell_centres(windows, cells)
    wide, high = ((windows[:, 2:] - windows[:, :2]) / cells)[..., None, None].unbind(dim=1)
    x0, y0, x1, y1 = boxes[..., None, None].unbind(dim=1)
    u = (2 * x - x0 - x1) / (x1 - x0).clamp(min=1)  # -1 to 1 inside
    v = (2 * y - y0 - y1) / (y1 - y0).clamp(min=1)
    features = [
        *((side / wide).clamp(-2, 2) for side in (x - x0, x1 - x)),
        *((side / high).clamp(-2, 2) for side in (y - y0, y1 - y)),
        *(torch.tanh(value) for value in (u, v)),
        (u * u + v * v).clamp(max=3),
        torch.maximum(*torch.broadcast_tensors(u.abs(), v.abs())).clamp(max=3),
    ]
    return torch.stack([value.expand(len(boxes), cells, cells) for value in features], dim=1)


def box_shape(boxes):
    """Return (N, 4): how large and how long boxes are, from their XYXY in pixels."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    return torch.cat([torch.log(sides / 8), torch.tanh(sides / sides.flip(1) / 8)], dim=1)


class Comparison(nn.Module):
    """Compare each cell of a window with each of 8 x 8 means over it."""

    RASTER = 8
    SCALE = 4.0  # of the cosines, so that they are no smaller than other features

    def __init__(self, channels, key_channels):
        super().__init__()
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.mlp = pixelwise_mlp(self.RASTER**2, max(channels, 2 * key_channels), channels)

    def forward(self, maps):
        """Say of (N, C, h, w) maps what each cell is like: the same shape, to be added."""
        keys = F.normalize(self.key(maps).float(), dim=1)
        means = F.adaptive_avg_pool2d(keys, self.RASTER).flatten(2)
        likeness = self.SCALE * torch.einsum("nchw,ncp->nphw", keys, means)
        return self.mlp(likeness.to(maps))


class _Mixing(nn.Module):
    """Mix cells by a residual block without normalisation.

    Windows are few or many, and of several sizes.
    """

    def __init__(self, channels, dilation):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


def mixing(channels, dilations):
    """Build residual blocks of convolutions with the given dilations."""
    return nn.Sequential(*(_Mixing(channels, dilation) for dilation in dilations))


def pixelwise_mlp(before, hidden, after):
    """Build two layers that see one cell at a time, from and to that many channels."""
    return nn.Sequential(nn.Conv2d(before, hidden, 1), nn.GELU(), nn.Conv2d(hidden, after, 1))


class _ConvNorm(nn.Sequential):
    def __init__(self, before, after, kernel_size, stride=1):
        super().__init__(
            nn.Conv2d(before, after, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(after),
        )


class _Residual(nn.Module):
    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = _ConvNorm(before, after, 3, stride)
        self.conv2 = _ConvNorm(after, after, 3)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _ConvNorm(before, after, 1, stride)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)
