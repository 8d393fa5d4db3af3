"""Simulated clicks, against distances that are computed pixel by pixel."""

import numpy as np
import pytest

from canon_seg.sam.clicks import deepest_point, depths, next_click, random_point


def slow_depths(mask):
    """Distances to the nearest pixel that is not the mask, or lies beyond the image."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    found = np.zeros(mask.shape)
    for y, x in np.argwhere(mask):
        found[y, x] = np.sqrt(((outside - (y, x)) ** 2).sum(axis=1).min())
    return found


def random_masks():
    rng = np.random.default_rng(0)
    blobs = [rng.random((13, 17)) < share for share in (0.2, 0.7, 0.95)]
    disk = np.hypot(*np.ogrid[-8:9, -10:7]) < 7
    one_pixel = np.zeros((5, 6), bool)
    one_pixel[4, 5] = True
    return [*blobs, disk, one_pixel, np.ones((4, 9), bool)]


@pytest.mark.parametrize("mask", random_masks())
def test_depths(mask):
    expected = slow_depths(mask)
    np.testing.assert_allclose(depths(mask), expected, atol=1e-5)
    x, y = deepest_point(mask)
    assert expected[y, x] == pytest.approx(expected.max())


def test_an_empty_mask_has_no_point():
    empty = np.zeros((3, 4), bool)
    assert deepest_point(empty) is None
    assert random_point(empty, np.random.default_rng(0)) is None
    assert next_click(empty, empty) is None


def test_clicks_correct_the_larger_error():
    wanted = np.zeros((20, 30), bool)
    wanted[5:15, 5:15] = True
    x, y, label = next_click(np.zeros_like(wanted), wanted)
    assert label == 1 and slow_depths(wanted)[y, x] == slow_depths(wanted).max()
    surplus = wanted.copy()
    surplus[2:18, 17:29] = True  # deeper than what is missing now
    surplus[5:15, 5:8] = False
    x, y, label = next_click(surplus, wanted)
    assert label == 0 and 17 <= x < 29 and slow_depths(surplus & ~wanted)[y, x] == 6
    surplus[2:18, 17:29] = False
    x, y, label = next_click(surplus, wanted)
    assert label == 1 and 5 <= x < 8 and 5 <= y < 15
    assert next_click(wanted, wanted) is None


def test_random_points_reach_all_of_a_mask():
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = mask[3, 0] = mask[0, 4] = True
    rng = np.random.default_rng(0)
    points = [random_point(mask, rng) for _ in range(300)]
    counts = [points.count(point) for point in ((2, 1), (0, 3), (4, 0))]
    assert sum(counts) == 300 and min(counts) > 60
