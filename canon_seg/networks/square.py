"""Run networks on square images: resize, normalize, and give one output per class or per pose.

The same kind of network serves as an image classifier and, with an output for each element of a
group, as a scorer of poses. A backbone of timm's can be cut after its first blocks, which hold few
of its parameters.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.core.canonicalizer import check_image_format
from canon_seg.core.group import PlanarGroup, elements_of, permutation
from canon_seg.core.scorer import GridDistribution
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.resize import MEAN, STD
from canon_seg.io.checkpoint import load_state, load_torch_file
from canon_seg.io.files import save_torch

FORMAT = "canon_seg.square_network"
VERSION = 1
MIN_SIDE = 16
"""Pixels of the smallest input: the stride of the cut backbones."""


@dataclass(frozen=True)
class SquareSpec:
    """Hold what it takes to build a :class:`SquareNetwork` of timm's again.

    Attributes:
        backbone: name of a timm model.
        blocks: how many of its blocks are kept, counted through all stages; 0 keeps the whole
            model with its own head.
        outputs: of the network.
    """

    backbone: str
    blocks: int
    outputs: int


class CutBackbone(nn.Module):
    """Keep the stem and the first blocks of an EfficientNet of timm's, pooled, with a linear layer.

    Attributes:
        spec: what builds the network again.

    Raises:
        ValueError: if timm does not know the model, or it cannot be cut there.
    """

    def __init__(self, spec: SquareSpec) -> None:
        super().__init__()
        body = _timm_model(spec.backbone, num_classes=1)
        if not all(hasattr(body, name) for name in ("conv_stem", "bn1", "blocks")):
            raise ValueError(
                f"{spec.backbone!r} has no list of blocks after one stem and cannot be cut; keep "
                "all of it (0 blocks), or take an EfficientNet"
            )
        names = [
            (stage, block)
            for stage, blocks in body.blocks.named_children()
            for block, _ in blocks.named_children()
        ]
        if not 0 < spec.blocks <= len(names):
            raise ValueError(
                f"{spec.backbone!r} has {len(names)} blocks, and {spec.blocks} cannot be kept"
            )
        kept = set(names[: spec.blocks])
        self.spec = spec
        self.pretrained_cfg = body.pretrained_cfg
        self.conv_stem, self.bn1 = body.conv_stem, body.bn1
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                module for block, module in blocks.named_children() if (stage, block) in kept
            )
            for stage, blocks in body.blocks.named_children()
            if (stage, "0") in kept
        )
        # In eval mode: batch statistics of one pixel are refused.
        self.eval()
        with torch.no_grad():
            width = self._features(torch.zeros(1, 3, 2 * MIN_SIDE, 2 * MIN_SIDE)).shape[1]
        self.train()
        self.classifier = nn.Linear(width, spec.outputs)
        # All outputs equally likely at first.
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the outputs (B, N) of (B, 3, h, w) normalized images."""
        features = self._features(images.contiguous(memory_format=torch.channels_last))
        outputs: torch.Tensor = self.classifier(features.mean(dim=(-2, -1)))
        return outputs

    frozen: Sequence[nn.Module] = ()

    def freeze_stages(self, count: int) -> None:
        """Keep the first stages as they are, batch statistics included.

        Args:
            count: how many; the stem is frozen with the first one. 0 freezes nothing.

        Raises:
            ValueError: if there are no so many.
        """
        if not 0 <= count <= len(self.blocks):
            raise ValueError(f"FREEZE_STAGES is {count}, and {len(self.blocks)} stages are kept")
        self.frozen = [self.conv_stem, self.bn1, *self.blocks[:count]] if count else []
        for module in self.frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "CutBackbone":
        """Set the mode as nn.Module does; frozen stages stay in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def load_pretrained(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """Take over the blocks of a pretrained backbone, all but its classifier.

        Args:
            state: dict from timm's names to tensors.
            source: where it came from, for messages.

        Raises:
            InputError: if they are another backbone's.
        """
        own = {n: v for n, v in self.state_dict().items() if not n.startswith("classifier.")}
        wrong = [n for n, v in own.items() if n not in state or state[n].shape != v.shape]
        if wrong:
            raise InputError(
                f"{source} holds weights of another backbone than {self.spec.backbone!r} (see "
                f"{wrong[0]}); give those that belong to it"
            )
        self.load_state_dict({name: state[name] for name in own}, strict=False)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.bn1(self.conv_stem(images))
        for stage in self.blocks:
            for block in stage:  # type: ignore[attr-defined]
                features = block(features)
        return features


class SquareNetwork(nn.Module):
    """Bring square images of values 0..255 to a network's size and statistics, and run it.

    Attributes:
        network, input_size, image_format: as given.

    Args:
        network: module or callable from (B, 3, s, s) float images, normalized, to (B, N).
        input_size: side s in pixels.
        image_format: "RGB" or "BGR", the channel order of the images that are given; the network
            sees RGB.
        mean, std: of the values 0..1 that the network was trained on, RGB.

    Raises:
        ValueError: for an input size or a channel order that is of no use.
    """

    def __init__(
        self,
        network: Any,
        *,
        input_size: int,
        image_format: str = "RGB",
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__()
        if input_size < MIN_SIDE:
            raise ValueError(f"the input size is {input_size}; give at least {MIN_SIDE} pixels")
        self.network = network
        self.input_size = int(input_size)
        self.image_format = check_image_format(image_format)
        for name, values in (("mean", mean), ("std", std)):
            value = 255 * torch.tensor(tuple(values), dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the outputs (B, N), float32, of (B, 3, S, S) images, values 0..255 of any type."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(
                f"square images (B, 3, S, S) are needed, got the shape {tuple(images.shape)}"
            )
        images = images.to(self.mean.device).float()
        if images.shape[-1] != self.input_size:
            size = (self.input_size, self.input_size)
            images = F.interpolate(
                images, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        if self.image_format == "BGR":
            images = images.flip(1)
        outputs: torch.Tensor = self.network((images - self.mean) / self.std)
        return outputs.float()


class SquareScorer(nn.Module):
    """Score the poses of square images by a :class:`SquareNetwork` with an output for each.

    Attributes:
        needs_turned_views: that it is trained on turned views: nothing in it is equivariant.

    Args:
        network: with as many outputs as the group has elements.
        group: of the poses, finite.
        passes: quarter turns of an image that the network looks at. 0: all that the group has;
            their log-probabilities, each turned back, are averaged. 1: the image as it is.

    Raises:
        ValueError: for another number of passes.
    """

    needs_turned_views = True

    def __init__(self, network: SquareNetwork, *, group: PlanarGroup, passes: int = 1) -> None:
        super().__init__()
        if passes not in (0, 1):
            raise ValueError(f"PASSES is {passes}; give 1, or 0 for all turns of the image")
        self.network = network
        self.group = group
        self.passes = passes
        self.turns = [t for t in elements_of(group) if t.exact] if passes == 0 else [Turn()]
        self.image_format = network.image_format

    def forward(self, images: "Sequence[torch.Tensor] | torch.Tensor") -> GridDistribution:
        """Return the distribution over the poses of each image, differentiable.

        Args:
            images: (3, S, S) tensors of one size, uint8 or float, values 0..255.
        """
        batch = images if isinstance(images, torch.Tensor) else torch.stack(list(images))
        if self.passes == 1 or self.training:
            return GridDistribution(self.group, self.network(batch))
        rows = []
        for turn in self.turns:
            row = self.network(turn_maps(batch, turn)).log_softmax(dim=1)
            # What the network says of turned images, turned back.
            rows.append(row[:, permutation(self.group, turn)])
        return GridDistribution(self.group, torch.stack(rows).mean(dim=0))

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the network to a weights file, see :func:`save_square`."""
        save_square(path, self.network, {"group": self.group.name})


