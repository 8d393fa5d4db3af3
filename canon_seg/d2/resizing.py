"""Bring an image to the size that a detectron2 model takes."""

import numpy as np
import torch

from canon_seg.images.resize import resize_on_device

from detectron2.data.transforms import Augmentation


def resize_for_model(
    image: torch.Tensor, augmentation: Augmentation, flips_channels: bool = False
) -> torch.Tensor:
    """Resize an image as an augmentation of detectron2's asks for.

    On the CPU detectron2 does it, by Pillow; an image on another device stays there.

    Args:
        image: (3, H, W), values 0..255, any strides.
        augmentation: that resizes, such as ``ResizeShortestEdge``.
        flips_channels: whether RGB becomes BGR, or the other way round.

    Returns:
        (3, h, w) contiguous tensor on the same device.
    """
    if image.device.type != "cpu":
        height, width = image.shape[-2:]
        transform = augmentation.get_transform(np.empty((height, width, 0), np.uint8))
        size = getattr(transform, "new_h", height), getattr(transform, "new_w", width)
        return resize_on_device(image.flip(0) if flips_channels else image, *size)
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if flips_channels:
        array = np.ascontiguousarray(array[..., ::-1])
    array = augmentation.get_transform(array).apply_image(array)
    return torch.as_tensor(np.ascontiguousarray(array.transpose(2, 0, 1)))
