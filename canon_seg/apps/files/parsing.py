"""Parse the boxes and points of the command line."""

import numpy as np
import torch

from canon_seg.errors import InputError
from canon_seg.predictors.checks import boxes_problem, points_problem
from canon_seg.sam.prompts import Prompts


def parse_prompts(boxes, points):
    """Parse the prompts of --box and --point.

    Args:
        boxes: words x0 y0 x1 y1 in pixel edges, again and again.
        points: words x y, pixel indices, again and again; each point is a prompt.

    Returns:
        list of up to two :class:`Prompts`, boxes first.

    Raises:
        InputError: quoting what cannot be used.
    """
    boxes, points = _rows(boxes, 4, "--box"), _rows(points, 2, "--point")
    prompts = []
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise InputError(
                f"--box {x0:g} {y0:g} {x1:g} {y1:g} has no area: give x0 y0 x1 y1 with x0 < x1 "
                "and y0 < y1"
            )
    if boxes:
        prompts.append(Prompts(boxes=torch.tensor(boxes)))
    for x, y in points:
        if x % 1 or y % 1:
            raise InputError(f"--point {x:g} {y:g}: give a pixel's column and row, whole numbers")
    if points:
        labels = torch.ones((len(points), 1), dtype=torch.int64)
        prompts.append(Prompts(points=torch.tensor(points)[:, None], point_labels=labels))
    return prompts


def fit_prompts(prompts, name, height, width):
    """Cut boxes at the edges of an image, as the predictors do.

    Args:
        prompts: list of :class:`Prompts`.
        name: of the image, for messages.
        height, width: of the image in pixels.

    Returns:
        list of :class:`Prompts`.

    Raises:
        InputError: for a prompt that lies outside the image.
    """
    for part in prompts:
        problem = None
        if part.boxes is not None:
            problem = boxes_problem(part.boxes.numpy(), (height, width))
        if part.points is not None:
            labels = part.point_labels.numpy()
            problem = problem or points_problem(part.points.numpy(), labels, (height, width))
        if problem:  # it begins with the word "box" or "point" and the numbers
            raise InputError(f"{name}: --{problem}")
    return [part.clipped(height, width) for part in prompts]


def _rows(words, length, name):
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            raise InputError(
                f"{name}: {word!r} is not a number (config options KEY VALUE come last, after "
                "--output DIR)"
            ) from None
    if len(numbers) % length:
        raise InputError(f"{name} takes {length} numbers for each, got {len(numbers)}")
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} takes finite numbers, got {' '.join(words)}")
    return [numbers[i : i + length] for i in range(0, len(numbers), length)]
