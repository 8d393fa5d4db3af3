"""Register how turns act on an image and on the plain arrays that go with it, by field.

``image``: a (3, H, W) tensor or an (H, W, 3) array. ``masks`` and ``logits``: maps of any kind,
height and width last. ``points``: clicks as pixel indices. ``boxes``: edges x0, y0, x1, y1.
"""

from typing import Any

import numpy as np
import torch

from canon_seg.core import action
from canon_seg.core.turn import Turn
from canon_seg.images.arrays import contiguous, turn_image, turn_maps, turned_copy
from canon_seg.images.coordinates import turn_boxes, turn_pixels


@action.register(torch.Tensor, "image")
def turn_image_tensor(image: torch.Tensor, turn: Turn, height: int, width: int) -> torch.Tensor:
    """Turn a (3, H, W) image; the layout of the copy depends on its size and type alone."""
    return turned_copy(image, turn)


@action.register(np.ndarray, "image")
def turn_image_array(image: np.ndarray, turn: Turn, height: int, width: int) -> np.ndarray:
    """Turn an (H, W, 3) image to a contiguous copy."""
    return contiguous(turn_image(image, turn))


@action.register(np.ndarray, "masks")
@action.register(torch.Tensor, "masks")
@action.register(np.ndarray, "logits")
@action.register(torch.Tensor, "logits")
def turn_contiguous_maps(maps: Any, turn: Turn, height: int, width: int) -> Any:
    """Turn maps (..., H, W) to a contiguous copy; their size need not be that of the frame."""
    return contiguous(turn_maps(maps, turn))


action.register(np.ndarray, "points")(turn_pixels)
action.register(torch.Tensor, "points")(turn_pixels)
action.register(np.ndarray, "boxes")(turn_boxes)
action.register(torch.Tensor, "boxes")(turn_boxes)
