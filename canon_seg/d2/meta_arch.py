"""The canonicalizer in front of any segmenter, as one detectron2 meta-architecture."""

import numpy as np
import torch
from torch import nn

from canon_seg.coco.panoptic import turn_panoptic
from canon_seg.core.group import C4
from canon_seg.core.prior import (
    alignment,
    check_label_smoothing,
    check_prior,
    prior_loss,
)
from canon_seg.d2.cache import ResultCache, content_key
from canon_seg.d2.instances import turn_instances
from canon_seg.d2.merging import merge_detections, merge_prompted
from canon_seg.d2.numerics import used_numerics
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps, turned_size
from canon_seg.images.canonicalizer import straight_through
from canon_seg.images.coordinates import PIXEL_STEP, snap
from canon_seg.images.representative import turned_copy
from canon_seg.networks.build import build_canonicalizer

from detectron2.config import configurable
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage


@META_ARCH_REGISTRY.register()
class CanonicalizedSegmenter(nn.Module):
    """Turn the image to its canonical pose, run the segmenter there, turn the results back.

    In inference it takes images **as read**: the pose is found before any resizing, and resizing
    for the segmenter happens here, on the canonical image. Results are then exactly equivariant
    under quarter turns. An image that was resized before works too, but near-exactly only.

    Attributes:
        cache: :class:`canon_seg.d2.cache.ResultCache` of the segmenter's results, which counts its
            hits and misses, or None. The model keeps nothing else between calls. It notices other
            weights (see :meth:`canon_seg.d2.cache.ResultCache.follow`); clear it after a change to the
            segmenter's settings.
    """

    @configurable
    def __init__(
        self,
        *,
        canonicalizer,
        segmenter,
        resize,
        prior,
        prior_weight,
        task_weight,
        label_smoothing=0.0,
        freeze_segmenter=True,
        evaluation_only=False,
        cache=None,
        merge_nms_thresh=0.5,
        max_detections=100,
    ):
        """
        Args:
            canonicalizer: see :mod:`canon_seg.images.canonicalizer`.
            segmenter: any detectron2 meta-architecture, or None: then only the prior loss is
                trained, and only poses are found. Its attribute ``resizes_itself`` (default
                False) says that it takes images of any size.
            resize: detectron2 Augmentation that brings a canonical image to the segmenter's size,
                or None.
            prior: (N,) probabilities of the poses in the segmenter's own training data.
            prior_weight, task_weight: weights of the prior loss and of the segmenter's losses.
            label_smoothing: see :func:`canon_seg.core.prior.prior_loss`.
            freeze_segmenter: keep it in eval mode and its parameters without gradients.
            evaluation_only: the segmenter was built in a way that cannot be trained through.
            cache: see the attribute.
            merge_nms_thresh, max_detections: see :func:`canon_seg.d2.merging.merge_detections`.
        """
        super().__init__()
        self.canonicalizer = canonicalizer
        self.segmenter = segmenter
        self.resize = resize
        self.register_buffer("prior", prior, persistent=False)
        self.prior_weight = prior_weight
        self.task_weight = task_weight
        self.label_smoothing = label_smoothing
        self.freeze_segmenter = freeze_segmenter
        self.evaluation_only = evaluation_only
        self.cache = cache
        self.merge_nms_thresh = merge_nms_thresh
        self.max_detections = max_detections
        if segmenter is not None and freeze_segmenter:
            segmenter.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, cfg):
        segmenter = build_segmenter(cfg)
        keys = cfg.MODEL.CANONICALIZER
        if segmenter is None and keys.TASK_WEIGHT != 0:
            raise InputError(
                f"MODEL.CANONICALIZER.TASK_WEIGHT is {keys.TASK_WEIGHT}, but there is no segmenter "
                "to have losses; set MODEL.SEGMENTER.META_ARCHITECTURE, or the weight to 0"
            )
        resize = None
        if not getattr(segmenter, "resizes_itself", False):
            resize = ResizeShortestEdge(
                [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
            )
        return {
            "canonicalizer": build_canonicalizer(cfg),
            "segmenter": segmenter,
            "resize": resize,
            "prior": check_prior(keys.PRIOR, keys.GROUP_ORDER),
            "prior_weight": keys.PRIOR_WEIGHT,
            "task_weight": keys.TASK_WEIGHT,
            "label_smoothing": check_label_smoothing(keys.LABEL_SMOOTHING),
            "freeze_segmenter": cfg.MODEL.SEGMENTER.FREEZE,
            "evaluation_only": bool(used_numerics(cfg)),
            "cache": _build_cache(keys.CACHE),
            "merge_nms_thresh": keys.MERGE_NMS_THRESH,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def device(self):
        return self.prior.device

    def train(self, mode=True):
        """As nn.Module's, but a frozen segmenter stays in eval mode.

        Raises:
            InputError: for training through a segmenter that was built for evaluation.
        """
        trains_segmenter = self.task_weight != 0 or not self.freeze_segmenter
        if mode and self.evaluation_only and self.segmenter is not None and trains_segmenter:
            raise InputError(
                "MODEL.SEGMENTER.BFLOAT16, COMPILE and CHANNELS_LAST are for evaluation; set them "
                "to False to train with a task weight (SOLVER.BFLOAT16 is training's own key)"
            )
        if self.cache is not None:
            self.cache.clear()
        super().train(mode)
        if self.segmenter is not None and self.freeze_segmenter:
            self.segmenter.eval()
        return self

    def forward(self, batched_inputs):
        """
        Args:
            batched_inputs: list of dicts, one for each image, as detectron2's. ``image``: (3, H, W)
                tensor in INPUT.FORMAT's channel order, values 0..255; in inference as read.
                ``pose`` (optional, in training): quarter turns by which the image was turned on
                purpose. ``height``, ``width`` (optional): size of the results. ``prompts`` (optional):
                :class:`canon_seg.sam.prompts.Prompts` in the frame of ``image``, for a
                promptable segmenter. ``instances``, ``sem_seg``: ground truth, for training with
                a task weight.
        Returns:
            in training a dict of losses; in inference a list of dicts: ``pose``
            (:class:`canon_seg.images.canonicalizer.Pose`) and what the segmenter gives,
            ``instances``, ``sem_seg``, ``panoptic_seg``, in the frame of ``image``.
        Raises:
            ValueError: for inputs or results that it does not know how to turn.
        """
        if self.training:
            return self._losses(batched_inputs)
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs):
        """Canonicalize, segment, turn back. Arguments and result as for :meth:`forward`."""
        posed = [self._posed(inputs) for inputs in batched_inputs]
        if self.segmenter is None:
            return [{"pose": pose} for pose, _ in posed]
        results = self._segment([_in_pose(inputs, pose.turns) for pose, inputs in posed])
        return [
            {"pose": pose, **_turned(self._with_votes(result, pose, inputs), pose.turns)}
            for result, (pose, inputs) in zip(results, posed)
        ]

    @torch.no_grad()
    def canonicalize(self, inputs):
        """The pose of one image, and the segmenter's input in the canonical frame.

        Args:
            inputs: one of the dicts that :meth:`forward` takes.
        Returns:
            (pose, inputs for the segmenter).
        """
        pose, inputs = self._posed(inputs)
        return pose, self._resized(_in_pose(inputs, pose.turns))

    def _posed(self, inputs):
        """The pose, and the inputs that a segmenter may see, still in the given frame."""
        inputs, prompt_key = _without_ground_truth(inputs), None
        if inputs.get("prompts") is not None:
            if self.canonicalizer.snaps:
                inputs["prompts"] = inputs["prompts"].snapped()

            def prompt_key(turns):
                return inputs["prompts"].turned(turns, *inputs["image"].shape[-2:]).key()

        return self.canonicalizer.pose(inputs["image"], prompt_key), inputs

    def _resized(self, inputs):
        """The inputs with their image at the segmenter's size."""
        if self.resize is None:
            return {**inputs, "image": inputs["image"].contiguous()}
        array = np.ascontiguousarray(inputs["image"].permute(1, 2, 0).cpu().numpy())
        array = self.resize.get_transform(array).apply_image(array)
        return {**inputs, "image": torch.as_tensor(np.ascontiguousarray(array.transpose(2, 0, 1)))}

    def _segment(self, batch):
        """The segmenter's results for inputs that are not yet resized, by way of the cache."""
        if self.cache is None:
            return self._run_segmenter(batch)
        self.cache.follow(self.segmenter)
        key = content_key(batch), self.canonicalizer.snaps, repr(self.resize)
        results = self.cache.get(key)
        if results is None:
            results = self._run_segmenter(batch)
            self.cache.put(key, results)
        return results

    def _run_segmenter(self, batch):
        results = self.segmenter([self._resized(inputs) for inputs in batch])
        return [self._on_grid(result) for result in results]

    def _on_grid(self, result):
        """Predictions with their coordinates on the grid on which turning is exact in float32."""
        return {
            key: _snapped(value)
            if key in ("instances", "proposals") and self.canonicalizer.snaps
            else value
            for key, value in result.items()
        }

    def _with_votes(self, result, pose, inputs):
        """A result merged with those of the other poses of a vote, in its own frame.

        That is the canonical frame: what comes out depends on the canonical image alone.
        """
        if not pose.others:
            return result
        for key in result:
            if key != "instances":
                raise InputError(
                    f"the results of several poses are merged for instances, and this segmenter "
                    f"gives {key}; set MODEL.CANONICALIZER.UNCERTAIN to argmax or keep, and leave "
                    "out the mode tta"
                )
        results = [result]
        for other in pose.others:
            turns = C4.compose(other, pose.turns_to_canonical)
            results += [_turned(voted, turns) for voted in self._segment([_in_pose(inputs, other)])]
        instances = [voted["instances"] for voted in results]
        if inputs.get("prompts") is not None:
            return {"instances": merge_prompted(instances)}
        return {
            "instances": merge_detections(instances, self.merge_nms_thresh, self.max_detections)
        }

    def _losses(self, batched_inputs):
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        # A prior of poses before the turn: the logits are turned back by it.
        logits = torch.stack(
            [
                row.roll(-inputs.get("pose", 0))
                for row, inputs in zip(self.canonicalizer.logits(images), batched_inputs)
            ]
        )
        losses = {
            "loss_prior": self.prior_weight * prior_loss(logits, self.prior, self.label_smoothing)
        }
        storage = get_event_storage()
        for name, value in alignment(logits.softmax(dim=1), self.prior).items():
            storage.put_scalar(f"canonicalizer/{name}", value)
        if self.task_weight == 0:
            return losses
        weight = self.task_weight / len(images)
        with _losses_in_eval_mode(self.segmenter, self.freeze_segmenter):
            # One by one: detectron2 v0.6 cannot batch images that carry gradients.
            for inputs, image, image_logits in zip(batched_inputs, images, logits):
                turns, canonical = straight_through(image.float(), image_logits)
                task_losses = self.segmenter(
                    [
                        {
                            **_without_ground_truth(inputs),
                            **_turned_ground_truth(inputs, C4.inverse(turns)),
                            "image": canonical,
                            "height": canonical.shape[-2],
                            "width": canonical.shape[-1],
                        }
                    ]
                )
                for key, value in task_losses.items():
                    losses[key] = losses.get(key, 0) + weight * value
        return losses


class _losses_in_eval_mode:
    """Let a frozen segmenter compute its losses without training any of its layers.

    detectron2's models return losses by their ``training`` flag. The flag is raised for the length
    of one call on the modules that have no state of their own to train (batch norm and dropout
    keep theirs down), and is taken back even when the call fails.
    """

    def __init__(self, segmenter, frozen):
        kept = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        self.modules = [
            module for module in segmenter.modules() if frozen and not isinstance(module, kept)
        ]

    def __enter__(self):
        for module in self.modules:
            module.training = True

    def __exit__(self, *error):
        for module in self.modules:
            module.training = False


def _build_cache(mebibytes):
    if mebibytes < 0:
        raise InputError(
            f"MODEL.CANONICALIZER.CACHE is {mebibytes}; give the MiB to keep, or 0 for no cache"
        )
    return ResultCache(mebibytes * 2**20) if mebibytes else None


def _in_pose(inputs, pose):
    """Inputs of the segmenter on the image without that pose; still to be resized."""
    image, turns = inputs["image"], C4.inverse(pose)
    size = image.shape[-2:]
    posed = {**inputs, "image": turned_copy(image, turns) if turns else image}
    posed["height"], posed["width"] = turned_size(
        inputs.get("height", size[0]), inputs.get("width", size[1]), turns
    )
    if inputs.get("prompts") is not None:
        posed["prompts"] = inputs["prompts"].turned(turns, *size)
    return posed


def turn_own_instances(instances, turns):
    """As turn_instances, but masks on the CPU are turned in their own memory.

    They must belong to nobody else: a segmenter's are its result, and the cache gives copies. New
    memory for masks costs several times as much as turning them.

    Args:
        instances: ``detectron2.structures.Instances``, of no use afterwards.
        turns: quarter turns counterclockwise.
    Returns:
        new ``Instances``.
    """
    fields = instances.get_fields()
    masks, turns = fields.get("pred_masks"), C4.element(turns)
    if (
        not turns
        or not isinstance(masks, torch.Tensor)
        or masks.device.type != "cpu"
        or not masks.is_contiguous()
        or masks.shape[1:] != torch.Size(instances.image_size)
    ):
        return turn_instances(instances, turns)
    # A turn is a flip and, if it is not by 180 degrees, an exchange of the axes, which is a view.
    flipped = {1: (-1,), 2: (-2, -1), 3: (-2,)}[turns]
    for mask in masks:
        mask.copy_(mask.flip(flipped))
    others = {name: value for name, value in fields.items() if value is not masks}
    turned = turn_instances(Instances(instances.image_size, **others), turns)
    turned.pred_masks = masks if turns == 2 else masks.transpose(-2, -1)
    return turned


def _turned(result, turns):
    """A segmenter's result, turned; it is of no use afterwards."""
    turned = {}
    for key, value in result.items():
        if key in ("instances", "proposals"):
            turned[key] = turn_own_instances(value, turns)
        elif key == "sem_seg":
            turned[key] = turn_maps(value, turns)
        elif key == "panoptic_seg":
            turned[key] = turn_panoptic(*value, turns)
        else:
            raise ValueError(
                f"the segmenter returned {key!r}, which CanonicalizedSegmenter does not know how "
                "to turn"
            )
    return turned


def _without_ground_truth(inputs):
    """What a segmenter may see of its inputs in inference; the image is still to be turned."""
    if "proposals" in inputs:
        raise ValueError(
            "CanonicalizedSegmenter cannot turn precomputed 'proposals', which live in the frame "
            "of an image that was resized before; let the segmenter make its own"
        )
    return {key: value for key, value in inputs.items() if key not in ("instances", "sem_seg")}


def _turned_ground_truth(inputs, turns):
    turned = {}
    if "instances" in inputs:
        turned["instances"] = turn_instances(inputs["instances"], turns)
    if "sem_seg" in inputs:
        turned["sem_seg"] = turn_maps(inputs["sem_seg"], turns)
    return turned


def _snapped(instances):
    snapped = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, Boxes):  # rotated ones too
            value = type(value)(snap(value.tensor, PIXEL_STEP))
        elif name == "pred_keypoints":
            value = torch.cat([snap(value[..., :2], PIXEL_STEP), value[..., 2:]], dim=-1)
        snapped.set(name, value)
    return snapped
