"""Draw views of turned photographs, to train networks that are not equivariant.

Trained on upright views alone, such a network would learn to say "upright" of everything. So each
view is first made upright and then turned by a random element of the group, which is its label.
Mirror images are upright too and come before the turn.

What photographs meet on their way is imitated where it could mislead: borders of phones and films,
frames, darkness, few pixels, hard compression.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from canon_seg.core.group import C4, elements_of
from canon_seg.images.arrays import contiguous, turn_image
from canon_seg.images.preparation import trim_borders
from canon_seg.networks.photo_stream import PhotoStream, disturb_pixels

MAX_TILT = 10.0  # degrees
MAX_ASPECT = 6.0  # of panoramas
# Probabilities of what a view may have met.
WHOLE, PANORAMA = 0.2, 0.04
FEW_PIXELS, TILTED, DARK, BORDERED, COMPRESSED = 0.05, 0.4, 0.1, 0.15, 0.2
DISTURBED = 0.8
FEWEST_PIXELS = 24  # of a side


class PoseStream(PhotoStream):
    """Stream batches of turned views with their poses without end, one square size for each batch.

    Args:
        See :class:`~canon_seg.networks.photo_stream.PhotoStream`; ``shapes`` are squares.
    """

    def _load(self, index: int, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        file = self.files[index]
        image = turn_image(self.upright(index), int(self.turns[index]))
        view, pose = draw_view(image, shape[0], rng, self.min_scale)
        return {
            "file_name": file,
            "image": torch.from_numpy(view.transpose(2, 0, 1).copy()),
            "pose": pose,
        }


def draw_view(
    image: np.ndarray, side: int, rng: np.random.Generator, min_scale: float
) -> tuple[np.ndarray, int]:
    """Draw a random view of an upright photograph, turned.

    Args:
        image: H x W x 3 uint8, upright.
        side: of the result in pixels.
        rng: numpy Generator.
        min_scale: smallest side of a crop as a fraction of the photograph's.

    Returns:
        (view, pose): side x side x 3 uint8, and the quarter turns counterclockwise that it was
        turned by, 0..3.
    """
    view = crop(trimmed(image), rng, min_scale)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    inner = (side, side)
    if rng.random() < BORDERED:
        border = draw_border(side, rng)
        inner = (side - border[0] - border[1], side - border[2] - border[3])
    else:
        border = None
    if rng.random() < FEW_PIXELS:
        few = int(rng.integers(FEWEST_PIXELS, max(FEWEST_PIXELS, side // 2) + 1))
        view = _resize(view, (few, few))
    view = _resize(view, inner)
    if rng.random() < TILTED:
        view = _tilt(view, rng.uniform(-MAX_TILT, MAX_TILT))
    view = spoil(view, border, rng)
    pose = int(rng.integers(len(elements_of(C4))))
    return turn_image(view, pose), pose


def crop(image: np.ndarray, rng: np.random.Generator, min_scale: float) -> np.ndarray:
    """Cut a random part out of an image: now and then all of it, or a panorama.

    Height and width are drawn apart from each other, and the view is squashed to a square, so that
    neither tells the pose.
    """
    height, width = image.shape[:2]
    kind = rng.random()
    if kind < WHOLE:
        return image
    high, wide = height * rng.uniform(min_scale, 1.0), width * rng.uniform(min_scale, 1.0)
    if kind < WHOLE + PANORAMA:
        aspect = rng.uniform(2.0, MAX_ASPECT)
        if rng.random() < 0.5:
            high = min(high, wide / aspect)
        else:
            wide = min(wide, high / aspect)
    high, wide = max(1, round(high)), max(1, round(wide))
    top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    return image[top : top + high, left : left + wide]


def draw_border(side: int, rng: np.random.Generator) -> list[int]:
    """Draw widths in pixels of a border: (top, bottom, left, right).

    Bars above and below, bars at the sides, or a frame; at most a third of the square each.
    """
    kind = rng.integers(3)
    widths = np.zeros(4, np.int64)
    if kind == 2:
        widths[:] = side * rng.uniform(0.02, 0.25)
    else:
        first = rng.uniform(0.03, 0.33)
        second = first if rng.random() < 0.6 else rng.uniform(0.0, 0.33)
        widths[2 * kind : 2 * kind + 2] = side * first, side * second
    return widths.tolist()


def spoil(view: np.ndarray, border: "Sequence[int] | None", rng: np.random.Generator) -> np.ndarray:
    """Disturb, darken and compress a view, each now and then, and put a border around it.

    Args:
        view: h x w x 3 uint8.
        border: widths of :func:`draw_border`; None for no border.
        rng: numpy Generator.

    Returns:
        uint8 array, larger by the border.
    """
    if rng.random() < DISTURBED:
        view = disturb_pixels(view.astype(np.float32), rng)
    if rng.random() < DARK:
        view = (view * rng.uniform(0.08, 0.6)).astype(np.uint8)
    if border is not None:
        view = add_border(view, border, rng)
    if rng.random() < COMPRESSED:
        view = compress(view, int(rng.integers(20, 90)))
    return view


def add_border(view: np.ndarray, widths: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Put a border around a view: black, white or of any colour; sometimes signs and noise on it.

    Args:
        view: h x w x 3 uint8.
        widths: of :func:`draw_border`.
        rng: numpy Generator.

    Returns:
        uint8 array, larger by the border.
    """
    top, bottom, left, right = widths
    colour = rng.choice(4)
    if colour == 0:
        value = np.zeros(3)
    elif colour == 1:
        value = np.full(3, 255.0)
    elif colour == 2:
        value = np.full(3, rng.uniform(0, 255))
    else:
        value = rng.uniform(0, 255, size=3)
    height, width = view.shape[0] + top + bottom, view.shape[1] + left + right
    canvas = np.full((height, width, 3), value, np.float32)
    if rng.random() < 0.3:  # the bars of a phone: small signs along them
        for _ in range(rng.integers(1, 8)):
            y, x = rng.integers(height), rng.integers(width)
            size = rng.integers(1, 8, size=2)
            canvas[y : y + size[0], x : x + size[1]] = rng.uniform(0, 255)
    if rng.random() < 0.3:
        canvas += rng.normal(0, rng.uniform(1, 6), canvas.shape)
    canvas = np.clip(canvas, 0, 255).astype(np.uint8)
    canvas[top : height - bottom, left : width - right] = view
    return canvas


def compress(view: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image as JPEG with a quality of 1 to 100, and read it back."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(view), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def trimmed(image: np.ndarray) -> np.ndarray:
    """Cut plain borders off an H x W x 3 image, as the network will see it."""
    pixels = torch.from_numpy(contiguous(image)).permute(2, 0, 1)
    return trim_borders(pixels).permute(1, 2, 0).numpy()


def _resize(view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = view.shape[0] > size[0] or view.shape[1] > size[1]
    return cv2.resize(
        np.ascontiguousarray(view),
        size[::-1],
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )


def _tilt(view: np.ndarray, degrees: float) -> np.ndarray:
    """Tilt a view as a camera that is not held quite level; mirrored borders fill the corners."""
    height, width = view.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(view, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
