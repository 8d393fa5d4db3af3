"""Draw choices and smooth noise from a numpy Generator, the same on every machine."""

import numpy as np


def pick(rng, choices):
    """Return one of the choices, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


def rounded(value):
    """Round to the nearest int, halves upwards."""
    return int(np.floor(value + 0.5))


def fractal(rng, v, u, *shifts):
    """Return smooth noise of three octaves, about -1 to 1, at the float coordinates (v, u).

    Random values lie on the integer points and are joined smoothly; they repeat after 64.

    Args:
        rng: numpy Generator.
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
    """Read a periodic 64 x 64 grid between its points."""
    v, u = np.broadcast_arrays(v, u)
    row, column = np.floor(v).astype(np.int64), np.floor(u).astype(np.int64)
    y, x = v - row, u - column
    y, x = y * y * (3 - 2 * y), x * x * (3 - 2 * x)
    row, column, below, right = row % 64, column % 64, (row + 1) % 64, (column + 1) % 64
    upper = grid[row, column] * (1 - x) + grid[row, right] * x
    lower = grid[below, column] * (1 - x) + grid[below, right] * x
    return upper * (1 - y) + lower * y
