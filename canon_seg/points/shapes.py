"""Make labelled point clouds of procedural shapes: an upright set that needs no download.

They are no ModelNet: twelve families of furniture, vehicles and vessels, put together from boxes,
cylinders, cones and spheres with random proportions. All stand upright with z up and face along x.
"""

from collections.abc import Callable

import numpy as np

from canon_seg.points.clouds import CloudSet, make_cloud_set

NOISE = 0.01  # standard deviation of each coordinate, of a shape's reach
STRETCH = 0.15  # of each axis, at random, so that proportions tell less

Part = tuple[float, Callable[[int, np.random.Generator], np.ndarray]]
"""A surface: its area, and a function that draws (n, 3) points on it."""


def make_shapes(count: int, points: int, seed: int) -> CloudSet:
    """Make clouds of all families in turn.

    Args:
        count: clouds.
        points: of each cloud.
        seed: the same seed gives the same set.

    Returns:
        the set.
    """
    rng = np.random.default_rng(seed)
    classes = tuple(FAMILIES)
    labels = [index % len(classes) for index in range(count)]
    clouds = [draw_shape(classes[label], points, rng) for label in labels]
    sources = [f"shape {index} ({classes[label]})" for index, label in enumerate(labels)]
    return make_cloud_set(clouds, labels, classes, "procedural shapes", sources)


