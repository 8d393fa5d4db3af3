"""Procedural upright scenes with instance masks, in COCO format, drawn from a seed.

Each scene is a small landscape seen by a level camera: sky and light above, ground with
perspective below, and things that stand, drive or float on it. Everything that is painted by an
instance takes its pixels from whatever was behind, so masks are the visible regions.

Only numpy is used, with integer geometry and no function of a platform's mathematics library, so
that a seed gives the same pixels on every machine.
"""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image
from tqdm import tqdm

from canon_seg.errors import InputError
from canon_seg.io.files import write_atomically, write_json

# For evaluation, the demo and the tests; a network must never be trained on these.
DEMO_SEED = 7
# For training.
TRAIN_SEED = 1_000_003

# To be raised whenever the pictures of a seed change.
SCENES_VERSION = 1

CATEGORIES = ("house", "tree", "car", "person", "cow", "boat", "balloon")
_CATEGORY_IDS = {name: number for number, name in enumerate(CATEGORIES, start=1)}

_DESCRIPTION = "procedural upright scenes"
_MIN_VISIBLE_PIXELS = 16

# width : height
_ASPECTS = ((4, 3), (3, 2), (16, 9), (1, 1), (3, 4), (2, 3))

# sky above, sky at the horizon, light on everything
_SKIES = (
    ((62, 118, 196), (190, 214, 236), (1.04, 1.02, 0.96)),
    ((96, 150, 214), (216, 226, 232), (1.02, 1.01, 0.98)),
    ((132, 142, 156), (204, 208, 210), (0.88, 0.90, 0.94)),
    ((84, 98, 150), (246, 190, 132), (1.06, 0.92, 0.78)),
    ((58, 74, 122), (226, 148, 128), (0.92, 0.82, 0.82)),
)
_GROUNDS = ((92, 124, 58), (112, 132, 62), (148, 136, 78), (72, 106, 56), (186, 168, 120))
_WALLS = ((214, 204, 184), (196, 120, 92), (232, 228, 220), (170, 164, 156), (222, 190, 130))
_ROOFS = ((150, 66, 48), (96, 70, 60), (84, 88, 98), (176, 92, 58))
_LEAVES = ((54, 96, 40), (74, 116, 46), (44, 82, 48), (110, 122, 44), (150, 104, 40))
_PAINTS = (
    (176, 38, 36),
    (40, 74, 140),
    (224, 224, 222),
    (52, 54, 58),
    (196, 160, 48),
    (70, 120, 90),
)
_CLOTHES = (
    (178, 48, 52),
    (52, 82, 148),
    (228, 222, 210),
    (60, 120, 82),
    (206, 156, 60),
    (96, 66, 118),
)
_TROUSERS = ((46, 54, 84), (62, 56, 52), (104, 96, 84), (34, 36, 40))
# of cows, with their spots
_HIDES = (
    ((60, 48, 42), (226, 220, 210)),
    ((150, 92, 56), (150, 92, 56)),
    ((228, 222, 212), (50, 42, 38)),
)
_SKINS = ((232, 188, 158), (198, 144, 108), (140, 94, 66), (96, 62, 46))
_HAIRS = ((40, 30, 26), (92, 62, 38), (170, 132, 78), (120, 116, 112))
_GLASS = (86, 108, 128)


def make_scenes(directory, num_images, seed=DEMO_SEED, progress=False):
    """Write a data set of scenes: ``images/*.png`` and ``annotations/instances.json``.

    Scene i depends on the seed and on i alone. A complete set of the same seed, number and version
    is left as it is; another set of scenes is replaced, its annotations first, so that an
    interrupted call never leaves annotations beside images of another set.

    Args:
        directory: str or path; created if needed.
        num_images: number of scenes, at least 1.
        seed: non-negative integer.
        progress: whether to show a progress bar.

    Returns:
        (path of the annotations, path of the folder of images).

    Raises:
        InputError: the folder can't be written or holds annotations of something else.
    """
    if num_images < 1 or seed < 0:
        raise InputError(
            f"cannot make {num_images} scenes from seed {seed}: give a positive number and a "
            "seed that is not negative"
        )
    images_dir = Path(directory) / "images"
    annotations_path = Path(directory) / "annotations" / "instances.json"
    info = {
        "description": _DESCRIPTION,
        "version": SCENES_VERSION,
        "seed": seed,
        "num_images": num_images,
    }
    file_names = [f"{index:06d}.png" for index in range(num_images)]
    if annotations_path.exists():
        present = _info(annotations_path)
        if present.get("description") != _DESCRIPTION:
            raise InputError(
                f"{annotations_path}: holds annotations of something else; give another folder"
            )
        if present == info and all((images_dir / name).is_file() for name in file_names):
            return annotations_path, images_dir
        annotations_path.unlink()

    images, annotations = [], []
    for index, name in enumerate(tqdm(file_names, desc="drawing scenes", disable=not progress)):
        image, instances = make_scene(np.random.default_rng([seed, index]))
        with write_atomically(images_dir / name) as temporary:
            Image.fromarray(image).save(temporary)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for category_id, mask in instances:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": category_id,
                    "iscrowd": 0,
                    **_mask_annotation(mask),
                }
            )
    categories = [{"id": number, "name": name} for name, number in _CATEGORY_IDS.items()]
    write_json(
        annotations_path,
        {
            "info": info,
            "images": images,
            "annotations": annotations,
            "categories": categories,
        },
        indent=None,
    )
    return annotations_path, images_dir


