"""Prompt a `Sam` on one image: a mask for each prompt, without detectron2."""

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score
from torch.nn import functional as F

from canon_seg.core import action
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn, as_turn, turned_size
from canon_seg.images.arrays import turn_maps
from canon_seg.images.coordinates import turn_boxes
from canon_seg.images.resize import resize_on_device
from canon_seg.images.soft_masks import ScoredMasks, SoftMasks, tilt_with_vanished
from canon_seg.sam.loose_boxes import agreement, candidate_boxes
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompts import Prompts

STABILITY_OFFSET = 1.0  # of the logits, as segment_anything's mask generator has it
MAX_UPSAMPLED = 2**25  # pixels of masks that are upsampled at once


@dataclass(frozen=True, eq=False)  # tensors have no truth value to compare by
class PromptedMasks:
    """Hold what SAM answers to N prompts on one image, in their order.

    Attributes:
        size: (height, width) of the masks in pixels.
        masks: (N, height, width) bool; or :class:`canon_seg.images.soft_masks.SoftMasks`, where it
            was asked for masks that are not cut yet.
        boxes: (N, 4) float32 XYXY edges around each mask in pixels, zeros around an empty one, and
            around masks that are not cut yet.
        ious: (N,) float32, SAM's own estimate of each mask's quality.
        stabilities: (N,) float32, how little each mask changes with its threshold, 0..1
            (segment_anything's stability score, of the mask before it is enlarged).
        scores: (N,) float32: those of the prompts where they have any, else ``ious``.
        classes: (N,) int64: those of the prompts, else 0.
        vanished: (N,) bool, whether a mask was there in the canonical frame, of which nothing is
            left in this one after a tilt. Without it none has.
    """

    size: tuple[int, int]
    masks: "torch.Tensor | SoftMasks"
    boxes: torch.Tensor
    ious: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    stabilities: torch.Tensor
    vanished: torch.Tensor = None  # type: ignore[assignment] # none, unless it is said

    def __post_init__(self) -> None:
        if self.vanished is None:
            object.__setattr__(self, "vanished", torch.zeros_like(self.ious, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index) -> "PromptedMasks":
        """Select rows, by whatever selects rows of a tensor."""
        return replace(self, **{name: value[index] for name, value in self.rows().items()})

    def to(self, device) -> "PromptedMasks":
        """Move all tensors to a device."""
        return replace(self, **{name: value.to(device) for name, value in self.rows().items()})

    def rows(self) -> dict:
        """Name all fields with one row for each prompt."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "size"
        }

    @staticmethod
    def cat(parts) -> "PromptedMasks":
        """Join a non-empty list of answers on images of one size, in their order."""
        rows = [part.rows() for part in parts]
        return replace(
            parts[0], **{name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        )


@dataclass(frozen=True)
class PromptedSam:
    """Segment by a `Sam`: a function from an image and its prompts to their masks.

    Attributes:
        sam: the `Sam`, in eval mode.
        image_format: "RGB" or "BGR", channel order of the images that will be given.
        multimask: choose the best of three masks by predicted IoU, instead of the one mask.
        prompts_per_batch: prompts that go through the mask decoder at once; bounds the memory.
        refines: where boxes were drawn in a tilted image, ask with several that they may be meant
            for, and take the answer that fits best (see :mod:`canon_seg.sam.loose_boxes`).
    """

    sam: Sam
    image_format: str = "RGB"
    multimask: bool = True
    prompts_per_batch: int = 32
    refines: bool = True

    @torch.no_grad()
    def __call__(
        self,
        image: torch.Tensor,
        prompts: Prompts,
        height: int | None = None,
        width: int | None = None,
        *,
        soft: bool = False,
    ) -> PromptedMasks:
        """Segment what is prompted for.

        Args:
            image: (3, H, W), values 0..255, any size.
            prompts: in the frame of ``image``.
            height, width: of the masks in pixels; None for the image's own.
            soft: whether the masks are wanted before they are cut, to be tilted.

        Returns:
            :class:`PromptedMasks` on the device of the `Sam`.
        """
        sam, device = self.sam, self.sam.device
        height, width = height or image.shape[1], width or image.shape[2]
        size = (height, width)
        count = 0 if soft else len(prompts)
        masks = torch.zeros((count, *size), dtype=torch.bool, device=device)
        smalls, enlarge = [], None
        ious, stabilities = torch.zeros((2, len(prompts)), device=device)
        if len(prompts):
            resized = self.resize(image)
            embedding = sam.image_encoder(sam.preprocess(resized)[None])
            enlarge = partial(
                enlarge_logits,
                sam.image_encoder.img_size,
                (resized.shape[-2], resized.shape[-1]),
                size,
            )
            for part in self._parts(prompts):
                # The chosen mask alone is upsampled, and cut before anything is turned; a few masks
                # at a time, since they are float32 and as large as the photograph.
                asked = prompts[part]
                if self.refines and asked.drawn is not None:
                    small, ious[part] = self._decode_loose(
                        embedding, asked, image.shape[-2:], resized.shape[-2:]
                    )
                else:
                    small, ious[part] = self._decode(embedding, asked, image.shape[-2:])
                stabilities[part] = self._stabilities(small)
                if soft:
                    smalls.append(small[:, 0])
                    continue
                rows, few = masks[part], max(1, MAX_UPSAMPLED // (height * width))
                for first in range(0, len(small), few):
                    upsampled = enlarge(small[first : first + few, 0])
                    rows[first : first + few] = upsampled > sam.mask_threshold
        boxes = torch.zeros((len(prompts), 4), device=device) if soft else boxes_around(masks)
        found: torch.Tensor | SoftMasks = masks
        if soft:
            logits = torch.cat(smalls) if smalls else masks.float()
            found = ScoredMasks(logits, sam.mask_threshold, size, enlarge)
        classes = torch.zeros(len(prompts), dtype=torch.int64)
        return PromptedMasks(
            size=size,
            masks=found,
            boxes=boxes,
            ious=ious,
            scores=(ious.clone() if prompts.scores is None else prompts.scores).to(device),
            classes=(classes if prompts.classes is None else prompts.classes).to(device),
            stabilities=stabilities,
        )

    @torch.no_grad()
    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the embedding of a (3, H, W) image, values 0..255, of any size."""
        return self.sam.image_encoder(self.sam.preprocess(self.resize(image))[None])

    @torch.no_grad()
    def rate(
        self, embedding: torch.Tensor, prompts: Prompts, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Say how good the masks of prompts are, without making them at the image's size.

        Args:
            embedding: of the image, see :meth:`embed`.
            prompts: in the frame of the image.
            size: (height, width) of the image in pixels.

        Returns:
            (ious, stabilities): (N,) tensors, see :class:`PromptedMasks`.
        """
        ious, stabilities = torch.zeros((2, len(prompts)), device=self.sam.device)
        for part in self._parts(prompts):
            small, ious[part] = self._decode(embedding, prompts[part], size)
            stabilities[part] = self._stabilities(small)
        return ious, stabilities

    def _parts(self, prompts):
        step = self.prompts_per_batch
        return [slice(start, start + step) for start in range(0, len(prompts), step)]

    def _decode(self, embedding, prompts, size):
        """Return the best mask of each prompt, (N, 1, h, w) logits, and its predicted IoU."""
        logits, predicted_iou = self.sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            multimask_output=self.multimask,
            **self._encode(prompts, size),
        )
        best = predicted_iou.argmax(dim=1)
        chosen = torch.arange(len(best), device=best.device)
        return logits[chosen, best][:, None], predicted_iou[chosen, best]

    def _stabilities(self, small):
        # Of an empty mask the ratio is that of 0 to 0.
        return calculate_stability_score(
            small[:, 0], self.sam.mask_threshold, STABILITY_OFFSET
        ).nan_to_num(0.0)

    def _decode_loose(self, embedding, prompts, size, resized):
        """Do as :meth:`_decode` for boxes drawn elsewhere, see :mod:`canon_seg.sam.loose_boxes`."""
        drawn = prompts.drawn.to(embedding.device)
        best = None
        for boxes in candidate_boxes(drawn, size):
            logits, iou = self._decode(embedding, replace(prompts, boxes=boxes), size)
            side = self.sam.image_encoder.img_size
            pixel = tuple(
                own * side / (small * new)
                for own, small, new in zip(size, logits.shape[-2:], resized, strict=True)
            )
            fits = agreement(logits[:, 0] > self.sam.mask_threshold, pixel, drawn)
            if best is None:
                best = logits, iou, fits
                continue
            better = fits > best[2]
            best = (
                torch.where(better[:, None, None, None], logits, best[0]),
                torch.where(better, iou, best[1]),
                torch.where(better, fits, best[2]),
            )
        return best[0], best[1]

    def resize(self, image: torch.Tensor) -> torch.Tensor:
        """Resize as `SamPredictor` does: longest side to the model's, through 8-bit pixels, RGB."""
        side = self.sam.image_encoder.img_size
        if image.device.type != "cpu":  # it stays where it is
            image = image.flip(0) if self.image_format == "BGR" else image
            height, width = image.shape[-2:]
            size = LongestSide.get_preprocess_shape(height, width, side)
            return resize_on_device(image, *size).to(self.sam.device)
        array = image.permute(1, 2, 0).to(torch.uint8).numpy()
        if self.image_format == "BGR":
            array = array[..., ::-1]
        transform = LongestSide(side)
        resized = transform.apply_image(np.ascontiguousarray(array))
        return torch.as_tensor(resized, device=self.sam.device).permute(2, 0, 1).contiguous()

    def _encode(self, prompts, size):
        """Encode the arguments of the mask decoder; SAM itself adds the half pixel of prompts."""
        prompts, side = prompts.to(self.sam.device), self.sam.image_encoder.img_size
        points, boxes = None, None
        if prompts.points is not None:
            points = resize_coords(prompts.points, size, side), prompts.point_labels
        if prompts.boxes is not None:
            boxes = resize_coords(prompts.boxes.reshape(-1, 2, 2), size, side).reshape(-1, 4)
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=None)
        return {"sparse_prompt_embeddings": sparse, "dense_prompt_embeddings": dense}


def enlarge_logits(
    side: int, resized: tuple[int, int], size: tuple[int, int], logits: torch.Tensor
) -> torch.Tensor:
    """Enlarge mask logits to an image as `Sam.postprocess_masks` does.

    Args:
        side: of SAM's square input in pixels.
        resized: (height, width) of the image in it.
        size: (height, width) of the image.
        logits: (N, h, w), of the square input.

    Returns:
        (N, *size) tensor.
    """
    square = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)
    inside = square[..., : resized[0], : resized[1]]
    return F.interpolate(inside, size, mode="bilinear", align_corners=False)[:, 0]


