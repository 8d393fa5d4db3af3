"""Hold the plain layer of the pose networks, which trained ones are exported to."""

import torch
from torch import nn
from torch.nn import functional as F


def make_odd(x: torch.Tensor) -> torch.Tensor:
    """Average neighbours along every even axis, so that (..., h, w) has odd sizes.

    A stride-2 convolution that is centred on pixels samples symmetrically only where the size is
    odd; on even sizes it would break equivariance (by 8.6 % at 96 px). Averaging two neighbours is
    symmetric and takes one pixel away. Sizes 2^k m + 1 pass through k strides untouched.
    """
    even = [1 - size % 2 for size in x.shape[-2:]]
    if any(even):
        x = F.avg_pool2d(x, kernel_size=[1 + e for e in even], stride=1)
    return x


class PlainConvBlock(nn.Module):
    """Apply one convolution with bias (batch norm folded in) and an optional ReLU.

    With a stride, even sizes are made odd first: see :func:`make_odd`.

    Args:
        in_fields: regular fields that come in; None for the 3 colour channels of an image.
        out_fields: regular fields that go out, ``group_order`` channels each.
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
        self.conv = nn.Conv2d(
            3 if in_fields is None else in_fields * group_order,
            out_fields * group_order,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
        )
        self.stride = stride
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, out, h, w) of (B, in, H, W)."""
        x = self.conv(make_odd(x) if self.stride > 1 else x)
        return F.relu_(x) if self.relu else x
