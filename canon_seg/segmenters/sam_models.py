"""`Sam` models of segment_anything: the official sizes and a tiny one."""

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
    """A `Sam` with a light convolutional image encoder, everything else segment_anything's own.

    A convolutional encoder learns from little data. The embedding has stride 8 (SAM's: 16), since
    small inputs hold small objects.

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
        prompt_encoder=PromptEncoder(
            embed_dim=embed_dim,
            image_embedding_size=(embedding_size, embedding_size),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=embed_dim, mlp_dim=4 * embed_dim, num_heads=8
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


