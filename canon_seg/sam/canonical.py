"""A `Sam` behind a canonicalizer: prompts on an image as given in, masks in its frame out."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from canon_seg.core.group import C4
from canon_seg.images.canonicalizer import Pose
from canon_seg.images.representative import turned_copy
from canon_seg.sam.prompted import (
    PromptedMasks,
    PromptedSam,
    merge_prompted,
    turn_prompted_masks,
)
from canon_seg.sam.prompts import Prompts


@dataclass(frozen=True)
class CanonicalSam:
    """A function from an image and its prompts to its pose and their masks.

    The image is turned to its canonical pose, SAM runs there, and masks are turned back. Of an
    uncertain pose that is voted on, SAM runs in each of its poses, and each prompt gets the mask
    with the best predicted IoU. The results are those of
    :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`, bit by bit.

    Attributes:
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode.
        prompted: the `Sam`.
    """

    canonicalizer: nn.Module
    prompted: PromptedSam

    def __call__(self, image: torch.Tensor, prompts: Prompts) -> tuple[Pose, PromptedMasks]:
        """Segment what is prompted for.

        Args:
            image: (3, H, W) tensor as read, before any resizing, in both parts' channel order.
            prompts: in the frame of ``image``.

        Returns:
            (pose, masks), masks in the frame of ``image``.
        """
        size = tuple(image.shape[-2:])
        if self.canonicalizer.snaps:
            prompts = prompts.snapped()
        pose = self.canonicalizer.pose(image, lambda turns: prompts.turned(turns, *size).key())
        results = []
        for other in (pose.turns, *pose.others):
            turns = C4.inverse(other)
            posed = turned_copy(image, turns) if turns else image.contiguous()
            # Boxes around masks are whole numbers: turning is exact without rounding them.
            found = self.prompted(posed, prompts.turned(turns, *size))
            to_canonical = C4.compose(other, pose.turns_to_canonical)
            results.append(turn_prompted_masks(found, to_canonical, *found.size))
        best = results[0]
        if len(results) > 1:
            best = replace(best, **merge_prompted([result.rows() for result in results], "ious"))
        return pose, turn_prompted_masks(best, pose.turns, *best.size)
