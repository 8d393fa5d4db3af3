"""Any network as judge of the pose: timm's image models with one output per pose.

Nothing in such a network is equivariant. The canonicalizer is nonetheless: the network is shown the
representative of an image's orbit, which is the same whichever way the image was turned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from canon_seg.core.group import C4
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer, UncertainPoses
from canon_seg.images.preparation import brighten, to_square, trim_borders

KEY = "MODEL.CANONICALIZER.SCORER"
MIN_SIZE = 32  # pixels: the stride of most backbones


@dataclass(frozen=True)
class BackboneSpec:
    """What it takes to build a :class:`PoseNetwork`.

    Attributes:
        backbone: name of a timm model.
        num_poses: elements of the group, one output each.
    """

    backbone: str
    num_poses: int = C4.order


class PoseNetwork(nn.Module):
    """A timm model, pooled globally, with a linear layer from its features to pose logits.

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
        return self.body(images.contiguous(memory_format=torch.channels_last))

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

    def _classifier_entries(self):
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


def _import_timm():
    try:
        import timm  # noqa: PLC0415 - only such networks need it
    except ImportError as error:
        raise InputError(
            f"{KEY}.BACKBONE needs the package timm; install it: pip install timm"
        ) from error
    return timm


class BackboneScorer(nn.Module):
    """Scores the poses of images with a :class:`PoseNetwork`.

    Args:
        network: :class:`PoseNetwork`.
        input_size: side in pixels of the square that the network looks at.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: how many turns of an image the network looks at. 1: the image as it is. 0: all of
            them; their log-probabilities, each turned back, are averaged (group averaging).
        temperature: what the logits are divided by, above 0; 1 leaves them as they are.

    Raises:
        InputError: naming the config key, if the network does not fit the group or a value is of no
            use.
    """

    group = C4

    def __init__(
        self,
        network: PoseNetwork,
        *,
        input_size: int,
        image_format: str,
        passes: int = 1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if network.spec.num_poses != self.group.order:
            raise InputError(
                f"{KEY}: the network has {network.spec.num_poses} outputs, the group "
                f"{self.group.order} elements; give weights that were trained for this group"
            )
        if passes not in (0, 1):
            raise InputError(f"{KEY}.PASSES is {passes}; give 1, or 0 for all turns of the image")
        if input_size < MIN_SIZE:
            raise InputError(
                f"MODEL.CANONICALIZER.INPUT_SIZE is {input_size}; give at least {MIN_SIZE}"
            )
        if not 0 < temperature < float("inf"):
            raise InputError(f"{KEY}: the temperature is {temperature}; it has to be above 0")
        self.network = network
        self.input_size = input_size
        self.image_format = image_format
        self.passes = passes
        self.temperature = temperature

    def logits(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Score the poses of images as they are; differentiable with respect to the network.

        Args:
            images: sequence of (3, H, W) tensors, uint8 or float, values 0..255, any sizes. They
                are shrunk on their own device and then go to the network's. In training mode they
                are taken for views of :class:`~canon_seg.networks.pose_views.PoseStream`: squares
                of one size that go to the network as they are.

        Returns:
            (len(images), 4) tensor whose log-softmax are the log-probabilities.
        """
        prepared = images if self.training else [self.prepare(image) for image in images]
        inputs = torch.stack(list(prepared))
        return self.logits_of_inputs(inputs.to(next(self.network.parameters()).device))

    forward = logits

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Make the network's input of an image, but for the normalisation.

        Args:
            image: (3, H, W) tensor, uint8 or float, values 0..255.

        Returns:
            (3, input_size, input_size) float32 tensor, values 0..255.
        """
        return to_square(trim_borders(image), self.input_size)

    def logits_of_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Score the poses of squares from :meth:`prepare`, or of training views like them.

        Args:
            inputs: (B, 3, side, side) tensor, values 0..255, on the network's device.

        Returns:
            (B, 4) logits.
        """
        inputs = brighten(inputs.float())
        if self.image_format == "BGR":
            inputs = inputs.flip(1)
        inputs = self.network.normalize(inputs)
        if self.passes == 1:
            return self.network(inputs).float() / self.temperature
        turned = torch.cat([turn_maps(inputs, turns) for turns in self.group.elements])
        logits = self.network(turned).float().view(self.group.order, len(inputs), -1)
        return average_over_turns(logits.log_softmax(dim=2)) / self.temperature


def average_over_turns(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Average what is said of the turns of an image, as said of the image.

    Args:
        log_probabilities: (4, B, 4) tensor; entry (k, b, p) is about pose p of image b turned by k.

    Returns:
        (B, 4) tensor. Turning an image permutes its row.
    """
    return torch.stack(
        [row.roll(-turns, dims=1) for turns, row in enumerate(log_probabilities)]
    ).mean(dim=0)


class BackboneCanonicalizer(GroupCanonicalizer):
    """Predicts the pose with a :class:`BackboneScorer`, exactly equivariantly.

    Args:
        scorer: :class:`BackboneScorer`.
        uncertain: see :class:`~canon_seg.images.canonicalizer.GroupCanonicalizer`.
    """

    def __init__(self, scorer: BackboneScorer, uncertain: UncertainPoses | None = None) -> None:
        super().__init__(
            scorer.network,
            input_size=scorer.input_size,
            image_format=scorer.image_format,
            uncertain=uncertain or UncertainPoses(),
        )
        self.scorer = scorer

    def logits(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Score poses, see :meth:`BackboneScorer.logits`."""
        return self.scorer.logits(images)
