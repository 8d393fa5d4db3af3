"""Define a turn, an element of O(2): a mirror, then a tilt, then quarter turns.

Every planar rotation is a tilt of at most 45 degrees followed by exact quarter turns. Quarter turns
and mirrors move pixels by index; only a tilt interpolates. What a sign means is said in
:mod:`canon_seg.images`.
"""

import math
import operator
from dataclasses import dataclass

TILT_STEP = 2.0**-20
"""Grid of tilts in degrees: sums of tilts on it are exact in float64."""


@dataclass(frozen=True, order=True)
class Turn:
    """Hold an element of O(2) that acts as a mirror, then a tilt, then quarter turns.

    >>> Turn.by(100)
    Turn(quarters=1, tilt=10.0, mirrored=False)
    >>> Turn.by(100).degrees
    100.0

    Attributes:
        quarters: quarter turns counterclockwise, 0 to 3, by index.
        tilt: degrees counterclockwise in (-45, 45], on the grid of ``TILT_STEP``, by interpolation.
        mirrored: whether left and right are exchanged first, by index.

    Raises:
        ValueError: if a value is out of its range.
        TypeError: if ``quarters`` is no integer.
    """

    quarters: int = 0
    tilt: float = 0.0
    mirrored: bool = False

    def __post_init__(self) -> None:
        quarters = operator.index(self.quarters)
        if not 0 <= quarters <= 3:
            raise ValueError(
                f"{quarters} is no number of quarter turns: give 0..3, not degrees (Turn.by takes "
                "degrees)"
            )
        # Rounded to the grid first; -0.0 becomes 0.0, so that equal turns are equal.
        tilt = round(self.tilt / TILT_STEP) * TILT_STEP + 0.0 if math.isfinite(self.tilt) else None
        if tilt is None or not -45 < tilt <= 45:
            raise ValueError(f"a tilt must lie in (-45, 45] degrees, got {self.tilt}")
        object.__setattr__(self, "quarters", quarters)
        object.__setattr__(self, "tilt", tilt)
        object.__setattr__(self, "mirrored", bool(self.mirrored))

    @classmethod
    def by(cls, degrees: float, mirrored: bool = False) -> "Turn":
        """Build the turn by an angle, of any sign and size, after an optional mirror.

        Args:
            degrees: counterclockwise; rounded to the grid of ``TILT_STEP``.
            mirrored: whether left and right are exchanged first.

        Raises:
            ValueError: if the angle is not finite.
        """
        quarters, tilt = split_angle(degrees)
        if round(tilt / TILT_STEP) * TILT_STEP <= -45:
            quarters, tilt = (quarters - 1) % 4, 45.0
        return cls(quarters, tilt, mirrored)

    @property
    def degrees(self) -> float:
        """Return the angle of the rotation in [0, 360) degrees, counterclockwise."""
        return (90.0 * self.quarters + self.tilt) % 360

    @property
    def exact(self) -> bool:
        """Return whether the turn acts by index alone."""
        return self.tilt == 0

    def described(self, unit: str = "°") -> str:
        """Say the turn in a few letters, by the angle and whether there is a mirror before it.

        >>> Turn(1, mirrored=True).described(), Turn.by(100.25).described(" degrees")
        ('mirrored, 90°', '100.2 degrees')

        Args:
            unit: what follows the number; a terminal may not have the degree sign.
        """
        angle = f"{self.degrees:.{0 if self.exact else 1}f}{unit}"
        return f"mirrored, {angle}" if self.mirrored else angle


IDENTITY = Turn()


def compose(first: Turn, second: Turn) -> Turn:
    """Return the turn that acts as ``second`` after ``first``, exactly.

    >>> compose(Turn(1), Turn(mirrored=True))
    Turn(quarters=3, tilt=0.0, mirrored=True)
    """
    sign = -1 if second.mirrored else 1
    return _from_sum(
        sign * first.quarters + second.quarters,
        sign * first.tilt + second.tilt,
        first.mirrored != second.mirrored,
    )


def inverse(turn: Turn) -> Turn:
    """Return the turn that undoes ``turn``, exactly."""
    if turn.mirrored:
        return turn
    return _from_sum(-turn.quarters, -turn.tilt, False)


def distance(first: Turn, second: Turn) -> float:
    """Measure how far two turns are apart: the angle between them, 180 across a mirror.

    The distance does not change when both are composed with the same turn, on either side.

    Returns:
        degrees in [0, 180].
    """
    if first.mirrored != second.mirrored:
        return 180.0
    # Sums of values on a dyadic grid are exact, so that the metric is too.
    angle = abs(90.0 * (first.quarters - second.quarters) + first.tilt - second.tilt) % 360
    return min(angle, 360 - angle)


def as_turn(value: "Turn | int") -> Turn:
    """Return a turn as it is, and an integer as that many quarter turns counterclockwise.

    Raises:
        ValueError: if the integer is outside 0..3; degrees must not wrap around silently.
        TypeError: if the value is neither.
    """
    return value if isinstance(value, Turn) else Turn(operator.index(value))


def exact_turn(value: "Turn | int") -> Turn:
    """Return :func:`as_turn` of a value that must act by index.

    Raises:
        ValueError: for a turn with a tilt.
    """
    turn = as_turn(value)
    if not turn.exact:
        raise ValueError(
            f"a tilt of {turn.tilt:g} degrees does not act by index; undo the tilt first, or "
            "rotate by canon_seg.images.tilt"
        )
    return turn


def turned_size(height: int, width: int, turn: "Turn | int") -> tuple[int, int]:
    """Return (height, width) of a frame after an exact turn.

    >>> turned_size(480, 640, 1)
    (640, 480)

    Raises:
        ValueError: for a turn with a tilt, whose frame depends on the canvas.
    """
    return (width, height) if exact_turn(turn).quarters % 2 else (height, width)


def normalise_angle(degrees: float) -> float:
    """Bring an angle into [0, 360) degrees.

    Raises:
        ValueError: if it is not finite.
    """
    if not math.isfinite(degrees):
        raise ValueError(f"an angle must be a finite number of degrees, got {degrees}")
    return float(degrees) % 360 % 360  # the modulo of a tiny negative rounds to 360


def split_angle(degrees: float) -> tuple[int, float]:
    """Split an angle into the nearest quarter turn and the tilt that is left.

    Returns:
        (turns, tilt) with ``90 * turns + tilt`` equal to ``degrees`` modulo 360: ``turns`` in
        0..3, ``tilt`` in (-45, 45] degrees. Halfway between two quarter turns the one before
        counts, so that 45, 135, 225 and 315 all have the tilt 45.

    Raises:
        ValueError: if the angle is not finite.
    """
    # Rounded, so that 112.1 has the tilt of 22.1 to the last bit.
    degrees = round(normalise_angle(degrees), 9)
    steps = math.ceil((degrees - 45) / 90)
    return steps % 4, round(degrees - 90 * steps, 9)


def _from_sum(quarters: int, tilt: float, mirrored: bool) -> Turn:
    """Build a turn from sums of quarter turns and of tilts, which may leave their ranges."""
    steps = math.ceil((tilt - 45) / 90)
    return Turn((quarters + steps) % 4, tilt - 90 * steps, mirrored)
