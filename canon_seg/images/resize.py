"""Shrink an image as read to the small float image that a canonicalizer's network takes."""

import torch
from torch.nn import functional as F

# Of the photographs that everybody resizes by: ImageNet, RGB, for values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STRIDE = 32  # sizes are 32 k + 1: five stride-2 convolutions pass them symmetrically
MAX_ASPECT = 4  # a longer image is squeezed to it: bounds the network's cost


def network_size(height: int, width: int, input_size: int) -> tuple[int, int]:
    """Return the size at which the network sees an image of a given size.

    Args:
        height, width: of the image, in pixels.
        input_size: shorter side in pixels, of the form 32 k + 1.

    Returns:
        (height, width), both of the form 32 k + 1; the aspect ratio is kept as nearly as that
        allows, up to 4 : 1. Swapping height and width swaps the result.
    """
    aspect = min(max(height, width) / min(height, width), MAX_ASPECT)
    longer = STRIDE * round((input_size * aspect - 1) / STRIDE) + 1
    return (input_size, longer) if height <= width else (longer, input_size)


def resize_for_network(image: torch.Tensor, input_size: int) -> torch.Tensor:
    """Shrink an image to the network's input, with anti-aliasing.

    Args:
        image: (3, H, W) tensor of uint8 or float, values 0..255.
        input_size: see :func:`network_size`.

    Returns:
        (3, h, w) tensor, uint8 for uint8 (rounded), else float; the input itself if it has that
        size already.
    """
    height, width = image.shape[-2:]
    size = network_size(height, width, input_size)
    if (height, width) == size:
        return image
    if image.dtype in (torch.float16, torch.bfloat16) or (
        image.dtype == torch.uint8 and image.device.type != "cpu"
    ):
        image = image.float()  # the kernels of these types exist for CPUs, or not at all
    return F.interpolate(
        image[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]


def resize_on_device(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize an 8-bit image where it is, by the filter that Pillow's bilinear resizing has.

    Models are fed images that Pillow has resized. This is for images on other devices than the CPU,
    which do not come back to it; the two differ by a grey level at most.

    Args:
        image: (3, H, W) tensor, values 0..255.
        height, width: of the result.

    Returns:
        (3, height, width) uint8 tensor on the same device.
    """
    resized = F.interpolate(
        image[None].float(), size=(height, width), mode="bilinear", antialias=True
    )[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Bring (B, 3, h, w) RGB values 0..255 of any type to the float32 values networks take."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / std
