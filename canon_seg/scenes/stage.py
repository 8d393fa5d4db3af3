"""Hold the pixels of a scene and its camera, and paint sky, ground and instances on them."""

import numpy as np

from canon_seg.scenes.noise import fractal, pick, rounded

# sky above, sky at the horizon, light on everything
_SKIES = (
    ((62, 118, 196), (190, 214, 236), (1.04, 1.02, 0.96)),
    ((96, 150, 214), (216, 226, 232), (1.02, 1.01, 0.98)),
    ((132, 142, 156), (204, 208, 210), (0.88, 0.90, 0.94)),
    ((84, 98, 150), (246, 190, 132), (1.06, 0.92, 0.78)),
    ((58, 74, 122), (226, 148, 128), (0.92, 0.82, 0.82)),
)


class Scene:
    """Hold pixels, the instance that owns each of them, and the camera.

    The camera is level: a point of the ground that is seen d rows below the horizon is nearer the
    larger d is, and a metre there is d / (camera height in metres) pixels long.

    Attributes:
        image: float64 H x W x 3, 0 to 255.
        owner: int32 H x W, 0 for the background, else the number of the instance from 1.
        categories: list of category names, of instance number - 1.
    """

    def __init__(self, height, width, rng):
        self.height, self.width, self.rng = height, width, rng
        self.image = np.zeros((height, width, 3))
        self.owner = np.zeros((height, width), np.int32)
        self.categories = []
        self.horizon = height * int(rng.integers(34, 56)) // 100
        self.camera_height = int(rng.integers(24, 46)) / 10
        self.sky, self.haze, self.light = (np.array(c, float) for c in pick(rng, _SKIES))
        self.sun_side = 1 if rng.random() < 0.5 else -1
        rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
        # Bumps a few pixels wide, which give every surface its texture.
        self.texture = fractal(rng, rows / 5, columns / 5)

    def scale_at(self, row):
        """Return the pixels per metre for what stands on the ground at ``row``."""
        return (row - self.horizon) / self.camera_height

    def row_at(self, nearness):
        """Return the row of the ground at ``nearness``: 0 at the horizon, 1 at the lower edge."""
        return self.horizon + rounded(nearness * (self.height - self.horizon))

    def paint_sky(self):
        """Paint sky, sun and clouds over the whole image; the ground comes later, above them."""
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
        clouds, above = fractal(rng, v, u, (0, 0), (-0.35, 0))
        cover = int(rng.integers(-30, 45)) / 100
        density = np.clip((clouds + cover) * 2, 0, 1)[..., None]
        shade = 1 - 0.22 * np.clip(above + cover + 0.2, 0, 1)[..., None]
        white = (np.array([255, 254, 252]) * 0.8 + self.haze * 0.2) * shade
        self.image[:] = sky + density * (white - sky) * 0.85

    def paint_hills(self, relief, colour, roughness):
        """Paint a ridge on the horizon, ``relief`` pixels high; paler colours look farther away."""
        columns = np.arange(self.width)
        cells = columns / max(self.width // roughness, 4)
        ridge = (fractal(self.rng, 0 * cells, cells) + 0.7) * relief / 1.4
        rows = np.arange(self.height)[:, None]
        top = self.horizon - np.maximum(ridge, 1)
        inside = (rows > top) & (rows <= self.horizon)
        light = 1.12 - 0.3 * (rows - top) / max(relief, 1) + 0.16 * self.texture
        self.image[inside] = (np.array(colour, float) * light[..., None])[inside]

    def paint_ground(self, colour, first_row, last_row=None, kind="grass"):
        """Paint the ground from one row to another, with texture in perspective."""
        last_row = self.height if last_row is None else min(last_row, self.height)
        if last_row <= first_row:
            return
        rows, columns = np.arange(first_row, last_row)[:, None], np.arange(self.width)[None, :]
        scale = np.maximum(rows - self.horizon, 1) / self.camera_height
        along, across = {"grass": (5, 16), "asphalt": (3, 16), "water": (0.35, 5)}[kind]
        u = (columns - self.width // 2) / scale * along
        v = 40 * across / scale + 0 * columns
        fine = np.minimum(scale / 6, 1)
        waves = fractal(self.rng, v, u) * {"grass": 0.34, "asphalt": 0.12, "water": 0.30}[kind]
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
        """Paint a way that runs from the lower edge to the horizon and narrows."""
        half, top = self.width // 7, self.horizon + 2
        goal = self.width // 2 + (self.width // 2 - foot) // 3
        near = [(foot - half, self.height), (foot + half, self.height)]
        window, inside = self.polygon_mask([*near, (goal + 1, top), (goal - 1, top)])
        light = (0.95 + 0.14 * self.texture[window][inside])[:, None]
        self.image[window][inside] = np.array(colour, float) * light * self.light

    def shadow(self, x, y, half_width, half_height):
        """Darken the ground, not other instances, under and beside what stands at (x, y)."""
        x -= self.sun_side * half_width // 2
        window, inside = self.ellipse_mask(x, y, max(half_width, 1), max(half_height, 1))
        inside = inside & (self.owner[window] == 0)
        self.image[window][inside] *= 0.6

    def add(self, category, x, row, scale=None):
        """Return a :class:`Brush` for a new instance whose foot is at column ``x`` and ``row``.

        Args:
            category: name of the instance's category.
            x, row: the foot, in pixels.
            scale: pixels per metre; None for that of the ground at ``row``.
        """
        self.categories.append(category)
        scale = self.scale_at(row) if scale is None else scale
        return Brush(self, len(self.categories), x, row, scale)

    def developed(self):
        """Return the photograph: softened by the lens, exposed, with sensor noise; uint8 RGB."""
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
        """Return slices of the part of [x0, x1] x [y0, y1] in the image, its rows and columns."""
        rows = slice(max(y0, 0), max(min(y1 + 1, self.height), 0))
        columns = slice(max(x0, 0), max(min(x1 + 1, self.width), 0))
        ys, xs = np.arange(self.height)[rows, None], np.arange(self.width)[None, columns]
        return (rows, columns), ys, xs

    def polygon_mask(self, points):
        """Return window and mask of a convex polygon with integer corners, outline included."""
        xs, ys = zip(*points, strict=True)
        window, y, x = self._window(min(xs), min(ys), max(xs), max(ys))
        left, right = np.ones((2, *np.broadcast_shapes(x.shape, y.shape)), bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
            left &= side <= 0
            right &= side >= 0
        return window, left | right

    def ellipse_mask(self, x, y, radius_x, radius_y):
        """Return window and mask of an ellipse with integer centre and radii."""
        window, ys, xs = self._window(x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        distance = ((xs - x) * radius_y) ** 2 + ((ys - y) * radius_x) ** 2
        return window, distance <= (radius_x * radius_y) ** 2


class Brush:
    """Paint one instance, in metres from its foot: u along the image, v up.

    Args:
        scene: the :class:`Scene` that is painted on.
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
        """Paint a convex polygon of (u, v) corners."""
        corners = [(self._column(u), self._row(v)) for u, v in points]
        self._fill(*self.scene.polygon_mask(corners), colour, roughness)

    def box(self, u0, v0, u1, v1, colour, roughness=0.12):
        """Paint the rectangle between two corners."""
        self.polygon([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], colour, roughness)

    def ellipse(self, u, v, radius_u, radius_v, colour, roughness=0.12):
        """Paint an ellipse; its radii are a pixel at least."""
        radii = max(rounded(radius_u * self.scale), 1), max(rounded(radius_v * self.scale), 1)
        self._fill(
            *self.scene.ellipse_mask(self._column(u), self._row(v), *radii), colour, roughness
        )

    def shadow(self, half_width, half_height=None):
        """Paint the instance's shadow on the ground around its foot, in metres."""
        half_height = half_width / 4 if half_height is None else half_height
        self.scene.shadow(
            self.x, self.row, rounded(half_width * self.scale), rounded(half_height * self.scale)
        )

    def _column(self, u):
        return self.x + rounded(u * self.scale * self.mirrored)

    def _row(self, v):
        return self.row - rounded(v * self.scale)

    def _fill(self, window, inside, colour, roughness):
        rows, height = np.nonzero(inside)[0], max(inside.shape[0], 1)
        # Light comes from above, so each surface darkens downwards.
        light = 1.1 - 0.24 * rows / height + roughness * self.scene.texture[window][inside]
        colour = np.array(colour, float) * self.scene.light * light[:, None]
        self.scene.image[window][inside] = colour * (1 - self.air) + self.scene.haze * self.air
        self.scene.owner[window][inside] = self.instance
