"""Hold the plain layer of the pose networks, which trained ones are exported to."""

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.core.group import C, PlanarGroup, elements_of


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


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Blur maps (B, C, h, w) by the binomial filter of 3 x 3 pixels, edges repeated.

    What a stride leaves of structure finer than two pixels depends on where the structure lies, and
    changes when the image is turned (Zhang, "Making Convolutional Networks Shift-Invariant Again",
    ICML 2019).
    """
    channels = int(x.shape[1])
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    weight = (line[:, None] * line).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, groups=channels)


def as_group(group: "PlanarGroup | int") -> PlanarGroup:
    """Return a group as it is, and an integer as the C(n) of that order."""
    return group if isinstance(group, PlanarGroup) else C(group)


def disc(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Return how much of each pixel lies in the disc in the middle of a map.

    The disc touches the nearer edges. Its own edge is a pixel wide: a sharp one would be jagged in
    another way after each turn.

    Args:
        height, width: of the map, in pixels.
        like: tensor whose type and device the result has.

    Returns:
        (height, width) tensor, 0..1.
    """
    y = torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2
    x = torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2
    radius = (y[:, None] ** 2 + x**2).sqrt()
    return (min(height, width) / 2 - radius + 0.5).clamp(0, 1)


def cut_disc(images: torch.Tensor) -> torch.Tensor:
    """Cut the square in the middle of (B, C, H, W) images, and set all but its disc to 0."""
    height, width = (int(side) for side in images.shape[-2:])
    side = min(height, width)
    # A side of the parity of the whole one has the same centre.
    odd = [(whole - side) % 2 for whole in (height, width)]
    high, wide = (side - rest if side > 1 else side + rest for rest in odd)
    top, left = (height - high) // 2, (width - wide) // 2
    square = images[..., top : top + high, left : left + wide]
    return square * disc(high, wide, square)


def mean_in_disc(maps: torch.Tensor) -> torch.Tensor:
    """Return the means (B, C) of (B, C, h, w) maps over the disc in their middle."""
    weights = disc(int(maps.shape[-2]), int(maps.shape[-1]), maps)
    return (maps * weights).sum(dim=(-2, -1)) / weights.sum()


class PlainConvBlock(nn.Module):
    """Apply one convolution with bias (batch norm folded in) and an optional ReLU.

    With a stride, even sizes are made odd first: see :func:`make_odd`.

    Args:
        group: C(n) or D(n); an integer is the order of a C(n).
        in_fields: regular fields that come in; None for the 3 colour channels of an image.
        out_fields: regular fields that go out, a channel for each element of the group.
        kernel_size: in pixels.
        stride: in pixels.
        relu: whether a ReLU follows.
        vector: whether vectors of two components go out in place of regular fields.
        blur: whether maps are blurred before a stride, see :func:`blurred`.
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
        size = len(elements_of(as_group(group)))
        self.conv = nn.Conv2d(
            3 if in_fields is None else in_fields * size,
            out_fields * (2 if vector else size),
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
        )
        self.stride = stride
        self.relu = relu
        self.blurs = blur and stride > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, out, h, w) of (B, in, H, W)."""
        x = make_odd(x) if self.stride > 1 else x
        x = self.conv(blurred(x) if self.blurs else x)
        return F.relu_(x) if self.relu else x
