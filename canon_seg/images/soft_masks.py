"""Hold masks that are not cut yet, so that a tilt interpolates their scores and not their edges.

A segmenter scores pixels, and a mask is where scores are above a threshold. By a pose with a tilt
the scores are interpolated once, in the window that a mask reaches, and cut in the frame of the
given image. By exact turns alone there is nothing to gain: masks are cut where they are found.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from canon_seg.core import action
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import IDENTITY, Turn, compose, exact_turn, turned_size
from canon_seg.images.actions import tilt_mask_tensor
from canon_seg.images.arrays import turn_maps
from canon_seg.images.tilt import warp_scores

Own = TypeVar("Own", bound="SoftMasks")


class SoftMasks(ABC):
    """Offer N masks of one frame that are not cut yet.

    Attributes:
        size: (height, width) of the frame in pixels.
    """

    size: tuple[int, int]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of masks."""

    @abstractmethod
    def __getitem__(self: Own, rows: Any) -> Own:
        """Return the masks of some rows, by whatever selects rows of a tensor."""

    @abstractmethod
    def to(self: Own, device: "torch.device | str") -> Own:
        """Return the same masks on another device."""

    @abstractmethod
    def turned(self: Own, turn: Turn) -> Own:
        """Return the masks after an exact turn of their frame."""

    @abstractmethod
    def tilted(self, tilting: Tilting) -> torch.Tensor:
        """Return the masks cut in another frame, in which this one lies tilted.

        Args:
            tilting: from the frame of the masks.

        Returns:
            (N, *tilting.target) bool tensor.
        """

    @abstractmethod
    def filled(self) -> torch.Tensor:
        """Return which masks have any pixel in their own frame: (N,) bool tensor."""


@dataclass(frozen=True, eq=False)
class ScoredMasks(SoftMasks):
    """Hold N masks by scores, of low resolution if they are enlarged by a function.

    Attributes:
        scores: (N, h, w) float tensor.
        threshold: scores above it are inside.
        size: see :class:`SoftMasks`.
        enlarge: function from (n, h, w) scores to (n, H, W), in the frame before ``turn``; None
            where they have the size of that frame.
        turn: exact turn of the enlarged scores that is still to be done.
    """

    scores: torch.Tensor
    threshold: float
    size: tuple[int, int]
    enlarge: "Callable[[torch.Tensor], torch.Tensor] | None" = None
    turn: Turn = IDENTITY

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> "ScoredMasks":
        """Return the masks of some rows, by whatever selects rows of a tensor."""
        return replace(self, scores=self.scores[rows])

    def to(self, device: "torch.device | str") -> "ScoredMasks":
        """Return the same masks on another device."""
        return replace(self, scores=self.scores.to(device))

    def turned(self, turn: Turn) -> "ScoredMasks":
        """Return the masks after an exact turn of their frame; nothing is computed yet."""
        turn = exact_turn(turn)
        return replace(self, size=turned_size(*self.size, turn), turn=compose(self.turn, turn))

    def tilted(self, tilting: Tilting) -> torch.Tensor:
        """Return the masks cut in another frame, one after the other."""
        masks = torch.zeros((len(self), *tilting.target), dtype=torch.bool)
        for row, mask in enumerate(masks):
            mask[:] = torch.from_numpy(
                warp_scores(self._drawn(row).cpu().numpy(), self.threshold, tilting)
            )
        return masks.to(self.scores.device)

    def filled(self) -> torch.Tensor:
        """Return which masks have any pixel in their own frame: (N,) bool tensor."""
        found = [bool((self._drawn(row) > self.threshold).any()) for row in range(len(self))]
        return torch.tensor(found, dtype=torch.bool, device=self.scores.device)

    def _drawn(self, row: int) -> torch.Tensor:
        """Return the (H, W) float32 scores of one mask in the frame."""
        scores = self.scores[row : row + 1].float()
        scores = scores if self.enlarge is None else self.enlarge(scores)
        return turn_maps(scores[0], self.turn)


@action.register(SoftMasks)
def turn_soft_masks(masks: SoftMasks, turn: Turn, height: int, width: int) -> SoftMasks:
    """Turn masks that are not cut yet by index."""
    return masks.turned(turn)


@action.register_tilt(SoftMasks)
def tilt_soft_masks(masks: SoftMasks, tilting: Tilting) -> torch.Tensor:
    """Cut masks in another frame: a bool tensor."""
    return masks.tilted(tilting)


def filled(masks: "torch.Tensor | SoftMasks") -> torch.Tensor:
    """Return which of N masks have any pixel: (N,) bool tensor."""
    return masks.filled() if isinstance(masks, SoftMasks) else masks.flatten(1).any(dim=1)


def tilt_with_vanished(
    masks: "torch.Tensor | SoftMasks", tilting: Tilting
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tilt N masks into another frame, and say of which nothing is left there.

    Args:
        masks: (N, H, W) bool or integer tensor, sampled at the nearest pixel centres, or masks that
            are not cut yet.
        tilting: from their frame.

    Returns:
        (masks, vanished): (N, *tilting.target) tensor; (N,) bool, whose masks are empty there, and
        were not.

    Raises:
        ValueError: if the masks have another size than the frame.
    """
    if isinstance(masks, SoftMasks):
        tilted = masks.tilted(tilting)
    else:
        tilted = tilt_mask_tensor(masks, tilting)
    vanished = ~filled(tilted)
    if bool(vanished.any()):
        vanished[vanished.clone()] = filled(masks[vanished])
    return tilted, vanished
