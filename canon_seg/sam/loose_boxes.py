"""Find the boxes that tilted boxes are meant for: those of the objects, upright in the new frame.

A user draws an upright box around an object in a tilted image. In the canonical frame that box lies
tilted, and the hull around it is up to twice as high and wide as the object. What is known is how
far the object reaches along the axes of the drawn box. Of an ellipse with that reach one number is
open, the correlation of its two axes; each value of it gives another upright box. SAM is asked with
some of them, and the answer that reaches as far as the drawn box does is taken.
"""

import torch

CORRELATIONS = (0.0, -0.85, -0.45, 0.45, 0.85)
"""Of the axes of the ellipses that are tried; of equally good answers the first is taken."""


def candidate_boxes(drawn: torch.Tensor, size: "tuple[int, int]") -> torch.Tensor:
    """Return upright boxes around ellipses that reach as far as tilted boxes do.

    Args:
        drawn: (N, 4, 2) corners x, y of tilted boxes, one after the other around each.
        size: (height, width) of the frame, to which boxes are cut.

    Returns:
        (K, N, 4) float32 boxes x0, y0, x1, y1, for each of ``CORRELATIONS``.
    """
    corners = drawn.double()
    centre = corners.mean(dim=1)
    first = (corners[:, 1] - corners[:, 0]) / 2  # half axes of the drawn box
    second = (corners[:, 2] - corners[:, 1]) / 2
    height, width = size
    limits = corners.new_tensor([width, height])
    boxes = []
    for correlation in CORRELATIONS:
        # The covariance of an ellipse with the half axes' reach along their directions.
        reach = (first**2 + second**2 + 2 * correlation * first * second).clamp(min=0).sqrt()
        low, high = (centre - reach).clamp(min=0), centre + reach
        boxes.append(torch.cat([torch.minimum(low, limits), torch.minimum(high, limits)], dim=1))
    return torch.stack(boxes).float()


def agreement(
    masks: torch.Tensor, pixel: "tuple[float, float]", drawn: torch.Tensor
) -> torch.Tensor:
    """Measure how well masks reach as far as the boxes that were drawn around their objects.

    Args:
        masks: (N, h, w) bool, at low resolution.
        pixel: (height, width) of a pixel of them in pixels of the frame.
        drawn: (N, 4, 2) corners as for :func:`candidate_boxes`, all tilted alike.

    Returns:
        (N,) float64: IoU of the drawn box with the box along its own axes around the mask; 0 of an
        empty mask.
    """
    corners = drawn.double()
    sides = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]], dim=1)
    lengths = sides.norm(dim=2)
    longest = lengths.amin(dim=1).argmax()  # the box that tells the directions best
    axes = sides[longest] / lengths[longest][:, None].clamp(min=1e-9)
    height, width = masks.shape[-2:]
    y = (torch.arange(height, device=masks.device, dtype=torch.float64) + 0.5) * pixel[0]
    x = (torch.arange(width, device=masks.device, dtype=torch.float64) + 0.5) * pixel[1]
    intersection = union = torch.ones(len(masks), dtype=torch.float64, device=masks.device)
    found = torch.ones_like(union)
    for index, axis in enumerate(axes):
        place = x[None, :] * axis[0] + y[:, None] * axis[1]
        half = (pixel[1] * axis[0].abs() + pixel[0] * axis[1].abs()) / 2
        low = torch.where(masks, place, torch.inf).flatten(1).amin(dim=1) - half
        high = torch.where(masks, place, -torch.inf).flatten(1).amax(dim=1) + half
        start = corners[:, 0] @ axis
        end = start + lengths[:, index]
        inside = (torch.minimum(high, end) - torch.maximum(low, start)).clamp(min=0)
        intersection = intersection * inside
        union = union * lengths[:, index]
        found = found * (high - low).clamp(min=0)
    return intersection / (union + found - intersection).clamp(min=1e-9)
