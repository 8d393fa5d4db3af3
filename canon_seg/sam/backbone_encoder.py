"""Encode images for a `Sam` by a backbone that was pretrained on ImageNet."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from canon_seg.errors import InputError
from canon_seg.sam.models import pack

KEY = "MODEL.SAM.TINY"
STRIDES = (2, 4, 8, 16, 32)


class BackboneEncoder(nn.Module):
    """Encode by the stages of an EfficientNet of timm's, merged at stride 8.

    The interface of segment_anything's `ImageEncoderViT`: ``img_size``, and a call from
    (B, 3, S, S) normalised images to (B, 4 embed_dim, S / 8, S / 8). Attention over the whole
    picture at stride 32, then a top-down path as in Lin et al. 2017. The batch normalisation of the
    pretraining is folded into its convolutions: batches are too small here for other statistics.

    Args:
        image_size: side S of the square input in pixels, a multiple of 32.
        backbone: name in timm of a model with the parts of its EfficientNets.
        embed_dim: C; see :func:`canon_seg.sam.models.pack`.
        freeze_stages: first stages, the stem with them, that keep their weights in training.

    Raises:
        InputError: naming the key, if the backbone is of no use.
    """

    STRIDE = 8
    WIDTH = 96  # channels of the top-down path
    HEAD_DIM = 32
    DETAIL_SCALE = 12.0  # what the pretrained features of the first two stages are as large as

    def __init__(
        self, image_size: int, backbone: str, embed_dim: int, freeze_stages: int = 0
    ) -> None:
        super().__init__()
        self.img_size = image_size
        self.backbone = backbone
        self.body, channels = _body(backbone)
        fold_batch_norms(self.body)
        self.last_stages = _last_stages(self.body.blocks)
        width = channels[-1]
        self.context = nn.TransformerEncoderLayer(
            width,
            max(1, width // self.HEAD_DIM),
            2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.laterals = nn.ModuleList(nn.Conv2d(count, self.WIDTH, 1) for count in channels[2:])
        self.mixing = _Separable(self.WIDTH, 5)
        self.neck = nn.Sequential(
            LayerNorm2d(self.WIDTH),
            _Separable(self.WIDTH, 3),
            nn.Conv2d(self.WIDTH, embed_dim, 1),
        )
        self.middle = nn.Conv2d(channels[1], embed_dim // 4, 1)
        self.fine = nn.Conv2d(channels[0], embed_dim // 8, 1)
        self.freeze_stages = freeze_stages
        if not 0 <= freeze_stages <= len(self.body.blocks):
            raise InputError(
                f"{KEY}.FREEZE_STAGES is {freeze_stages}; {backbone} has {len(self.body.blocks)} "
                "stages that are used"
            )
        if freeze_stages:
            for part in (self.body.conv_stem, self.body.bn1, *self.body.blocks[:freeze_stages]):
                part.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the packed embedding of (B, 3, S, S) normalised images."""
        x = images.contiguous(memory_format=torch.channels_last)
        features = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_stages):
            x = self.body.bn1(self.body.conv_stem(x))
        for number, stage in enumerate(self.body.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.freeze_stages):
                x = stage(x)
            if number in self.last_stages:
                features.append(x)
        finest, fine, *coarse = features
        # Of inputs that are not contiguous torch.compile expects other strides than torch gives.
        cells = self.context(coarse[-1].flatten(2).transpose(1, 2).contiguous())
        coarse[-1] = cells.transpose(1, 2).unflatten(2, coarse[-1].shape[-2:])
        *levels, merged = [layer(maps) for layer, maps in zip(self.laterals, coarse, strict=True)]
        for level in reversed(levels):
            merged = level + F.interpolate(self.mixing(merged), scale_factor=2, mode="nearest")
        details = self.middle(fine / self.DETAIL_SCALE), self.fine(finest / self.DETAIL_SCALE)
        return pack(self.neck(merged), *details).contiguous()

    def load_pretrained(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """Take over what a pretrained backbone's weights hold of the stages that are used.

        Args:
            state: dict from timm's names to tensors.
            source: where it came from, for messages.

        Raises:
            InputError: if they are another backbone's.
        """
        body, _ = _body(self.backbone)
        own = body.state_dict()
        wrong = [n for n, v in own.items() if n not in state or state[n].shape != v.shape]
        if wrong:
            raise InputError(
                f"{source} ({KEY}.PRETRAINED) holds weights of another backbone than "
                f"{KEY}.BACKBONE (see {wrong[0]}); give those that belong to it"
            )
        body.load_state_dict({name: state[name] for name in own})
        fold_batch_norms(body)
        self.body.load_state_dict(body.state_dict())


class _Body(nn.Module):
    """Hold the stem and the stages, under timm's names."""

    conv_stem: Any
    bn1: Any
    blocks: Any


def _body(backbone: str) -> tuple[_Body, list[int]]:
    """Return (stem and stages up to the first of stride 32, channels at each of the strides)."""
    if not timm.is_model(backbone):
        raise InputError(
            f"{KEY}.BACKBONE is {backbone!r}, which timm {timm.__version__} does not know; "
            "timm.list_models() lists the names"
        )
    whole: Any = timm.create_model(backbone, pretrained=False)
    if not all(hasattr(whole, part) for part in ("conv_stem", "bn1", "blocks")):
        raise InputError(
            f"{KEY}.BACKBONE is {backbone!r}, which is no EfficientNet; give one of timm's, such "
            "as tf_efficientnet_lite0"
        )
    body = _Body()
    body.conv_stem, body.bn1 = whole.conv_stem, whole.bn1
    # The last stage repeats what ImageNet's classes need; its parameters are a fifth of all.
    body.blocks = whole.blocks[: _first_stage_at(whole, STRIDES[-1]) + 1]
    channels = [_width(body.blocks[stage]) for stage in _last_stages(body.blocks)]
    if len(channels) != len(STRIDES):
        raise InputError(
            f"{KEY}.BACKBONE is {backbone!r}, whose stages do not have the strides "
            f"{', '.join(map(str, STRIDES))}"
        )
    return body.to(memory_format=torch.channels_last), channels


def fold_batch_norms(body: nn.Module) -> None:
    """Put what batch normalisation does in eval mode into the convolutions before it, in place.

    Args:
        body: with timm's layers, whose normalisation holds the activation that follows.
    """
    convolution: nn.Conv2d | None = None
    for module in [module for module in body.modules() if not isinstance(module, nn.Identity)]:
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Conv2d):
                convolution = layer
            elif isinstance(layer, nn.BatchNorm2d):
                if convolution is None:
                    raise ValueError("batch normalisation without a convolution before it")
                mean: Any = layer.running_mean
                variance: Any = layer.running_var
                weight, bias = fuse_conv_bn_weights(
                    convolution.weight,
                    convolution.bias,
                    mean,
                    variance,
                    layer.eps,
                    layer.weight,
                    layer.bias,
                )
                convolution.weight, convolution.bias = weight, nn.Parameter(bias.detach())
                setattr(module, name, layer.act)


