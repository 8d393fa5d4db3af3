"""Build the networks that predict an image's pose: equivariant by construction, written once.

Both networks are written over a layer class that exists twice:

* :class:`canon_seg.networks.escnn_layers.ConvBlock` keeps the free parameters of the
  equivariant filters; it is trained and needs escnn;
* :class:`canon_seg.networks.blocks.PlainConvBlock` holds one ordinary convolution
  with the batch norm folded in; it is what a trained network is exported to, and what inference
  uses.

A network maps images (B, 3, h, w) to logits (B, N) over the poses of C(n) or D(n). The logits of a
turned image are those of the image in the order in which the turn permutes the poses, for C(n)
``logits(turn(x, a)) == roll(logits(x), a)``, up to floating-point noise, for any h and w, where the
turn acts by index. For other turns that is nearly so; the network of a group that has some looks at
the disc in the middle of an image, since corners would tell them. For SO2 the output is a vector
(B, 2), made of the frequency 1 of the last feature fields, which turns with the image. Sources:
Cohen and Welling, "Group Equivariant Convolutional Networks" (ICML 2016); Weiler and Cesa, "General
E(2)-Equivariant Steerable CNNs" (NeurIPS 2019); sizes as in Mondal et al. 2023.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.core.group import SO2, PlanarGroup
from canon_seg.errors import InputError
from canon_seg.networks.blocks import PlainConvBlock, cut_disc, mean_in_disc


@dataclass(frozen=True)
class NetworkSpec:
    """Describe what has to be known to build a network again.

    Attributes:
        name: key of :data:`NETWORKS`.
        group_order: rotations in the group.
        fields: number of regular feature fields (a channel for each element) of the stem and of
            every stage.
        depth: blocks in each stage (GCNN: convolutions, GWRN: residual blocks).
        mirrors: whether the group has mirrors.
        vector: whether the pose is a vector, of SO2, and ``group_order`` only the number of
            orientations that feature fields tell apart.
        disc: whether the network looks at the disc in the middle of an image, if its group has
            turns that do not act by index.
        blur: whether maps are blurred before each stride.
        kernel: side of the filters of the stages in pixels, odd.
    """

    name: str
    group_order: int
    fields: tuple[int, ...]
    depth: int
    mirrors: bool = False
    vector: bool = False
    disc: bool = True
    blur: bool = False
    kernel: int = 3

    def __post_init__(self) -> None:
        if self.name not in NETWORKS:
            raise InputError(
                f"MODEL.CANONICALIZER.NETWORK.NAME is {self.name!r}; known: {sorted(NETWORKS)}"
            )
        if len(self.fields) < 2 or min(self.fields) < 1 or self.depth < 1:
            raise InputError(
                "MODEL.CANONICALIZER.NETWORK needs at least two positive FIELDS and a DEPTH of at "
                f"least 1, got FIELDS {self.fields} and DEPTH {self.depth}"
            )

        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(
                f"MODEL.CANONICALIZER.NETWORK.KERNEL is {self.kernel}; give an odd number of pixels"
            )
        if self.vector and (self.mirrors or self.group_order < 3):
            raise InputError(
                "MODEL.CANONICALIZER.NETWORK.ORIENTATIONS is "
                f"{self.group_order}; a vector needs at least 3, and no mirrors"
            )

    @property
    def group(self) -> PlanarGroup:
        """Return the group of the poses: C(n), D(n), or SO2 of a vector."""
        return SO2 if self.vector else self.orientations

    @property
    def orientations(self) -> PlanarGroup:
        """Return the finite group whose elements the channels of feature fields belong to."""
        return PlanarGroup(self.group_order, self.mirrors)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dict of plain types."""
        return {**asdict(self), "fields": list(self.fields)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkSpec":
        """Build from the dict that :meth:`to_dict` returned."""
        return cls(
            name=str(values["name"]),
            group_order=int(values["group_order"]),
            fields=tuple(int(count) for count in values["fields"]),
            depth=int(values["depth"]),
            # Earlier files have none of these.
            mirrors=bool(values.get("mirrors", False)),
            vector=bool(values.get("vector", False)),
            disc=bool(values.get("disc", True)),
            blur=bool(values.get("blur", False)),
            kernel=int(values.get("kernel", 3)),
        )


Layer = Callable[..., nn.Module]
"""A class of layers, with the arguments of :class:`canon_seg.networks.blocks.PlainConvBlock`."""


class PoseNetwork(nn.Module):
    """Map images (B, 3, h, w) to logits (B, N) over the poses.

    Attributes:
        spec: what builds the network again.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.sees_disc = spec.disc and not spec.group.is_exact

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, N), or vectors (B, 2), of (B, 3, H, W) images."""
        if not self.sees_disc:
            maps: torch.Tensor = self.maps(x)
            return maps.mean(dim=(-2, -1))
        return mean_in_disc(self.maps(cut_disc(x)))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return what there is at each place, (B, N, h, w), of (B, 3, H, W) images."""
        raise NotImplementedError


class GCNN(PoseNetwork):
    """Stack group convolutions plainly: the small network of the paper (about 0.2 M parameters).

    A 5 x 5 stem and then one stage for each further entry of ``fields``; each stage halves the
    resolution and has ``depth`` convolutions. The pose logits are one regular field, averaged
    over the image.
    """

    def __init__(self, spec: NetworkSpec, block: Layer) -> None:
        super().__init__(spec)
        group = spec.orientations
        self.stem = block(group, None, spec.fields[0], 5, stride=2)
        stages: list[nn.Module] = []
        for before, after in pairwise(spec.fields):
            stages.append(block(group, before, after, spec.kernel, stride=2))
            stages += [block(group, after, after, spec.kernel) for _ in range(spec.depth - 1)]
        self.stages = nn.Sequential(*stages)
        self.head = block(group, spec.fields[-1], 1, 1, relu=False, vector=spec.vector)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, N, h, w) at each place of (B, 3, H, W) images."""
        maps: torch.Tensor = self.head(self.stages(self.stem(x)))
        return maps


class ResidualBlock(nn.Module):
    """Add two group convolutions to a shortcut (1 x 1 where the shape changes)."""

    def __init__(
        self, spec: NetworkSpec, before: int, after: int, stride: int, block: Layer
    ) -> None:
        super().__init__()
        group = spec.orientations
        self.conv1 = block(group, before, after, spec.kernel, stride=stride)
        self.conv2 = block(group, after, after, spec.kernel, relu=False)
        same = before == after and stride == 1
        self.shortcut = None if same else block(group, before, after, 1, stride=stride, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B, out, h, w) of (B, in, H, W)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv2(self.conv1(x)) + shortcut)


