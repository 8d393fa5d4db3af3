"""Define scorers, which say how likely each pose of an image is, and the distributions they give.

A scorer need not be equivariant: the canonicalizer shows it one representative of an image's orbit,
which is the same for all of the orbit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from canon_seg.core.group import PlanarGroup, elements_of, permutation
from canon_seg.core.registry import Registry
from canon_seg.core.turn import Turn


class GridDistribution:
    """Hold a distribution over the elements of a finite group for each of B images.

    >>> from canon_seg.core.group import C4
    >>> found = GridDistribution(C4, torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    >>> found.mode()
    [Turn(quarters=1, tilt=0.0, mirrored=False)]
    >>> found.act(Turn(1)).mode()
    [Turn(quarters=2, tilt=0.0, mirrored=False)]

    Attributes:
        group: the group, with N elements.
        logits: (B, N) tensor; entry k belongs to ``group.elements[k]``.

    Raises:
        ValueError: if the logits have another shape.
    """

    def __init__(self, group: PlanarGroup, logits: torch.Tensor) -> None:
        if group.elements is None:
            raise ValueError(f"{group.name} is continuous: a grid is for a finite group")
        if logits.ndim != 2 or logits.shape[1] != len(group.elements):
            raise ValueError(
                f"a distribution over {group.name} needs {len(group.elements)} scores for each "
                f"image, got the shape {tuple(logits.shape)}"
            )
        self.group = group
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int) -> "GridDistribution":
        """Return the distribution of one image, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return GridDistribution(self.group, self.logits[index][None])

    @property
    def probabilities(self) -> torch.Tensor:
        """Return the probability of each element: (B, N) float64, differentiable."""
        return self.logits.double().softmax(dim=1)

    def mode(self) -> list[Turn]:
        """Return the likeliest element of each image; of equal ones the first."""
        elements = elements_of(self.group)
        return [elements[index] for index in self.logits.argmax(dim=1).tolist()]

    def log_prob(self, turn: "Turn | int") -> torch.Tensor:
        """Return the log-probability of one element for each image: (B,), differentiable."""
        return self.logits.log_softmax(dim=1)[:, self.group.index(turn)]

    def act(self, turn: "Turn | int") -> "GridDistribution":
        """Return the distributions of the same images after they were turned by an element."""
        back = self.group.inverse(turn)
        return GridDistribution(self.group, self.logits[:, permutation(self.group, back)])


@runtime_checkable
class Scorer(Protocol):
    """Describe what the canonicalizer asks of whatever scores poses.

    An ``nn.Module`` that learns, or any callable, such as an energy.

    Attributes:
        group: of the poses.
        image_format: "RGB" or "BGR", the channel order of the images that it takes.
    """

    group: PlanarGroup
    image_format: str

    def __call__(self, images: Sequence[torch.Tensor]) -> GridDistribution:
        """Return a distribution over the poses of each image.

        Args:
            images: (3, H, W) tensors, uint8 or float, values 0..255, of any sizes.
        """
        ...


SCORERS: "Registry[Callable[[Any], Scorer]]" = Registry("scorer")
"""Functions from a config to a scorer, by the name in ``MODEL.CANONICALIZER.SCORER.NAME``."""


def pointwise(group: PlanarGroup, turn: "Turn | int") -> tuple[float, ...]:
    """Return the probabilities of a distribution with all its mass on one element."""
    chosen = group.element(turn)
    return tuple(float(element == chosen) for element in elements_of(group))
