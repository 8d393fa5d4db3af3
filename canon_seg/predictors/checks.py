"""Say in words what is wrong with an image or with prompts.

Each function returns a sentence that says what was wrong and what to give, or None. Nothing is
raised here: a predictor lets the library that it stands for raise its own error first.
"""

import numpy as np

LABELS = {1: "foreground", 0: "background", -1: "padding"}


def image_problem(image):
    """Describe what is wrong with what should be an (H, W, 3) uint8 array, or return None.

    Where it can be told, the sentence ends with the expression that makes such an array.
    """
    if type(image).__module__.partition(".")[0] == "torch":
        axes = ".permute(1, 2, 0)" if image.ndim == 3 and _is_planar(image.shape) else ""
        return f"image is a torch {type(image).__name__}; give image{axes}.cpu().numpy()"
    if not isinstance(image, np.ndarray):
        hint = " (cv2.imread gives None for a file that it cannot read)" if image is None else ""
        return (
            f"image is a {type(image).__name__}{hint}; give a numpy array, a Pillow image, or the "
            "path of a file"
        )
    if image.ndim == 3 and image.shape[2] == 3 and image.size and image.dtype == np.uint8:
        return None
    wrong = (
        f"image has shape {image.shape} and dtype {image.dtype}; give (height, width, 3) and uint8"
    )
    steps = _steps_to_image(image)
    return f"{wrong}: {steps}" if steps else wrong


def _steps_to_image(image):
    """Return the expression that makes an (H, W, 3) uint8 array of an image, or None."""
    text, shape = "image", image.shape
    if image.size == 0 or image.ndim not in (2, 3):
        return None
    if image.ndim == 2:
        text, channels = f"np.stack([{text}] * 3, axis=2)", 3
    else:
        if _is_planar(shape):
            text, shape = f"{text}.transpose(1, 2, 0)", (*shape[1:], shape[0])
        channels = shape[2]
        if channels == 1:
            text = f"np.repeat({text}, 3, axis=2)"
        elif channels == 4:
            text = f"{text}[..., :3]"
    if channels not in (1, 3, 4):
        return None
    if image.dtype == np.uint8:
        return text
    if image.dtype == np.bool_:
        return f"{text}.astype(np.uint8) * 255"
    if image.dtype == np.uint16:
        return f"({text} >> 8).astype(np.uint8) for values up to 65535"
    if not np.issubdtype(image.dtype, np.number) or np.iscomplexobj(image):
        return None
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "its values are not all finite"
    if np.issubdtype(image.dtype, np.floating) and 0 <= low and high <= 1:
        return f"np.round({text} * 255.0).astype(np.uint8) for values 0 to 1"
    if 0 <= low and high <= 255:
        rounded = f"np.round({text})" if np.issubdtype(image.dtype, np.floating) else text
        return f"{rounded}.astype(np.uint8) for values 0 to 255"
    return f"its values go from {low:g} to {high:g}; undo the normalisation first"


def _is_planar(shape):
    """Return whether a shape of three axes has the channels first."""
    return shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)


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
    wild = points[~np.isfinite(points).all(axis=-1) & (labels != -1)]
    if len(wild):
        return f"point {_numbers(wild[0])} is not finite; give x y in pixels"
    # Pixel i covers i - 1/2 to i + 1/2 in pixel indices. Padding has no place.
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
            return f"box {_numbers(box)} is not finite; give x0 y0 x1 y1 in pixels"
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
