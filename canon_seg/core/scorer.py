"""Define scorers, which say how likely each pose of an image is, and the distributions they give.

A scorer need not be equivariant: the canonicalizer shows it one representative of an image's orbit,
which is the same for all of the orbit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
"""Arcs on either side of one that count as its own in the search for a mode."""

TIES = 1e-6
"""Weight of an arc's own mass in the search for a mode, which decides between equal ones."""

NEAR = 10.0
"""Degrees: the probability of an angle is the mass of all angles this near."""

APART = 45.0
"""Degrees between two modes of a distribution over all angles, at least."""

MIRROR_ODDS = 2.0
"""Odds of a pose against the same angle in the mirror from which on something tells them apart."""


class CircularDistribution:
    """Hold a distribution over all angles for each of B images, by the mass of equal arcs.

    >>> found = CircularDistribution(torch.eye(72)[:1] * 9)
    >>> found.act(Turn.by(100)).mode()[0].degrees
    100.0

    Attributes:
        group: SO2, or O2 for angles with and without a mirror.
        logits: (B, N) tensor; entry k belongs to the arc around 360 k / N + ``offset`` degrees
            counterclockwise. With mirrors (B, 2 N): N arcs without, then N arcs with the mirror.
        offset: degrees.

    Args:
        logits, offset, group: see the attributes; N is a multiple of 8.

    Raises:
        ValueError: if the logits have another shape, or the group is a finite one.
    """

    def __init__(self, logits: torch.Tensor, offset: float = 0.0, group: PlanarGroup = SO2) -> None:
        if group.elements is not None:
            raise ValueError(f"{group.name} is finite: arcs are for all angles")
        if logits.ndim != 2 or logits.shape[1] % (8 * _sides(group)) or not logits.shape[1]:
            raise ValueError(
                f"a distribution over {group.name} needs a multiple of {8 * _sides(group)} scores "
                f"for each image, got the shape {tuple(logits.shape)}"
            )
        self.logits = logits
        self.offset = offset
        self.group = group

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int) -> "CircularDistribution":
        """Return the distribution of one image, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return CircularDistribution(self.logits[index][None], self.offset, self.group)

    @property
    def arcs(self) -> int:
        """Return N, the number of arcs of the circle."""
        return int(self.logits.shape[1]) // _sides(self.group)

    @property
    def step(self) -> float:
        """Return the length of an arc in degrees."""
        return 360.0 / self.arcs

    @property
    def probabilities(self) -> torch.Tensor:
        """Return the probability of each arc: (B, N) float64, differentiable."""
        return self.logits.double().softmax(dim=1)

    def mode(self) -> list[Turn]:
        """Return the likeliest pose of each image: the mean over the arcs that hold the most.

        These are an arc and ``MODE_REACH`` on either side of it: what is spread over some arcs can
        outweigh a single one that stands out.
        """
        rows = self.probabilities.detach().cpu()
        return [
            self._refined(row, int(near.argmax()))
            for row, near in zip(rows, self._near_arcs(rows), strict=True)
        ]

    def modes(self, count: int) -> list[list[Turn]]:
        """Return the likeliest pose of each image, then likeliest ones at least ``APART`` off.

        What lies on the other side of a mirror is far off.

        Args:
            count: how many for each image; there may be fewer.
        """
        found = []
        rows = self.probabilities.detach().cpu()
        for row, near in zip(rows, self._near_arcs(rows), strict=True):
            modes: list[Turn] = []
            for arc in near.argsort(descending=True, stable=True).tolist():
                near_arc = self._turn(arc)
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
        """Return the mass of the angles within some degrees of one: (B,) float64, 0..1.

        Only angles on the same side of the mirror count.
        """
        element = self.group.element(turn)
        places = torch.arange(self.arcs, dtype=torch.float64) * self.step
        away = ((places - (element.degrees - self.offset) + 180) % 360 - 180).abs()
        # The share of each arc, as long as one step, that lies within.
        share = ((degrees - away) / self.step + 0.5).clamp(0, 1)
        sides = torch.unflatten(self.probabilities, 1, (_sides(self.group), -1))
        mass: torch.Tensor = sides[:, int(element.mirrored)] @ share.to(self.logits.device)
        return mass

    def certainty(self, turn: "Turn | int") -> torch.Tensor:
        """Return the probability of one pose: (B,) float64, 0..1.

        It is the mass within ``NEAR`` degrees of its angle. Where nothing tells the photograph from
        its mirror image, which is when the odds of the two are below ``MIRROR_ODDS``, both sides
        of the mirror count.
        """
        element = self.group.element(turn)
        own = self.near(element)
        if not self.group.mirrors:
            return own
        other = self.near(replace(element, mirrored=not element.mirrored))
        return torch.where(other * MIRROR_ODDS > own, own + other, own)

    def act(self, turn: "Turn | int") -> "CircularDistribution":
        """Return the distributions of the same images after they were turned."""
        turn = self.group.element(turn)
        sides, offset = torch.unflatten(self.logits, 1, (_sides(self.group), -1)), self.offset
        if turn.mirrored:  # exchanges the sides, and the arcs run the other way round
            sides, offset = sides.flip(1, 2).roll(1, dims=2), -offset
        sides = sides.roll(turn.quarters * self.arcs // 4, dims=2)
        return CircularDistribution(sides.flatten(1), offset + turn.tilt, self.group)

    def _turn(self, arc: int, shift: float = 0.0) -> Turn:
        """Return the pose in the middle of an arc, moved on by a part of an arc."""
        side, place = divmod(arc, self.arcs)
        return Turn.by((place + shift) * self.step + self.offset, mirrored=bool(side))

    def _near_arcs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return how much mass is at most ``MODE_REACH`` arcs from each: shaped as the rows."""
        sides = near = torch.unflatten(rows, 1, (_sides(self.group), -1))
        for step in range(1, MODE_REACH + 1):
            # The two sides first, so that the sum is the same to the bit from the other side.
            near = near + (sides.roll(step, dims=2) + sides.roll(-step, dims=2))
        # Where one arc has nearly all there is, those beside it are near it as well.
        return (near + TIES * sides).flatten(1)

    def _refined(self, row: torch.Tensor, arc: int) -> Turn:
        around = torch.arange(-MODE_REACH, MODE_REACH + 1)
        side, place = divmod(arc, self.arcs)
        masses = row[side * self.arcs + (place + around) % self.arcs]
        total = float(masses.sum())  # 0 where the logits say so of all but one arc
        shift = float((masses * around).sum()) / total if total else 0.0
        return self._turn(arc, shift)


