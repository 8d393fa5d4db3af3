"""Provide the trainable layer of the networks, an equivariant convolution of escnn.

Needs escnn.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from canon_seg.core.group import PlanarGroup
from canon_seg.networks import escnn_stand_ins  # noqa: F401 - before escnn
from canon_seg.networks.blocks import as_group, blurred, make_odd
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
        group: "PlanarGroup | int",
        in_fields: int | None,
        out_fields: int,
        kernel_size: int,
        stride: int = 1,
        relu: bool = True,
        vector: bool = False,
        blur: bool = False,
    ) -> None:
        super().__init__()
        self.group, self.from_image = as_group(group), in_fields is None
        # Elements, and channels of regular fields with them, are in the order of ours, and the
        # mirror exchanges left and right, as ours does.
        space = (
            gspaces.flipRot2dOnR2(self.group.order, axis=math.pi / 2)
            if self.group.mirrors
            else gspaces.rot2dOnR2(self.group.order)
        )
        fields = [space.trivial_repr] * 3
        if in_fields is not None:
            fields = [space.regular_repr] * in_fields
        self.in_type = enn.FieldType(space, fields)
        # Vectors turn with the image: they have no bias, and no other nonlinearity than of length.
        kind = space.irrep(1) if vector else space.regular_repr
        out_type = enn.FieldType(space, [kind] * out_fields)
        self.conv = enn.R2Conv(
            self.in_type,
            out_type,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=False,
            rings=RINGS.get(kernel_size),
        )
        self.norm = None if vector else enn.InnerBatchNorm(out_type)
        self.stride = stride
        self.blurs = blur and stride > 1
        self.relu = enn.ReLU(out_type, inplace=True) if relu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of a (B, C, H, W) tensor as a tensor."""
        x = make_odd(x) if self.stride > 1 else x
        x = blurred(x) if self.blurs else x
        found = self.conv(enn.GeometricTensor(x, self.in_type))
        found = found if self.norm is None else self.norm(found)
        features: torch.Tensor = (found if self.relu is None else self.relu(found)).tensor
        return features

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (weight, bias), on the CPU, of one convolution that does the same in eval mode."""
        conv = _exported(self.conv)
        if self.norm is None:
            return conv.weight.detach(), conv.weight.new_zeros(len(conv.weight))
        norm = _exported(self.norm)
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
        # thousand times more: so the exact turns of a filter are made bitwise copies of it.
        first = first_orientations(weight.detach(), self.group)
        return all_orientations(first, self.group, self.from_image), bias.detach()


@torch.no_grad()
def _exported(module: Any) -> Any:
    # escnn exports in eval mode only; the caller's mode is put back.
    training = module.training
    # On the CPU: of a network on a GPU escnn leaves a filter there and makes the norm here.
    exported = module.eval().export().cpu()
    module.train(training)
    return exported
