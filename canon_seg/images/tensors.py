"""Bring images as they are read (H x W x 3) into the layout that networks take (3 x H x W)."""

from typing import Any

import numpy as np
import torch


def to_chw(image: np.ndarray) -> torch.Tensor:
    """Copy an H x W x C array into a contiguous (C, H, W) tensor of the same type on the CPU."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def segmenter_inputs(image: np.ndarray, **keys: Any) -> dict[str, Any]:
    """Make a segmenter's input dict for an image whose results shall have its own size.

    Args:
        image: (H, W, 3) array in the channel order that the model takes, values 0..255.
        keys: what else the dict shall hold, such as ``image_id`` or ``prompts``.

    Returns:
        dict with ``image`` (see :func:`to_chw`), ``height`` and ``width`` in pixels, and ``keys``.
    """
    height, width = image.shape[:2]
    return {"image": to_chw(image), "height": height, "width": width, **keys}
