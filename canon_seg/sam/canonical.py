"""Put a `Sam` behind a canonicalizer: prompts on an image as given in, masks in its frame out."""

from dataclasses import dataclass, replace

import torch

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.sam.prompted import PromptedMasks, PromptedSam, merge_prompted
from canon_seg.sam.prompts import Prompts


@dataclass(frozen=True)
class CanonicalSam:
    """Find the pose of an image and the masks of its prompts.

    The image is turned to its canonical pose, SAM runs there, and masks are turned back. Of an
    uncertain pose that is voted on, SAM runs in each of its poses, and each prompt gets the mask
    with the best predicted IoU. The results are those of
    :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`, bit by bit.

    Attributes:
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode.
        prompted: the `Sam`.
    """

    canonicalizer: Canonicalizer
    prompted: PromptedSam

    def __call__(self, image: torch.Tensor, prompts: Prompts) -> tuple[Pose, PromptedMasks]:
        """Segment what is prompted for.

        Args:
            image: (3, H, W) tensor as read, before any resizing, in both parts' channel order.
            prompts: in the frame of ``image``.

        Returns:
            (pose, masks), masks in the frame of ``image``.
        """
        frame = CanonicalFrame(self.canonicalizer, image, prompts)
        # Boxes around masks are whole numbers: turning is exact without rounding them.
        best = self.prompted(frame.image, frame.prompts)
        if frame.pose.others:
            results = [best]
            for other in frame.pose.others:
                posed = frame.in_pose(other)
                found = self.prompted(posed.image, posed.prompts)
                results.append(frame.from_pose(other, found))
            rows = merge_prompted([result.rows() for result in results], "ious")
            best = replace(best, **rows)
        return frame.pose, frame.back(best)