def resize_coords(coords: torch.Tensor, size, side: int) -> torch.Tensor:
    """Take coordinates to SAM's input frame, as `SamPredictor` does.

    Args:
        coords: (..., 2) x, y in pixels of the image.
        size: (height, width) of the image.
        side: of SAM's square input.

    Returns:
        (..., 2) float32.
    """
    height, width = size
    resized = LongestSide.get_preprocess_shape(height, width, side)
    factors = torch.tensor(
        [resized[1] / width, resized[0] / height], dtype=torch.float64, device=coords.device
    )
    return (coords * factors).float()


def boxes_around(masks: torch.Tensor) -> torch.Tensor:
    """Find the tight boxes of (N, H, W) bool masks: (N, 4) float32 XYXY edges, zeros if empty."""
    edges = []
    for axis in (-2, -1):  # columns that hold some of the mask, then rows
        is_in = masks.any(dim=axis)
        first = is_in.int().argmax(dim=1)
        last = is_in.shape[1] - is_in.flip(1).int().argmax(dim=1)
        edges.append(torch.stack([first, last], dim=1) * is_in.any(dim=1, keepdim=True))
    (x0, x1), (y0, y1) = (pair.unbind(dim=1) for pair in edges)
    return torch.stack([x0, y0, x1, y1], dim=1).float()


