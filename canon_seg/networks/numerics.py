"""Evaluate a segmenter by faster numerics: bfloat16, compilation, channels-last.

They act on what sees the image alone: SAM's image encoder, a detector's backbone. What is sensitive
to rounding (the coordinates of prompts, boxes, scores) is computed as ever, in float32.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from canon_seg.errors import InputError

KEYS = ("BFLOAT16", "COMPILE", "CHANNELS_LAST")
"""The switches in ``cfg.MODEL.SEGMENTER``."""

# Where the heavy parts of this project's and of detectron2's segmenters are.
_HEAVY_PARTS = ("sam.image_encoder", "detector.backbone", "backbone")


def used_numerics(cfg: Any) -> tuple[str, ...]:
    """Return those of ``KEYS`` that ``cfg.MODEL.SEGMENTER`` switches on."""
    return tuple(key for key in KEYS if cfg.MODEL.SEGMENTER[key])


def speed_up(segmenter: Any, keys: Sequence[str], backend: str = "inductor") -> None:
    """Switch faster numerics on, in place. Names of parameters and their values stay.

    The same input gives the same bytes each time. An input's size decides which kernels run, so
    that the result of an image depends on its own content and size only.

    Args:
        segmenter: nn.Module, in eval mode afterwards.
        keys: some of ``KEYS``.
        backend: of torch.compile.

    Raises:
        InputError: if it has no part to act on.
    """
    parts = heavy_parts(segmenter)
    if keys and not parts:
        raise InputError(
            f"MODEL.SEGMENTER.{keys[0]}: {type(segmenter).__name__} has neither an image encoder "
            f"nor a backbone to apply it to; set {', '.join(keys)} to False"
        )
    for part in parts:
        if "CHANNELS_LAST" in keys:
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(memory_format=torch.channels_last)
            part.register_forward_pre_hook(_channels_last)
        if "BFLOAT16" in keys:
            part.forward = functools.partial(_in_bfloat16, part)
        if "COMPILE" in keys:
            # Detectors see images of many sizes: one program for all, SAM's encoder only one.
            part.compile(backend=backend, dynamic=None if hasattr(part, "img_size") else True)


def heavy_parts(segmenter: Any) -> list[Any]:
    """Return the modules of a segmenter that take most of its time."""
    parts = []
    for path in _HEAVY_PARTS:
        try:
            parts.append(operator.attrgetter(path)(segmenter))
        except AttributeError:
            continue
    return parts


def _channels_last(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.contiguous(memory_format=torch.channels_last) for value in args)


def _in_bfloat16(module: nn.Module, images: torch.Tensor) -> Any:
    """Wrap ``module.forward`` in autocast, its result in float32."""
    with torch.autocast(images.device.type, torch.bfloat16):
        features = type(module).forward(module, images)
    if isinstance(features, dict):
        return {name: value.float() for name, value in features.items()}
    return features.float()
