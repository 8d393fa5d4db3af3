"""Draw small pictures of a few classes that have an up: a stand-in where no data set is given.

They are no photographs, and figures on them say nothing of CIFAR-10: they show that the parts work
together, in minutes.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from tqdm import tqdm

CLASSES = ("house", "tree", "person", "boat", "lamp")
_FINE = 4  # drawn larger by this, then shrunk

Colour = tuple[int, ...]
Draw = Callable[..., None]
"""Draws a polygon or a disc on the canvas of one picture."""


def draw_images(count: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images, the classes in turns.

    Args:
        count: of images.
        side: in pixels.
        seed: the same gives the same images.

    Returns:
        (images, labels): (N, 3, side, side) uint8, RGB, and (N,) int64.
    """
    rng = np.random.default_rng(seed)
    numbers = tqdm(range(count), desc="drawing images", unit="image", delay=1)
    images = np.stack([_draw(k % len(CLASSES), side, rng) for k in numbers])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.arange(count) % len(CLASSES)


def _draw(label: int, side: int, rng: np.random.Generator) -> np.ndarray:
    size = side * _FINE
    canvas = np.empty((size, size, 3), np.uint8)
    # Above and below are of random colours, so that these alone tell no pose.
    horizon = round(size * rng.uniform(0.55, 0.8))
    canvas[:horizon], canvas[horizon:] = _colour(rng), _colour(rng)
    scale = size * rng.uniform(0.26, 0.36)
    centre = size * rng.uniform(0.42, 0.58), size * rng.uniform(0.45, 0.55)

    def place(points: "list[tuple[float, float]]") -> np.ndarray:
        return np.array([(centre[0] + scale * x, centre[1] + scale * y) for x, y in points])

    def polygon(points: "list[tuple[float, float]]", colour: Colour) -> None:
        cv2.fillPoly(canvas, [place(points).round().astype(np.int32)], colour, cv2.LINE_AA)

    def disc(x: float, y: float, radius: float, colour: Colour) -> None:
        ((left, top),) = place([(x, y)]).round().astype(int)
        cv2.circle(canvas, (int(left), int(top)), round(scale * radius), colour, -1, cv2.LINE_AA)

    _DRAWERS[label](polygon, disc, rng)
    image = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    noisy = image + rng.normal(0, rng.uniform(2, 10), image.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> Colour:
    return tuple(int(value) for value in rng.integers(30, 226, 3))


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _house(polygon: Draw, disc: Draw, rng: np.random.Generator) -> None:
    wide, eaves = rng.uniform(0.7, 1.0), rng.uniform(-0.3, 0.1)
    polygon(_box(-wide, eaves, wide, 1), _colour(rng))
    polygon([(-wide * 1.15, eaves), (0, -1), (wide * 1.15, eaves)], _colour(rng))
    polygon(_box(-0.2, 0.4, 0.2, 1), _colour(rng))


def _tree(polygon: Draw, disc: Draw, rng: np.random.Generator) -> None:
    polygon(_box(-0.15, 0, 0.15, 1), _colour(rng))
    colour = _colour(rng)
    for _ in range(4):
        disc(rng.uniform(-0.4, 0.4), rng.uniform(-0.7, -0.1), rng.uniform(0.35, 0.55), colour)


def _person(polygon: Draw, disc: Draw, rng: np.random.Generator) -> None:
    skin, cloth = _colour(rng), _colour(rng)
    polygon(_box(-0.3, -0.45, 0.3, 0.3), cloth)
    stride = rng.uniform(0.1, 0.5)
    polygon([(-0.3, 0.3), (0, 0.3), (-stride + 0.1, 1), (-stride - 0.15, 1)], cloth)
    polygon([(0, 0.3), (0.3, 0.3), (stride + 0.15, 1), (stride - 0.1, 1)], cloth)
    polygon([(-0.3, -0.4), (-0.8, rng.uniform(-0.2, 0.3)), (-0.3, -0.15)], skin)
    polygon([(0.3, -0.4), (0.8, rng.uniform(-0.2, 0.3)), (0.3, -0.15)], skin)
    disc(0, -0.75, 0.28, skin)


def _boat(polygon: Draw, disc: Draw, rng: np.random.Generator) -> None:
    polygon([(-1, 0.4), (1, 0.4), (0.6, 0.9), (-0.6, 0.9)], _colour(rng))
    polygon(_box(-0.05, -1, 0.05, 0.4), _colour(rng))
    polygon([(0.1, -0.9), (0.1, 0.25), (rng.uniform(0.5, 0.9), 0.25)], _colour(rng))


def _lamp(polygon: Draw, disc: Draw, rng: np.random.Generator) -> None:
    polygon(_box(-0.5, 0.85, 0.5, 1), _colour(rng))
    polygon(_box(-0.08, -0.2, 0.08, 0.9), _colour(rng))
    top = rng.uniform(0.2, 0.4)
    polygon([(-top, -1), (top, -1), (0.75, -0.15), (-0.75, -0.15)], _colour(rng))


_DRAWERS = (_house, _tree, _person, _boat, _lamp)