@action.register(PromptedMasks)
def turn_prompted_masks(
    found: PromptedMasks, turn: "Turn | int", height: int, width: int
) -> PromptedMasks:
    """Turn masks and boxes with their image; all else is shared.

    Args:
        found: not changed.
        turn: by index; an integer stands for quarter turns counterclockwise.
        height, width: of the masks before turning, in pixels.
    """
    return replace(
        found,
        size=turned_size(height, width, turn),
        masks=found.masks.turned(as_turn(turn))
        if isinstance(found.masks, SoftMasks)
        else turn_maps(found.masks, turn),
        boxes=turn_boxes(found.boxes, turn, height, width),
    )


@action.register_tilt(PromptedMasks)
def tilt_prompted_masks(found: PromptedMasks, tilting: Tilting) -> PromptedMasks:
    """Tilt masks into another frame; boxes are the tight ones around what they became.

    A mask of which nothing is left stays there, empty, with its score.
    """
    masks, vanished = tilt_with_vanished(found.masks, tilting)
    return replace(
        found,
        size=tilting.target,
        masks=masks,
        boxes=boxes_around(masks),
        vanished=vanished | found.vanished,
    )


def merge_prompted(results, key: str) -> dict:
    """Take for each prompt the row of the result that is best by a score; of equal ones the first.

    Args:
        results: non-empty list of dicts from names to tensors, one dict for each pose, all in one
            frame, each tensor with one row per prompt in the same order.
        key: name of the score, (N,).

    Returns:
        new dict of as many rows; nothing is shared with ``results``.
    """
    merged = {name: value.clone() for name, value in results[0].items()}
    for result in results[1:]:
        better = result[key] > merged[key]
        for name, value in merged.items():
            value[better] = result[name][better]
    return merged
