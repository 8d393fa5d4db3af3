"""Load the photographs of the web page: samples that need no network, and users' uploads."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from canon_seg.apps.drawing import fit
from canon_seg.apps.photographs import sample_photographs
from canon_seg.apps.web.objects import ObjectPrompt
from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions, count_pixels, read_image
from canon_seg.scenes.dataset import CATEGORIES, DEMO_SEED, make_scene

MIN_SIDE = 16  # px
PILLOW_LIMIT = 178_956_970  # pixels

# Scenes of DEMO_SEED that are drawn on the spot, and the instance to begin with.
_SCENES = (("Street", 4, "car"), ("Meadow", 6, "tree"))

# Of the table seen from above: x, y, radius in pixels, and colour.
_DISHES = (
    (170, 150, 88, (214, 208, 198)),
    (400, 270, 96, (205, 198, 190)),
    (330, 96, 44, (190, 120, 84)),
    (150, 330, 50, (96, 120, 150)),
    (490, 110, 38, (210, 190, 120)),
)


@dataclass(frozen=True)
class Sample:
    """Hold a photograph and a prompt to begin with.

    Attributes:
        name: what it shows.
        image: (H, W, 3) uint8 RGB.
        prompt: for something in it.
        is_upright: True where it is known to be upright, None where it has no up.
    """

    name: str
    image: np.ndarray
    prompt: ObjectPrompt
    is_upright: bool | None = True


@dataclass(frozen=True)
class Limits:
    """Describe what an upload may be.

    Attributes:
        megapixels: larger files are refused before they are decoded.
        max_side: in pixels; larger images are shrunk to it.
    """

    megapixels: float = 40.0
    max_side: int = 1024


def load_samples(max_side=Limits.max_side):
    """Load all :class:`Sample` that are there; drawn scenes always are."""
    known = [_sample(*parts, max_side) for parts in (*_photos(), *_scenes())]
    name, image, box = _table_from_above()
    return [*known, replace(_sample(name, image, box, max_side), is_upright=None)]


def read_upload(path, limits=Limits()):
    """Read the photograph in an uploaded file: upright by its EXIF tag, shrunk to the limits.

    Returns:
        (H, W, 3) uint8 RGB array.

    Raises:
        InputError: if it is no image, damaged, too large or too small. The message names the file
            without its folder, which is the server's own.
    """
    path = os.fspath(path)
    try:
        # The limit of the page is the one that counts, even above Pillow's.
        options = ReadingOptions(max_pixels=max(PILLOW_LIMIT, round(limits.megapixels * 1e6)))
        megapixels = count_pixels(path, options) / 1e6
        if megapixels > limits.megapixels:
            raise InputError(
                f"{path}: has {megapixels:.1f} megapixels, at most {limits.megapixels:g} are "
                "taken; make it smaller"
            )
        original = read_image(path, "RGB", options)
        image = fit(original, limits.max_side)
        if min(image.shape[:2]) < MIN_SIDE:
            raise InputError(
                f"{path}: is {original.shape[1]} x {original.shape[0]} px; give a photo that, with "
                f"its longer side at most {limits.max_side} px, has at least {MIN_SIDE} px on the "
                "shorter"
            )
    except InputError as error:
        raise InputError(str(error).replace(path, Path(path).name)) from error
    return np.ascontiguousarray(image)


def _sample(name, original, box, max_side):
    image = np.ascontiguousarray(fit(original, max_side))
    scale = image.shape[1] / original.shape[1]
    return Sample(name, image, ObjectPrompt(box=tuple(round(int(edge) * scale) for edge in box)))


def _photos():
    for photograph in sample_photographs():
        yield photograph.title, read_image(photograph.path, "RGB"), photograph.box


def _scenes():
    for name, index, category in _SCENES:
        image, instances = make_scene(np.random.default_rng([DEMO_SEED, index]))
        wanted = CATEGORIES.index(category) + 1
        mask = max(
            (mask for category_id, mask in instances if category_id == wanted),
            key=np.count_nonzero,
        )
        columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
        yield name, image, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def _table_from_above():
    """Draw plates and cups from straight above: nothing in the picture says which way is up."""
    rng = np.random.default_rng(DEMO_SEED)
    image = np.full((420, 560, 3), (120, 92, 70), np.uint8)
    for x, y, radius, color in _DISHES:
        cv2.circle(image, (x, y), radius, color, -1, cv2.LINE_AA)
        inner = tuple(int(0.88 * value) for value in color)
        cv2.circle(image, (x, y), round(0.72 * radius), inner, -1, cv2.LINE_AA)
    noise = rng.normal(0, 5, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    x, y, radius, _ = _DISHES[0]
    return "From above", image, (x - radius, y - radius, x + radius + 1, y + radius + 1)
