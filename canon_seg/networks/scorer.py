"""Score poses by an equivariant network on a small copy of the image."""

import os
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from canon_seg.core.canonicalizer import check_image_format
from canon_seg.core.group import PlanarGroup
from canon_seg.core.scorer import GridDistribution, VonMisesDistribution
from canon_seg.images.resize import STRIDE, normalize, resize_for_network
from canon_seg.networks.equivariant import PoseNetwork
from canon_seg.networks.weights import save_canonicalizer


class NetworkScorer(nn.Module):
    """Score poses by a network that sees a small copy of the image.

    Attributes:
        network, input_size, image_format: as given.
        group: of the poses.

    Args:
        network: module from (B, 3, h, w) float to logits (B, N), or to vectors (B, 2) for SO2, such
            as those of :mod:`canon_seg.networks.equivariant`.
        input_size: shorter side in pixels at which the network sees an image, 32 k + 1.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        group: of the poses, with N elements; None for that of the network's ``spec``.

    Raises:
        ValueError: for another input size or channel order.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        input_size: int,
        image_format: str = "RGB",
        group: "PlanarGroup | None" = None,
    ) -> None:
        super().__init__()
        if input_size % STRIDE != 1 or input_size <= STRIDE:
            raise ValueError(
                f"the input size is {input_size}; it must be of the form {STRIDE} k + 1 "
                "(65, 97, 129, ...)"
            )
        self.network = network
        self.input_size = input_size
        self.image_format = check_image_format(image_format)
        self.group = cast(PoseNetwork, network).spec.group if group is None else group

    def forward(self, images: Sequence[torch.Tensor]) -> "GridDistribution | VonMisesDistribution":
        """Return the distribution over the poses of each image, differentiable.

        Args:
            images: (3, H, W) tensors, uint8 or float, values 0..255, any sizes. They are shrunk on
                their own device and then go to the network's.
        """
        small = [resize_for_network(image, self.input_size) for image in images]
        logits: list[torch.Tensor] = [torch.empty(0)] * len(small)
        left = list(range(len(small)))
        while left:  # not a dict by shape: torch 2.3 cannot export that
            shape = small[left[0]].shape
            indices = [index for index in left if small[index].shape == shape]
            left = [index for index in left if small[index].shape != shape]
            batch = self._run_network(torch.stack([small[index] for index in indices]))
            for index, image_logits in zip(indices, batch, strict=True):
                logits[index] = image_logits
        if self.group.elements is None:
            return VonMisesDistribution(torch.stack(logits))
        return GridDistribution(self.group, torch.stack(logits))

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the trained network to a weights file, see :mod:`canon_seg.networks.weights`.

        Raises:
            InputError: naming the file, if it cannot be written.
        """
        save_canonicalizer(path, cast(PoseNetwork, self.network), self.input_size)

    def _run_network(self, small: torch.Tensor) -> torch.Tensor:
        for parameter in self.network.parameters():  # the first, if there is one
            small = small.to(parameter.device)
            break
        if self.image_format == "BGR":
            small = small.flip(1)
        logits: torch.Tensor = self.network(normalize(small))
        return logits.float()
