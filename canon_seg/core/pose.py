"""Define the pose of one image, and what is done when it is uncertain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from canon_seg.core.group import PlanarGroup, permutation
from canon_seg.core.turn import IDENTITY, Turn, as_turn, compose, exact_turn, inverse

CLEAR = 0.5
"""Probability from which on a pose counts as clear."""


@dataclass(frozen=True)
class Pose:
    """Hold the pose of one image: the image equals its canonical form after ``turn``.

    Attributes:
        turn: the pose; an integer stands for that many quarter turns counterclockwise.
        probabilities: probability of each element of the group, in the group's order; they sum
            to 1. Of a continuous group those of equal arcs of the circle, counterclockwise, the
            first of them around 0 degrees; with mirrors the arcs without a mirror come first, then
            as many with it.
        policy: how ``turn`` was chosen, one of :attr:`UncertainPoses.POLICIES` or "gate". "argmax":
            it is the likeliest pose. "keep": the pose was uncertain and the image is left as given,
            ``turn`` is the identity. "vote": the pose was uncertain, ``turn`` is the likeliest.
            "gate": the likeliest pose was not likelier enough than the given one, and the image is
            left as given.
        others: the further poses of a vote, likeliest first. The segmenter is to be run in these
            as well; what can only run in one pose takes ``turn``.
        to_representative: the exact turns that take the image to the representative of its orbit,
            the one that was used first. There are several only if the image equals a turn of
            itself, and none if no representative was needed.
        probability: of ``turn``, 0..1; of a continuous group that of all angles within 10 degrees,
            see :meth:`canon_seg.core.scorer.CircularDistribution.certainty`. Without it, it is
            looked up among ``probabilities`` as among those of C4, or of D4 for a mirrored turn.
    """

    turn: Turn
    probabilities: tuple[float, ...]
    policy: str = "argmax"
    others: tuple[Turn, ...] = ()
    to_representative: tuple[Turn, ...] = ()
    probability: float = math.nan

    def __post_init__(self) -> None:
        object.__setattr__(self, "turn", as_turn(self.turn))
        object.__setattr__(self, "others", tuple(map(as_turn, self.others)))
        if math.isnan(self.probability):
            turn = exact_turn(self.turn)
            object.__setattr__(
                self, "probability", self.probabilities[turn.quarters + 4 * turn.mirrored]
            )

    @property
    def turns(self) -> int:
        """Return the quarter turns of the pose counterclockwise, 0..3; they follow its mirror."""
        return self.turn.quarters

    @property
    def to_canonical(self) -> Turn:
        """Return the turn that takes the image to its canonical form."""
        return inverse(self.turn)

    @property
    def turns_to_canonical(self) -> int:
        """Return the quarter turns that take the image to its canonical form, 0..3.

        Of a mirrored pose they follow a mirror too, see :attr:`to_canonical`.
        """
        return self.to_canonical.quarters

    @property
    def is_clear(self) -> bool:
        """Return whether the likeliest pose is likelier than all others together."""
        # That of an angle is the mass around it, more than that of any arc.
        return max(self.probability, *self.probabilities) >= CLEAR

    @property
    def is_symmetric(self) -> bool:
        """Return whether the image equals a turn of itself, so that it has several poses."""
        return len(self.to_representative) > 1

    def resolved(self, to_representative: Turn, group: PlanarGroup) -> "Pose":
        """Return the pose of a symmetric image by another turn to its representative.

        Args:
            to_representative: one of the attribute's.
            group: that the poses are elements of.
        """
        if to_representative == self.to_representative[0]:
            return self
        change = compose(self.to_representative[0], inverse(to_representative))
        order = permuted_places(group, change, len(self.probabilities))
        probabilities = [0.0] * len(order)
        for old, new in enumerate(order):
            probabilities[new] = self.probabilities[old]
        rest = tuple(turn for turn in self.to_representative if turn != to_representative)
        if self.policy in ("keep", "gate"):
            turn = IDENTITY
            probability = self.probability if group.elements is None else probabilities[0]
        else:
            turn, probability = compose(self.turn, change), self.probability
        return Pose(
            turn,
            tuple(probabilities),
            self.policy,
            tuple(compose(other, change) for other in self.others),
            (to_representative, *rest),
            probability,
        )

    def alone(self) -> "Pose":
        """Return the pose without a vote, for what runs in one pose only: the likeliest."""
        return replace(self, policy="argmax", others=()) if self.others else self


@dataclass(frozen=True)
class UncertainPoses:
    """Say what to do with an image whose pose is uncertain.

    Attributes:
        policy: one of ``POLICIES``, see :class:`Pose`.
        below: poses are uncertain whose probability is below this, 0..1.
        vote_poses: how many poses vote, 2 or 4.
        gate: an image is turned only if the log-probability of the likeliest pose is above that of
            the given one by this much; 0 turns whatever is likelier. It asks how the two compare,
            where ``below`` asks how sure the likeliest is by itself.

    Raises:
        ValueError: if a value is out of its range.
    """

    POLICIES: ClassVar[tuple[str, ...]] = ("argmax", "keep", "vote")

    policy: str = "argmax"
    below: float = CLEAR
    vote_poses: int = 2
    gate: float = 0.0

    def __post_init__(self) -> None:
        if self.policy not in self.POLICIES:
            raise ValueError(f"UNCERTAIN is {self.policy!r}; known: {', '.join(self.POLICIES)}")
        if not 0 <= self.below <= 1:
            raise ValueError(f"UNCERTAIN_BELOW is {self.below}; give a probability, 0 to 1")
        if self.vote_poses not in (2, 4):
            raise ValueError(f"VOTE_POSES is {self.vote_poses}; give 2 or 4")
        if not 0 <= self.gate < math.inf:
            raise ValueError(
                f"GATE is {self.gate}; give a margin in log-probability above 0, or 0 for no gate"
            )

    def choose(
        self,
        ranking: Sequence["tuple[Turn, float]"],
        probabilities: Sequence[float],
        to_representative: tuple[Turn, ...] = (),
        upright: float | None = None,
    ) -> Pose:
        """Choose the pose of an image.

        Args:
            ranking: poses with their probabilities, likeliest first.
            probabilities: of each element of the group, see :class:`Pose`.
            to_representative: see :class:`Pose`.
            upright: probability of the identity; None where it is in the ranking.
        """
        (best, probability), *rest = ranking
        everything, found = tuple(probabilities), tuple(to_representative)
        likely = dict(ranking) if upright is None else {**dict(ranking), IDENTITY: upright}
        if self.gate and self._is_gated(likely, best, found if upright is None else ()):
            return Pose(IDENTITY, everything, "gate", (), found, likely[IDENTITY])
        if self.policy == "argmax" or probability >= self.below:
            return Pose(best, everything, "argmax", (), found, probability)
        if self.policy == "keep":
            return Pose(IDENTITY, everything, "keep", (), found, likely[IDENTITY])
        others = tuple(turn for turn, _ in rest[: self.vote_poses - 1])
        return Pose(best, everything, "vote", others, found, probability)

    def _is_gated(
        self, likely: "dict[Turn, float]", best: Turn, to_representative: tuple[Turn, ...]
    ) -> bool:
        # Of an image that equals a turn of itself, several poses are as it is given.
        first = to_representative[0] if to_representative else IDENTITY
        given = {compose(first, inverse(turn)) for turn in to_representative} or {IDENTITY}
        if best in given:
            return False
        kept = max(likely[turn] for turn in given)
        # A probability of 0 is below any margin.
        return kept > 0 and math.log(likely[best] / kept) < self.gate


def permuted_places(group: PlanarGroup, change: Turn, count: int) -> Sequence[int]:
    """Return where each of ``count`` probabilities of a pose goes when an image is turned.

    Args:
        group: of the poses.
        change: an exact turn.
        count: how many there are, see :class:`Pose`.
    """
    if group.elements is not None:
        return permutation(group, change)
    sides, sign = 2 if group.mirrors else 1, -1 if change.mirrored else 1
    arcs = count // sides
    return [
        (sign * arc + change.quarters * arcs // 4) % arcs + arcs * (bool(side) != change.mirrored)
        for side in range(sides)
        for arc in range(arcs)
    ]
