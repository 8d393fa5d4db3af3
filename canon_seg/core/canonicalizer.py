"""Define what every canonicalizer offers, and the ones that need no scorer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from canon_seg.core.group import C4, PlanarGroup
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.registry import Registry
from canon_seg.core.scorer import Distribution, pointwise
from canon_seg.core.turn import IDENTITY, Turn

IMAGE_FORMATS = ("RGB", "BGR")

CANONICALIZERS: "Registry[Any]" = Registry("canonicalizer")
"""Classes by the name that ``MODEL.CANONICALIZER.NAME`` gives; ``from_config(cfg)`` builds one."""

PromptKey = Callable[[Turn], Any]
"""Function from an exact turn to something ordered that describes the prompts after that turn."""


class Canonicalizer(nn.Module):
    """Find the pose of images: the contract that the rest of the project relies on.

    A canonicalizer keeps no state between calls, so that one object serves several models and
    threads. A class of your own implements :meth:`pose`, and :meth:`scores` if it learns.

    Attributes:
        group: of the poses that it finds.
        snaps: whether coordinates are rounded to the dyadic grid on which turning is exact.
        image_format: "RGB" or "BGR", the channel order of the images that it takes.
        uncertain: what to do with uncertain poses, also of a whole clip.
        finds_poses: whether it looks at images at all.

    Args:
        image_format: see the attribute.

    Raises:
        ValueError: for another channel order.
    """

    group: PlanarGroup = C4
    snaps: bool = True
    uncertain: UncertainPoses = UncertainPoses()
    finds_poses: bool = True

    def __init__(self, image_format: str = "RGB") -> None:
        super().__init__()
        self.image_format = check_image_format(image_format)

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Find the pose of one image.

        Args:
            image: (3, H, W) tensor as read, before any resizing, values 0..255.
            prompt_key: breaks the tie of an image that equals a turn of itself: the turn to the
                representative with the least key is taken.

        Returns:
            the pose.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method pose")

    def scores(self, images: Sequence[torch.Tensor]) -> Distribution:
        """Return the pose distribution of images as they are, differentiable, for training.

        Args:
            images: (3, H, W) tensors, values 0..255, of any sizes.

        Raises:
            TypeError: if this canonicalizer does not learn.
        """
        raise TypeError(
            f"{type(self).__name__} looks at no image, so that there is nothing to train or to "
            "measure; take GroupCanonicalizer"
        )

    @property
    def needs_turned_views(self) -> bool:
        """Tell whether this canonicalizer is to be trained on views turned at random."""
        return False

    def training_input(self, image: torch.Tensor) -> torch.Tensor:
        """Return what :meth:`scores` takes of a (3, H, W) image of any size in training mode."""
        return image

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the pose scores of one (3, H, W) image as it is: (N,) logits, for export."""
        return self.scores([image]).logits[0]


class FixedPoseCanonicalizer(Canonicalizer):
    """Say the same pose of every image: the oracle, where the true pose is known.

    Args:
        turn: the pose; an integer stands for quarter turns, 0..3.
        group: that the pose belongs to.

    Raises:
        ValueError: if it does not; degrees must not wrap around silently.
    """

    finds_poses = False

    def __init__(self, turn: "Turn | int", group: PlanarGroup = C4) -> None:
        super().__init__()
        self.group = group
        self.turn = group.element(turn)

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Return the fixed pose with probability 1; the image is not looked at."""
        return Pose(self.turn, pointwise(self.group, self.turn), probability=1.0)


@CANONICALIZERS.register()
class IdentityCanonicalizer(FixedPoseCanonicalizer):
    """Leave every image as it is: the plain segmenter, to the last bit.

    Coordinates are not snapped to the dyadic grid either.
    """

    snaps = False

    def __init__(self) -> None:
        super().__init__(IDENTITY)

    @classmethod
    def from_config(cls, cfg: Any) -> "IdentityCanonicalizer":
        """Build the canonicalizer of a config."""
        return cls()


class KnownPoseCanonicalizer(Canonicalizer):
    """Say a given pose of every image: the frames of a clip whose pose was found before.

    Args:
        pose: with its votes and probabilities.
        like: the canonicalizer that found it, whose group and grid hold.
    """

    finds_poses = False

    def __init__(self, pose: Pose, like: Canonicalizer) -> None:
        super().__init__(like.image_format)
        self.known, self.group, self.snaps = pose, like.group, like.snaps

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Return the given pose; the image is not looked at."""
        return self.known


class AllPosesCanonicalizer(Canonicalizer):
    """Have the segmenter run in all poses of a group: test-time augmentation.

    Results are merged in the frame of the given image.

    Args:
        group: a finite one.

    Raises:
        ValueError: if it is continuous.
    """

    finds_poses = False

    def __init__(self, group: PlanarGroup = C4) -> None:
        super().__init__()
        if group.elements is None:
            raise ValueError(f"{group.name} has no list of poses to run in")
        self.group = group

    def pose(self, image: torch.Tensor, prompt_key: "PromptKey | None" = None) -> Pose:
        """Return the identity with all other poses voting; the image is not looked at."""
        first, *others = self.group.elements or ()
        share = 1 / (1 + len(others))
        return Pose(first, (share,) * (1 + len(others)), "vote", tuple(others), probability=share)


def check_image_format(image_format: str) -> str:
    """Return a channel order that is known.

    Raises:
        ValueError: for any but "RGB" and "BGR", as they are written here.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image_format is {image_format!r}; give 'RGB' or 'BGR'")
    return image_format
