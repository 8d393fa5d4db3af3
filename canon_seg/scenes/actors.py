"""Paint houses, trees, cars, people, cows, boats and balloons, each a new instance of a scene.

Every function takes the :class:`canon_seg.scenes.stage.Scene` and, but for balloons, the column
``x`` and the ``row`` of the instance's foot, in pixels. Sizes are in metres.
"""

import numpy as np

from canon_seg.scenes.noise import pick

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


def paint_house(scene, x, row):
    """Paint a house of one or two floors, with a gable or its long side in front."""
    rng = scene.rng
    brush = scene.add("house", x, row)
    half, floors = int(rng.integers(30, 50)) / 10, int(rng.integers(1, 3))
    eaves = 2.8 * floors
    ridge = eaves + int(rng.integers(18, 32)) / 10
    wall, roof = pick(rng, _WALLS), pick(rng, _ROOFS)
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


def paint_tree(scene, x, row):
    """Paint a conifer or a broad-leaved tree."""
    rng = scene.rng
    brush = scene.add("tree", x, row)
    is_conifer = rng.random() < 0.35
    leaves = np.array(pick(rng, _LEAVES[:3] if is_conifer else _LEAVES))
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


def paint_car(scene, x, row):
    """Paint a car or a van from its side."""
    rng = scene.rng
    brush = scene.add("car", x, row)
    paint = np.array(pick(rng, _PAINTS))
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


def paint_person(scene, x, row):
    """Paint a person who stands or walks."""
    rng = scene.rng
    brush = scene.add("person", x, row)
    size = int(rng.integers(88, 112)) / 100
    brush.scale *= size
    skin, hair = pick(rng, _SKINS), pick(rng, _HAIRS)
    top, bottom = np.array(pick(rng, _CLOTHES)), np.array(pick(rng, _TROUSERS))
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


def paint_cow(scene, x, row):
    """Paint a cow from its side."""
    rng = scene.rng
    brush = scene.add("cow", x, row)
    hide, spots = pick(rng, _HIDES)
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


def paint_boat(scene, x, row):
    """Paint a boat with sails or with a cabin."""
    rng = scene.rng
    brush = scene.add("boat", x, row)
    hull = np.array(pick(rng, _PAINTS))
    brush.shadow(2.4, 0.6)
    if rng.random() < 0.6:
        height = int(rng.integers(50, 75)) / 10
        brush.box(-0.09, 0.6, 0.09, height, (120, 92, 66))
        sail = np.array(pick(rng, ((238, 234, 224), (238, 234, 224), (206, 96, 70))))
        brush.polygon([(0.12, 1.2), (2.1, 1.3), (0.12, height)], sail, 0.06)
        brush.polygon([(-0.12, 1.2), (-1.7, 1.1), (-0.12, height * 0.85)], sail * 0.9, 0.06)
    else:
        brush.box(-1.2, 0.8, 0.7, 1.9, (230, 228, 222))
        for u in (-0.85, -0.2, 0.3):
            brush.box(u - 0.18, 1.25, u + 0.18, 1.65, _GLASS)
        brush.box(-1.3, 1.9, 0.9, 2.05, hull * 0.8)
    brush.polygon([(-1.9, 0), (1.7, 0), (2.5, 0.95), (-2.2, 0.85)], hull, 0.06)
    brush.polygon([(-2.2, 0.72), (2.3, 0.8), (2.5, 0.97), (-2.2, 0.87)], (236, 234, 228), 0.06)


def paint_balloons(scene):
    """Paint one to three hot-air balloons in the sky, their baskets below."""
    rng = scene.rng
    for _ in range(int(rng.integers(1, 4))):
        radius = scene.height // int(rng.integers(11, 24))
        x = int(rng.integers(radius, scene.width - radius))
        row = int(rng.integers(min(3 * radius, scene.horizon - 4), scene.horizon - 2))
        brush = scene.add("balloon", x, row, scale=radius / 5)
        brush.air = 0.12
        first, second = (np.array(pick(rng, _CLOTHES)) for _ in range(2))
        for side in (-1, 1):
            rope = [(0.9, 1.2), (1.0, 1.2), (2.1, 4.2), (2.0, 4.2)]
            brush.polygon([(side * u, v) for u, v in rope], (90, 80, 70))
        brush.polygon([(-1.6, 3.4), (1.6, 3.4), (4.2, 6.6), (-4.2, 6.6)], first * 0.8, 0.05)
        brush.ellipse(0, 9, 5, 5, first, 0.05)
        brush.polygon([(-0.8, 3.4), (0.8, 3.4), (1.9, 7), (-1.9, 7)], second * 0.85, 0.05)
        brush.ellipse(0, 9, 2.2, 5, second, 0.05)
        brush.box(-1, 0, 1, 1.3, (122, 84, 50))
