"""Define the canonical frame of one image: the one way there for what is given, and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch

from canon_seg.core.action import act, tilt
from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.tilting import Tilting, content_window, fill_colour
from canon_seg.core.turn import Turn, compose, inverse, turned_size


class PromptsLike(Protocol):
    """Describe what the frame asks of prompts."""

    def snapped(self) -> Any:
        """Return the prompts with coordinates on the dyadic grid on which turning is exact."""
        ...

    def turned(self, turn: Turn, height: int, width: int) -> Any:
        """Return the prompts for the image after a turn, from the frame's size before it."""
        ...

    def tilted(self, tilting: Tilting) -> Any:
        """Return the prompts in another frame, in which the first one lies tilted."""
        ...

    def key(self) -> Any:
        """Return the coordinates as something ordered."""
        ...


@dataclass(frozen=True)
class _Way:
    """Hold the way to a canonical frame by way of a tilt.

    Exact steps lead to a frame that all members of the image's exact orbit share. The tilt happens
    there, so that it gives all of them the same bytes. Further exact steps follow.
    """

    first: Turn
    tilting: Tilting
    last: Turn
    image: torch.Tensor  # tilted already, before the last steps


class CanonicalFrame:
    """Hold the pose of one image, and bring things to its canonical frame and back.

    By quarter turns and mirrors this is exact. A pose with a tilt takes one interpolation there and
    one back, in between exact steps: results for the quarter turns (and mirrors, where the group
    has them) of one image still differ by exactly these. Rows and columns of nothing but fill are
    left out of a canonical frame with a tilt.

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
        self._is_of_image = self.size == tuple(map(int, image.shape[-2:]))
        self._given_prompts = self._on_grid(prompts)
        pose = canonicalizer.pose(image, self._prompt_key())
        self.pose: Pose = pose if votes else pose.alone()

    @property
    def tilts(self) -> bool:
        """Return whether the way to the canonical frame interpolates."""
        return not self.pose.turn.exact

    @property
    def canonical_size(self) -> tuple[int, int]:
        """Return (height, width) of the canonical frame in pixels."""
        if self._way is not None:
            return turned_size(*self._way.tilting.target, self._way.last)
        return turned_size(*self.size, self.pose.to_canonical)

    def resized(self, height: int, width: int) -> "CanonicalFrame":
        """Return the frame of results of another size than the image, in the same pose.

        Its canonical size is that of the canonical image, enlarged as the image is.

        Args:
            height, width: of the results in the frame of the given image, in pixels.
        """
        frame = self._copy()
        frame.size, frame._given_prompts = (int(height), int(width)), None
        if "_image_way" in vars(self):
            frame._image_way = self._image_way
        return frame

    @cached_property
    def image(self) -> torch.Tensor:
        """Return the image in its canonical pose: itself, or a copy that was turned."""
        if self._way is not None:
            way = self._way
            tilted: torch.Tensor = act(way.image, way.last, *way.tilting.target, "image")
            return tilted
        image: torch.Tensor = act(self._given_image, self.pose.to_canonical, *self.size, "image")
        return image

    @cached_property
    def prompts(self) -> Any:
        """Return the prompts in the canonical frame, or None where there are none."""
        if self._given_prompts is None:
            return None
        way = self._way
        if way is None:
            return self._given_prompts.turned(self.pose.to_canonical, *self.size)
        tilted = self._given_prompts.turned(way.first, *self.size).tilted(way.tilting)
        return tilted.turned(way.last, *way.tilting.target)

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
        if frame.pose is pose and "_image_way" in vars(self):  # the image is not tilted again
            frame._image_way = self._image_way
        return frame

    def in_pose(self, turn: Turn) -> "CanonicalFrame":
        """Return the frame of the same image and prompts as if the image had another pose."""
        frame = self._copy()
        frame.pose = replace(self.pose, turn=turn, policy="argmax", others=())
        return frame

    def there(self, value: Any, field: str = "") -> Any:
        """Bring a value of the given frame to the canonical frame, see :mod:`core.action`."""
        way = self._way
        if way is None:
            return act(value, self.pose.to_canonical, *self.size, field)
        value = tilt(act(value, way.first, *self.size, field), way.tilting, field)
        return act(value, way.last, *way.tilting.target, field)

    def back(self, value: Any, field: str = "") -> Any:
        """Bring a value of the canonical frame back to the given frame.

        The value may be overwritten: it is of no use afterwards.
        """
        way = self._way
        if way is None:
            return act(value, self.pose.turn, *self.canonical_size, field)
        value = act(value, inverse(way.last), *self.canonical_size, field)
        value = tilt(value, way.tilting.inverse(), field)
        return act(value, inverse(way.first), *way.tilting.source, field)

    def to_vote(self, turn: Turn, value: Any, field: str = "") -> Any:
        """Bring a value found in one of the poses of a vote to the frame in which these vote.

        That is the canonical frame, or, if a pose of the vote has a tilt, the representative's:
        what was found is tilted once, on its way from the pose. Either is the same for all exact
        turns of the image.

        The value may be overwritten: it is of no use afterwards.

        Args:
            turn: the pose that the value was found in, see :meth:`in_pose`.
            value, field: see :meth:`back`.
        """
        other = self.in_pose(turn)
        if self._votes_with_tilt:
            return act(other.back(value, field), self._shared, *self.size, field)
        return act(value, compose(turn, self.pose.to_canonical), *other.canonical_size, field)

    def from_vote(self, value: Any, field: str = "") -> Any:
        """Bring what a vote has decided back to the given frame, see :meth:`to_vote`."""
        if not self._votes_with_tilt:
            return self.back(value, field)
        size = turned_size(*self.size, self._shared)
        return act(value, inverse(self._shared), *size, field)

    @property
    def _votes_with_tilt(self) -> bool:
        return not all(turn.exact for turn in (self.pose.turn, *self.pose.others))

    @property
    def _shared(self) -> Turn:
        """Return the exact turn to the frame that all of the image's exact orbit share."""
        # Without a representative, the quarter turns are undone first.
        return (*self.pose.to_representative, Turn(-self.pose.turn.quarters % 4))[0]

    @cached_property
    def _way(self) -> "_Way | None":
        """Plan the way to the canonical frame; None where exact steps do."""
        way = self._image_way
        if way is None:
            return None
        source = turned_size(*self.size, way.first)
        if source == way.tilting.source:
            return way
        # The same for turned sizes: a product does not depend on the order of its factors.
        enlarged = math.sqrt(math.prod(self.size) / math.prod(way.tilting.source))
        target = tuple(max(1, round(side * enlarged)) for side in way.tilting.target)
        return replace(way, tilting=way.tilting.between(source, (target[0], target[1])))

    @cached_property
    def _image_way(self) -> "_Way | None":
        """Do as :attr:`_way`, for results of the size of the image."""
        pose = self.pose
        if pose.turn.exact:
            return None
        if not self._is_of_image:
            raise ValueError(
                "the image has another size than the frame of its prompts, in which a pose between "
                "quarter turns cannot be undone; give the image as it was read"
            )
        shared = self._shared
        size = int(self._given_image.shape[-2]), int(self._given_image.shape[-1])
        to_canonical = inverse(compose(pose.turn, shared))
        first = compose(shared, Turn(mirrored=to_canonical.mirrored))
        image = act(self._given_image, first, *size, "image")
        whole = Tilting.expanding(to_canonical.tilt, turned_size(*size, first))
        canvas = tilt(image, whole, "image")
        tilting = whole.windowed(*content_window(canvas, fill_colour(image)))
        if tilting != whole:  # once more, since a part of a warp may round in another way
            canvas = tilt(image, tilting, "image")
        return _Way(first, tilting, Turn(to_canonical.quarters), canvas)

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
        frame._is_of_image = self._is_of_image
        return frame