def build_body(spec: SquareSpec, key: str) -> Any:
    """Build the network of a spec with random weights.

    Args:
        spec: see :class:`SquareSpec`.
        key: config node that it came from, for messages.

    Returns:
        module from normalized images to outputs: a :class:`CutBackbone`, or timm's model.

    Raises:
        InputError: naming the node, if timm has no such model or it cannot be cut there.
    """
    try:
        if spec.blocks:
            return CutBackbone(spec)
        body = _timm_model(spec.backbone, num_classes=spec.outputs)
    except ValueError as error:
        raise InputError(f"{key}: {error}") from error
    body.spec = spec
    return body


def statistics_of(body: Any) -> dict[str, Any]:
    """Return mean and standard deviation that timm says of a model; nothing for ImageNet's."""
    known = getattr(body, "pretrained_cfg", None) or {}
    return {name: known[name] for name in ("mean", "std") if name in known}


def freeze_stages(network: SquareNetwork, count: int, key: str) -> None:
    """Freeze the first stages of a network that is to be trained.

    Args:
        network: with a body of :func:`build_body`.
        count: see :meth:`CutBackbone.freeze_stages`.
        key: config node that it came from, for messages.

    Raises:
        InputError: naming the key, if the network has no such stages.
    """
    if not count:
        return
    if not isinstance(network.network, CutBackbone):
        raise InputError(f"{key}.FREEZE_STAGES is {count}, and a whole model has none; set 0")
    try:
        network.network.freeze_stages(count)
    except ValueError as error:
        raise InputError(f"{key}.{error}") from error


