"""Segment one image by a SAM: its pose, what was found and a picture. Others: detectors.py."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from canon_seg.apps.drawing import draw_segmentation
from canon_seg.apps.files.classes import OBJECTS, Classes
from canon_seg.apps.following import Followed, follow
from canon_seg.core.canonicalizer import Canonicalizer, KnownPoseCanonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn
from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import turn_boxes, turn_keypoints
from canon_seg.images.tensors import to_chw
from canon_seg.networks.build import build_canonicalizer
from canon_seg.networks.numerics import speed_up, used_numerics
from canon_seg.predictors.everything import SMALL_SAM
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.canonical import CanonicalSam
from canon_seg.sam.confidence import bound_to_sam
from canon_seg.sam.loading import sam_from_config
from canon_seg.sam.prompted import (
    PromptedMasks,
    PromptedSam,
    boxes_around,
)

# Which masks of everything are kept: least predicted IoU, least stability, and how many of the
# best. segment_anything's thresholds are made for its large models; a small one is less sure.
KEEP = (0.88, 0.95, 1000)
KEEP_TINY = (SMALL_SAM["pred_iou_thresh"], SMALL_SAM["stability_score_thresh"], 50)
POINTS_PER_SIDE = 16
# Values in the three mask logits of all points that are decoded at once: bounds the memory.
VALUES_PER_BATCH = 2**27


@dataclass(frozen=True, eq=False)  # tensors have no truth value to compare by
class Objects:
    """Hold N objects of one image, in its frame, as tensors on the CPU.

    Attributes:
        boxes: (N, 4) float XYXY edges in pixels.
        classes: (N,) int64.
        scores: (N,) float, or None for the segments of a whole image.
        masks: (N, H, W) bool, or None where the model finds none.
        keypoints: (N, K, 3) x, y in the continuous frame and a score, or None likewise.
        vanished: how many of the masks are empty since the image was tilted, and their objects lie
            outside of it.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    keypoints: torch.Tensor | None = None
    vanished: int = 0

    def __len__(self) -> int:
        return len(self.boxes)

    def turned(self, turn: "Turn | int", height: int, width: int) -> "Objects":
        """Turn the objects with their image.

        Args:
            turn: by index; an integer stands for quarter turns counterclockwise.
            height, width: of the image before turning, in pixels.
        """
        frame = turn, height, width
        return replace(
            self,
            boxes=turn_boxes(self.boxes, *frame),
            masks=None if self.masks is None else turn_maps(self.masks, turn),
            keypoints=None if self.keypoints is None else turn_keypoints(self.keypoints, *frame),
        )


@dataclass
class Segmentation:
    """Hold what was found in one image, in its frame.

    Attributes:
        pose: of the image.
        objects: :class:`Objects`.
        classes: what their ``classes`` stand for.
        picture: RGB uint8 array, possibly enlarged.
        size: (height, width) of the image in pixels.
    """

    pose: Pose
    objects: Objects
    classes: Classes
    picture: np.ndarray
    size: tuple

    def __str__(self):
        count = len(self.objects)
        if self.objects.masks is not None:
            empty = count - int(self.objects.masks.flatten(1).any(dim=1).sum()) if count else 0
            said = "" if not empty else " (empty)" if count == 1 else f" ({empty} of them empty)"
            return f"{count} mask{'' if count == 1 else 's'}{said}"
        return f"{count} box" if count == 1 else f"{count} boxes"


@dataclass(frozen=True)
class Segment:
    """Segment an image: a function from an RGB image and its prompts to a :class:`Segmentation`.

    Attributes:
        find: function of a canonicalizer, an (H, W, 3) RGB image and a list of Prompts.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode.
        everything: whether it finds all there is, whose masks come in an order of their own in
            each image.
    """

    find: Callable
    canonicalizer: Canonicalizer
    everything: bool = False

    def __call__(self, image, prompts=()):
        """Find the :class:`Segmentation` of an (H, W, 3) RGB image and its prompts."""
        return self.find(self.canonicalizer, image, prompts)

    def pose(self, image):
        """Find the :class:`Pose` of an (H, W, 3) RGB image."""
        return self.canonicalizer.pose(as_canonicalizer_takes_it(image, self.canonicalizer))

    def with_pose(self, pose):
        """Segment an image whose pose is known already, such as a frame of a clip."""
        return replace(self, canonicalizer=KnownPoseCanonicalizer(pose, self.canonicalizer))


class ColorsThatStay:
    """Give masks of everything their colours in one picture after the other.

    Args:
        segment: :class:`Segment` that finds them; what others find is left as it is, since its
            colours are those of prompts or classes.
    """

    def __init__(self, segment: Segment) -> None:
        self.is_needed = segment.everything
        self.known: tuple[Followed, ...] = ()

    def __call__(self, found: Segmentation, image: np.ndarray, turns: int = 0) -> Segmentation:
        """Draw anew what was found.

        Args:
            found: in the image.
            image: (H, W, 3) RGB.
            turns: by how many quarter turns the image is turned against the first one.

        Returns:
            the same with another picture.
        """
        if not self.is_needed or found.objects.masks is None:
            return found
        masks = list(found.objects.masks.numpy())
        numbers, self.known = follow(self.known, [turn_maps(mask, -turns % 4) for mask in masks])
        if numbers == list(range(len(masks))):
            return found
        return replace(found, picture=draw_segmentation(image, masks, numbers=numbers))


def same_when_turned(turned):
    """Say whether what was found in four turns of one image is the same, bit by bit.

    Args:
        turned: four :class:`Segmentation`, of the image turned by 0, 1, 2 and 3 quarter turns.
    """
    upright = turned[0]
    return all(
        _equal(upright.objects.turned(turns, *upright.size), found.objects)
        for turns, found in enumerate(turned)
    )