def draw_shape(family: str, points: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one shape of a family and points on it, uniformly by area, with noise.

    Args:
        family: a name in :data:`FAMILIES`.
        points: how many.
        rng: numpy Generator.

    Returns:
        (points, 3) float64, z up, facing along x, not normalised.
    """
    parts = FAMILIES[family](rng)
    areas = np.array([area for area, _ in parts])
    counts = rng.multinomial(points, areas / areas.sum())
    cloud = np.concatenate([draw(int(n), rng) for (_, draw), n in zip(parts, counts, strict=True)])
    cloud = cloud * np.exp(rng.uniform(-STRETCH, STRETCH, 3))
    reach = np.linalg.norm(cloud - cloud.mean(axis=0), axis=1).max()
    cloud = cloud + rng.normal(0, NOISE * reach, cloud.shape)
    # The first points of a cloud are a sample of all of it.
    return rng.permutation(cloud)


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> Part:
    """Return the surface of a box, given by its ranges along the axes."""
    low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
    sides = high - low
    faces = np.array([sides[1] * sides[2], sides[0] * sides[2], sides[0] * sides[1]])

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        where = rng.uniform(low, high, (count, 3))
        axis = rng.choice(3, size=count, p=faces / faces.sum())
        end = rng.random(count) < 0.5
        where[np.arange(count), axis] = np.where(end, high[axis], low[axis])
        return where

    return 2 * float(faces.sum()), draw


def tube(
    centre: tuple[float, float],
    z: tuple[float, float],
    radii: tuple[float, float],
    caps: tuple[bool, bool] = (True, True),
) -> Part:
    """Return the surface of an upright cylinder or cone.

    Args:
        centre: x and y of its axis.
        z: of its lower and upper end.
        radii: at these ends.
        caps: whether each end is closed.
    """
    height, (low, high) = z[1] - z[0], radii
    slant = np.hypot(height, high - low)
    areas = np.array(
        [np.pi * (low + high) * slant, caps[0] * np.pi * low**2, caps[1] * np.pi * high**2]
    )

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        part = rng.choice(3, size=count, p=areas / areas.sum())
        u = rng.random(count)
        # Along the wall by area, which grows with the radius.
        if abs(high - low) > 1e-9:
            along = (np.sqrt(low**2 + u * (high**2 - low**2)) - low) / (high - low)
        else:
            along = u
        radius = np.where(part == 0, low + along * (high - low), 0.0)
        radius = np.where(part == 1, low * np.sqrt(u), radius)
        radius = np.where(part == 2, high * np.sqrt(u), radius)
        level = np.where(part == 0, along, part - 1.0)
        angle = rng.uniform(0, 2 * np.pi, count)
        return np.stack(
            [
                centre[0] + radius * np.cos(angle),
                centre[1] + radius * np.sin(angle),
                z[0] + level * height,
            ],
            axis=1,
        )

    return float(areas.sum()), draw


def wheel(centre: tuple[float, float, float], radius: float, width: float) -> Part:
    """Return the surface of a cylinder whose axis lies along y."""
    area, draw_upright = tube((0, 0), (-width / 2, width / 2), (radius, radius))

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        return draw_upright(count, rng)[:, [0, 2, 1]] + centre

    return area, draw


def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Part:
    """Return the surface of an ellipsoid, drawn a little more densely where it is curved more."""
    a, b, c = radii
    area = 4 * np.pi * (((a * b) ** 1.6 + (a * c) ** 1.6 + (b * c) ** 1.6) / 3) ** (1 / 1.6)

    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return centre + directions * radii

    return float(area), draw


def _legs(
    x: tuple[float, float], y: tuple[float, float], height: float, width: float
) -> list[Part]:
    return [
        box((at_x - width, at_x + width), (at_y - width, at_y + width), (0, height))
        for at_x in x
        for at_y in y
    ]


def _chair(rng: np.random.Generator) -> list[Part]:
    depth, width, seat = rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.55)
    back, thick = rng.uniform(0.35, 0.7), rng.uniform(0.03, 0.06)
    parts = [
        box((-depth / 2, depth / 2), (-width / 2, width / 2), (seat, seat + thick)),
        box((-depth / 2, -depth / 2 + thick), (-width / 2, width / 2), (seat, seat + back)),
    ]
    inset = 0.45
    if rng.random() < 0.75:
        parts += _legs((-depth * inset, depth * inset), (-width * inset, width * inset), seat, 0.02)
    else:
        parts += [
            tube((0, 0), (0.04, seat), (0.03, 0.03)),
            tube((0, 0), (0, 0.04), (depth / 2, depth / 2)),
        ]
    if rng.random() < 0.35:
        for side in (-1, 1):
            at = side * width / 2
            rest = seat + rng.uniform(0.15, 0.25)
            parts.append(box((-depth / 2, depth / 3), (at - 0.02, at + 0.02), (rest, rest + 0.03)))
    return parts


def _table(rng: np.random.Generator) -> list[Part]:
    length, width = rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.7)
    height, thick = rng.uniform(0.35, 0.7), rng.uniform(0.03, 0.06)
    if rng.random() < 0.3:
        return [
            tube((0, 0), (height, height + thick), (width / 2, width / 2)),
            tube((0, 0), (0, height), (0.04, 0.04)),
            tube((0, 0), (0, 0.03), (width / 3, width / 3)),
        ]
    return [
        box((-length / 2, length / 2), (-width / 2, width / 2), (height, height + thick)),
        *_legs((-length * 0.45, length * 0.45), (-width * 0.45, width * 0.45), height, 0.025),
    ]


def _lamp(rng: np.random.Generator) -> list[Part]:
    foot, height = rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.0)
    shade, wide = rng.uniform(0.15, 0.3), rng.uniform(0.15, 0.3)
    return [
        tube((0, 0), (0, 0.03), (foot, foot)),
        tube((0, 0), (0.03, height), (0.02, 0.02)),
        tube(
            (0, 0),
            (height - shade / 3, height + shade),
            (wide, wide * rng.uniform(0.3, 0.7)),
            (False, False),
        ),
    ]


def _bottle(rng: np.random.Generator) -> list[Part]:
    radius, body = rng.uniform(0.1, 0.2), rng.uniform(0.35, 0.6)
    shoulder, neck = rng.uniform(0.08, 0.15), rng.uniform(0.08, 0.2)
    thin = radius * rng.uniform(0.25, 0.45)
    return [
        tube((0, 0), (0, body), (radius, radius), (True, False)),
        tube((0, 0), (body, body + shoulder), (radius, thin), (False, False)),
        tube((0, 0), (body + shoulder, body + shoulder + neck), (thin, thin), (False, True)),
    ]


def _car(rng: np.random.Generator) -> list[Part]:
    length, width, low = rng.uniform(0.8, 1.1), rng.uniform(0.35, 0.45), rng.uniform(0.15, 0.22)
    radius = rng.uniform(0.07, 0.1)
    back, front = -length * rng.uniform(0.3, 0.48), length * rng.uniform(0.05, 0.2)
    return [
        box((-length / 2, length / 2), (-width / 2, width / 2), (radius, radius + low)),
        box(
            (back, front),
            (-width * 0.42, width * 0.42),
            (radius + low, radius + low + rng.uniform(0.12, 0.2)),
        ),
        *(
            wheel((x * length, y * width / 2, radius), radius, 0.06)
            for x in (-0.32, 0.32)
            for y in (-1, 1)
        ),
    ]


def _plane(rng: np.random.Generator) -> list[Part]:
    length, thick = rng.uniform(0.8, 1.1), rng.uniform(0.05, 0.09)
    span, chord = rng.uniform(0.7, 1.1), rng.uniform(0.12, 0.22)
    at = rng.uniform(-0.02, 0.12)
    tail = -length / 2
    return [
        ball((0, 0, 0), (length / 2, thick, thick)),
        box((at - chord, at), (-span / 2, span / 2), (-0.015, 0.015)),
        box((tail, tail + chord * 0.7), (-span / 6, span / 6), (-0.01, 0.01)),
        box((tail, tail + chord * 0.8), (-0.01, 0.01), (0, rng.uniform(0.15, 0.25))),
        *(
            wheel((x * length, y * 0.1, -thick - 0.06), 0.04, 0.03)
            for x, y in ((0.3, 0), (-0.05, -1), (-0.05, 1))
        ),
    ]


def _stairs(rng: np.random.Generator) -> list[Part]:
    steps, width = int(rng.integers(3, 7)), rng.uniform(0.35, 0.7)
    run, rise = rng.uniform(0.14, 0.2), rng.uniform(0.07, 0.1)
    return [
        box(
            (-step * run, (1 - step) * run),
            (-width / 2, width / 2),
            (0 if rng.random() < 0.8 else step * rise, (step + 1) * rise),
        )
        for step in range(steps)
    ]


def _bed(rng: np.random.Generator) -> list[Part]:
    length, width, height = rng.uniform(0.9, 1.1), rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.3)
    head = rng.uniform(0.2, 0.4)
    end = -length / 2
    return [
        box((end, length / 2), (-width / 2, width / 2), (height * 0.4, height)),
        box((end - 0.04, end), (-width / 2, width / 2), (0, height + head)),
        box((end + 0.03, end + 0.2), (-width * 0.4, width * 0.4), (height, height + 0.06)),
        *_legs((end + 0.05, length / 2 - 0.05), (-width * 0.45, width * 0.45), height * 0.4, 0.03),
    ]


def _sofa(rng: np.random.Generator) -> list[Part]:
    depth, width, seat = rng.uniform(0.35, 0.5), rng.uniform(0.7, 1.1), rng.uniform(0.2, 0.3)
    back, arm = rng.uniform(0.2, 0.35), rng.uniform(0.06, 0.12)
    return [
        box((-depth / 2, depth / 2), (-width / 2, width / 2), (0.03, seat)),
        box((-depth / 2 - arm, -depth / 2), (-width / 2, width / 2), (0.03, seat + back)),
        *(
            box(
                (-depth / 2, depth / 2),
                (
                    min(side * width / 2, side * (width / 2 + arm)),
                    max(side * width / 2, side * (width / 2 + arm)),
                ),
                (0.03, seat + back * 0.5),
            )
            for side in (-1, 1)
        ),
    ]


def _shelf(rng: np.random.Generator) -> list[Part]:
    width, depth, height = rng.uniform(0.4, 0.7), rng.uniform(0.15, 0.3), rng.uniform(0.8, 1.1)
    boards = int(rng.integers(3, 6))
    thick = 0.02
    sides = [
        box((-depth / 2, depth / 2), (at - thick, at + thick), (0, height))
        for at in (-width / 2, width / 2)
    ]
    levels = [
        box(
            (-depth / 2, depth / 2),
            (-width / 2, width / 2),
            (level * height / boards, level * height / boards + thick),
        )
        for level in range(boards + 1)
    ]
    # Below it is a cupboard.
    doors = box(
        (depth / 2 - thick, depth / 2),
        (-width / 2, width / 2),
        (0, height * rng.uniform(0.25, 0.4)),
    )
    return [
        *sides,
        *levels,
        doors,
        box((-depth / 2 - thick, -depth / 2), (-width / 2, width / 2), (0, height)),
    ]


def _mug(rng: np.random.Generator) -> list[Part]:
    radius, height = rng.uniform(0.18, 0.28), rng.uniform(0.3, 0.5)
    wall = tube((0, 0), (0, height), (radius, radius * rng.uniform(0.9, 1.15)), (True, False))
    reach = rng.uniform(0.1, 0.18)
    low, high = height * 0.25, height * 0.8
    return [
        wall,
        box((radius, radius + reach), (-0.02, 0.02), (high - 0.03, high)),
        box((radius, radius + reach), (-0.02, 0.02), (low, low + 0.03)),
        box((radius + reach - 0.03, radius + reach), (-0.02, 0.02), (low, high)),
    ]


def _monitor(rng: np.random.Generator) -> list[Part]:
    width, height, stand = rng.uniform(0.6, 0.9), rng.uniform(0.35, 0.55), rng.uniform(0.1, 0.25)
    foot = rng.uniform(0.12, 0.2)
    return [
        box((-0.02, 0.02), (-width / 2, width / 2), (stand, stand + height)),
        box((-0.06, -0.02), (-0.04, 0.04), (0, stand + height / 2)),
        box((-foot, foot * 0.8), (-foot, foot), (0, 0.02)),
    ]


FAMILIES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "chair": _chair,
    "table": _table,
    "lamp": _lamp,
    "bottle": _bottle,
    "car": _car,
    "plane": _plane,
    "stairs": _stairs,
    "bed": _bed,
    "sofa": _sofa,
    "shelf": _shelf,
    "mug": _mug,
    "monitor": _monitor,
}
"""Functions that draw the parts of one shape, by the name of its family."""