def save_square(
    path: "str | os.PathLike[str]", network: SquareNetwork, about: Mapping[str, Any]
) -> None:
    """Write a network of :func:`build_body` to a weights file, in half precision.

    Args:
        path: the file; replaced at once when it is complete.
        network: in any mode.
        about: what the outputs are: {"group": NAME} or {"classes": [NAME, ...]}.

    Raises:
        InputError: naming the file, if it cannot be written.
    """
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    state = {
        name: (value if name.endswith(statistics) else value.half()).cpu()
        for name, value in network.network.state_dict().items()
    }
    save_torch(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "spec": asdict(network.network.spec),
            "input_size": network.input_size,
            **{name: (getattr(network, name).flatten() / 255).tolist() for name in ("mean", "std")},
            "about": dict(about),
            "state": state,
        },
    )


def load_square(
    path: "str | os.PathLike[str]", key: str, image_format: str = "RGB", input_size: int = 0
) -> tuple[SquareNetwork, dict[str, Any]]:
    """Build a network from a weights file.

    Args:
        path: file written by :func:`save_square`.
        key: config key that it came from, for messages.
        image_format: channel order of the images that will be given.
        input_size: side in pixels; 0 for the file's.

    Returns:
        (network, about): in eval mode, on the CPU, float32; what the outputs are.

    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind.
    """
    contents = load_torch_file(path, key)
    if not is_square(contents):
        raise InputError(
            f"{path} ({key}) is no weights file of a network for square images; give one that "
            "tools/train_net.py wrote with configs/cifar10_c8.yaml or its like"
        )
    try:
        if contents["version"] != VERSION:
            raise ValueError(f"version {contents['version']}")
        spec = SquareSpec(
            str(contents["spec"]["backbone"]),
            int(contents["spec"]["blocks"]),
            int(contents["spec"]["outputs"]),
        )
        about, state = dict(contents["about"]), dict(contents["state"])
        mean, std = ([float(value) for value in contents[name]] for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
            raise ValueError(f"mean {mean}, std {std}")
        side = int(input_size or contents["input_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} ({key}) is damaged, or of another version of its format ({error!r}); get the "
            "file again, or train again"
        ) from error
    body = build_body(spec, f"{path} ({key})")
    load_state(body, state, path, key)
    try:
        network = SquareNetwork(
            body, input_size=side, image_format=image_format, mean=mean, std=std
        )
    except ValueError as error:
        raise InputError(f"{path} ({key}): {error}") from error
    return network.eval(), about


def is_square(contents: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether the contents of a weights file are those of :func:`save_square`."""
    return isinstance(contents, dict) and contents.get("format") == FORMAT


def upright_logits(logits: torch.Tensor, group: PlanarGroup, turns: Sequence[Turn]) -> torch.Tensor:
    """Return what scores of turned images say of the same images before they were turned.

    Args:
        logits: (B, N) scores of the turned images.
        group: of N elements.
        turns: by which each of the B images was turned, elements of the group.

    Returns:
        (B, N) scores.
    """
    # As GridDistribution.act, with a turn for each row.
    places = {turn: permutation(group, turn) for turn in dict.fromkeys(turns)}
    rows = torch.tensor([places[turn] for turn in turns])
    return logits.gather(1, rows.to(logits.device, non_blocking=True))


def _timm_model(name: str, **options: Any) -> Any:
    import timm

    if not timm.is_model(name):
        raise ValueError(
            f"{name!r} is no model that timm {timm.__version__} knows; timm.list_models() lists "
            "the names"
        )
    return timm.create_model(name, pretrained=False, **options)
