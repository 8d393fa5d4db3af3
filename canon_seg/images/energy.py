"""Score poses by an energy: any function from an image to a number, the lower the more canonical.

The energy is asked about all turns of an image, so that it need not know of poses, nor learn. Two
are ready-made: a function that is registered in :data:`ENERGIES`, and the segmenter behind the
canonicalizer as its own judge, by how sure it is of its results.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, cast

import torch

from canon_seg.core.canonicalizer import Canonicalizer, PromptKey
from canon_seg.core.group import C4, PlanarGroup, elements_of
from canon_seg.core.pose import Pose
from canon_seg.core.registry import Registry
from canon_seg.core.scorer import SCORERS, GridDistribution
from canon_seg.core.turn import Turn, compose, inverse
from canon_seg.errors import InputError, of_key
from canon_seg.images.arrays import turned_copy
from canon_seg.images.canonicalizer import GroupCanonicalizer, group_of

KEY = "MODEL.CANONICALIZER.SCORER"
SEGMENTER_SCORER = "SegmenterScorer"

Energy = Callable[[torch.Tensor], Any]
"""Function from a (3, H, W) image, values 0..255, to a number: lower is more canonical."""

ENERGIES: "Registry[Energy]" = Registry("energy")
"""Energies by the name in ``MODEL.CANONICALIZER.SCORER.ENERGY``."""


class EnergyScorer:
    """Score the poses of images by an energy of all their turns.

    Attributes:
        energy, group, image_format, temperature: as given.

    Args:
        energy: see :data:`Energy`.
        group: of the poses; all of it acts by index.
        image_format: "RGB" or "BGR", the channel order that the energy takes.
        temperature: what energies are divided by for log-probabilities, above 0: the difference in
            energy that makes one pose e times as likely as another.

    Raises:
        InputError: naming the config key, for a temperature that is of no use.
    """

    def __init__(
        self,
        energy: Energy,
        *,
        group: PlanarGroup = C4,
        image_format: str = "RGB",
        temperature: float = 1.0,
    ) -> None:
        if not 0 < temperature < math.inf:
            raise InputError(f"{KEY}.TEMPERATURE is {temperature}; give a number above 0")
        if not group.is_exact:
            raise InputError(
                f"MODEL.CANONICALIZER.GROUP is {group.name}, and an energy is asked of images "
                f"turned by index; set it to {group.exact.name}, or take a network"
            )
        self.energy = energy
        self.group = group
        self.image_format = image_format
        self.temperature = temperature

    def __call__(self, images: Sequence[torch.Tensor]) -> GridDistribution:
        """Return the distribution over the poses of each image, see :class:`Scorer`.

        Raises:
            InputError: if the energy gives anything but a finite number.
        """
        return self.distribution([self._energies(image) for image in images])

    def distribution(self, energies: Sequence[Sequence[float]]) -> GridDistribution:
        """Return the distributions that energies stand for.

        Args:
            energies: for each image those of its elements, in the group's order.
        """
        rows = torch.tensor(energies, dtype=torch.float64)
        return GridDistribution(self.group, -rows / self.temperature)

    def _energies(self, image: torch.Tensor) -> list[float]:
        return [
            check_energy(self.energy(turned_copy(image, inverse(turn))))
            for turn in elements_of(self.group)
        ]


class SegmenterScorer(EnergyScorer):
    """Score the poses of images by how sure the segmenter behind the canonicalizer is in each.

    A model asks its segmenter itself, see :class:`JudgedCall`, since its answers are of use there.
    The energy is for whoever finds poses without one.
    """

    def __init__(self, energy: "Energy | None" = None, **options: Any) -> None:
        super().__init__(_no_segmenter if energy is None else energy, **options)

    def bound(self, energy: Energy) -> "SegmenterScorer":
        """Return the same scorer with the energy of a segmenter."""
        return SegmenterScorer(
            energy,
            group=self.group,
            image_format=self.image_format,
            temperature=self.temperature,
        )


class JudgedCall(Canonicalizer):
    """Find the pose of one image by running its segmenter in all poses, and keep the results.

    It lives for one call. The run in the pose that is found need not be repeated.

    Attributes:
        results: what the runs gave, by the turn from the given image to the one that was run.

    Args:
        like: the canonicalizer, whose scorer is a :class:`SegmenterScorer`.
        run: function of a turned image and of the turn that led to it from the given one, to a
            result and its energy.
    """

    def __init__(
        self, like: GroupCanonicalizer, run: Callable[[torch.Tensor, Turn], tuple[Any, Any]]
    ) -> None:
        super().__init__(like.image_format)
        self.group, self.snaps, self.uncertain = like.group, like.snaps, like.uncertain
        self.results: dict[Turn, Any] = {}
        self._like, self._run = [like], run  # in a list: not a part of this module

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Find the pose of the one image, see :meth:`GroupCanonicalizer.pose`."""
        return self._like[0].pose_by(self._score, image, prompt_key)

    def _score(self, representative: torch.Tensor, turn: Turn) -> GridDistribution:
        energies = []
        for pose in elements_of(self.group):
            to_canonical = compose(turn, inverse(pose))
            result, energy = self._run(turned_copy(representative, inverse(pose)), to_canonical)
            self.results[to_canonical] = result
            energies.append(check_energy(energy))
        return cast(SegmenterScorer, self._like[0].scorer).distribution([energies])