def _first_stage_at(whole: Any, stride: int) -> int:
    reached = 2
    for number, stage in enumerate(whole.blocks):
        reached *= _stage_stride(stage)
        if reached == stride:
            return number
    raise InputError(f"{KEY}.BACKBONE: its stages do not reach stride {stride}")


def _stage_stride(stage: Any) -> int:
    return int(_layer(stage[0], "conv_dw", "conv_exp", "conv").stride[0])


def _last_stages(blocks: Any) -> list[int]:
    """Return the numbers of the stages after which the stride changes, and of the last one."""
    return [
        number
        for number in range(len(blocks))
        if number + 1 == len(blocks) or _stage_stride(blocks[number + 1]) > 1
    ]


def _width(stage: Any) -> int:
    return int(_layer(stage[-1], "conv_pwl", "conv_pw", "conv").out_channels)


def _layer(block: Any, *names: str) -> Any:
    """Return the first of these layers that a block of timm's has."""
    for name in names:
        if hasattr(block, name):
            return getattr(block, name)
    raise InputError(
        f"{KEY}.BACKBONE: its blocks are {type(block).__name__}, which are not known here; give an "
        "EfficientNet of timm's, such as tf_efficientnet_lite0"
    )


class _Separable(nn.Module):
    """Mix cells by a residual block: one convolution per channel, then one per cell."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels
        )
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, channels, 1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv2(F.gelu(self.conv1(self.depthwise(x))))
        return x + y
