"""Compose a street, a meadow or a lake of ground, hills and instances."""

import numpy as np

from canon_seg.scenes.actors import (
    paint_balloons,
    paint_boat,
    paint_car,
    paint_cow,
    paint_house,
    paint_person,
    paint_tree,
)
from canon_seg.scenes.noise import pick, rounded

_GROUNDS = ((92, 124, 58), (112, 132, 62), (148, 136, 78), (72, 106, 56), (186, 168, 120))


def paint_street(scene):
    """Paint houses along a road that crosses the picture, with cars and people."""
    rng = scene.rng
    scene.paint_hills(scene.height // 9, scene.haze * 0.72, 3)
    scene.paint_hills(scene.height // 22, (70, 96, 62), 14)
    scene.paint_ground(pick(rng, _GROUNDS), scene.horizon)
    first, last = scene.row_at(0.42), scene.row_at(0.72)
    margin = max((last - first) // 6, 2)
    scene.paint_ground((172, 166, 158), first - margin, last + margin, "asphalt")
    scene.paint_ground((98, 98, 102), first, last, "asphalt")
    middle = (first + last) // 2
    dash = max(rounded(scene.scale_at(middle) * 1.5), 3)
    for x in range(int(rng.integers(-dash, 1)), scene.width, 2 * dash):
        scene.image[middle : middle + max(dash // 9, 1), max(x, 0) : max(x + dash, 0)] = 226

    x = int(rng.integers(-scene.width // 8, scene.width // 6))
    placed = []
    while x < scene.width:
        row = scene.row_at(int(rng.integers(24, 34)) / 100)
        placed.append((paint_house, x, row))
        x += rounded(scene.scale_at(row) * int(rng.integers(9, 15)))
    placed += _place(scene, paint_tree, rng.integers(1, 4), 14, 38)
    placed += _place(scene, paint_car, rng.integers(1, 3), 51, 54)
    placed += _place(scene, paint_car, rng.integers(0, 3), 65, 69)
    placed += _place(scene, paint_person, rng.integers(1, 4), 36, 41)
    placed += _place(scene, paint_person, rng.integers(1, 4), 76, 104)
    if rng.random() < 0.4:
        placed += _place(scene, paint_tree, 1, 80, 100)
    _paint_farthest_first(scene, placed)


def paint_meadow(scene):
    """Paint grassland before hills, with trees, cows, a farm house, and balloons on some days."""
    rng = scene.rng
    scene.paint_hills(scene.height // int(rng.integers(4, 9)), scene.haze * 0.76, 3)
    scene.paint_hills(scene.height // 12, scene.haze * 0.35 + np.array([44, 66, 36]), 5)
    scene.paint_ground(pick(rng, _GROUNDS), scene.horizon)
    if rng.random() < 0.6:
        scene.paint_path((182, 160, 122), int(rng.integers(0, scene.width)))
    if rng.random() < 0.5:
        paint_balloons(scene)
    placed = _place(scene, paint_tree, rng.integers(3, 8), 8, 55)
    placed += _place(scene, paint_house, rng.integers(0, 3), 16, 34)
    placed += _place(scene, paint_cow, rng.integers(1, 5), 25, 90)
    placed += _place(scene, paint_person, rng.integers(0, 4), 30, 104)
    _paint_farthest_first(scene, placed)


def paint_lake(scene):
    """Paint water before mountains, with boats, and people and trees on the near shore."""
    rng = scene.rng
    scene.paint_hills(scene.height // int(rng.integers(3, 7)), scene.haze * 0.7, 4)
    scene.paint_hills(scene.height // 14, scene.haze * 0.25 + np.array([44, 70, 44]), 9)
    shore = int(rng.integers(55, 80))
    water = pick(rng, ((52, 92, 124), (62, 110, 122), (74, 96, 116)))
    scene.paint_ground(water, scene.horizon, scene.row_at(shore / 100), "water")
    scene.paint_ground(pick(rng, ((196, 178, 134), (120, 128, 70))), scene.row_at(shore / 100))
    if rng.random() < 0.25:
        paint_balloons(scene)
    placed = _place(scene, paint_boat, rng.integers(2, 6), 10, shore - 6)
    placed += _place(scene, paint_person, rng.integers(1, 5), shore + 5, 104)
    placed += _place(scene, paint_tree, rng.integers(0, 3), shore + 4, 95)
    _paint_farthest_first(scene, placed)


def _place(scene, paint, number, far, near):
    """Draw ``number`` places (paint, x, row) on the ground between two percentages of nearness."""
    return [
        (
            paint,
            int(scene.rng.integers(scene.width // 20, scene.width * 19 // 20)),
            scene.row_at(int(scene.rng.integers(far, near + 1)) / 100),
        )
        for _ in range(int(number))
    ]


def _paint_farthest_first(scene, placed):
    """Paint (paint, x, row) entries, those higher in the image first."""
    for paint, x, row in sorted(placed, key=lambda entry: entry[2]):
        if row > scene.horizon + 2:
            paint(scene, x, row)
