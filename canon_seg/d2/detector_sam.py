"""Prompt SAM with a detector's boxes: class and score from the one, mask from the other."""

import os
from importlib.resources import files

import torch
from torch import nn

from canon_seg.config.assets import resolve_asset, resolve_config
from canon_seg.d2.capabilities import CANONICALIZED, capabilities, registered
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.config import load_config
from canon_seg.d2.resizing import resize_for_model
from canon_seg.errors import InputError
from canon_seg.images.coordinates import PIXEL_STEP, snap
from canon_seg.sam.prompts import Prompts

from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN

KEY = "MODEL.SAM.DETECTOR"


class DetectorSam(nn.Module):
    """Segment what a detector finds. Both see the same image; each brings its own resizing.

    Attributes:
        resizes_itself: takes images of any size.
        takes_prompts: prompts may be given with the images.
    """

    resizes_itself = takes_prompts = True

    def __init__(self, detector, segmenter):
        """Join a detector with a segmenter that takes prompts, both in eval mode.

        Args:
            detector: :class:`BoxDetector`.
            segmenter: one that takes prompts, such as :class:`canon_seg.d2.sam.SamSegmenter`.
        """
        super().__init__()
        self.box_detector = detector
        self.segmenter = segmenter
        self.eval()

    @property
    def sam(self):
        """Return the `Sam` that is prompted."""
        return self.segmenter.sam

    @property
    def detector(self):
        """Return the detectron2 model whose boxes are the prompts."""
        return self.box_detector.detector

    @property
    def device(self):
        """Return the device of the segmenter."""
        return self.segmenter.device

    def forward(self, batched_inputs):
        """Segment the boxes found in each image; ``prompts`` given with it go before them.

        Arguments and result are those of the segmenter in inference.

        Raises:
            InputError: in training.
        """
        if self.training:
            raise InputError(
                'MODEL.SAM.PROMPTS is "detector", which is for evaluation; train with "boxes"'
            )
        return self.segmenter(
            [
                inputs
                if inputs.get("prompts") is not None
                else {**inputs, "prompts": self.box_detector.prompts(inputs["image"])}
                for inputs in batched_inputs
            ]
        )


class BoxDetector(nn.Module):
    """Use a detectron2 model as a source of box prompts."""

    def __init__(self, detector, *, resize, flips_channels=False, score_thresh=0.0):
        """Take the boxes of a detector as prompts.

        Args:
            detector: detectron2 meta-architecture whose results have ``instances``.
            resize: detectron2 Augmentation that brings an image to its size.
            flips_channels: it takes BGR where the images given are RGB, or the other way round.
            score_thresh: detections with a lower score are left out.
        """
        super().__init__()
        self.detector = detector
        self.resize = resize
        self.flips_channels = flips_channels
        self.score_thresh = score_thresh
        self.eval()

    @torch.no_grad()
    def prompts(self, image):
        """Return the detections in an image, in the detector's order.

        Args:
            image: (3, H, W) tensor, values 0..255.

        Returns:
            :class:`Prompts` in the frame of ``image``, boxes on the grid of 1/256 px.
        """
        height, width = image.shape[-2:]
        resized = resize_for_model(image, self.resize, self.flips_channels)
        # detectron2's models bring their boxes to this height and width.
        result = self.detector([{"image": resized, "height": height, "width": width}])[0]
        if "instances" not in result:
            raise InputError(
                f"{KEY}.CONFIG_FILE: this model gives {', '.join(sorted(result))} but no "
                "instances; name a detector's config"
            )
        found = result["instances"]
        found = found[found.scores >= self.score_thresh]
        return Prompts(
            boxes=snap(found.pred_boxes.tensor.float(), PIXEL_STEP),
            classes=found.pred_classes,
            scores=found.scores.float(),
        )


def build_detector(cfg):
    """Build the :class:`BoxDetector` that ``cfg.MODEL.SAM.DETECTOR`` describes, weights loaded.

    Raises:
        InputError: naming the key or the file that cannot be used.
    """
    keys = cfg.MODEL.SAM.DETECTOR
    if not 0 <= keys.SCORE_THRESH <= 1:
        raise InputError(f"{KEY}.SCORE_THRESH is {keys.SCORE_THRESH}; give a score, 0 to 1")
    theirs = load_config(detector_config_file(keys.CONFIG_FILE))
    name, weights = theirs.MODEL.META_ARCHITECTURE, keys.WEIGHTS
    if name == CANONICALIZED:  # the pose is found once, before both
        name = theirs.MODEL.SEGMENTER.META_ARCHITECTURE
        weights = weights or theirs.MODEL.SEGMENTER.WEIGHTS
    found = registered(name)
    if found is None or name == CANONICALIZED or capabilities(found).needs_prompts:
        raise InputError(
            f"{KEY}.CONFIG_FILE: {keys.CONFIG_FILE} describes a {name!r}; name the config of a "
            "detector, such as a GeneralizedRCNN or a RetinaNet"
        )
    if not weights:
        raise InputError(f"{KEY}.WEIGHTS is empty; give the detector's checkpoint")
    theirs.MODEL.DEVICE = "cpu"  # until the whole model is moved
    detector = found(theirs)
    SafeCheckpointer(detector, key=f"{KEY}.WEIGHTS").load(resolve_asset(weights))
    if type(detector) is GeneralizedRCNN:  # only its boxes are wanted
        for head in ("mask_on", "keypoint_on"):
            if hasattr(detector.roi_heads, head):
                setattr(detector.roi_heads, head, False)
    return BoxDetector(
        detector,
        resize=ResizeShortestEdge([theirs.INPUT.MIN_SIZE_TEST] * 2, theirs.INPUT.MAX_SIZE_TEST),
        flips_channels=theirs.INPUT.FORMAT != cfg.INPUT.FORMAT,
        score_thresh=keys.SCORE_THRESH,
    )


def detector_config_file(name):
    """Return the file that MODEL.SAM.DETECTOR.CONFIG_FILE names, or raise :class:`InputError`."""
    if not name:
        raise InputError(
            f'{KEY}.CONFIG_FILE is empty; MODEL.SAM.PROMPTS "detector" needs a detector\'s config'
        )
    for path in (resolve_config(name), str(files("detectron2.model_zoo") / "configs" / name)):
        if os.path.isfile(path):
            return path
    raise InputError(
        f"{KEY}.CONFIG_FILE: {name} is neither a file nor a name in detectron2's model zoo"
    )
