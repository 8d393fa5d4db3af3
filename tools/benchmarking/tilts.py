"""Time what any angle costs: the scorer of all angles, and the warp there and back."""

from dataclasses import replace
from pathlib import Path

import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.assets import resolve_asset
from canon_seg.core.canonicalizer import Canonicalizer, FixedPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import SO2
from canon_seg.core.turn import Turn
from canon_seg.d2.soft_masks import gives_soft_masks, run_with_soft_masks
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.build import load_scorer
from canon_seg.networks.circle_scorer import CircleScorer

WEIGHTS = "canon_seg://canonicalizer_so2.pth"
PASSES = {"so2": 0, "so2_1_pass": 1}
"""Looks of the scorer at an image, 0 for one at each quarter turn, by the name of the way."""

TURNS = tuple(Turn.by(degrees) for degrees in (20, 110, 200, 290))
"""One tilt, and all of its quarter turns."""


class SaysAnother(Canonicalizer):
    """Find the pose as another canonicalizer does, and then say a given one.

    Times are then those of a tilt, whatever the image and the weights.

    Args:
        like: the canonicalizer, whose scorer runs.
        turn: what is said.
    """

    def __init__(self, like, turn):
        super().__init__(like.image_format)
        self.like, self.turn = like, turn
        self.group, self.snaps = SO2, like.snaps

    def pose(self, image, prompt_key=None):
        """Return the given pose, by way of the same representative."""
        found = self.like.pose(image, prompt_key)
        return replace(found, turn=self.turn, policy="argmax", others=())


def so2_canonicalizers(device, image_format="RGB"):
    """Build the canonicalizers of any angle by the names of ``PASSES``, and name their weights.

    Returns:
        (dict from name to canonicalizer, the weights file or "random").
    """
    path = Path(resolve_asset(WEIGHTS))
    built = {}
    for name, passes in PASSES.items():
        if path.is_file():
            scorer = load_scorer(path, image_format=image_format, passes=passes, group=SO2)
        else:
            torch.manual_seed(0)
            network = PoseNetwork(BackboneSpec("tf_efficientnet_lite0", 72))
            scorer = CircleScorer(network, input_size=192, image_format=image_format, passes=passes)
        built[name] = GroupCanonicalizer(scorer).to(device).eval()
    return built, WEIGHTS if path.is_file() else "random"


@torch.no_grad()
def results_in(model, frame, inputs):
    """Return what the segmenter of a model finds in a canonical frame, masks not cut yet.

    Args:
        model: :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`, whose canonicalizer says the
            pose of the frame.
        frame: :class:`canon_seg.core.frame.CanonicalFrame`.
        inputs: of the given image.
    """
    _, asked = model.canonicalize(inputs)
    asked = {**asked, "soft_masks": True}
    if gives_soft_masks(model.segmenter):
        return run_with_soft_masks(model.segmenter, [asked])[0]["instances"]
    return model.segmenter([asked])[0]["instances"]


def frame_tilted(image, turn=TURNS[0]):
    """Return the frame of a (3, H, W) image by a pose with a tilt that is known."""
    return CanonicalFrame(FixedPoseCanonicalizer(turn, SO2), image)
