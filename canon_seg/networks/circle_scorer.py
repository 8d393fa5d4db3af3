"""Score angles by a backbone whose outputs are arcs of the circle."""

import os
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from canon_seg.core.group import SO2, PlanarGroup, elements_of
from canon_seg.core.scorer import CircularDistribution, GridDistribution, pooling_weights
from canon_seg.core.turn import inverse
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.preparation import brighten, trim_borders
from canon_seg.images.shapes import to_area
from canon_seg.networks.backbone import KEY, MIN_SIZE, PoseNetwork
from canon_seg.networks.backbone_weights import save_pose_network


class CircleScorer(nn.Module):
    """Score the angles of images by a :class:`PoseNetwork` with an output for each arc.

    Attributes:
        needs_turned_views: that it is trained on turned views.

    Args:
        network: with N outputs, a multiple of 8; output k is about 360 k / N degrees. With mirrors
            2 N, those of mirrored photographs last.
        group: SO2 or C(n), of which the arcs around each angle are pooled; with mirrors O2 or D(n).
        input_size: root of the pixels that the network looks at.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: 0 for all quarter turns of an image (and mirrors, where the group has them), or 1,
            see :class:`~canon_seg.networks.backbone_scorer.BackboneScorer`.
        temperatures: by the name of the group, then by the number of passes, each above 0; 1 where
            there is none.

    Raises:
        InputError: naming the config key, if a value is of no use.
        ValueError: if the network knows mirrors and the group has none, or the other way round.
    """

    needs_turned_views = True

    def __init__(
        self,
        network: PoseNetwork,
        *,
        group: PlanarGroup = SO2,
        input_size: int,
        image_format: str,
        passes: int = 0,
        temperatures: "Mapping[str, Mapping[int, float]] | None" = None,
    ) -> None:
        super().__init__()
        if passes not in (0, 1):
            raise InputError(f"{KEY}.PASSES is {passes}; give 1, or 0 for all turns of the image")
        if input_size < MIN_SIZE:
            raise InputError(
                f"MODEL.CANONICALIZER.INPUT_SIZE is {input_size}; give at least {MIN_SIZE}"
            )
        for by_passes in (temperatures or {}).values():
            for temperature in by_passes.values():
                if not 0 < temperature < float("inf"):
                    raise InputError(f"{KEY}: the temperature is {temperature}; it is above 0")
        if group.mirrors != network.spec.mirrors:
            raise ValueError(
                f"the network is for {network.spec.circle.name}, which does not serve {group.name}"
            )
        self.network = network
        self.group = group
        self.input_size = input_size
        self.image_format = image_format
        self.passes = passes
        self.temperatures = {name: dict(by) for name, by in (temperatures or {}).items()}

    @property
    def temperature(self) -> float:
        """Return what the logits are divided by."""
        return self.temperatures.get(self.group.name, {}).get(self.passes, 1.0)

    def forward(self, images: Sequence[torch.Tensor]) -> "CircularDistribution | GridDistribution":
        """Return the distribution over the poses of each image.

        Args:
            images: (3, H, W) tensors, uint8 or float, values 0..255, any sizes. They are shrunk on
                their own device and then go to the network's. In training mode they are taken for
                views of :class:`~canon_seg.networks.angle_views.AngleStream`: of one shape, that go
                to the network as they are.
        """
        if self.training:
            arcs = self.arcs_of_inputs(torch.stack(list(images)))
        else:
            arcs = torch.cat([self.arcs_of_inputs(self.prepare(image)[None]) for image in images])
        if self.group.order is None:
            return CircularDistribution(arcs / self.temperature, group=self.group)
        return GridDistribution(self.group, pool(arcs, self.group) / self.temperature)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the network to a weights file, see :mod:`canon_seg.networks.backbone_weights`.

        Raises:
            InputError: naming the file, if it cannot be written.
        """
        save_pose_network(path, self.network, self.input_size, self.temperatures)

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Make the network's input of an image, but for the normalisation."""
        return to_area(trim_borders(image), self.input_size)

    def arcs_of_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Score the arcs of inputs from :meth:`prepare`, or of training views like them.

        Args:
            inputs: (B, 3, h, w) tensor, values 0..255.

        Returns:
            (B, N) logits, or (B, 2 N) with mirrors.
        """
        inputs = inputs.to(next(self.network.parameters()).device)
        inputs = brighten(inputs.float())
        if self.image_format == "BGR":
            inputs = inputs.flip(1)
        inputs = self.network.normalize(inputs)
        if self.passes == 1 or self.training:
            logits: torch.Tensor = self.network(inputs).float()
            return logits
        circle, rows = self.network.spec.circle, []
        for turn in elements_of(circle.exact):
            row = self.network(turn_maps(inputs, turn)).float().log_softmax(dim=1)
            rows.append(CircularDistribution(row, group=circle).act(inverse(turn)).logits)
        return torch.stack(rows).mean(dim=0)


def pool(arcs: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Return the log-probabilities of a finite group's elements from the logits of arcs.

    Args:
        arcs: (B, N) logits for C(n), (B, 2 N) for D(n).
        group: C(n) or D(n).

    Returns:
        (B, n) tensor, or (B, 2 n), in the order of the group's elements.
    """
    sides = 2 if group.mirrors else 1
    weights = pooling_weights(arcs.shape[1] // sides, group.order or 1).to(arcs.device)
    masses: torch.Tensor = torch.unflatten(arcs.double().softmax(dim=1), 1, (sides, -1)) @ weights
    return masses.flatten(1).log().float()