class GWRN(PoseNetwork):
    """Build a wide residual network of group convolutions (about 1.9 M parameters in the paper).

    Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016), with a strided stem, since a pose
    is a global property; ``depth`` residual blocks a stage.
    """

    def __init__(self, spec: NetworkSpec, block: Layer) -> None:
        super().__init__(spec)
        group = spec.orientations
        self.stem = block(group, None, spec.fields[0], 5, stride=2)
        stages: list[nn.Module] = []
        for before, after in pairwise(spec.fields):
            stages.append(ResidualBlock(spec, before, after, 2, block))
            stages += [ResidualBlock(spec, after, after, 1, block) for _ in range(spec.depth - 1)]
        self.stages = nn.Sequential(*stages)
        self.head = block(group, spec.fields[-1], 1, 1, relu=False, vector=spec.vector)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, N, h, w) at each place of (B, 3, H, W) images."""
        maps: torch.Tensor = self.head(self.stages(self.stem(x)))
        return maps


NETWORKS: dict[str, Callable[[NetworkSpec, Layer], PoseNetwork]] = {"GCNN": GCNN, "GWRN": GWRN}


def build_plain_network(spec: NetworkSpec) -> PoseNetwork:
    """Build the exported form of a network: ordinary convolutions, no escnn.

    Args:
        spec: :class:`NetworkSpec`.

    Returns:
        nn.Module from (B, 3, h, w) float to logits (B, N); weights are random until loaded.
    """
    return NETWORKS[spec.name](spec, partial(PlainConvBlock, blur=spec.blur))


def build_trainable_network(spec: NetworkSpec) -> PoseNetwork:
    """Build a network's equivariant form with escnn's free parameters, in training mode.

    Raises:
        InputError: if escnn is not installed.
    """
    try:
        from canon_seg.networks.escnn_layers import ConvBlock
    except ImportError as error:
        raise InputError(
            f"training a canonicalizer needs escnn ({error}); see the section on training in the "
            "README for how to install it, or load exported weights with "
            "MODEL.CANONICALIZER.TRAINABLE False"
        ) from error
    # A new escnn network holds filters made from its weights; they go when training mode is set.
    return NETWORKS[spec.name](spec, partial(ConvBlock, blur=spec.blur)).train()


@torch.no_grad()
def export_network(trainable: PoseNetwork) -> PoseNetwork:
    """Turn a trained equivariant network into ordinary convolutions with equal outputs.

    Args:
        trainable: network of :func:`build_trainable_network`; it is left in the mode it was in.

    Returns:
        the plain network in eval mode, on the CPU, in float32.
    """
    plain = build_plain_network(trainable.spec)
    exported = dict(plain.named_modules())
    for name, module in trainable.named_modules():
        block = exported.get(name)
        if isinstance(block, PlainConvBlock):
            weight, bias = cast(Any, module).folded()
            for parameter, value in ((block.conv.weight, weight), (block.conv.bias, bias)):
                cast(nn.Parameter, parameter).copy_(value.cpu())
    return plain.eval()
