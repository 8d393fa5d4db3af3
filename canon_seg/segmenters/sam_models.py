"""`Sam` models of segment_anything: the official sizes and a tiny one."""

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn
from torch.nn import functional as F

OFFICIAL_SIZES = ("vit_h", "vit_l", "vit_b")
OFFICIAL_IMAGE_SIZE = 1024


def build_official_sam(size):
    """A `Sam` of an official size ("vit_h", "vit_l", "vit_b") with random weights."""
    return sam_model_registry[size]()


class LongestSide(ResizeLongestSide):
    """segment_anything's resizing, which leaves a very long image at least one pixel wide."""

    @staticmethod
    def get_preprocess_shape(oldh, oldw, long_side_length):
        """(height, width) of an ``oldh`` x ``oldw`` image with longer side ``long_side_length``."""
        height, width = ResizeLongestSide.get_preprocess_shape(oldh, oldw, long_side_length)
        return max(height, 1), max(width, 1)


def build_tiny_sam(image_size, channels, blocks, embed_dim):
    """A `Sam` that learns from few images: light convolutional encoder, prompts with geometry.

    Its parts have the interfaces of segment_anything's, and the mask decoder is segment_anything's.
    The embedding has stride 8 (SAM's: 16), since small inputs hold small objects.

    Args:
        image_size: side of the square input in pixels, a multiple of 32.
        channels, blocks: of the encoder's stages at strides 4, 8, 16, 32.
        embed_dim: channels of the image embedding, the prompts and the mask decoder.
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
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=embed_dim, mlp_dim=4 * embed_dim, num_heads=4
            ),
            transformer_dim=embed_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=embed_dim,
        ),
    ).eval()


class TinyImageEncoder(nn.Module):
    """Residual stages at strides 4 to 32, merged top-down at stride 8.

    The interface of segment_anything's `ImageEncoderViT`: ``img_size``, and a call from
    (B, 3, S, S) normalised images to (B, embed_dim, S / 8, S / 8). Residual blocks as in He et al.
    2016, top-down path as in Lin et al. 2017.
    """

    STRIDE = 8

    def __init__(self, image_size, channels, blocks, embed_dim):
        super().__init__()
        self.img_size = image_size
        self.stem = nn.Sequential(
            _ConvNorm(3, channels[0], 3, stride=2), nn.ReLU(inplace=True)
        )
        stages, before = [], channels[0]
        for after, count in zip(channels, blocks):
            stage = [_Residual(before, after, stride=2)]
            stage += [_Residual(after, after) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            before = after
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(nn.Conv2d(count, embed_dim, 1) for count in channels[1:])
        self.neck = nn.Sequential(
            _ConvNorm(embed_dim, embed_dim, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )

    def forward(self, images):
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        merged = None
        for lateral, feature in zip(reversed(self.laterals), reversed(features[1:])):
            level = lateral(feature)
            if merged is not None:
                level = level + F.interpolate(merged, scale_factor=2, mode="nearest")
            merged = level
        return self.neck(merged)


class TinyPromptEncoder(PromptEncoder):
    """segment_anything's prompt encoder, whose dense embedding also says where a box lies.

    The official one knows a box by its two corners alone, from which the mask decoder learns what
    "inside" means from millions of masks. Here every cell of the dense embedding is told.
    """

    BOX_FEATURES = 12

    def __init__(self, embed_dim, **options):
        super().__init__(embed_dim=embed_dim, **options)
        self.box_mlp = nn.Sequential(
            nn.Conv2d(self.BOX_FEATURES, embed_dim, 1), nn.GELU(), nn.Conv2d(embed_dim, embed_dim, 1)
        )
        # From whole pictures down to small objects: the official encoding has coarse waves only.
        frequencies = self.pe_layer.positional_encoding_gaussian_matrix
        frequencies *= torch.logspace(-0.5, 0.8, frequencies.shape[1])

    def forward(self, points, boxes, masks):
        """As segment_anything's `PromptEncoder`: (B, tokens, C) sparse, (B, C, h, w) dense."""
        sparse, dense = super().forward(points, boxes, masks)
        if boxes is not None:
            dense = dense + self.box_mlp(self.box_features(boxes))
        return sparse, dense

    def box_features(self, boxes):
        """What a box looks like from each cell of the embedding.

        Args:
            boxes: (B, 4), or anything that can be reshaped so, XYXY in pixels of the square input.
        Returns:
            (B, BOX_FEATURES, h, w) on the grid of the image embedding.
        """
        height, width = self.image_embedding_size
        stride = self.input_image_size[0] / height
        boxes = boxes.float().reshape(-1, 4)[..., None, None]
        y = (torch.arange(height, device=boxes.device) + 0.5)[:, None] * stride
        x = (torch.arange(width, device=boxes.device) + 0.5)[None] * stride
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        sides = [x - x0, y - y0, x1 - x, y1 - y]  # distance of each side, positive inside
        wide, high = (x1 - x0).clamp(min=1), (y1 - y0).clamp(min=1)
        u, v = (2 * x - x0 - x1) / wide, (2 * y - y0 - y1) / high  # -1 to 1 inside
        features = [
            # Where in the cell the side runs, and where in the box the cell lies.
            *(torch.clamp(side / stride, -2, 2).expand(-1, height, width) for side in sides),
            *(torch.tanh(value).expand(-1, height, width) for value in (u, v)),
            torch.clamp(u * u + v * v, max=3.0),
            torch.clamp(torch.maximum(u.abs().expand(-1, height, width), v.abs()), max=3.0),
            *(torch.log(side / stride).expand(-1, height, width) for side in (wide, high)),
            *(torch.tanh(side / 8).expand(-1, height, width) for side in (wide / high, high / wide)),
        ]
        return torch.stack(features, dim=1)


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


