"""Segment Anything as a detectron2 meta-architecture: prompts in, `Instances` out."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.d2.region_mapper import build_region_loader
from canon_seg.errors import InputError
from canon_seg.io.imagenet import read_pretrained
from canon_seg.sam.interactive_training import interactive_losses
from canon_seg.sam.loading import build_sam, image_size, load_sam_weights, weights_advice
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompted import PromptedSam, resize_coords
from canon_seg.sam.training import PromptBatch, coverage, training_losses
from canon_seg.sam.two_stage import TwoStageDecoder

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import get_event_storage

BOX_FRACTION = 0.4  # of the prompts of the SAM of two stages; the others are clicks


@META_ARCH_REGISTRY.register()
class SamSegmenter(nn.Module):
    """Prompt segment_anything's `Sam`, with its own preprocessing, by boxes and clicks.

    Attributes:
        sam: the `Sam`; official checkpoints load into it unmodified.

    The other attributes are those of :class:`canon_seg.d2.capabilities.Capabilities`.
    """

    resizes_itself = takes_prompts = needs_prompts = True
    checkpoint_module = "sam"
    leaves_parameters_unused = True  # those of the kind of prompt that was not drawn

    @configurable
    def __init__(
        self,
        *,
        sam,
        image_format,
        multimask=True,
        prompts_per_batch=32,
        train_prompts=16,
        warmup_steps=0,
        mask_loss="focal",
        refine_boxes=True,
    ):
        """Prepare a `Sam` for prompts and for training.

        Args:
            sam: a `Sam`.
            image_format, multimask, prompts_per_batch: see
                :class:`canon_seg.sam.prompted.PromptedSam`.
            train_prompts: prompts drawn from each training image.
            warmup_steps, mask_loss, refine_boxes: see the keys of ``MODEL.SAM`` of these names.
        """
        super().__init__()
        self.sam = sam
        self.image_format = image_format
        self.multimask = multimask
        self.prompts_per_batch = prompts_per_batch
        self.train_prompts = train_prompts
        self.warmup_steps = warmup_steps
        self.mask_loss = mask_loss
        self.refine_boxes = refine_boxes

    @classmethod
    def from_config(cls, cfg):
        """Return the arguments of ``__init__`` that a config asks for."""
        keys = cfg.MODEL.SAM
        sam = build_sam(cfg)
        if keys.SIZE == "tiny" and keys.TINY.BACKBONE and keys.TINY.PRETRAINED:
            source = keys.TINY.PRETRAINED
            state = read_pretrained(source, "MODEL.SAM.TINY.PRETRAINED")
            sam.image_encoder.load_pretrained(state, source)
        return {
            "sam": sam,
            "image_format": cfg.INPUT.FORMAT,
            "multimask": keys.MULTIMASK,
            "prompts_per_batch": keys.PROMPTS_PER_BATCH,
            "train_prompts": keys.TRAIN_PROMPTS,
            "warmup_steps": keys.WARMUP_STEPS,
            "mask_loss": _mask_loss(keys.MASK_LOSS),
            "refine_boxes": keys.REFINE_BOXES,
        }

    @classmethod
    def build_train_loader(cls, cfg):
        """Build the loader of random views with the masks of their regions."""
        return build_region_loader(cfg, image_size(cfg))

    @classmethod
    def describe(cls, cfg):
        """Return what a report says of the model that a config describes."""
        return {"sam_size": cfg.MODEL.SAM.SIZE}

    @classmethod
    def weights_advice(cls, cfg):
        """Say where the weights of the model that a config describes are to be had."""
        return weights_advice(cfg.MODEL.SAM.SIZE)

    def load_weights(self, path, key):
        """Load an official file or one that was trained here, whatever wraps the weights."""
        load_sam_weights(self.sam, path, key)

    @property
    def has_two_stages(self):
        """Return whether the `Sam` decodes clicks in two stages, and is trained for that."""
        return isinstance(self.sam.mask_decoder, TwoStageDecoder)

    @property
    def device(self):
        """Return the device of the `Sam`."""
        return self.sam.device

    def forward(self, batched_inputs):
        """Compute the losses in training, or the masks of the prompts in inference.

        Args:
            batched_inputs: list of dicts. ``image``: (3, H, W), values 0..255, any size.
                Inference: ``prompts``: :class:`canon_seg.sam.prompts.Prompts` in the frame of
                ``image``; ``height``, ``width`` (optional): size of the masks; ``soft_masks``
                (optional): give masks that are not cut yet. Training:
                ``instances`` with ``gt_masks`` (BitMasks or PolygonMasks) and ``gt_boxes``, in the
                frame of ``image``.

        Returns:
            inference: list of {"instances": Instances} with ``pred_masks`` (N, height, width)
            bool (or :class:`canon_seg.images.soft_masks.SoftMasks`), ``pred_boxes`` (tight boxes of
            the masks), ``pred_ious`` (SAM's own estimate of the mask's quality),
            ``pred_stabilities`` (how little it changes with its threshold, 0..1), ``scores`` (the
            detector's where the prompts have them, else the predicted IoU), ``pred_classes``; one
            for each prompt, in order. Training: dict of losses.
        """
        if self.training:
            return self._losses(batched_inputs)
        return [{"instances": self._segment(inputs)} for inputs in batched_inputs]

    def _segment(self, inputs):
        image, prompts = inputs["image"], inputs.get("prompts")
        if prompts is None:
            raise ValueError("SamSegmenter needs 'prompts' (boxes or points) with every image")
        prompted = PromptedSam(
            self.sam, self.image_format, self.multimask, self.prompts_per_batch, self.refine_boxes
        )
        size = inputs.get("height"), inputs.get("width")
        found = prompted(image, prompts, *size, soft=bool(inputs.get("soft_masks")))
        return Instances(
            found.size,
            pred_masks=found.masks,
            pred_boxes=Boxes(found.boxes),
            pred_ious=found.ious,
            pred_stabilities=found.stabilities,
            scores=found.scores,
            pred_classes=found.classes,
        )

    def _losses(self, batched_inputs):
        storage = get_event_storage()
        warmup = storage.iter < self.warmup_steps
        images = torch.stack([self._resize_for_training(inputs) for inputs in batched_inputs])
        embeddings = self.sam.image_encoder(images)
        batch = self._prompt_batch(batched_inputs)
        if self.has_two_stages:
            if batch is None:
                return {"loss_proposals": 0 * embeddings.sum()}
            rng = np.random.default_rng(int(torch.randint(2**31, ())))
            return interactive_losses(self.sam, embeddings, batch, BOX_FRACTION, rng)
        if batch is None:  # nothing to be seen, but a graph to go back through
            return dict.fromkeys(("loss_mask", "loss_dice", "loss_iou"), 0 * embeddings.sum())
        return training_losses(self.sam, embeddings, batch, warmup=warmup, loss=self.mask_loss)

    def _resize_for_training(self, inputs):
        """Resize differentiably in the image, unlike SamPredictor's way through 8-bit pixels."""
        image = inputs["image"].to(self.device).float()
        if self.image_format == "BGR":
            image = image.flip(0)
        side = self.sam.image_encoder.img_size
        size = LongestSide.get_preprocess_shape(*image.shape[-2:], side)
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(
                image[None], size, mode="bilinear", align_corners=False, antialias=True
            )[0]
        return self.sam.preprocess(image)

    def _prompt_batch(self, batched_inputs):
        """Draw objects from each image, in SAM's input frame; return None if no image has any."""
        side = self.sam.image_encoder.img_size
        numbers, boxes, targets = [], [], []
        large = 0.5 if self.has_two_stages else 0.2
        for number, inputs in enumerate(batched_inputs):
            instances = _draw(inputs["instances"], self.train_prompts, large)
            if len(instances) == 0:
                continue
            size = inputs["image"].shape[-2:]
            corners = instances.gt_boxes.tensor.to(self.device).reshape(-1, 2, 2)
            boxes.append(resize_coords(corners, size, side).reshape(-1, 4))
            targets.append(
                coverage(
                    _bit_masks(instances).to(self.device),
                    side,
                    lambda *size: LongestSide.get_preprocess_shape(*size, side),
                )
            )
            numbers += [number] * len(instances)
        if not numbers:
            return None
        return PromptBatch(
            torch.tensor(numbers, device=self.device), torch.cat(boxes), torch.cat(targets)
        )


def _draw(instances, count, large):
    """Draw up to ``count`` instances, those larger than a part of the image's side more rarely.

    The larger they are above ``large``, 0 to 1, the more rarely they are drawn, since photographs
    hold more small objects than the regions that people draw.
    """
    boxes = instances.gt_boxes.tensor
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / max(instances.image_size)
    chances = torch.clamp(large / extent.clamp(min=0.01), max=1)
    order = torch.randperm(len(chances), device=chances.device)
    kept = order[torch.rand_like(chances) < chances[order]]
    return instances[kept[:count] if len(kept) else order[:1]]


def _mask_loss(name):
    if name not in ("focal", "cross_entropy"):
        raise InputError(f'MODEL.SAM.MASK_LOSS is {name!r}; known: "focal", "cross_entropy"')
    return name


def _bit_masks(instances):
    """Return (N, H, W) bool ground-truth masks."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    return masks.tensor
