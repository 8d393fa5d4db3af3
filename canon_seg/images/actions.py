"""Register how turns and tilts act on an image and on the plain arrays with it, by field.

``image``: a (3, H, W) tensor or an (H, W, 3) array. ``masks`` and ``logits``: maps of any kind,
height and width last. ``points``: clicks as pixel indices. ``corners``: points of
the continuous frame. ``boxes``: edges x0, y0, x1, y1.

By a tilt an image is interpolated between pixel centres, on a canvas of the colour that
:func:`canon_seg.core.tilting.fill_colour` chooses. Masks of booleans or integers are sampled at the
nearest pixel centre. Masks of floats are interpolated, and get their least value where nothing is.
Boxes become the hulls of the tilted boxes. ``logits`` of low resolution are left as they are: they
serve as a later prompt in the same canonical frame.
"""

from typing import Any

import cv2
import numpy as np
import torch

from canon_seg.core import action
from canon_seg.core.tilting import Tilting, fill_colour
from canon_seg.core.turn import Turn
from canon_seg.images.arrays import contiguous, turn_image, turn_maps, turned_copy
from canon_seg.images.coordinates import PIXEL_STEP, snap, turn_boxes, turn_pixels, turn_points
from canon_seg.images.tilt import warp_boxes, warp_mask, warp_points, warp_to


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


action.register(np.ndarray, "corners")(turn_points)
action.register(np.ndarray, "points")(turn_pixels)
action.register(torch.Tensor, "points")(turn_pixels)
action.register(np.ndarray, "boxes")(turn_boxes)
action.register(torch.Tensor, "boxes")(turn_boxes)


@action.register_tilt(torch.Tensor, "image")
def tilt_image_tensor(image: torch.Tensor, tilting: Tilting) -> torch.Tensor:
    """Tilt a (3, H, W) image; it lies in memory as H x W x 3, on the device of the given one."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    return torch.from_numpy(tilt_image_array(pixels, tilting)).permute(2, 0, 1).to(image.device)


@action.register_tilt(np.ndarray, "image")
def tilt_image_array(image: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Tilt an (H, W, 3) image."""
    fill = fill_colour(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
    return warp_to(image, tilting, cv2.INTER_LINEAR, fill.tolist())


@action.register_tilt(np.ndarray, "masks")
def tilt_masks(masks: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Tilt masks (..., H, W) of the frame; of integers and booleans, or of floats.

    Raises:
        ValueError: if they have another size than the frame.
    """
    if masks.shape[-2:] != tilting.source:
        raise ValueError(f"masks of size {masks.shape[-2:]} in a frame of size {tilting.source}")
    rows = masks.reshape(-1, *tilting.source)
    tilted = np.empty((len(rows), *tilting.target), masks.dtype)
    for row, into in zip(rows, tilted, strict=True):
        if masks.dtype.kind == "f":
            into[:] = warp_to(row, tilting, cv2.INTER_LINEAR, (float(row.min()),) * 4)
        else:
            into[:] = warp_mask(row, tilting)
    return tilted.reshape(*masks.shape[:-2], *tilting.target)


@action.register_tilt(torch.Tensor, "masks")
def tilt_mask_tensor(masks: torch.Tensor, tilting: Tilting) -> torch.Tensor:
    """Tilt masks as :func:`tilt_masks` does, on the CPU; the result is on their device."""
    return torch.from_numpy(tilt_masks(masks.cpu().numpy(), tilting)).to(masks.device)


@action.register_tilt(np.ndarray, "logits")
@action.register_tilt(torch.Tensor, "logits")
def keep_logits(logits: Any, tilting: Tilting) -> Any:
    """Return mask logits as they are, see the module."""
    return logits


@action.register_tilt(np.ndarray, "points")
@action.register_tilt(torch.Tensor, "points")
def tilt_pixels(points: Any, tilting: Tilting) -> Any:
    """Tilt clicks, kept inside the target, on the grid of 1/256 px; of the same type."""
    if isinstance(points, torch.Tensor):
        return torch.from_numpy(tilt_pixels(points.cpu().numpy(), tilting)).to(points)
    tilted = warp_points(np.asarray(points, np.float64) + 0.5, tilting) - 0.5
    height, width = tilting.target
    tilted = tilted.clip(0, np.array([width - 1, height - 1], np.float64))
    return snap(tilted, PIXEL_STEP).astype(points.dtype)


@action.register_tilt(np.ndarray, "corners")
def tilt_points_array(points: np.ndarray, tilting: Tilting) -> np.ndarray:
    """Tilt points of the continuous frame, on the grid of 1/256 px; of the same type."""
    return snap(warp_points(points, tilting), PIXEL_STEP).astype(points.dtype)


@action.register_tilt(np.ndarray, "boxes")
@action.register_tilt(torch.Tensor, "boxes")
def tilt_boxes(boxes: Any, tilting: Tilting) -> Any:
    """Return the hulls of tilted boxes, cut to the target, on the grid of 1/256 px."""
    if isinstance(boxes, torch.Tensor):
        return torch.from_numpy(tilt_boxes(boxes.cpu().numpy(), tilting)).to(boxes)
    return snap(warp_boxes(boxes, tilting), PIXEL_STEP).astype(boxes.dtype)