def _equal(first, second):
    pairs = [
        (getattr(first, n), getattr(second, n)) for n in ("boxes", "classes", "scores", "masks")
    ]
    return all((one is None and other is None) or torch.equal(one, other) for one, other in pairs)


def segment_prompts(prompted, canonicalizer, image, prompts):
    """Find a mask for each prompt.

    Args:
        prompted: :class:`PromptedSam`.
        canonicalizer, image, prompts: see :class:`Segment`.
    """
    model, pixels = (
        CanonicalSam(canonicalizer, prompted),
        image_tensor(image, prompted.image_format),
    )
    answers = [model(pixels, part) for part in prompts]
    found = PromptedMasks.cat([masks.to("cpu") for _, masks in answers])
    return _segmentation(answers[0][0], found, image, **_marks(prompts))


def _marks(prompts):
    """List the boxes and clicks of prompts for the picture, with the mask that each belongs to."""
    boxes, clicks, owners, background, first = [], [], [], [], 0
    for part in prompts:
        boxes += [] if part.boxes is None else list(part.boxes)
        if part.points is not None:
            for row, (points, labels) in enumerate(
                zip(part.points, part.point_labels, strict=True)
            ):
                clicks += list(points[labels == 1])
                owners += [first + row] * int((labels == 1).sum())
                background += list(points[labels == 0])
        first += len(part)
    return {"boxes": boxes, "clicks": clicks, "owners": owners, "background": background}


def segment_everything(sam, count, options, last, canonicalizer, image, prompts=()):
    """Find the ``count`` best masks of everything in the image; there are no prompts.

    Args:
        sam: a `Sam`.
        count: how many at most.
        options: dict, of segment_anything's automatic mask generator.
        last: dict that keeps the last canonical image and its masks, or None, see
            :meth:`CanonicalSamAutomaticMaskGenerator.generate_with_pose`.
        canonicalizer, image: see :class:`Segment`.
        prompts: none.
    """
    points_per_batch = min(64, max(1, VALUES_PER_BATCH // (3 * image.shape[0] * image.shape[1])))
    generator = CanonicalSamAutomaticMaskGenerator(
        sam, canonicalizer, points_per_batch=points_per_batch, **options
    )
    pose, records = generator.generate_with_pose(image, progress=True, last=last)
    records = sorted(
        (record for record in records if record["area"] or "vanished" in record),
        key=lambda record: -record["predicted_iou"] * record["stability_score"],
    )[:count]
    masks = [record["segmentation"] for record in records]
    scores = torch.tensor([record["predicted_iou"] for record in records])
    objects = replace(
        objects_of_masks(masks, [0] * len(masks), image.shape[:2]),
        scores=scores,
        vanished=sum("vanished" in record for record in records),
    )
    picture = draw_segmentation(image, masks)
    return Segmentation(pose, objects, OBJECTS, picture, image.shape[:2])


def _segmentation(pose, found, image, **marks):
    objects = Objects(
        found.boxes, found.classes, found.scores, found.masks, vanished=int(found.vanished.sum())
    )
    picture = draw_segmentation(image, list(found.masks.numpy()), **marks)
    return Segmentation(pose, objects, OBJECTS, picture, found.size)


def objects_of_masks(masks, labels, size):
    """Make :class:`Objects` without scores of (H, W) bool arrays and their classes.

    Args:
        masks: sequence of (H, W) bool arrays.
        labels: class of each.
        size: (height, width) of the masks, of which there may be none.
    """
    masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size))
    return Objects(boxes_around(masks), torch.tensor(labels, dtype=torch.int64), masks=masks)


def image_tensor(image, image_format):
    """Make the (3, H, W) tensor in that channel order of an (H, W, 3) RGB array."""
    pixels = image if image_format == "RGB" else image[..., ::-1]
    return to_chw(pixels)


def build_sam_segment(
    cfg, prompted, points_per_side=None, min_iou=None, min_stability=None, max_masks=None
):
    """Build the :class:`Segment` for a config whose segmenter is a SAM, on ``cfg.MODEL.DEVICE``.

    Args:
        cfg: config of :func:`canon_seg.config.load.load_config`; not changed.
        prompted: prompts will be given.
        points_per_side, min_iou, min_stability, max_masks: of everything; None for what suits SAM's
            size.

    Raises:
        InputError: naming the config key or the file that cannot be used.
    """
    cfg = cfg.clone()
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    keys = cfg.MODEL.SAM
    sam = sam_from_config(cfg)
    canonicalizer = build_canonicalizer(cfg).eval().to(cfg.MODEL.DEVICE)
    ask = PromptedSam(
        sam.requires_grad_(False).to(cfg.MODEL.DEVICE),
        cfg.INPUT.FORMAT,
        keys.MULTIMASK,
        keys.PROMPTS_PER_BATCH,
        keys.REFINE_BOXES,
    )
    canonicalizer = bound_to_sam(canonicalizer, ask)
    speed_up(ask, used_numerics(cfg))
    if prompted:
        return Segment(partial(segment_prompts, ask), canonicalizer)
    is_tiny = keys.SIZE == "tiny"
    given, defaults = (min_iou, min_stability, max_masks), KEEP_TINY if is_tiny else KEEP
    iou, stability, count = (
        default if value is None else value for value, default in zip(given, defaults, strict=True)
    )
    options = dict(SMALL_SAM) if is_tiny else {"points_per_side": POINTS_PER_SIDE}
    options.update(pred_iou_thresh=iou, stability_score_thresh=stability)
    if points_per_side is not None:
        options["points_per_side"] = points_per_side
    find = partial(segment_everything, sam, count, options, {})
    return Segment(find, canonicalizer, everything=True)