class VonMisesDistribution(CircularDistribution):
    """Hold a von Mises distribution of the angle for each of B images, by a vector in the plane.

    >>> found = VonMisesDistribution(torch.tensor([[0.0, 3.0]]))
    >>> found.mode()[0], found.concentration
    (Turn(quarters=1, tilt=0.0, mirrored=False), tensor([3.]))

    The density at an angle is proportional to the exponential of the vector's component in that
    direction: a vector of length 0 says that all angles are equally likely.

    Attributes:
        vectors: (B, 2) tensor of x, y with y up; the direction, counterclockwise from x, is the
            likeliest angle, and the length the concentration.

    Args:
        vectors: see the attribute.

    Raises:
        ValueError: if the vectors have another shape.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != 2:
            raise ValueError(f"a vector has two components, got the shape {tuple(vectors.shape)}")
        angles = torch.arange(ARCS, dtype=torch.float64) * (2 * math.pi / ARCS)
        directions = torch.stack([angles.cos(), angles.sin()])
        super().__init__(vectors @ directions.to(vectors))
        self.vectors = vectors

    def __getitem__(self, index: int) -> "VonMisesDistribution":
        """Return the distribution of one image, as a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return VonMisesDistribution(self.vectors[index][None])

    @property
    def concentration(self) -> torch.Tensor:
        """Return the concentration of each image: (B,), 0 where nothing is known."""
        length: torch.Tensor = torch.linalg.vector_norm(self.vectors, dim=1)
        return length

    def mode(self) -> list[Turn]:
        """Return the likeliest angle of each image: the direction of its vector."""
        rows = self.vectors.detach().double().tolist()
        return [Turn.by(math.degrees(math.atan2(y, x))) for x, y in rows]

    def modes(self, count: int) -> list[list[Turn]]:
        """Return the likeliest angle of each image, in a list: there is no other one."""
        return [[turn] for turn in self.mode()]

    def act(self, turn: "Turn | int") -> "VonMisesDistribution":
        """Return the distributions of the same images after they were turned."""
        element = self.group.element(turn)
        cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[element.quarters]
        angle = math.radians(element.tilt)
        real = cos * math.cos(angle) - sin * math.sin(angle)
        imaginary = cos * math.sin(angle) + sin * math.cos(angle)
        x, y = self.vectors.unbind(dim=1)
        return VonMisesDistribution(
            torch.stack([real * x - imaginary * y, imaginary * x + real * y], dim=1)
        )


def _sides(group: PlanarGroup) -> int:
    """Return 2 for a group with mirrors, else 1."""
    return 2 if group.mirrors else 1


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
        nearest = round(chosen.degrees * ARCS / 360) % ARCS + ARCS * chosen.mirrored
        return tuple(float(arc == nearest) for arc in range(_sides(group) * ARCS))
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
