"""Build pose networks of timm's image models: a pretrained backbone with one output per pose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

from canon_seg.core.group import C4, O2, SO2, PlanarGroup, elements_of
from canon_seg.errors import InputError

KEY = "MODEL.CANONICALIZER.SCORER"
MIN_SIZE = 32  # pixels: the stride of most backbones


@dataclass(frozen=True)
class BackboneSpec:
    """Hold what it takes to build a :class:`PoseNetwork`.

    Attributes:
        backbone: name of a timm model.
        num_poses: outputs: one for each element of C4, or for each arc of the circle.
        mirrors: whether the second half of the outputs is of mirrored photographs.
    """

    backbone: str
    num_poses: int = len(elements_of(C4))
    mirrors: bool = False

    @property
    def circle(self) -> PlanarGroup:
        """Return the continuous group whose poses the outputs lie among."""
        return O2 if self.mirrors else SO2


class PoseNetwork(nn.Module):
    """Wrap a timm model, pooled globally, with a linear layer from its features to pose logits.

    Args:
        spec: :class:`BackboneSpec`.

    Raises:
        InputError: naming the config key, if timm does not know the backbone or it is of no use.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(spec.backbone):
            raise InputError(
                f"{KEY}.BACKBONE is {spec.backbone!r}, which timm {timm.__version__} does not "
                "know; timm.list_models() lists the names"
            )
        self.spec = spec
        self.body = timm.create_model(
            spec.backbone, pretrained=False, num_classes=spec.num_poses
        ).to(memory_format=torch.channels_last)
        # All poses equally likely at first: some models' own start is so sure of itself that it
        # would shake the pretrained weights.
        with torch.no_grad():
            for name, value in self.body.named_parameters():
                if name in self._classifier_entries():
                    value.mul_(0) if name.endswith("bias") else value.normal_(std=0.01)
        # What the backbone's pretrained weights were made for, of values 0..1.
        self.mean, self.std = (self.body.pretrained_cfg[name] for name in ("mean", "std"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score the poses of images.

        Args:
            images: (B, 3, h, w) float, see :meth:`normalize`.

        Returns:
            (B, N) logits.
        """
        inputs = images.contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.body(inputs)
        return logits

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Scale RGB images to what the backbone takes.

        Args:
            images: (B, 3, h, w), values 0..255.

        Returns:
            (B, 3, h, w) float32.
        """
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1) * 255
        return (images.float() - mean) / std

    def load_pretrained(self, state: Mapping[str, torch.Tensor], source: str) -> None:
        """Take over the weights of a pretrained backbone, all but its classifier.

        Args:
            state: dict from timm's names to tensors.
            source: where it came from, for messages.

        Raises:
            InputError: if they are another backbone's.
        """
        classifier = self._classifier_entries()
        own = {name: v for name, v in self.body.state_dict().items() if name not in classifier}
        wrong = [n for n, v in own.items() if n not in state or state[n].shape != v.shape]
        unknown = [n for n in state if n not in own and n not in classifier]
        if wrong or unknown:
            raise InputError(
                f"{source} ({KEY}.PRETRAINED) holds weights of another backbone than "
                f"{KEY}.BACKBONE {self.spec.backbone!r} (see {(wrong + unknown)[0]}); give those "
                "that belong to it"
            )
        self.body.load_state_dict({name: state[name] for name in own}, strict=False)

    def take_over(self, other: "PoseNetwork") -> None:
        """Start from a network trained for fewer poses of the same circle.

        The body is copied. Each output begins between those of the two nearest poses of the other
        network, so that both say the same at first. A network that knows of no mirrors is taken to
        say the same of a photograph and of its mirror image.

        Args:
            other: of the same backbone; its number of poses divides this one's. If it knows
                mirrors, this one does too.

        Raises:
            ValueError: if it is of another kind.
        """
        ours, theirs = (n.spec.num_poses // (1 + n.spec.mirrors) for n in (self, other))
        forgets_mirrors = other.spec.mirrors and not self.spec.mirrors
        if other.spec.backbone != self.spec.backbone or ours % theirs or forgets_mirrors:
            raise ValueError(
                f"a network of {self.spec.backbone!r} with {self.spec.num_poses} poses cannot "
                f"start from one of {other.spec.backbone!r} with {other.spec.num_poses}"
            )
        place = torch.arange(ours, dtype=torch.float64) * theirs / ours
        before = place.long()
        share = (place - before).float()
        state = dict(other.body.state_dict())
        for name in self._classifier_entries():
            sides = []
            for side in state[name].split(theirs):
                first, second = side[before], side[(before + 1) % theirs]
                weight = share.view(-1, *[1] * (first.ndim - 1))
                sides.append(first + weight * (second - first))
            if self.spec.mirrors and not other.spec.mirrors:
                sides *= 2
            state[name] = torch.cat(sides)
        self.body.load_state_dict(state)

    def _classifier_entries(self) -> set[str]:
        names = self.body.pretrained_cfg["classifier"]
        names = (names,) if isinstance(names, str) else names
        return {f"{name}.{entry}" for name in names for entry in ("weight", "bias")}

    def freeze_stages(self, count: int) -> None:
        """Keep the first stages as they were pretrained, batch statistics included.

        They see the finest maps, so that most of the time of training goes into them, and know
        what they need to know: edges and textures.

        Args:
            count: how many stages; the stem is frozen with the first one. 0 freezes nothing.

        Raises:
            InputError: if the backbone has no such stages.
        """
        self.frozen = []
        if count:
            stages = getattr(self.body, "blocks", None)
            if not hasattr(self.body, "conv_stem") or stages is None or len(stages) < count:
                raise InputError(
                    f"{KEY}.FREEZE_STAGES is {count}, but {self.spec.backbone!r} has no such "
                    "stages; set 0"
                )
            self.frozen = [self.body.conv_stem, self.body.bn1, *stages[:count]]
            for module in self.frozen:
                module.requires_grad_(False)
        self.train(self.training)

    frozen: Sequence[nn.Module] = ()

    def train(self, mode: bool = True) -> "PoseNetwork":
        """Set the mode as nn.Module does; frozen stages stay in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{KEY}.BACKBONE needs the package timm; install it: pip install timm"
        ) from error
    module: ModuleType = timm
    return module
