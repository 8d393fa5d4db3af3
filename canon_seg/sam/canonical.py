"""Put a `Sam` behind a canonicalizer: prompts on an image as given in, masks in its frame out."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn
from canon_seg.images.energy import JudgedCall, judges_by_segmenter
from canon_seg.sam.confidence import confidence
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
        judged = None
        if judges_by_segmenter(self.canonicalizer):
            judged = JudgedCall(self.canonicalizer, partial(self._judged, image.shape, prompts))
        frame = CanonicalFrame(judged or self.canonicalizer, image, prompts)

        def run(frame: CanonicalFrame) -> PromptedMasks:
            if judged is None:
                return self.prompted(frame.image, frame.prompts, soft=frame.tilts)
            found: PromptedMasks = judged.results[frame.pose.to_canonical]
            return found

        # Boxes around masks are whole numbers: turning is exact without rounding them.
        best = run(frame)
        if not frame.pose.others:
            return frame.pose, frame.back(best)
        results = [frame.to_vote(frame.pose.turn, best)]
        for other in frame.pose.others:
            results.append(frame.to_vote(other, run(frame.in_pose(other))))
        rows = merge_prompted([result.rows() for result in results], "ious")
        return frame.pose, frame.from_vote(replace(results[0], **rows))

    def _judged(self, shape, prompts: Prompts, image: torch.Tensor, turn: Turn):
        """Return the masks of the prompts after a turn, and their energy."""
        on_grid = prompts.snapped() if self.canonicalizer.snaps else prompts
        found = self.prompted(image, on_grid.turned(turn, *shape[-2:]))
        return found, -confidence(found.ious, found.stabilities)
