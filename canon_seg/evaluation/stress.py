"""Imitate what photographs meet before a program: borders, darkness, few pixels, odd shapes.

Each kind takes an upright photograph to another upright image, always the same one, so that the
poses found can be compared with those of the photograph as it is.
"""

import cv2
import numpy as np

from canon_seg.errors import InputError

BAR = 0.25  # of the side that a letterbox or pillarbox adds at each end
FRAME = 0.25  # of the shorter side
PHONE_BARS = 0.08, 0.12  # of the height, above and below
EXPOSURE = 0.15
FEW_PIXELS = 32  # px, shorter side
PANORAMA = 6.0  # width over height


def letterbox(image: np.ndarray) -> np.ndarray:
    """Add black bars above and below, each a quarter of the height."""
    bar = round(BAR * image.shape[0])
    return _with_border(image, bar, bar, 0, 0, 0)


def pillarbox(image: np.ndarray) -> np.ndarray:
    """Add black bars at the left and the right, each a quarter of the width."""
    bar = round(BAR * image.shape[1])
    return _with_border(image, 0, 0, bar, bar, 0)


def wide_frame(image: np.ndarray) -> np.ndarray:
    """Add a white frame, a quarter of the shorter side wide."""
    width = round(FRAME * min(image.shape[:2]))
    return _with_border(image, width, width, width, width, 255)


def phone_bars(image: np.ndarray) -> np.ndarray:
    """Add a phone's bars: a black one above with white signs, a white one below with black keys."""
    height, width = image.shape[:2]
    above, below = (max(3, round(share * height)) for share in PHONE_BARS)
    image = _with_border(image, above, 0, 0, 0, 0)
    image = _with_border(image, 0, below, 0, 0, 255)
    size = max(1, above // 3)
    for place in (0.05, 0.85, 0.92):  # clock, network, battery
        _fill(image, (above - size) // 2, round(place * width), size, size, 255)
    size = max(1, below // 3)
    for place in (0.2, 0.5, 0.8):
        left = round(place * width) - size // 2
        _fill(image, height + above + (below - size) // 2, left, size, size, 0)
    return image


def under_exposed(image: np.ndarray) -> np.ndarray:
    """Darken an image to 0.15 of the brightness, in whole steps of 8 bits."""
    return (image * EXPOSURE).astype(np.uint8)


def few_pixels(image: np.ndarray) -> np.ndarray:
    """Shrink an image to a shorter side of 32 px; smaller images stay as they are."""
    height, width = image.shape[:2]
    scale = min(1.0, FEW_PIXELS / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def panorama(image: np.ndarray) -> np.ndarray:
    """Cut a strip, six times as wide as it is high, out of the middle of an image."""
    height, width = image.shape[:2]
    high = max(1, min(height, round(width / PANORAMA)))
    top = (height - high) // 2
    return image[top : top + high].copy()


KINDS = {
    "letterbox": letterbox,
    "pillarbox": pillarbox,
    "wide_frame": wide_frame,
    "phone_bars": phone_bars,
    "under_exposed": under_exposed,
    "few_pixels": few_pixels,
    "panorama": panorama,
}


def stress_image(image: np.ndarray, kind: str) -> np.ndarray:
    """Apply a kind of stress to an upright photograph.

    Args:
        image: H x W x 3 uint8.
        kind: a name in :data:`KINDS`.

    Returns:
        h x w x 3 uint8, a new array.

    Raises:
        InputError: if there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"--stress: there is no kind {kind!r}; known: {', '.join(KINDS)}")
    return KINDS[kind](image)


def _with_border(image, top, bottom, left, right, value):
    return cv2.copyMakeBorder(
        image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(value,) * 3
    )


def _fill(image, top, left, height, width, value):
    image[top : top + height, max(0, left) : left + width] = value
