"""Parse the boxes and points of the command line."""

import numpy as np
import torch

from canon_seg.errors import InputError
from canon_seg.predictors.checks import boxes_problem, points_problem
from canon_seg.sam.prompts import Prompts


def parse_prompts(boxes, points, background=(), one_object=False):
    """Parse the prompts of --box, --point and --background.

    Args:
        boxes: words x0 y0 x1 y1 in pixel edges, again and again.
        points: words x y, pixel indices, again and again.
        background: words x y likewise, of points that do not belong to the object.
        one_object: all of them are one prompt; else each box and each point is one. So they are
            with ``background`` in any case.

    Returns:
        list of up to two :class:`Prompts`, boxes first.

    Raises:
        InputError: quoting what cannot be used.
    """
    boxes, points = _rows(boxes, 4, "--box"), _rows(points, 2, "--point")
    background = _rows(background, 2, "--background")
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise InputError(
                f"--box {x0:g} {y0:g} {x1:g} {y1:g} has no area: give x0 y0 x1 y1 with x0 < x1 "
                "and y0 < y1"
            )
    for name, rows in (("--point", points), ("--background", background)):
        for x, y in rows:
            if x % 1 or y % 1:
                raise InputError(
                    f"{name} {x:g} {y:g}: give a pixel's column and row, whole numbers"
                )
    if one_object or background:
        return _one_prompt(boxes, points, background)
    prompts = []
    if boxes:
        prompts.append(Prompts(boxes=torch.tensor(boxes)))
    if points:
        labels = torch.ones((len(points), 1), dtype=torch.int64)
        prompts.append(Prompts(points=torch.tensor(points)[:, None], point_labels=labels))
    return prompts


def _one_prompt(boxes, points, background):
    """Make the prompt of one object of a box or none, and of points on it and beside it."""
    if len(boxes) > 1:
        raise InputError(
            f"--box: {len(boxes)} boxes are more than one object; with --one-object or "
            "--background give one at most"
        )
    if not boxes and not points:
        raise InputError(
            "--background and --one-object need something of the object: give --box or --point, too"
        )
    labels = [1] * len(points) + [0] * len(background)
    return [
        Prompts(
            boxes=torch.tensor(boxes) if boxes else None,
            points=torch.tensor([points + background]) if labels else None,
            point_labels=torch.tensor([labels]) if labels else None,
        )
    ]


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
                f"{name}: {word!r} is neither a number nor the name of a file that is there"
            ) from None
    if len(numbers) % length:
        raise InputError(f"{name} takes {length} numbers for each, got {len(numbers)}")
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} takes finite numbers, got {' '.join(words)}")
    return [numbers[i : i + length] for i in range(0, len(numbers), length)]
