"""Provide the trainable layer of the networks, an equivariant convolution of escnn.

Needs escnn.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from canon_seg.networks import escnn_stand_ins  # noqa: F401 - before escnn
from canon_seg.networks.blocks import make_odd
from canon_seg.networks.filters import all_orientations, first_orientations

from escnn import gspaces
from escnn import nn as enn

# Edge and corner neighbours of a 3 x 3 filter on rings of their own: escnn's default ties them.
RINGS = {3: [0.0, 1.0, math.sqrt(2)]}


class ConvBlock(nn.Module):
    """Convolve equivariantly, normalize with statistics shared over the group, optionally ReLU.

    Same arguments and the same tensors in and out as
    :class:`canon_seg.networks.blocks.PlainConvBlock`.
    """

    def __init__(
        self,
        group_order: int,
        in_fields: int | None,
        out_fields: int,
        kernel_size: int,
        stride: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.group_order, self.from_image = group_order, in_fields is None
        space = gspaces.rot2dOnR2(group_order)
        fields = [space.trivial_repr] * 3
        if in_fields is not None:
            fields = [space.regular_repr] * in_fields
        self.in_type = enn.FieldType(space, fields)
        out_type = enn.FieldType(space, [space.regular_repr] * out_fields)
        self.conv = enn.R2Conv(
            self.in_type,
            out_type,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=False,
            rings=RINGS.get(kernel_size),
        )
        self.norm = enn.InnerBatchNorm(out_type)
        self.stride = stride
        self.relu = enn.ReLU(out_type, inplace=True) if relu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of a (B, C, H, W) tensor as a tensor."""
        x = make_odd(x) if self.stride > 1 else x
        found = self.norm(self.conv(enn.GeometricTensor(x, self.in_type)))
        features: torch.Tensor = (found if self.relu is None else self.relu(found)).tensor
        return features

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (weight, bias) of the one ordinary convolution that does the same in eval mode."""
        conv, norm = _exported(self.conv), _exported(self.norm)
        weight, bias = fuse_conv_bn_weights(
            conv.weight,
            None,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        # escnn samples every orientation by itself, so that they differ in the last bits. That is
        # little, but half precision would round some of them up and others down, which is a
        # thousand times more: so the quarter turns of a filter are made bitwise copies of it.
        first = first_orientations(weight.detach(), self.group_order)
        return all_orientations(first, self.group_order, self.from_image), bias.detach()


@torch.no_grad()
def _exported(module: Any) -> Any:
    # escnn exports in eval mode only; the caller's mode is put back.
    training = module.training
    exported = module.eval().export()
    module.train(training)
    return exported
