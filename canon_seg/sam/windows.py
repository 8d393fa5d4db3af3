"""Lay windows around prompts: a grid of cells over each box, as large as the box is.

What a small model learns of one object holds for objects of all sizes when it sees them at one
size, as the heads of He et al., "Mask R-CNN" (ICCV 2017) do. Windows are (N, 4) XYXY in pixels of
SAM's square input.
"""

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

MARGIN = 0.25  # of each side of a box: what a window shows around it
MIN_SIDE = 4.0  # pixels; smaller boxes get the window of one of that size
REACH = 20.0  # pixels around the square; boxes are cut there
OUTSIDE = -10.0  # logit of all that no window shows


def within_reach(boxes, side):
    """Cut boxes (N, 4) XYXY to the square of ``side`` pixels and a little around it.

    Of larger ones the windows would be coarse for nothing, and RoIAlign reads memory that is not
    its own for coordinates that are no numbers.
    """
    return torch.nan_to_num(boxes).clamp(-REACH, side + REACH)


def windows_around(boxes):
    """Return windows (N, 4) around boxes (N, 4), both XYXY in pixels."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MIN_SIDE)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = sides * (0.5 + MARGIN)
    return torch.cat([centres - reach, centres + reach], dim=1)


def whole_windows(count, side, like):
    """Return (count, 4) windows, typed as ``like``, on the whole square of ``side`` pixels."""
    return like.new_tensor([0, 0, side, side], dtype=torch.float32).expand(count, -1)


def cell_centres(windows, cells):
    """Return x (N, 1, cells), y (N, cells, 1) of the cells' centres in pixels."""
    steps = (torch.arange(cells, device=windows.device) + 0.5) / cells
    x0, y0, x1, y1 = windows[..., None].unbind(dim=1)
    return (x0 + steps * (x1 - x0))[:, None], (y0 + steps * (y1 - y0))[:, :, None]


def align(maps, images, windows, cells, side):
    """Read maps through windows, by RoIAlign.

    Args:
        maps: (B, C, h, w), which lie over the square of ``side`` pixels.
        images: (N,) int64, the map that each window looks at.
        windows: (N, 4).
        cells: of the windows, along each axis.
        side: of the square in pixels.

    Returns:
        (N, C, cells, cells).
    """
    # Of clicks that are NaN or infinite; the operator would read memory that is not the maps'.
    windows = torch.nan_to_num(windows.float(), 0.0, 0.0, 0.0)
    boxes = torch.cat([images[:, None].float(), windows], dim=1)
    # In float32, the one type that the operator has on every device.
    aligned = roi_align(maps.float(), boxes, cells, maps.shape[-1] / side, 2, aligned=True)
    return aligned.to(maps.dtype)


def paste(logits, windows, cells, side):
    """Lay what was computed in windows over the whole square.

    Args:
        logits: (N, M, k, k).
        windows: (N, 4).
        cells, side: of the square, in cells of the result and in pixels.

    Returns:
        (N, M, cells, cells), ``OUTSIDE`` where the window does not reach.
    """
    if torch.equal(windows, whole_windows(len(windows), side, windows)):  # which is faster
        return F.interpolate(logits, (cells, cells), mode="bilinear")
    return paste_windows(logits, windows, cells, side)


def paste_windows(logits, windows, cells, side):
    """Do as :func:`paste`, by operations that are the same for all windows."""
    x, y = cell_centres(whole_windows(1, side, windows), cells)
    x0, y0, x1, y1 = windows[..., None, None].unbind(dim=1)
    u, v = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)  # -1 to 1 inside
    inside = ((u.abs() <= 1) & (v.abs() <= 1))[:, None]
    grid = torch.stack(torch.broadcast_tensors(u, v), dim=-1)
    pasted = F.grid_sample(logits.float(), grid, padding_mode="border", align_corners=False)
    return pasted.masked_fill_(~inside, OUTSIDE).to(logits.dtype)
