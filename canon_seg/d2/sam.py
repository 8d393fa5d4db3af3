"""Segment Anything as a detectron2 meta-architecture: prompts in, `Instances` out."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.d2.region_mapper import build_region_loader
from canon_seg.errors import InputError
from canon_seg.sam.models import (
    OFFICIAL_IMAGE_SIZE,
    OFFICIAL_SIZES,
    LongestSide,
    build_official_sam,
    build_tiny_sam,
)
from canon_seg.sam.training import PromptBatch, coverage, training_losses

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import get_event_storage

OFFICIAL_FILES = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
}

MAX_UPSAMPLED = 2**25  # pixels of masks that are upsampled at once


@META_ARCH_REGISTRY.register()
class SamSegmenter(nn.Module):
    """segment_anything's `Sam` with its own preprocessing, prompted by boxes and clicks.

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
    ):
        """
        Args:
            sam: a `Sam`.
            image_format: "RGB" or "BGR", channel order of the images that will be given.
            multimask: choose the best of three masks by predicted IoU, instead of the one mask.
            prompts_per_batch: prompts that go through the mask decoder at once.
            train_prompts: prompts drawn from each training image.
            warmup_steps, mask_loss: see the keys of ``MODEL.SAM`` of these names.
        """
        super().__init__()
        self.sam = sam
        self.image_format = image_format
        self.multimask = multimask
        self.prompts_per_batch = prompts_per_batch
        self.train_prompts = train_prompts
        self.warmup_steps = warmup_steps
        self.mask_loss = mask_loss

    @classmethod
    def from_config(cls, cfg):
        keys = cfg.MODEL.SAM
        return {
            "sam": build_sam(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "multimask": keys.MULTIMASK,
            "prompts_per_batch": keys.PROMPTS_PER_BATCH,
            "train_prompts": keys.TRAIN_PROMPTS,
            "warmup_steps": keys.WARMUP_STEPS,
            "mask_loss": _mask_loss(keys.MASK_LOSS),
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
        official = OFFICIAL_FILES.get(cfg.MODEL.SAM.SIZE)
        if official is None:
            return "Give a segmenter.pth that tools/train_net.py wrote"
        return (
            f"For MODEL.SAM.SIZE {cfg.MODEL.SAM.SIZE} get the official {official} from the "
            "segment-anything project and set MODEL.SEGMENTER.WEIGHTS to its path"
        )

    @property
    def device(self):
        return self.sam.device

    def forward(self, batched_inputs):
        """
        Args:
            batched_inputs: list of dicts. ``image``: (3, H, W), values 0..255, any size.
                Inference: ``prompts``: :class:`Prompts` in the frame of ``image``; ``height``,
                ``width`` (optional): size of the masks. Training: ``instances`` with ``gt_masks``
                (BitMasks or PolygonMasks) and ``gt_boxes``, in the frame of ``image``.
        Returns:
            inference: list of {"instances": Instances} with ``pred_masks`` (N, height, width)
            bool, ``pred_boxes`` (tight boxes of the masks), ``pred_ious`` (SAM's own estimate of
            the mask's quality), ``scores`` (the detector's where the prompts have them, else the
            predicted IoU), ``pred_classes``; one for each prompt, in order. Training: dict of
            losses.
        """
        if self.training:
            return self._losses(batched_inputs)
        return [{"instances": self._segment(inputs)} for inputs in batched_inputs]

    @torch.no_grad()
    def _segment(self, inputs):
        image, prompts = inputs["image"], inputs.get("prompts")
        if prompts is None:
            raise ValueError("SamSegmenter needs 'prompts' (boxes or points) with every image")
        height, width = inputs.get("height", image.shape[1]), inputs.get("width", image.shape[2])
        masks = torch.zeros((len(prompts), height, width), dtype=torch.bool, device=self.device)
        ious = torch.zeros(len(prompts), device=self.device)
        if len(prompts):
            resized = self._resize(image)
            embedding = self.sam.image_encoder(self.sam.preprocess(resized)[None])
            for start in range(0, len(prompts), self.prompts_per_batch):
                part = slice(start, start + self.prompts_per_batch)
                logits, predicted_iou = self.sam.mask_decoder(
                    image_embeddings=embedding,
                    image_pe=self.sam.prompt_encoder.get_dense_pe(),
                    multimask_output=self.multimask,
                    **self._encode_prompts(_part(prompts, part), image.shape[-2:]),
                )
                best = predicted_iou.argmax(dim=1)
                chosen = torch.arange(len(best), device=self.device)
                # The chosen mask alone is upsampled, and cut before anything is turned; a few masks
                # at a time, since they are float32 and as large as the photograph.
                small, rows = logits[chosen, best][:, None], masks[part]
                few = max(1, MAX_UPSAMPLED // (height * width))
                for first in range(0, len(small), few):
                    upsampled = self.sam.postprocess_masks(
                        small[first : first + few], resized.shape[-2:], (height, width)
                    )
                    rows[first : first + few] = upsampled[:, 0] > self.sam.mask_threshold
                ious[part] = predicted_iou[chosen, best]
        instances = Instances((height, width))
        instances.pred_masks = masks
        instances.pred_boxes = Boxes(BitMasks(masks).get_bounding_boxes().tensor.to(self.device))
        instances.pred_ious = ious
        scores = ious.clone() if prompts.scores is None else prompts.scores
        instances.scores = scores.to(self.device)
        classes = torch.zeros(len(prompts), dtype=torch.int64)
        instances.pred_classes = (classes if prompts.classes is None else prompts.classes).to(
            self.device
        )
        return instances

    def _resize(self, image):
        """As SamPredictor: longest side to the model's, through 8-bit pixels, RGB."""
        array = image.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        if self.image_format == "BGR":
            array = array[..., ::-1]
        transform = LongestSide(self.sam.image_encoder.img_size)
        resized = transform.apply_image(np.ascontiguousarray(array))
        return torch.as_tensor(resized, device=self.device).permute(2, 0, 1).contiguous()

    def _encode_prompts(self, prompts, size):
        """Arguments of the mask decoder. The half pixel of prompts is added by SAM itself."""
        prompts = prompts.to(self.device)
        points, boxes = None, None
        if prompts.points is not None:
            points = self._resize_coords(prompts.points, size), prompts.point_labels
        if prompts.boxes is not None:
            boxes = self._resize_coords(prompts.boxes.reshape(-1, 2, 2), size).reshape(-1, 4)
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=None)
        return {"sparse_prompt_embeddings": sparse, "dense_prompt_embeddings": dense}

    def _resize_coords(self, coords, size):
        """(..., 2) x, y in an image of ``size`` to SAM's input frame, as SamPredictor does it."""
        height, width = size
        resized = LongestSide.get_preprocess_shape(height, width, self.sam.image_encoder.img_size)
        factors = torch.tensor(
            [resized[1] / width, resized[0] / height], dtype=torch.float64, device=coords.device
        )
        return (coords * factors).float()

    def _losses(self, batched_inputs):
        storage = get_event_storage()
        warmup = storage.iter < self.warmup_steps
        images = torch.stack([self._resize_for_training(inputs) for inputs in batched_inputs])
        embeddings = self.sam.image_encoder(images)
        batch = self._prompt_batch(batched_inputs)
        if batch is None:  # nothing to be seen, but a graph to go back through
            return dict.fromkeys(("loss_mask", "loss_dice", "loss_iou"), 0 * embeddings.sum())
        return training_losses(self.sam, embeddings, batch, warmup=warmup, loss=self.mask_loss)

    def _resize_for_training(self, inputs):
        """Differentiable in the image, unlike SamPredictor's way through 8-bit pixels."""
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
        """Objects drawn from each image, in SAM's input frame; None where no image has any."""
        side = self.sam.image_encoder.img_size
        numbers, boxes, targets = [], [], []
        for number, inputs in enumerate(batched_inputs):
            instances = _draw(inputs["instances"], self.train_prompts)
            if len(instances) == 0:
                continue
            size = inputs["image"].shape[-2:]
            corners = instances.gt_boxes.tensor.to(self.device).reshape(-1, 2, 2)
            boxes.append(self._resize_coords(corners, size).reshape(-1, 4))
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


def build_sam(cfg):
    """The `Sam` that ``cfg.MODEL.SAM`` describes, with random weights.

    Raises:
        InputError: if the size is unknown.
    """
    keys = cfg.MODEL.SAM
    if keys.SIZE in OFFICIAL_SIZES:
        return build_official_sam(keys.SIZE)
    if keys.SIZE != "tiny":
        known = ", ".join((*OFFICIAL_SIZES, "tiny"))
        raise InputError(f"MODEL.SAM.SIZE is {keys.SIZE!r}; known: {known}")
    tiny = keys.TINY
    if tiny.IMAGE_SIZE % 32 or tiny.EMBED_DIM % 16:
        raise InputError(
            "MODEL.SAM.TINY: IMAGE_SIZE must be a multiple of 32 and EMBED_DIM one of 16; got "
            f"{tiny.IMAGE_SIZE} and {tiny.EMBED_DIM}"
        )
    if not len(tiny.CHANNELS) == len(tiny.BLOCKS) == 4:
        raise InputError(
            "MODEL.SAM.TINY: CHANNELS and BLOCKS are for four stages; got "
            f"{list(tiny.CHANNELS)} and {list(tiny.BLOCKS)}"
        )
    return build_tiny_sam(tiny.IMAGE_SIZE, tiny.CHANNELS, tiny.BLOCKS, tiny.EMBED_DIM)


def image_size(cfg):
    """Side in pixels of the square input of the `Sam` that ``cfg.MODEL.SAM`` describes."""
    keys = cfg.MODEL.SAM
    return OFFICIAL_IMAGE_SIZE if keys.SIZE in OFFICIAL_SIZES else keys.TINY.IMAGE_SIZE


def _draw(instances, count):
    """Up to ``count`` instances, more rarely the larger they are above a fifth of the image's side,
    since photographs hold more small objects than the regions that people draw."""
    boxes = instances.gt_boxes.tensor
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / max(instances.image_size)
    chances = torch.clamp(0.2 / extent.clamp(min=0.01), max=1)
    order = torch.randperm(len(chances), device=chances.device)
    kept = order[torch.rand_like(chances) < chances[order]]
    return instances[kept[:count] if len(kept) else order[:1]]


def _mask_loss(name):
    if name not in ("focal", "cross_entropy"):
        raise InputError(f'MODEL.SAM.MASK_LOSS is {name!r}; known: "focal", "cross_entropy"')
    return name


def _bit_masks(instances):
    """(N, H, W) bool ground-truth masks."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    return masks.tensor


def _part(prompts, part):
    """A slice of the prompts."""
    return replace(
        prompts, **{name: value[part] for name, value in vars(prompts).items() if value is not None}
    )
