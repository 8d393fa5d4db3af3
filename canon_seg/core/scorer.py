"""Define scorers, which say how likely each pose of an image is, and the distributions they give.

A scorer need not be equivariant: the canonicalizer shows it one representative of an image's orbit,
which is the same for all of the orbit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from canon_seg.core.group import SO2, PlanarGroup, elements_of, permutation
from canon_seg.core.registry import Registry
from canon_seg.core.turn import Turn, distance


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


ARCS = 72
"""Arcs of the circle by which a distribution over all angles is described, unless a network has
others: the first is centred on 0 degrees."""

MODE_REACH = 2
"""Arcs on either side of the likeliest one over which a mode is averaged."""

NEAR = 10.0
"""Degrees: the probability of an angle is the mass of all angles this near."""

APART = 45.0
"""Degrees between two modes of a distribution over all angles, at least."""


class CircularDistribution:
    """Hold a distribution over all angles for each of B images, by the mass of equal arcs.

    >>> found = CircularDistribution(torch.eye(72)[:1] * 9)
    >>> found.act(Turn.by(100)).mode()[0].degrees
    100.0

    Attributes:
        group: SO2.
        logits: (B, N) tensor; entry k belongs to the arc around 360 k / N + ``offset`` degrees
            counterclockwise.
        offset: degrees.

    Args:
        logits, offset: see the attributes; N is a multiple of 8.

    Raises:
        ValueError: if the logits have another shape.
    """

    group: PlanarGroup = SO2

    def __init__(self, logits: torch.Tensor, offset: float = 0.0) -> None:
        if logits.ndim != 2 or logits.shape[1] % 8 or not logits.shape[1]:
            raise ValueError(
                "a distribution over all angles needs a multiple of 8 scores for each image, got "
                f"the shape {tuple(logits.shape)}"
            )
        self.logits = logits
        self.offset = offset

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int) -> "CircularDistribution":
        """Return the distribution of one image, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return CircularDistribution(self.logits[index][None], self.offset)

    @property
    def step(self) -> float:
        """Return the length of an arc in degrees."""
        return 360.0 / int(self.logits.shape[1])

    @property
    def probabilities(self) -> torch.Tensor:
        """Return the probability of each arc: (B, N) float64, differentiable."""
        return self.logits.double().softmax(dim=1)

    def mode(self) -> list[Turn]:
        """Return the likeliest angle of each image: the mean over the arcs around the likeliest."""
        return [self._refined(row, int(row.argmax())) for row in self.probabilities.detach().cpu()]

    def modes(self, count: int) -> list[list[Turn]]:
        """Return the likeliest angle of each image, then likeliest ones at least ``APART`` off.

        Args:
            count: how many for each image; there may be fewer.
        """
        found = []
        for row in self.probabilities.detach().cpu():
            modes: list[Turn] = []
            for arc in row.argsort(descending=True, stable=True).tolist():
                near_arc = Turn.by(arc * self.step + self.offset)
                # A shoulder of a mode that was taken is none of its own.
                if all(distance(near_arc, mode) >= APART for mode in modes):
                    turn = self._refined(row, arc)
                    if all(distance(turn, mode) >= APART for mode in modes):
                        modes.append(turn)
                if len(modes) == count:
                    break
            found.append(modes)
        return found

    def near(self, turn: "Turn | int", degrees: float = NEAR) -> torch.Tensor:
        """Return the mass of the angles within some degrees of one: (B,) float64, 0..1."""
        centre = self.group.element(turn).degrees - self.offset
        places = torch.arange(self.logits.shape[1], dtype=torch.float64) * self.step
        away = ((places - centre + 180) % 360 - 180).abs()
        # The share of each arc, as long as one step, that lies within.
        share = ((degrees - away) / self.step + 0.5).clamp(0, 1)
        return self.probabilities @ share.to(self.logits.device)

    def act(self, turn: "Turn | int") -> "CircularDistribution":
        """Return the distributions of the same images after they were turned."""
        turn = self.group.element(turn)
        logits = self.logits.roll(turn.quarters * self.logits.shape[1] // 4, dims=1)
        return CircularDistribution(logits, self.offset + turn.tilt)

    def _refined(self, row: torch.Tensor, arc: int) -> Turn:
        around = torch.arange(-MODE_REACH, MODE_REACH + 1)
        masses = row[(arc + around) % len(row)]
        shift = float((masses * around).sum() / masses.sum())
        return Turn.by((arc + shift) * self.step + self.offset)


Distribution = GridDistribution | CircularDistribution
"""What a scorer says of a batch of images."""


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

    def __call__(self, images: Sequence[torch.Tensor]) -> Distribution:
        """Return a distribution over the poses of each image.

        Args:
            images: (3, H, W) tensors, uint8 or float, values 0..255, of any sizes.
        """
        ...


SCORERS: "Registry[Callable[[Any], Scorer]]" = Registry("scorer")
"""Functions from a config to a scorer, by the name in ``MODEL.CANONICALIZER.SCORER.NAME``."""


def pointwise(group: PlanarGroup, turn: "Turn | int") -> tuple[float, ...]:
    """Return the probabilities of a distribution with all its mass on one element.

    Those of a continuous group are the masses of ``ARCS`` arcs, see :class:`CircularDistribution`.
    """
    chosen = group.element(turn)
    if group.elements is None:
        nearest = round(chosen.degrees * ARCS / 360) % ARCS
        return tuple(float(arc == nearest) for arc in range(ARCS))
    return tuple(float(element == chosen) for element in elements_of(group))


def pooling_weights(bins: int, order: int) -> torch.Tensor:
    """Return how much of each arc of a circle belongs to each rotation of C(``order``).

    Args:
        bins: arcs, the first centred on 0 degrees.
        order: rotations.

    Returns:
        (bins, order) float64 tensor with rows that sum to 1: arcs that lie on the border between
        two rotations belong to both in part.
    """
    edges = torch.arange(-0.5, bins, dtype=torch.float64) / bins
    ends = torch.arange(-0.5, order + 1, dtype=torch.float64) / order
    overlap = (
        torch.minimum(edges[1:, None], ends[None, 1:])
        - torch.maximum(edges[:-1, None], ends[None, :-1])
    ).clamp(min=0) * bins
    # Rotation ``order`` is rotation 0 once more.
    overlap[:, 0] += overlap[:, -1]
    return overlap[:, :-1]
