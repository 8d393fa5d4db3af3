"""Say in words what is wrong with an image or with prompts.

Each function returns a sentence that says what was wrong and what to give, or None. Nothing is
raised here: a predictor lets the library that it stands for raise its own error first.
"""

import numpy as np

LABELS = {1: "foreground", 0: "background", -1: "padding"}


def image_problem(image):
    """Describe what is wrong with what should be an (H, W, 3) uint8 array, or return None."""
    if not isinstance(image, np.ndarray):
        return f"image is a {type(image).__name__}; give a numpy array"
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        return (
            f"image has shape {image.shape} and dtype {image.dtype}; give (height, width, 3) and "
            "uint8"
        )
    return None


def points_problem(points, labels, size):
    """Describe what is wrong with clicks, or return None.

    Args:
        points: (..., 2) array of x, y as pixel indices.
        labels: array of the shape (...).
        size: (height, width) of the image.
    """
    if not np.issubdtype(points.dtype, np.number) or points.ndim < 2 or points.shape[-1] != 2:
        return f"points have shape {points.shape} and dtype {points.dtype}; give numbers x, y"
    if labels.shape != points.shape[:-1]:
        return f"labels have shape {labels.shape} for points of shape {points.shape}"
    if points.size == 0:
        return "there are no points; give at least one, or None"
    if not np.isin(labels, list(LABELS)).all():
        known = ", ".join(f"{label} ({meaning})" for label, meaning in LABELS.items())
        return f"labels are {np.unique(labels).tolist()}; known: {known}"
    height, width = size
    # Pixel i covers i - 1/2 to i + 1/2 in pixel indices. Padding has no place; NaN is nowhere.
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(axis=-1)
    outside = points[~inside & (labels != -1)]
    if len(outside):
        return f"point {_numbers(outside[0])} is outside the image, {width} wide and {height} high"
    return None


def boxes_problem(boxes, size):
    """Describe what is wrong with boxes, or return None.

    Boxes: (..., 4) array of x0, y0, x1, y1; they may reach beyond the image.
    """
    if not np.issubdtype(boxes.dtype, np.number) or boxes.ndim == 0 or boxes.shape[-1] != 4:
        return f"boxes have shape {boxes.shape} and dtype {boxes.dtype}; give x0, y0, x1, y1"
    if boxes.size == 0:
        return "there are no boxes; give at least one, or None"
    height, width = size
    for box in boxes.reshape(-1, 4):
        x0, y0, x1, y1 = box
        if not np.isfinite(box).all():
            return f"box {_numbers(box)} is not finite"
        if not (x0 < x1 and y0 < y1):
            return f"box {_numbers(box)} has no area; give x0 y0 x1 y1 with x0 < x1 and y0 < y1"
        if not (x0 < width and y0 < height and x1 > 0 and y1 > 0):
            return f"box {_numbers(box)} is outside the image, {width} wide and {height} high"
    return None


def mask_problem(shape, wanted):
    """Describe what is wrong with the shape of mask logits to start from, or return None."""
    if shape != wanted:
        return f"mask_input has shape {shape}; give {wanted}, logits as returned earlier"
    return None


def _numbers(values):
    return " ".join(f"{value:g}" for value in values)
