"""Score poses by a backbone that looks at an image once, or at all of its turns.

Nothing in such a network is equivariant. The canonicalizer is nonetheless: the network is shown the
representative of an image's orbit, which is the same whichever way the image was turned.
"""

import os
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from canon_seg.core.group import C4, elements_of
from canon_seg.core.scorer import GridDistribution
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.preparation import brighten, to_square, trim_borders
from canon_seg.networks.backbone import KEY, MIN_SIZE, PoseNetwork
from canon_seg.networks.backbone_weights import load_pose_network, save_pose_network


class BackboneScorer(nn.Module):
    """Score the poses of images with a :class:`PoseNetwork`.

    Attributes:
        needs_turned_views: that it is trained on turned views; upright ones alone would teach it to
            say the same of every image.

    Args:
        network: :class:`PoseNetwork`.
        input_size: side in pixels of the square that the network looks at.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: how many turns of an image the network looks at. 0: all of them; their
            log-probabilities, each turned back, are averaged (group averaging). 1: the image as it
            is, as in training.
        temperatures: what the logits are divided by, by the number of passes, each above 0; 1,
            where there is none, leaves them as they are.

    Raises:
        InputError: naming the config key, if the network does not fit the group or a value is of no
            use.
    """

    needs_turned_views = True
    group = C4
    elements = elements_of(C4)

    def __init__(
        self,
        network: PoseNetwork,
        *,
        input_size: int,
        image_format: str,
        passes: int = 0,
        temperatures: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        if network.spec.num_poses != len(self.elements):
            raise InputError(
                f"{KEY}: the network has {network.spec.num_poses} outputs, the group "
                f"{len(self.elements)} elements; give weights that were trained for this group"
            )
        if passes not in (0, 1):
            raise InputError(f"{KEY}.PASSES is {passes}; give 1, or 0 for all turns of the image")
        if input_size < MIN_SIZE:
            raise InputError(
                f"MODEL.CANONICALIZER.INPUT_SIZE is {input_size}; give at least {MIN_SIZE}"
            )
        for temperature in (temperatures or {}).values():
            if not 0 < temperature < float("inf"):
                raise InputError(f"{KEY}: the temperature is {temperature}; it has to be above 0")
        self.network = network
        self.input_size = input_size
        self.image_format = image_format
        self.passes = passes
        self.temperatures = dict(temperatures or {})

    @property
    def temperature(self) -> float:
        """Return what the logits are divided by."""
        return self.temperatures.get(self.passes, 1.0)

    def forward(self, images: Sequence[torch.Tensor]) -> GridDistribution:
        """Return the distribution over the poses of each image, see :meth:`logits`."""
        return GridDistribution(self.group, self.logits(images))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a weights file, see :mod:`canon_seg.networks.backbone_weights`.

        Raises:
            InputError: naming the file, if it cannot be written.
        """
        save_pose_network(path, self.network, self.input_size, self.temperatures)

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
        return self.logits_of_bright_inputs(brighten(inputs.float()))

    def logits_of_bright_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Score the poses of squares that :func:`canon_seg.images.preparation.brighten` gave.

        Args:
            inputs: (B, 3, side, side) float32 tensor, values 0..255, on the network's device.

        Returns:
            (B, 4) logits.
        """
        if self.image_format == "BGR":
            inputs = inputs.flip(1)
        inputs = self.network.normalize(inputs)
        if self.passes == 1 or self.training:
            logits: torch.Tensor = self.network(inputs).float()
            return logits / self.temperature
        turned = torch.cat([turn_maps(inputs, turn) for turn in self.elements])
        logits = self.network(turned).float().view(len(self.elements), len(inputs), -1)
        return average_over_turns(logits.log_softmax(dim=2)) / self.temperature


def average_over_turns(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Average the log-probabilities of all turns of an image, each turned back first.

    Args:
        log_probabilities: (4, B, 4) tensor; entry (k, b, p) is about pose p of image b turned by k.

    Returns:
        (B, 4) tensor. Turning an image permutes its row.
    """
    return torch.stack(
        [row.roll(-turns, dims=1) for turns, row in enumerate(log_probabilities)]
    ).mean(dim=0)


def load_backbone_scorer(
    path: str | os.PathLike[str], *, image_format: str, passes: int = 0, backbone: str = ""
) -> BackboneScorer:
    """Build a :class:`BackboneScorer` from a weights file.

    Args:
        path: see :func:`load_pose_network`.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: how many turns of an image it looks at, 0 for all or 1; takes its temperature.
        backbone: see :func:`load_pose_network`.

    Returns:
        the scorer in eval mode, on the CPU.

    Raises:
        InputError: as :func:`load_pose_network` and :class:`BackboneScorer`.
    """
    network, input_size, temperatures = load_pose_network(path, backbone)
    return BackboneScorer(
        network,
        input_size=input_size,
        image_format=image_format,
        passes=passes,
        temperatures=temperatures,
    ).eval()
