"""Define the groups of turns that a pose may come from: C(n), D(n), SO2 and O2.

A group is a list of turns, or all turns with or without mirrors. Its *exact* part is what acts by
index on every image; the rest interpolates.
"""

import math
import operator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

from canon_seg.core import turn as turns
from canon_seg.core.turn import Turn, as_turn

MAX_ORDER = 360
"""Rotations of the largest group that has a name."""

_TOLERANCE = 1e-5  # degrees; angles of C(n) are rounded to the grid of tilts


@runtime_checkable
class Group(Protocol):
    """Describe what canonicalization asks of a group, whatever its elements are.

    Attributes:
        name: how it is called, such as "C4".
        elements: all elements, the identity first, or None for a continuous group.
        exact: the subgroup that acts by index.
        identity: the neutral element.
    """

    @property
    def name(self) -> str:
        """Return the name of the group, such as "C4"."""
        ...

    @property
    def elements(self) -> "tuple[Any, ...] | None":
        """Return all elements, or None where there are infinitely many."""
        ...

    @property
    def exact(self) -> "Group":
        """Return the subgroup that acts by index."""
        ...

    @property
    def identity(self) -> Any:
        """Return the element that changes nothing."""
        ...

    def compose(self, a: Any, b: Any) -> Any:
        """Return the element that acts as ``b`` after ``a``."""
        ...

    def inverse(self, a: Any) -> Any:
        """Return the element that undoes ``a``."""
        ...

    def distance(self, a: Any, b: Any) -> float:
        """Measure how far two elements are apart, in degrees; bi-invariant."""
        ...


@dataclass(frozen=True)
class PlanarGroup:
    """Hold a group of turns of the plane.

    >>> C(4).elements[1], C(4).compose(Turn(3), Turn(2))
    (Turn(quarters=1, tilt=0.0, mirrored=False), Turn(quarters=1, tilt=0.0, mirrored=False))
    >>> C(8).exact.name, D(6).exact.name, O2.exact.name
    ('C4', 'D2', 'D4')

    Attributes:
        order: number of rotations by multiples of 360 / ``order`` degrees; None for all angles.
        mirrors: whether mirrored turns belong to it.

    Raises:
        ValueError: for an order below 1.
    """

    order: "int | None"
    mirrors: bool = False

    def __post_init__(self) -> None:
        if self.order is not None and operator.index(self.order) < 1:
            raise ValueError(f"a group of turns needs an order of 1 or more, got {self.order}")

    @property
    def name(self) -> str:
        """Return "C4", "D4", "SO2", "O2"."""
        if self.order is None:
            return "O2" if self.mirrors else "SO2"
        return f"{'D' if self.mirrors else 'C'}{self.order}"

    @property
    def identity(self) -> Turn:
        """Return the turn that changes nothing."""
        return turns.IDENTITY

    @cached_property
    def elements(self) -> "tuple[Turn, ...] | None":
        """Return all turns by ascending angle, those without mirror first; None for all angles."""
        if self.order is None:
            return None
        angles = [360 * step / self.order for step in range(self.order)]
        kinds = (False, True) if self.mirrors else (False,)
        return tuple(Turn.by(angle, mirrored) for mirrored in kinds for angle in angles)

    @cached_property
    def exact(self) -> "PlanarGroup":
        """Return the subgroup that acts by index: quarter turns, and mirrors if there are any."""
        return PlanarGroup(4 if self.order is None else math.gcd(self.order, 4), self.mirrors)

    @property
    def is_exact(self) -> bool:
        """Return whether all of it acts by index."""
        return self == self.exact

    def __contains__(self, value: object) -> bool:
        try:
            self.element(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False
        return True

    def element(self, value: "Turn | int") -> Turn:
        """Return a value as the element that it is; an integer stands for quarter turns.

        Raises:
            ValueError: if it is no element of this group.
            TypeError: if it is neither a turn nor an integer.
        """
        turn = as_turn(value)
        if turn.mirrored and not self.mirrors:
            raise ValueError(f"{turn} is mirrored, and {self.name} has no mirrors")
        if self.order is None:
            return turn
        step = round(turn.degrees * self.order / 360) % self.order
        nearest = elements_of(self)[step + self.order * turn.mirrored]
        if turns.distance(turn, nearest) > _TOLERANCE:
            raise ValueError(
                f"{turn.degrees:g} degrees is no angle of {self.name}: give a multiple of "
                f"{360 / self.order:g}"
            )
        return nearest

    def index(self, value: "Turn | int") -> int:
        """Return the place of an element among ``elements``.

        Raises:
            ValueError: if it is no element, or the group has no list of them.
        """
        return elements_of(self).index(self.element(value))

    def compose(self, a: "Turn | int", b: "Turn | int") -> Turn:
        """Return the element that acts as ``b`` after ``a``."""
        return self.element(turns.compose(self.element(a), self.element(b)))

    def inverse(self, a: "Turn | int") -> Turn:
        """Return the element that undoes ``a``."""
        return self.element(turns.inverse(self.element(a)))

    def distance(self, a: "Turn | int", b: "Turn | int") -> float:
        """Measure the angle between two elements in [0, 180] degrees; 180 across a mirror."""
        return turns.distance(self.element(a), self.element(b))


def elements_of(group: PlanarGroup) -> tuple[Turn, ...]:
    """Return all elements of a finite group, in order.

    Raises:
        ValueError: if the group is continuous.
    """
    if group.elements is None:
        raise ValueError(f"{group.name} is continuous: its elements have no numbers")
    return group.elements


def permutation(group: PlanarGroup, turn: "Turn | int") -> list[int]:
    """Return where each element goes when ``turn`` acts after it, as indices of elements."""
    return list(_permutation(group, turn))


@lru_cache(maxsize=256)
def _permutation(group: PlanarGroup, turn: "Turn | int") -> tuple[int, ...]:
    return tuple(
        group.index(turns.compose(element, group.element(turn))) for element in elements_of(group)
    )


def C(order: int) -> PlanarGroup:  # noqa: N802 - the group's name
    """Return the cyclic group of rotations by multiples of 360 / ``order`` degrees."""
    return PlanarGroup(order)


def D(order: int) -> PlanarGroup:  # noqa: N802 - the group's name
    """Return the dihedral group: the rotations of C(``order``), and each of them after a mirror."""
    return PlanarGroup(order, mirrors=True)


C4 = C(4)
"""Quarter turns."""

D4 = D(4)
"""Quarter turns and mirrors: all that acts by index on images."""

SO2 = PlanarGroup(None)
"""Rotations by any angle."""

O2 = PlanarGroup(None, mirrors=True)
"""Rotations by any angle and mirrors."""


def group_named(name: str) -> PlanarGroup:
    """Return the group of a name.

    >>> group_named("C8") == C(8), group_named("SO2") == SO2
    (True, True)

    Raises:
        ValueError: if there is none of that name.
    """
    if name in (SO2.name, O2.name):
        return SO2 if name == SO2.name else O2
    kind, digits = name[:1], name[1:]
    if kind in ("C", "D") and digits.isdecimal() and 1 <= int(digits) <= MAX_ORDER:
        return PlanarGroup(int(digits), mirrors=kind == "D")
    raise ValueError(
        f"{name!r} is no group of turns; known: C1 to C{MAX_ORDER} such as C4, D1 to D{MAX_ORDER} "
        "such as D4, SO2, O2"
    )
