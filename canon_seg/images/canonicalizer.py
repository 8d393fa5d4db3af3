"""Find the pose of an image by any scorer, exactly equivariantly under turns by index."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from canon_seg.core.canonicalizer import (
    CANONICALIZERS,
    Canonicalizer,
    PromptKey,
    check_image_format,
)
from canon_seg.core.group import C4, PlanarGroup, group_named, permutation
from canon_seg.core.pose import Pose, UncertainPoses, permuted_places
from canon_seg.core.scorer import (
    SCORERS,
    CircularDistribution,
    Distribution,
    GridDistribution,
    Scorer,
)
from canon_seg.core.turn import IDENTITY, Turn, inverse
from canon_seg.errors import InputError, of_key
from canon_seg.images.arrays import turn_maps, turned_copy
from canon_seg.images.representative import representative_turns

MIN_TILT = 3.0
"""Degrees of a tilt below which it is none, unless a canonicalizer is told otherwise."""


@CANONICALIZERS.register()
class GroupCanonicalizer(Canonicalizer):
    """Find the pose of an image by what a scorer says of the representative of its orbit.

    For a turn of the same pixels by an element of the group that acts by index the answer differs
    by exactly that turn, bit for bit in the probabilities and the poses that vote, whatever the
    scorer is; except for an image that equals a turn of itself, and for one that is kept as given
    (``uncertain``). For any other angle the answer is as good as the scorer.

    Of groups with tilts, an image of one colour has no pose: each is as likely, and the tilt is 0.

    Attributes:
        scorer, min_tilt: as given.

    Args:
        scorer: says how likely each pose is; in eval mode.
        uncertain: what to do with uncertain poses.
        min_tilt: degrees; of a continuous group a smaller tilt is none, so that photographs which
            are level but for that keep their bytes.

    Raises:
        ValueError: if ``min_tilt`` is not in 0..45, or the scorer's images have another channel
            order than RGB and BGR.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        uncertain: "UncertainPoses | None" = None,
        min_tilt: float = MIN_TILT,
    ) -> None:
        super().__init__()
        if not 0 <= min_tilt <= 45:
            raise ValueError(f"MIN_TILT is {min_tilt}; give degrees from 0 to 45")
        self.scorer = scorer
        self.min_tilt = float(min_tilt)
        self.group = scorer.group
        self.image_format = check_image_format(scorer.image_format)
        self.uncertain = UncertainPoses() if uncertain is None else uncertain

    @classmethod
    def from_config(cls, cfg: Any) -> "GroupCanonicalizer":
        """Build the canonicalizer that ``cfg.MODEL.CANONICALIZER`` describes.

        Raises:
            InputError: naming the key that cannot be used.
        """
        keys = cfg.MODEL.CANONICALIZER
        with of_key("MODEL.CANONICALIZER.SCORER.NAME"):
            build_scorer = SCORERS.get(keys.SCORER.NAME)
        with of_key("MODEL.CANONICALIZER."):
            uncertain = UncertainPoses(
                keys.UNCERTAIN, keys.UNCERTAIN_BELOW, keys.VOTE_POSES, keys.GATE
            )
        wanted = group_of(cfg)
        scorer = build_scorer(cfg)
        if wanted not in (C4, scorer.group):
            raise InputError(
                f"MODEL.CANONICALIZER.GROUP is {keys.GROUP}, and the scorer {keys.SCORER.NAME} is "
                f"for {scorer.group.name}; set GROUP to that, or take a scorer for it"
            )
        with of_key("MODEL.CANONICALIZER"):
            return cls(scorer, uncertain=uncertain, min_tilt=keys.MIN_TILT)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the scorer to a weights file, see its own ``save``.

        Raises:
            TypeError: if the scorer has nothing to save.
        """
        save = getattr(self.scorer, "save", None)
        if save is None:
            raise TypeError(f"{type(self.scorer).__name__} has no weights to save")
        save(path)

    def scores(self, images: Sequence[torch.Tensor]) -> Distribution:
        """Return the scorer's distribution for images as they are."""
        return self.scorer(images)

    @property
    def needs_turned_views(self) -> bool:
        """Tell whether the scorer is to be trained on views turned at random."""
        return bool(getattr(self.scorer, "needs_turned_views", False))

    def training_input(self, image: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`scores` takes of an image in training mode.

        Args:
            image: (3, H, W) tensor, values 0..255, of any size.
        """
        prepare = getattr(self.scorer, "prepare", None)
        prepared: torch.Tensor = image if prepare is None else prepare(image)
        return prepared

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Find the pose of one image.

        In training mode a network's batch statistics would change: call it in eval mode.

        Args:
            image: (3, H, W) tensor as read, before any resizing, values 0..255.
            prompt_key: breaks the tie of an image that equals a turn of itself. Without it (or with
                prompts that are as symmetric) the first turn is taken: only the canonical result
                is defined then.

        Returns:
            the pose.
        """
        return self.pose_by(
            lambda representative, turn: self.scores([representative]), image, prompt_key
        )

    @torch.no_grad()
    def pose_by(
        self,
        score: "Callable[[torch.Tensor, Turn], Distribution]",
        image: torch.Tensor,
        prompt_key: "PromptKey | None" = None,
    ) -> Pose:
        """Find the pose of one image by a function in place of the scorer.

        Args:
            score: function of the representative, and of the turn that leads to it from the image,
                to the distribution over the representative's poses.
            image, prompt_key: see :meth:`pose`.
        """
        candidates = representative_turns(image.permute(1, 2, 0), self.group)
        if len(candidates) > 1 and prompt_key is not None:
            first = min(candidates, key=prompt_key)
            candidates = (first, *(turn for turn in candidates if turn != first))
        # Always a copy: which kernels run, and so how they round, may depend on strides.
        representative = turned_copy(image, candidates[0])
        found = score(representative, candidates[0])
        if not self.group.is_exact and _is_plain(representative):
            return self._of_plain(len(found.probabilities[0]), candidates)
        if isinstance(found, CircularDistribution):
            return self._of_circle(found, representative, candidates)
        if len(found) != 1 or self.group.elements is None:
            raise ValueError(f"the scorer gave {len(found)} distributions for one image")
        likely = found.probabilities[0].tolist()
        # Equal probabilities are put in order here, where all turns of the image look the same.
        ranking = sorted(range(len(likely)), key=lambda place: -likely[place])
        there = permutation(self.group, candidates[0])
        back = permutation(self.group, inverse(candidates[0]))
        return self.uncertain.choose(
            [(self.group.elements[back[place]], likely[place]) for place in ranking],
            [likely[place] for place in there],
            candidates,
        )

    def _of_circle(
        self, found: CircularDistribution, image: torch.Tensor, candidates: tuple[Turn, ...]
    ) -> Pose:
        """Return the pose of an image by what was found for its representative."""
        back = inverse(candidates[0])
        (modes,) = found.modes(self.uncertain.vote_poses)
        ranking = [(self._levelled(turn), float(found.certainty(turn))) for turn in modes]
        ranking = [ranking[0], *sorted(ranking[1:], key=lambda item: -item[1])]
        # Computed for the representative and moved: the same numbers for all turns.
        likely = found.probabilities[0].tolist()
        given = [0.0] * len(likely)
        for arc, place in enumerate(permuted_places(self.group, back, len(likely))):
            given[place] = likely[arc]
        return self.uncertain.choose(
            [(self.group.compose(turn, back), probability) for turn, probability in ranking],
            given,
            candidates,
            float(found.certainty(candidates[0])),
        )

    def _of_plain(self, count: int, candidates: tuple[Turn, ...]) -> Pose:
        """Return the pose of an image of one colour: all poses are as likely.

        The representative counts as upright, so that prompts turn with the image here too.

        Args:
            count: of the probabilities.
            candidates: the turns to the representative.
        """
        share = 1 / count
        if self.group.elements is None:
            flat_circle = CircularDistribution(torch.zeros(1, count), group=self.group)
            share = float(flat_circle.certainty(IDENTITY))
        turn, flat = inverse(candidates[0]), (1 / count,) * count
        return Pose(turn, flat, to_representative=candidates, probability=share)

    def _levelled(self, turn: Turn) -> Turn:
        return turn if abs(turn.tilt) >= self.min_tilt else replace(turn, tilt=0.0)


def _is_plain(image: torch.Tensor) -> bool:
    """Tell whether a (3, H, W) image is of one colour."""
    colours = image.flatten(1)
    return bool((colours == colours[:, :1]).all())


def group_of(cfg: Any) -> PlanarGroup:
    """Return the group that ``MODEL.CANONICALIZER.GROUP`` and ``GROUP_ORDER`` name.

    Raises:
        InputError: naming the key, if there is no such group, or the two do not agree.
    """
    keys = cfg.MODEL.CANONICALIZER
    with of_key("MODEL.CANONICALIZER.GROUP"):
        group = group_named(keys.GROUP)
    if keys.GROUP_ORDER not in (C4.order, group.order):
        raise InputError(
            f"MODEL.CANONICALIZER.GROUP_ORDER is {keys.GROUP_ORDER}, but GROUP is {group.name}; "
            "name the group by GROUP, and leave GROUP_ORDER out"
        )
    return group


def straight_through(
    image: torch.Tensor, distribution: GridDistribution
) -> tuple[Turn, torch.Tensor]:
    """Return the canonical image by the likeliest pose, with a gradient that reaches all scores.

    The value is the image turned by index. The gradient is that of the mixture of the turned images
    weighted by the probabilities (straight-through estimator, Bengio et al. 2013, as in Mondal et
    al. 2023); turned images of another shape are centred on the canonical one's canvas for it.

    Args:
        image: (3, H, W) float tensor.
        distribution: of that one image, over a group that acts by index.

    Returns:
        (pose, canonical): the likeliest pose and the (3, h, w) canonical image.
    """
    (pose,) = distribution.mode()
    canonical = turn_maps(image, inverse(pose)).contiguous()
    weights = distribution.logits[0].softmax(dim=0)
    for weight, other in zip(weights, distribution.group.elements or (IDENTITY,), strict=True):
        candidate = _on_canvas(turn_maps(image, inverse(other)), canonical.shape[-2:])
        # Zero in value, the candidate as derivative with respect to its weight.
        canonical = canonical + (weight - weight.detach()) * candidate
    return pose, canonical


def _on_canvas(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    canvas = image.new_zeros((*image.shape[:-2], *size))
    theirs, ours = [], []
    for have, want in zip(image.shape[-2:], size, strict=True):
        common = min(have, want)
        theirs.append(slice((have - common) // 2, (have - common) // 2 + common))
        ours.append(slice((want - common) // 2, (want - common) // 2 + common))
    canvas[..., ours[0], ours[1]] = image[..., theirs[0], theirs[1]]
    return canvas