def judges_by_segmenter(canonicalizer: Any) -> TypeGuard[GroupCanonicalizer]:
    """Tell whether a canonicalizer finds poses by the segmenter behind it."""
    return isinstance(canonicalizer, GroupCanonicalizer) and isinstance(
        canonicalizer.scorer, SegmenterScorer
    )


def bound_to(canonicalizer: Canonicalizer, energy: Energy) -> Canonicalizer:
    """Return a canonicalizer whose segmenter's energy is known, if that is how it finds poses.

    Args:
        canonicalizer: any; not changed.
        energy: of the segmenter, see :data:`Energy`.
    """
    if not judges_by_segmenter(canonicalizer):
        return canonicalizer
    scorer = cast(SegmenterScorer, canonicalizer.scorer)
    return GroupCanonicalizer(scorer.bound(energy), uncertain=canonicalizer.uncertain).eval()


def check_energy(value: Any) -> float:
    """Return an energy as a number.

    Args:
        value: a number, or an array or tensor of one.

    Raises:
        InputError: naming the config key, if it is something else, or not finite.
    """
    shape = tuple(getattr(value, "shape", ()))
    try:
        if math.prod(shape) != 1:
            raise TypeError
        energy = float(value.item() if shape else value)
    except (TypeError, ValueError) as error:
        what = f"the shape {shape}" if shape else f"{value!r}"
        raise InputError(
            f"{KEY}.ENERGY: the energy of an image is one number, and this one gave {what}; "
            "return a float"
        ) from error
    if not math.isfinite(energy):
        raise InputError(
            f"{KEY}.ENERGY: the energy of an image is {energy}; return a finite number, and a "
            "large one for what is not canonical"
        )
    return energy


@SCORERS.register("EnergyScorer")
def build_energy_scorer(cfg: Any) -> EnergyScorer:
    """Build the scorer of the registered energy that a config names.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER.SCORER
    with of_key(f"{KEY}.ENERGY"):
        energy = ENERGIES.get(keys.ENERGY)
    return EnergyScorer(
        energy,
        group=group_of(cfg),
        image_format=cfg.INPUT.FORMAT,
        temperature=keys.TEMPERATURE,
    )


@SCORERS.register(SEGMENTER_SCORER)
def build_segmenter_scorer(cfg: Any) -> SegmenterScorer:
    """Build the scorer that asks the segmenter of the model.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER.SCORER
    return SegmenterScorer(
        group=group_of(cfg),
        image_format=cfg.INPUT.FORMAT,
        temperature=keys.TEMPERATURE,
    )


def _no_segmenter(image: torch.Tensor) -> Any:
    raise InputError(
        f"{KEY}.NAME is {SEGMENTER_SCORER}, but there is no segmenter here to ask; name another "
        "scorer, or give a config whose MODEL.SEGMENTER is there"
    )
