"""Keep the cyclic groups of earlier versions, whose elements are integers.

New code takes :mod:`canon_seg.core.group`, whose elements are turns.

"""

import operator
from dataclasses import dataclass


@dataclass(frozen=True)
class CyclicGroup:
    """Describe the rotations by multiples of 360 / ``order`` degrees, counterclockwise on screen.

    An element is an int in ``0 .. order - 1``: how many such steps. ``0`` is the identity.
    """

    order: int

    def __post_init__(self):
        if operator.index(self.order) < 1:
            raise ValueError(f"a cyclic group needs an order of 1 or more, got {self.order}")

    @property
    def elements(self):
        """Return all elements, identity first: ``range(order)``."""
        return range(self.order)

    def element(self, value):
        """Return ``value`` as a plain int, once it is known to be an element.

        Degrees passed by mistake (90 for one quarter turn) must not wrap around silently, so
        there is no modulo here.

        Raises:
            ValueError: if it is outside ``0 .. order - 1``.
            TypeError: if it is no integer.
        """
        element = operator.index(value)
        if element not in self.elements:
            raise ValueError(
                f"{element} is no element of the cyclic group of order {self.order}: "
                f"give a number of steps in 0..{self.order - 1}, not degrees"
            )
        return element

    def compose(self, a, b):
        """Return the element that acts as ``b`` after ``a``.

        Cyclic groups commute: the order is free.
        """
        return (self.element(a) + self.element(b)) % self.order

    def inverse(self, a):
        """Return the element that undoes ``a``."""
        return -self.element(a) % self.order

    def degrees(self, a):
        """Return the counterclockwise angle of ``a``, a float in [0, 360)."""
        return 360.0 * self.element(a) / self.order

    def element_at(self, degrees):
        """Return the element that turns by ``degrees`` counterclockwise.

        Any sign, any number of turns.

        Raises:
            ValueError: if no element has that angle.
        """
        for a in self.elements:
            if degrees % 360 == self.degrees(a):
                return a
        raise ValueError(
            f"{degrees} degrees is not on the grid of the cyclic group of order {self.order}: "
            f"give a multiple of {360 / self.order:g}"
        )


C4 = CyclicGroup(4)
