import numpy as np
import pytest

from canon_seg.apps.following import PATIENCE, SIDE, follow


def block(y0, y1, x0, x1, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


A, B, C = block(0, 10, 0, 20), block(20, 30, 10, 40), block(0, 40, 45, 60)
MOVED = {"a": block(1, 11, 2, 22), "b": block(21, 31, 8, 38), "c": block(2, 40, 45, 58)}


def test_the_first_masks_are_numbered_in_order():
    numbers, known = follow((), [A, B, C])
    assert numbers == [0, 1, 2] and [one.number for one in known] == numbers
    assert follow((), []) == ([], ())


@pytest.mark.parametrize("order", ["abc", "cab", "bca", "cba", "ca", "b"])
def test_numbers_stay_with_moved_masks_in_any_order(order):
    _, known = follow((), [A, B, C])
    numbers, _ = follow(known, [MOVED[name] for name in order])
    assert numbers == ["abc".index(name) for name in order]


def test_the_best_of_all_pairs_counts_not_the_first_one():
    """The second mask overlaps with both; the first has nothing else."""
    one, two = block(0, 20, 0, 20), block(0, 20, 8, 30)
    _, known = follow((), [one, two])
    between = block(0, 20, 4, 25)  # of either more than a half
    assert follow(known, [between, one])[0] == [1, 0]
    assert follow(known, [two, between])[0] == [1, 0]


def test_new_masks_get_numbers_that_nothing_else_has():
    _, known = follow((), [A, B])
    numbers, known = follow(known, [C, MOVED["b"]])
    assert numbers == [2, 1]
    # The first is missing, and its number is kept for it.
    assert follow(known, [MOVED["a"], C])[0] == [0, 2]


def test_a_mask_that_stays_away_is_forgotten():
    for pictures, number in ((PATIENCE, 0), (PATIENCE + 1, 0)):
        _, known = follow((), [A, B])
        for _ in range(pictures):
            _, known = follow(known, [B])
        assert follow(known, [A])[0] == [number]
        assert (len(known) == 2) == (pictures == PATIENCE)
    numbers, _ = follow(known, [C])
    assert numbers == [0]  # free again


def test_pictures_without_masks_and_of_another_size():
    _, known = follow((), [A, B])
    numbers, known = follow(known, [])
    assert numbers == [] and follow(known, [B])[0] == [1]
    assert follow(known, [B.T])[0] == [0]


def test_empty_masks_are_the_same_as_nothing():
    empty = np.zeros_like(A)
    _, known = follow((), [empty, A])
    assert follow(known, [A, empty])[0] == [1, 2]


def test_large_masks_are_compared_thinned_out():
    large = [np.kron(mask, np.ones((20, 20), bool)) for mask in (A, B, C)]
    _, known = follow((), large)
    assert max(max(one.mask.shape) for one in known) <= SIDE
    assert follow(known, large[::-1])[0] == [2, 1, 0]
