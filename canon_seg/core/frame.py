"""Define the canonical frame of one image: the one way there for what is given, and back."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch

from canon_seg.core.action import act
from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn, compose, turned_size


class PromptsLike(Protocol):
    """Describe what the frame asks of prompts."""

    def snapped(self) -> Any:
        """Return the prompts with coordinates on the dyadic grid on which turning is exact."""
        ...

    def turned(self, turn: Turn, height: int, width: int) -> Any:
        """Return the prompts for the image after a turn, from the frame's size before it."""
        ...

    def key(self) -> Any:
        """Return the coordinates as something ordered."""
        ...


class CanonicalFrame:
    """Hold the pose of one image, and bring things to its canonical frame and back.

    An image that equals a turn of itself has several poses, all with the same canonical image.
    Which one is meant shows only in the prompts: the one that brings their coordinates first in
    order is taken, so that turned prompts get turned results on such images too. Only where the
    prompts are as symmetric as the image, or there are none, a result is defined up to a turn.

    Attributes:
        pose: of the given image.
        size: (height, width) in pixels of the frame in which things are given.
        canonical_size: the same of the canonical frame.

    Args:
        canonicalizer: in eval mode.
        image: (3, H, W) tensor, values 0..255, in the channel order that the canonicalizer takes.
        prompts: in the frame of the image, or None.
        size: of the frame in which prompts and results are given, if it is not the image's.
        votes: whether several poses may vote; otherwise the likeliest is taken.
    """

    def __init__(
        self,
        canonicalizer: Canonicalizer,
        image: torch.Tensor,
        prompts: "PromptsLike | None" = None,
        *,
        size: "Sequence[int] | None" = None,
        votes: bool = True,
    ) -> None:
        height, width = map(int, image.shape[-2:] if size is None else size)
        self.canonicalizer = canonicalizer
        self.size = height, width
        self._given_image = image
        self._given_prompts = self._on_grid(prompts)
        pose = canonicalizer.pose(image, self._prompt_key())
        self.pose: Pose = pose if votes else pose.alone()

    @property
    def canonical_size(self) -> tuple[int, int]:
        """Return (height, width) of the canonical frame in pixels."""
        return turned_size(*self.size, self.pose.to_canonical)

    @cached_property
    def image(self) -> torch.Tensor:
        """Return the image in its canonical pose: itself, or a copy that was turned."""
        image: torch.Tensor = act(self._given_image, self.pose.to_canonical, *self.size, "image")
        return image

    @cached_property
    def prompts(self) -> Any:
        """Return the prompts in the canonical frame, or None where there are none."""
        if self._given_prompts is None:
            return None
        return self._given_prompts.turned(self.pose.to_canonical, *self.size)

    def with_prompts(self, prompts: "PromptsLike | None") -> "CanonicalFrame":
        """Return the frame of the same image with other prompts; the network does not run again.

        Args:
            prompts: in the frame of the given image.
        """
        frame = self._copy()
        frame._given_prompts = self._on_grid(prompts)
        key, pose = frame._prompt_key(), self.pose
        if key is not None and pose.is_symmetric:
            chosen = min(sorted(pose.to_representative), key=key)
            frame.pose = pose.resolved(chosen, self.canonicalizer.group)
        return frame

    def in_pose(self, turn: Turn) -> "CanonicalFrame":
        """Return the frame of the same image and prompts as if the image had another pose."""
        frame = self._copy()
        frame.pose = replace(self.pose, turn=turn, policy="argmax", others=())
        return frame

    def there(self, value: Any, field: str = "") -> Any:
        """Bring a value of the given frame to the canonical frame, see :mod:`core.action`."""
        return act(value, self.pose.to_canonical, *self.size, field)

    def back(self, value: Any, field: str = "") -> Any:
        """Bring a value of the canonical frame back to the given frame.

        The value may be overwritten: it is of no use afterwards.
        """
        return act(value, self.pose.turn, *self.canonical_size, field)

    def from_pose(self, turn: Turn, value: Any, field: str = "") -> Any:
        """Bring a value found in another pose, see :meth:`in_pose`, to this canonical frame.

        The value may be overwritten: it is of no use afterwards.
        """
        size = self.in_pose(turn).canonical_size
        return act(value, compose(turn, self.pose.to_canonical), *size, field)

    def _on_grid(self, prompts: "PromptsLike | None") -> "PromptsLike | None":
        return prompts if prompts is None or not self.canonicalizer.snaps else prompts.snapped()

    def _prompt_key(self) -> Any:
        prompts = self._given_prompts
        if prompts is None:
            return None
        return lambda turn: prompts.turned(turn, *self.size).key()

    def _copy(self) -> "CanonicalFrame":
        frame = object.__new__(CanonicalFrame)
        frame.canonicalizer, frame.size, frame.pose = self.canonicalizer, self.size, self.pose
        frame._given_image, frame._given_prompts = self._given_image, self._given_prompts
        return frame
