"""One image in, its pose, what was found and a picture out, for any segmenter."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Callable

import cv2
import numpy as np
import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.apps.drawing import draw_segmentation
from canon_seg.apps.files.classes import OBJECTS, Classes, known_classes
from canon_seg.apps.files.drawing import draw_instances
from canon_seg.apps.files.regions import choose_masks, find_regions
from canon_seg.core.canonicalizer import KnownPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.d2.instances import turn_instances
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.d2.models import behind
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompts import Prompts

from detectron2.structures import BitMasks, Boxes, Instances

# Which masks of everything are kept: least predicted IoU, least stability, and how many of the
# best. segment_anything's thresholds are made for its large models; those of a small one, which is
# less sure of itself, are chosen by their order instead.
KEEP, KEEP_TINY = (0.88, 0.95, 1000), (0.0, 0.0, 20)
POINTS_PER_SIDE = 16
# Values in the three mask logits of all points that are decoded at once: bounds the memory.
VALUES_PER_BATCH = 2**27


@dataclass
class Segmentation:
    """What was found in one image, in its frame.

    Attributes:
        pose: of the image.
        instances: detectron2 `Instances` on the CPU. ``pred_boxes``, ``pred_classes``; where the
            model finds them, ``pred_masks`` (N, H, W) bool and ``pred_keypoints``; ``scores``,
            but for segments of the whole image.
        classes: what ``pred_classes`` stand for.
        picture: RGB uint8 array, possibly enlarged.
    """

    pose: Pose
    instances: Instances
    classes: Classes
    picture: np.ndarray

    def __str__(self):
        count = len(self.instances)
        if self.instances.has("pred_masks"):
            return f"{count} mask" if count == 1 else f"{count} masks"
        return f"{count} box" if count == 1 else f"{count} boxes"


@dataclass(frozen=True)
class Segment:
    """A function from an RGB image and its prompts to a :class:`Segmentation`.

    Attributes:
        model: :class:`CanonicalizedSegmenter`.
        find: function of the model, an (H, W, 3) RGB image and a list of Prompts.
    """

    model: CanonicalizedSegmenter
    find: Callable

    def __call__(self, image, prompts=()):
        return self.find(self.model, image, prompts)

    def pose(self, image):
        """The :class:`Pose` of an (H, W, 3) RGB image."""
        canonicalizer = self.model.canonicalizer
        return canonicalizer.pose(as_canonicalizer_takes_it(image, canonicalizer))

    def with_pose(self, pose):
        """The same for images whose pose is known: the frames of a clip."""
        known = KnownPoseCanonicalizer(pose, self.model.canonicalizer)
        return replace(self, model=behind(known, self.model))


def same_when_turned(turned):
    """Whether what was found in four turns of one image is the same, bit by bit.

    Args:
        turned: four :class:`Segmentation`, of the image turned by 0, 1, 2 and 3 quarter turns.
    """
    upright = turned[0].instances
    return all(
        _equal(turn_instances(upright, turns), found.instances)
        for turns, found in enumerate(turned)
    )


def _equal(first, second):
    if len(first) != len(second):
        return False
    names = ("pred_masks", "pred_boxes", "pred_classes", "scores")
    return all(
        torch.equal(*(_tensor(one.get(name)) for one in (first, second)))
        for name in names
        if first.has(name)
    )


def _tensor(value):
    return value.tensor if isinstance(value, Boxes) else value


def segment_prompts(image_format, model, image, prompts):
    """A mask for each prompt, by SAM."""
    inputs = model_inputs(image, image_format)
    results = model([{**inputs, "prompts": part} for part in prompts])
    instances = Instances.cat([result["instances"].to("cpu") for result in results])
    boxes = [box for part in prompts if part.boxes is not None for box in part.boxes]
    clicks = [click for part in prompts if part.points is not None for click in part.points[:, 0]]
    picture = draw_segmentation(image, list(instances.pred_masks.numpy()), boxes, clicks)
    return Segmentation(results[0]["pose"], instances, OBJECTS, picture)


def segment_everything(count, options, model, image, prompts=()):
    """The ``count`` best masks of everything in the image, by SAM; there are no prompts.

    Args:
        options: dict, of segment_anything's automatic mask generator.
    """
    points_per_batch = min(64, max(1, VALUES_PER_BATCH // (3 * image.shape[0] * image.shape[1])))
    generator = CanonicalSamAutomaticMaskGenerator(
        model.segmenter.sam, model.canonicalizer, points_per_batch=points_per_batch, **options
    )
    pose, records = generator.generate_with_pose(image)
    records = sorted(
        (record for record in records if record["area"]),
        key=lambda record: -record["predicted_iou"] * record["stability_score"],
    )[:count]
    masks = [record["segmentation"] for record in records]
    instances = _of_masks(masks, [0] * len(masks), image.shape[:2])
    instances.scores = torch.tensor([record["predicted_iou"] for record in records])
    return Segmentation(pose, instances, OBJECTS, draw_segmentation(image, masks))


def segment_regions(count, min_iou, image_format, model, image, prompts=()):
    """As :func:`segment_everything`, by a SAM that is better at boxes than at clicks.

    It is asked for the boxes of regions of like colour (regions.py) in the canonical image: once
    for all of them, on an image no larger than its own input, to choose some, and once for these.

    Args:
        min_iou: least predicted IoU.
    """
    canonicalizer, segmenter = model.canonicalizer, model.segmenter
    frame = CanonicalFrame(
        canonicalizer, as_canonicalizer_takes_it(image, canonicalizer), votes=False
    )
    canonical = contiguous(frame.there(image, "image"))
    height, width = canonical.shape[:2]
    side = min(segmenter.sam.image_encoder.img_size, max(height, width))
    size = LongestSide.get_preprocess_shape(height, width, side)
    small = cv2.resize(canonical, size[::-1], interpolation=cv2.INTER_AREA)
    regions, boxes = find_regions(small)

    def ask(pixels, wanted):
        inputs = {**model_inputs(pixels, image_format), "prompts": Prompts(boxes=wanted)}
        return segmenter([inputs])[0]["instances"].to("cpu")

    found = ask(small, boxes)
    fits = found.pred_ious >= min_iou
    masks, regions, ious = found.pred_masks[fits], regions[fits], found.pred_ious[fits]
    chosen = boxes[fits][choose_masks(masks, regions, ious, count)]
    enlarged = torch.tensor([width / size[1], height / size[0]] * 2)
    instances = ask(canonical, chosen * enlarged)
    kept = instances.pred_masks.flatten(1).any(dim=1) & (instances.pred_ious >= min_iou)
    instances = frame.back(instances[kept], "instances")
    picture = draw_segmentation(image, list(instances.pred_masks.numpy()))
    return Segmentation(frame.pose, instances, OBJECTS, picture)


def segment_by_detectron2(image_format, classes, threshold, model, image, prompts=()):
    """Instances, segments or regions of any other detectron2 model; there are no prompts.

    Args:
        classes: (things, stuff), see :func:`canon_seg.apps.files.classes.known_classes`.
        threshold: least score.
    """
    result = model([model_inputs(image, image_format)])[0]
    instances, found = instances_of(result, classes, threshold)
    picture = draw_instances(image, instances, found)
    return Segmentation(result["pose"], instances, found, picture)


def instances_of(result, classes, threshold):
    """What to show of a model's result, as `Instances` on the CPU, and what their classes are.

    Raises:
        InputError: for results without instances and segments.
    """
    things, stuff = classes
    if "panoptic_seg" in result:
        ids, segments = result["panoptic_seg"]
        ids = ids.cpu().numpy()
        start = len(things.names)  # the numbers of stuff follow those of things
        labels = [s["category_id"] + (0 if s["isthing"] else start) for s in segments]
        masks = [ids == segment["id"] for segment in segments]
        return _of_masks(masks, labels, ids.shape), things.followed_by(stuff, start)
    if "sem_seg" in result and "instances" not in result:
        regions = result["sem_seg"].argmax(dim=0).cpu().numpy()
        labels = np.unique(regions).tolist()
        masks = [regions == label for label in labels]
        return _of_masks(masks, labels, regions.shape), stuff
    if "instances" not in result:
        raise InputError(
            f"MODEL.SEGMENTER.META_ARCHITECTURE: a model that gives only {', '.join(result)} has "
            "nothing to draw; take one that gives instances or segments"
        )
    instances = result["instances"].to("cpu")
    return instances[instances.scores >= threshold], things


def _of_masks(masks, labels, size):
    masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size))
    instances = Instances(tuple(size))
    instances.pred_masks = masks
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
    instances.pred_classes = torch.tensor(labels, dtype=torch.int64)
    return instances


def model_inputs(image, image_format):
    """An (H, W, 3) RGB image as a detectron2 model of that channel order takes it."""
    pixels = image if image_format == "RGB" else image[..., ::-1]
    tensor = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


def build_segment(
    model,
    cfg,
    prompted,
    score_threshold=0.5,
    points_per_side=None,
    min_iou=None,
    min_stability=None,
    max_masks=None,
):
    """The :class:`Segment` for a model of a config.

    Args:
        prompted: prompts will be given.
        score_threshold: least score of a detector's instances.
        points_per_side, min_iou, min_stability, max_masks: of everything; None for what suits SAM's
            size. A tiny SAM is asked for regions where the first and the third are None.
    """
    image_format, keys = cfg.INPUT.FORMAT, cfg.MODEL
    if prompted:
        return Segment(model, partial(segment_prompts, image_format))
    if keys.SEGMENTER.META_ARCHITECTURE != "SamSegmenter" or keys.SAM.PROMPTS == "detector":
        return Segment(
            model, partial(segment_by_detectron2, image_format, known_classes(cfg), score_threshold)
        )
    is_tiny = keys.SAM.SIZE == "tiny"
    given, defaults = (min_iou, min_stability, max_masks), KEEP_TINY if is_tiny else KEEP
    iou, stability, count = (
        default if value is None else value for value, default in zip(given, defaults)
    )
    if is_tiny and points_per_side is None and min_stability is None:
        return Segment(model, partial(segment_regions, count, iou, image_format))
    options = {
        "points_per_side": points_per_side or POINTS_PER_SIDE,
        "pred_iou_thresh": iou,
        "stability_score_thresh": stability,
        # A small model finds one thing many times, with boxes that differ.
        "box_nms_thresh": 0.3 if is_tiny else 0.7,
    }
    return Segment(model, partial(segment_everything, count, options))