def make_scene(rng):
    """Draw one scene.

    Args:
        rng: numpy.random.Generator, the only source of chance.

    Returns:
        (image, instances): uint8 RGB array H x W x 3 with the shorter side from 160 to 256, and a
        list of (category id, bool mask H x W) of the visible pixels of each instance, none empty.
    """
    short = int(rng.integers(160, 257))
    aspect = _pick(rng, _ASPECTS)
    long = short * max(aspect) // min(aspect)
    width, height = (long, short) if aspect[0] > aspect[1] else (short, long)

    scene = _Scene(height, width, rng)
    scene.paint_sky()
    kind = _pick(rng, (_street, _meadow, _lake))
    kind(scene)
    masks = [
        (category_id, scene.owner == number)
        for number, category_id in enumerate(scene.category_ids, start=1)
    ]
    visible = [(category_id, mask) for category_id, mask in masks if _is_visible(mask)]
    return scene.developed(), visible


def _is_visible(mask):
    return np.count_nonzero(mask) >= _MIN_VISIBLE_PIXELS


def _mask_annotation(mask):
    """RLE, tight box and area of a bool mask, as COCO writes them."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "bbox": [int(value) for value in mask_util.toBbox(rle)],
        "area": int(mask_util.area(rle)),
    }


def _info(annotations_path):
    try:
        return json.loads(annotations_path.read_text(encoding="utf-8"))["info"]
    except (ValueError, KeyError, TypeError):
        return {}


# The stage ---------------------------------------------------------------------------------------


class _Scene:
    """Pixels, the instance that owns each of them, and the camera.

    The camera is level: a point of the ground that is seen d rows below the horizon is nearer the
    larger d is, and a metre there is d / (camera height in metres) pixels long.

    Attributes:
        image: float64 H x W x 3, 0 to 255.
        owner: int32 H x W, 0 for the background, else the number of the instance from 1.
        category_ids: list, of instance number - 1.
    """

    def __init__(self, height, width, rng):
        self.height, self.width, self.rng = height, width, rng
        self.image = np.zeros((height, width, 3))
        self.owner = np.zeros((height, width), np.int32)
        self.category_ids = []
        self.horizon = height * int(rng.integers(34, 56)) // 100
        self.camera_height = int(rng.integers(24, 46)) / 10
        self.sky, self.haze, self.light = (np.array(c, float) for c in _pick(rng, _SKIES))
        self.sun_side = 1 if rng.random() < 0.5 else -1
        rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
        # Bumps a few pixels wide, which give every surface its texture.
        self.texture = _fractal(rng, rows / 5, columns / 5)

    def scale_at(self, row):
        """Pixels per metre for what stands on the ground at ``row``."""
        return (row - self.horizon) / self.camera_height

    def row_at(self, nearness):
        """The row of the ground at ``nearness``: 0 at the horizon, 1 at the lower edge."""
        return self.horizon + _round(nearness * (self.height - self.horizon))

    def paint_sky(self):
        rng, horizon = self.rng, self.horizon
        rows, columns = np.arange(self.height)[:, None], np.arange(self.width)[None, :]
        depth = np.minimum(rows / horizon, 1)[..., None]
        sky = self.sky * (1 - depth) + self.haze * depth
        sky = np.broadcast_to(sky, self.image.shape).copy()

        x = self.width // 2 + self.sun_side * int(rng.integers(self.width // 8, self.width // 2))
        y = int(rng.integers(horizon // 8, horizon * 2 // 3))
        radius = self.height // int(rng.integers(18, 30))
        distance = (rows - y) ** 2 + (columns - x) ** 2
        glow = (6 * radius**2 / (distance + 6 * radius**2))[..., None]
        sky += glow * (np.array([255, 246, 214]) - sky) * 0.7
        sky[distance <= radius**2] = (255, 250, 226)

        # Clouds shrink towards the horizon; what lies above a cloud's cell shades its underside.
        u, v = columns / (10 + 28 * (1 - depth[..., 0])), 8 * depth[..., 0] + 0 * columns
        clouds, above = _fractal(rng, v, u, (0, 0), (-0.35, 0))
        cover = int(rng.integers(-30, 45)) / 100
        density = np.clip((clouds + cover) * 2, 0, 1)[..., None]
        shade = 1 - 0.22 * np.clip(above + cover + 0.2, 0, 1)[..., None]
        white = (np.array([255, 254, 252]) * 0.8 + self.haze * 0.2) * shade
        self.image[:] = sky + density * (white - sky) * 0.85

    def paint_hills(self, relief, colour, roughness):
        """A ridge on the horizon, ``relief`` pixels high, paler the more it is to look far."""
        columns = np.arange(self.width)
        cells = columns / max(self.width // roughness, 4)
        ridge = (_fractal(self.rng, 0 * cells, cells) + 0.7) * relief / 1.4
        rows = np.arange(self.height)[:, None]
        top = self.horizon - np.maximum(ridge, 1)
        inside = (rows > top) & (rows <= self.horizon)
        light = 1.12 - 0.3 * (rows - top) / max(relief, 1) + 0.16 * self.texture
        self.image[inside] = (np.array(colour, float) * light[..., None])[inside]

    def paint_ground(self, colour, first_row, last_row=None, kind="grass"):
        """The ground from one row to another, with texture in perspective."""
        last_row = self.height if last_row is None else min(last_row, self.height)
        if last_row <= first_row:
            return
        rows, columns = np.arange(first_row, last_row)[:, None], np.arange(self.width)[None, :]
        scale = np.maximum(rows - self.horizon, 1) / self.camera_height
        along, across = {"grass": (5, 16), "asphalt": (3, 16), "water": (0.35, 5)}[kind]
        u = (columns - self.width // 2) / scale * along
        v = 40 * across / scale + 0 * columns
        fine = np.minimum(scale / 6, 1)
        waves = _fractal(self.rng, v, u) * {"grass": 0.34, "asphalt": 0.12, "water": 0.30}[kind]
        light = 0.94 + waves * (0.35 + 0.65 * fine)
        far = 0.55 * (1 - np.clip((rows - self.horizon) / (self.height - self.horizon) * 3, 0, 1))
        far = far[..., None]
        ground = np.array(colour, float) * light[..., None]
        if kind == "water":
            mirror = np.clip(1 - (rows - self.horizon) / (self.height - self.horizon), 0, 1)
            mirror = 0.75 * mirror[..., None] ** 2
            ground += mirror * (self.haze * (0.9 + waves[..., None]) - ground)
        self.image[first_row:last_row] = ground * self.light * (1 - far) + self.haze * far

    def paint_path(self, colour, foot):
        """A way that runs from the lower edge to the horizon, narrowing."""
        half, top = self.width // 7, self.horizon + 2
        goal = self.width // 2 + (self.width // 2 - foot) // 3
        near = [(foot - half, self.height), (foot + half, self.height)]
        window, inside = self._polygon([*near, (goal + 1, top), (goal - 1, top)])
        light = (0.95 + 0.14 * self.texture[window][inside])[:, None]
        self.image[window][inside] = np.array(colour, float) * light * self.light

    def shadow(self, x, y, half_width, half_height):
        """Darken the ground, not other instances, under and beside what stands at (x, y)."""
        x -= self.sun_side * half_width // 2
        window, inside = self._ellipse(x, y, max(half_width, 1), max(half_height, 1))
        inside = inside & (self.owner[window] == 0)
        self.image[window][inside] *= 0.6

    def add(self, category, x, row, scale=None):
        """A :class:`_Brush` for a new instance whose foot is at column ``x`` and ``row``."""
        self.category_ids.append(_CATEGORY_IDS[category])
        scale = self.scale_at(row) if scale is None else scale
        return _Brush(self, len(self.category_ids), x, row, scale)

    def developed(self):
        """The photograph: softened by the lens, exposed, with the sensor's noise; uint8 RGB."""
        image = self.image
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        image = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
        image = image * (int(self.rng.integers(96, 116)) / 100)
        strength = int(self.rng.integers(1, 5))
        # The sum of two dice is bell-shaped enough.
        noise = self.rng.integers(-strength, strength + 1, (2, self.height, self.width, 1))
        tint = self.rng.integers(-2, 3, image.shape)
        return np.clip(np.floor(image + noise.sum(axis=0) + tint + 0.5), 0, 255).astype(np.uint8)

    def _window(self, x0, y0, x1, y1):
        """Slices of the part of [x0, x1] x [y0, y1] in the image, and its rows and columns."""
        rows = slice(max(y0, 0), max(min(y1 + 1, self.height), 0))
        columns = slice(max(x0, 0), max(min(x1 + 1, self.width), 0))
        ys, xs = np.arange(self.height)[rows, None], np.arange(self.width)[None, columns]
        return (rows, columns), ys, xs

    def _polygon(self, points):
        """Window and mask of a convex polygon with integer corners, its outline included."""
        xs, ys = zip(*points)
        window, y, x = self._window(min(xs), min(ys), max(xs), max(ys))
        left, right = np.ones((2, *np.broadcast_shapes(x.shape, y.shape)), bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
            side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
            left &= side <= 0
            right &= side >= 0
        return window, left | right

    def _ellipse(self, x, y, radius_x, radius_y):
        """Window and mask of an ellipse with integer centre and radii."""
        window, ys, xs = self._window(x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        distance = ((xs - x) * radius_y) ** 2 + ((ys - y) * radius_x) ** 2
        return window, distance <= (radius_x * radius_y) ** 2


class _Brush:
    """Paints one instance, in metres from its foot: u along the image, v up.

    Args:
        scene: the :class:`_Scene` that is painted on.
        instance: the number that the painted pixels get as their owner.
        x, row: the foot, in pixels.
        scale: pixels per metre.
    """

    def __init__(self, scene, instance, x, row, scale):
        self.scene, self.instance = scene, instance
        self.x, self.row, self.scale = x, row, scale
        self.mirrored = -1 if scene.rng.random() < 0.5 else 1
        # Air between the camera and far things takes on the colour of the sky at the horizon.
        nearness = (row - scene.horizon) / (scene.height - scene.horizon)
        self.air = 0.4 * float(np.clip(1 - 2.5 * abs(nearness), 0, 1))

    def polygon(self, points, colour, roughness=0.12):
        """A convex polygon of (u, v) corners."""
        corners = [(self._column(u), self._row(v)) for u, v in points]
        self._fill(*self.scene._polygon(corners), colour, roughness)

    def box(self, u0, v0, u1, v1, colour, roughness=0.12):
        self.polygon([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], colour, roughness)

    def ellipse(self, u, v, radius_u, radius_v, colour, roughness=0.12):
        radii = max(_round(radius_u * self.scale), 1), max(_round(radius_v * self.scale), 1)
        self._fill(*self.scene._ellipse(self._column(u), self._row(v), *radii), colour, roughness)

    def shadow(self, half_width, half_height=None):
        """The instance's shadow on the ground around its foot, in metres."""
        half_height = half_width / 4 if half_height is None else half_height
        self.scene.shadow(
            self.x, self.row, _round(half_width * self.scale), _round(half_height * self.scale)
        )

    def _column(self, u):
        return self.x + _round(u * self.scale * self.mirrored)

    def _row(self, v):
        return self.row - _round(v * self.scale)

    def _fill(self, window, inside, colour, roughness):
        rows, height = np.nonzero(inside)[0], max(inside.shape[0], 1)
        # Light comes from above, so each surface darkens downwards.
        light = 1.1 - 0.24 * rows / height + roughness * self.scene.texture[window][inside]
        colour = np.array(colour, float) * self.scene.light * light[:, None]
        self.scene.image[window][inside] = colour * (1 - self.air) + self.scene.haze * self.air
        self.scene.owner[window][inside] = self.instance


# The plays ---------------------------------------------------------------------------------------


def _street(scene):
    """Houses along a road that crosses the picture, with cars and people."""
    rng = scene.rng
    scene.paint_hills(scene.height // 9, scene.haze * 0.72, 3)
    scene.paint_hills(scene.height // 22, (70, 96, 62), 14)
    scene.paint_ground(_pick(rng, _GROUNDS), scene.horizon)
    first, last = scene.row_at(0.42), scene.row_at(0.72)
    margin = max((last - first) // 6, 2)
    scene.paint_ground((172, 166, 158), first - margin, last + margin, "asphalt")
    scene.paint_ground((98, 98, 102), first, last, "asphalt")
    middle = (first + last) // 2
    dash = max(_round(scene.scale_at(middle) * 1.5), 3)
    for x in range(int(rng.integers(-dash, 1)), scene.width, 2 * dash):
        scene.image[middle : middle + max(dash // 9, 1), max(x, 0) : max(x + dash, 0)] = 226

    x = int(rng.integers(-scene.width // 8, scene.width // 6))
    cast = []
    while x < scene.width:
        row = scene.row_at(int(rng.integers(24, 34)) / 100)
        cast.append((_house, x, row))
        x += _round(scene.scale_at(row) * int(rng.integers(9, 15)))
    cast += _placed(scene, _tree, rng.integers(1, 4), 14, 38)
    cast += _placed(scene, _car, rng.integers(1, 3), 51, 54)
    cast += _placed(scene, _car, rng.integers(0, 3), 65, 69)
    cast += _placed(scene, _person, rng.integers(1, 4), 36, 41)
    cast += _placed(scene, _person, rng.integers(1, 4), 76, 104)
    if rng.random() < 0.4:
        cast += _placed(scene, _tree, 1, 80, 100)
    _perform(scene, cast)


def _meadow(scene):
    """Grassland before hills, with trees, cows, a farm house, and balloons on some days."""
    rng = scene.rng
    scene.paint_hills(scene.height // int(rng.integers(4, 9)), scene.haze * 0.76, 3)
    scene.paint_hills(scene.height // 12, scene.haze * 0.35 + np.array([44, 66, 36]), 5)
    scene.paint_ground(_pick(rng, _GROUNDS), scene.horizon)
    if rng.random() < 0.6:
        scene.paint_path((182, 160, 122), int(rng.integers(0, scene.width)))
    if rng.random() < 0.5:
        _fly_balloons(scene)
    cast = _placed(scene, _tree, rng.integers(3, 8), 8, 55)
    cast += _placed(scene, _house, rng.integers(0, 3), 16, 34)
    cast += _placed(scene, _cow, rng.integers(1, 5), 25, 90)
    cast += _placed(scene, _person, rng.integers(0, 4), 30, 104)
    _perform(scene, cast)


def _lake(scene):
    """Water before mountains, with boats, and people and trees on the near shore."""
    rng = scene.rng
    scene.paint_hills(scene.height // int(rng.integers(3, 7)), scene.haze * 0.7, 4)
    scene.paint_hills(scene.height // 14, scene.haze * 0.25 + np.array([44, 70, 44]), 9)
    shore = int(rng.integers(55, 80))
    water = _pick(rng, ((52, 92, 124), (62, 110, 122), (74, 96, 116)))
    scene.paint_ground(water, scene.horizon, scene.row_at(shore / 100), "water")
    scene.paint_ground(_pick(rng, ((196, 178, 134), (120, 128, 70))), scene.row_at(shore / 100))
    if rng.random() < 0.25:
        _fly_balloons(scene)
    cast = _placed(scene, _boat, rng.integers(2, 6), 10, shore - 6)
    cast += _placed(scene, _person, rng.integers(1, 5), shore + 5, 104)
    cast += _placed(scene, _tree, rng.integers(0, 3), shore + 4, 95)
    _perform(scene, cast)


def _placed(scene, paint, number, far, near):
    """``number`` times (paint, x, row), on the ground between two percentages of nearness."""
    return [
        (
            paint,
            int(scene.rng.integers(scene.width // 20, scene.width * 19 // 20)),
            scene.row_at(int(scene.rng.integers(far, near + 1)) / 100),
        )
        for _ in range(int(number))
    ]


def _perform(scene, cast):
    """Paint what was placed, the farthest first."""
    for paint, x, row in sorted(cast, key=lambda entry: entry[2]):
        if row > scene.horizon + 2:
            paint(scene, x, row)


# The players -------------------------------------------------------------------------------------


def _house(scene, x, row):
    rng = scene.rng
    brush = scene.add("house", x, row)
    half, floors = int(rng.integers(30, 50)) / 10, int(rng.integers(1, 3))
    eaves = 2.8 * floors
    ridge = eaves + int(rng.integers(18, 32)) / 10
    wall, roof = _pick(rng, _WALLS), _pick(rng, _ROOFS)
    brush.shadow(half * 1.5, 0.9)
    brush.box(half / 2, ridge - 1.5, half / 2 + 0.7, ridge + 0.6, (140, 84, 70))
    brush.box(-half, 0, half, eaves, wall)
    overhang = half + 0.4
    if rng.random() < 0.5:
        brush.polygon([(-overhang, eaves), (overhang, eaves), (0, ridge)], wall)
        for side in (-1, 1):
            u = side * overhang
            slope = [(u, eaves - 0.2), (u, eaves + 0.4), (0, ridge + 0.5), (0, ridge - 0.3)]
            brush.polygon(slope, roof, 0.25)
    else:
        top, low = half * 0.72, eaves - 0.1
        slope = [(-overhang, low), (overhang, low), (top, ridge), (-top, ridge)]
        brush.polygon(slope, roof, 0.3)
    brush.box(-half, 0, half, 0.35, [0.6 * value for value in wall])
    columns = np.linspace(-half + 1.2, half - 1.2, 3 if half < 4 else 4)
    door = int(rng.integers(len(columns)))
    frame = (236, 232, 222)
    for floor in range(floors):
        for index, u in enumerate(columns):
            v = 2.8 * floor
            if floor == 0 and index == door:
                brush.box(u - 0.65, 0, u + 0.65, 2.2, (96, 62, 44))
            else:
                brush.box(u - 0.65, v + 0.85, u + 0.65, v + 2.25, frame)
                brush.box(u - 0.45, v + 1.0, u + 0.45, v + 2.1, _GLASS)
                brush.box(u - 0.8, v + 0.7, u + 0.8, v + 0.85, (150, 146, 140))


def _tree(scene, x, row):
    rng = scene.rng
    brush = scene.add("tree", x, row)
    is_conifer = rng.random() < 0.35
    leaves = np.array(_pick(rng, _LEAVES[:3] if is_conifer else _LEAVES))
    # Near trees are young ones, so that they leave something of the scene to be seen.
    height = min(int(rng.integers(45, 100)) / 10, 0.72 * scene.height / brush.scale)
    bark = (92, 70, 52)
    if is_conifer:
        half = height * 0.24
        brush.shadow(half * 1.2)
        brush.box(-height * 0.025, 0, height * 0.025, height * 0.2, bark)
        for level in range(4):
            low, size = height * (0.12 + 0.2 * level), half * (1 - 0.2 * level)
            brush.polygon(
                [(-size, low), (size, low), (0, low + height * 0.34)],
                leaves * (0.75 + 0.1 * level),
                0.5,
            )
        return
    half, thick = height * int(rng.integers(26, 38)) / 100, height * 0.04
    fork = height * 0.5
    brush.shadow(half * 1.1)
    brush.polygon([(-thick * 1.5, 0), (thick * 1.5, 0), (thick, fork), (-thick, fork)], bark, 0.3)
    for side in (-1, 1):
        branch = [(0, height * 0.3), (thick, height * 0.3), (side * half * 0.5, height * 0.55)]
        brush.polygon(branch, bark, 0.3)
    # Clumps of leaves from the shaded lower ones to the lit upper ones.
    centre, clumps = height * 0.66, 16
    for number in range(clumps):
        level = number / (clumps - 1)
        u, v = (int(rng.integers(-100, 101)) / 100 for _ in range(2))
        spread = 1 - 0.55 * level
        brush.ellipse(
            u * half * 0.62 * spread,
            centre + height * (0.3 * (level - 0.5) + 0.08 * v),
            half * (0.55 - 0.15 * level),
            height * (0.16 - 0.05 * level),
            leaves * (0.62 + 0.5 * level),
            0.55,
        )


def _car(scene, x, row):
    rng = scene.rng
    brush = scene.add("car", x, row)
    paint = np.array(_pick(rng, _PAINTS))
    is_van = rng.random() < 0.3
    roof = 2.1 if is_van else 1.45
    brush.shadow(2.5, 0.35)
    if is_van:
        cabin = [(-2.1, 0.8), (2.0, 0.8), (1.3, roof), (-2.05, roof)]
        panes = (
            [(0.5, 1.2), (1.75, 1.2), (1.2, 1.9), (0.5, 1.9)],
            [(-1.7, 1.2), (0.2, 1.2), (0.2, 1.9), (-1.7, 1.9)],
        )
    else:
        cabin = [(-1.8, 0.8), (1.3, 0.8), (0.6, roof), (-1.1, roof)]
        panes = (
            [(-0.2, 0.9), (1.0, 0.9), (0.5, 1.32), (-0.2, 1.32)],
            [(-1.5, 0.9), (-0.4, 0.9), (-0.4, 1.32), (-1.0, 1.32)],
        )
    brush.polygon(cabin, paint, 0.06)
    for pane in panes:
        brush.polygon(pane, _GLASS, 0.15)
    brush.polygon([(-2.15, 0.35), (2.15, 0.35), (2.15, 0.7), (1.9, 0.9), (-2.1, 0.95)], paint, 0.06)
    brush.box(-2.1, 0.28, 2.1, 0.42, paint * 0.45)
    brush.box(1.95, 0.58, 2.15, 0.75, (250, 240, 200))
    brush.box(-2.15, 0.6, -2.0, 0.8, (190, 30, 26))
    for u in (-1.35, 1.35):
        brush.ellipse(u, 0.34, 0.36, 0.36, (30, 30, 32))
        brush.ellipse(u, 0.34, 0.17, 0.17, (170, 172, 176))


def _person(scene, x, row):
    rng = scene.rng
    brush = scene.add("person", x, row)
    size = int(rng.integers(88, 112)) / 100
    brush.scale *= size
    skin, hair = _pick(rng, _SKINS), _pick(rng, _HAIRS)
    top, bottom = np.array(_pick(rng, _CLOTHES)), np.array(_pick(rng, _TROUSERS))
    stride = int(rng.integers(0, 28)) / 100
    brush.shadow(0.55, 0.13)
    for side, shade in ((-1, 0.8), (1, 1)):
        hip, foot = side * 0.1, side * (stride + 0.06)
        leg = [(hip - 0.1, 0.9), (hip + 0.1, 0.9), (foot + 0.07, 0.06), (foot - 0.07, 0.06)]
        brush.polygon(leg, bottom * shade)
        brush.box(foot - 0.08, 0, foot + 0.16, 0.08, (40, 34, 32))
    arm = int(rng.integers(0, 24)) / 100
    for side in (-1, 1):
        sleeve = [(0.2, 1.42), (0.29, 1.4), (0.31 + arm, 0.8), (0.21 + arm, 0.8)]
        brush.polygon([(side * u, v) for u, v in sleeve], top * 0.8)
        brush.ellipse(side * (0.26 + arm), 0.78, 0.05, 0.06, skin)
    if rng.random() < 0.3:
        brush.polygon([(-0.16, 1.0), (0.16, 1.0), (0.34, 0.48), (-0.34, 0.48)], top * 0.9)
    brush.polygon(
        [(-0.18, 0.82), (0.18, 0.82), (0.25, 1.4), (0.14, 1.47), (-0.14, 1.47), (-0.25, 1.4)], top
    )
    brush.box(-0.05, 1.44, 0.05, 1.54, skin)
    brush.ellipse(0, 1.64, 0.12, 0.15, hair)
    brush.ellipse(0.02, 1.6, 0.1, 0.12, skin)


def _cow(scene, x, row):
    rng = scene.rng
    brush = scene.add("cow", x, row)
    hide, spots = _pick(rng, _HIDES)
    brush.shadow(1.3, 0.25)
    for u, shade in ((-0.85, 0.6), (0.6, 0.6), (-0.7, 0.85), (0.75, 0.85)):
        brush.box(u - 0.09, 0, u + 0.09, 0.8, np.array(hide) * shade)
    brush.polygon([(-1.0, 1.3), (-1.12, 1.25), (-1.16, 0.55), (-1.1, 0.55)], np.array(hide) * 0.7)
    brush.polygon(
        [(-1.05, 0.8), (-0.8, 0.62), (0.8, 0.62), (1.05, 0.95), (1.0, 1.38), (-0.95, 1.42)], hide
    )
    for _ in range(3):
        u, v = int(rng.integers(-70, 70)) / 100, int(rng.integers(85, 120)) / 100
        brush.ellipse(u, v, 0.25, 0.15, spots)
    brush.polygon([(0.8, 0.95), (1.0, 0.9), (1.5, 1.35), (1.3, 1.6), (0.9, 1.4)], hide)
    brush.polygon([(1.25, 1.5), (1.45, 1.6), (1.82, 1.2), (1.68, 1.08)], hide)
    brush.ellipse(1.74, 1.14, 0.1, 0.09, (206, 164, 150))
    brush.polygon([(1.3, 1.56), (1.4, 1.58), (1.34, 1.78)], (226, 216, 196))


def _boat(scene, x, row):
    rng = scene.rng
    brush = scene.add("boat", x, row)
    hull = np.array(_pick(rng, _PAINTS))
    brush.shadow(2.4, 0.6)
    if rng.random() < 0.6:
        height = int(rng.integers(50, 75)) / 10
        brush.box(-0.09, 0.6, 0.09, height, (120, 92, 66))
        sail = np.array(_pick(rng, ((238, 234, 224), (238, 234, 224), (206, 96, 70))))
        brush.polygon([(0.12, 1.2), (2.1, 1.3), (0.12, height)], sail, 0.06)
        brush.polygon([(-0.12, 1.2), (-1.7, 1.1), (-0.12, height * 0.85)], sail * 0.9, 0.06)
    else:
        brush.box(-1.2, 0.8, 0.7, 1.9, (230, 228, 222))
        for u in (-0.85, -0.2, 0.3):
            brush.box(u - 0.18, 1.25, u + 0.18, 1.65, _GLASS)
        brush.box(-1.3, 1.9, 0.9, 2.05, hull * 0.8)
    brush.polygon([(-1.9, 0), (1.7, 0), (2.5, 0.95), (-2.2, 0.85)], hull, 0.06)
    brush.polygon([(-2.2, 0.72), (2.3, 0.8), (2.5, 0.97), (-2.2, 0.87)], (236, 234, 228), 0.06)


def _fly_balloons(scene):
    """One to three hot-air balloons in the sky, their baskets below."""
    rng = scene.rng
    for _ in range(int(rng.integers(1, 4))):
        radius = scene.height // int(rng.integers(11, 24))
        x = int(rng.integers(radius, scene.width - radius))
        row = int(rng.integers(min(3 * radius, scene.horizon - 4), scene.horizon - 2))
        brush = scene.add("balloon", x, row, scale=radius / 5)
        brush.air = 0.12
        first, second = (np.array(_pick(rng, _CLOTHES)) for _ in range(2))
        for side in (-1, 1):
            rope = [(0.9, 1.2), (1.0, 1.2), (2.1, 4.2), (2.0, 4.2)]
            brush.polygon([(side * u, v) for u, v in rope], (90, 80, 70))
        brush.polygon([(-1.6, 3.4), (1.6, 3.4), (4.2, 6.6), (-4.2, 6.6)], first * 0.8, 0.05)
        brush.ellipse(0, 9, 5, 5, first, 0.05)
        brush.polygon([(-0.8, 3.4), (0.8, 3.4), (1.9, 7), (-1.9, 7)], second * 0.85, 0.05)
        brush.ellipse(0, 9, 2.2, 5, second, 0.05)
        brush.box(-1, 0, 1, 1.3, (122, 84, 50))


# Chance ------------------------------------------------------------------------------------------


def _pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def _round(value):
    return int(np.floor(value + 0.5))


def _fractal(rng, v, u, *shifts):
    """Smooth noise of three octaves, about -1 to 1, at the float coordinates (v, u).

    Random values lie on the integer points and are joined smoothly; they repeat after 64.

    Args:
        v, u: arrays that broadcast to H x W.
        shifts: (dv, du), for each of which the same noise is also read; none means (0, 0).

    Returns:
        float64 H x W, or a list of them where shifts are given.
    """
    grids = rng.integers(-128, 129, (3, 64, 64)) / 128
    fields = []
    for dv, du in shifts or ((0, 0),):
        field = 0
        for octave, grid in enumerate(grids):
            frequency = 2**octave
            values = _interpolated(grid, (v + dv) * frequency, (u + du) * frequency)
            field = field + values / frequency
        fields.append(field / 1.2)
    return fields if shifts else fields[0]


def _interpolated(grid, v, u):
    v, u = np.broadcast_arrays(v, u)
    row, column = np.floor(v).astype(np.int64), np.floor(u).astype(np.int64)
    y, x = v - row, u - column
    y, x = y * y * (3 - 2 * y), x * x * (3 - 2 * x)
    row, column, below, right = row % 64, column % 64, (row + 1) % 64, (column + 1) % 64
    upper = grid[row, column] * (1 - x) + grid[row, right] * x
    lower = grid[below, column] * (1 - x) + grid[below, right] * x
    return upper * (1 - y) + lower * y
