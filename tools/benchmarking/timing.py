"""Time things that are run in turn, with ratios of their times and the uncertainty of these.

On a shared machine the speed drifts. What is to be compared therefore runs interleaved, one round
after the other, and intervals come from drawing whole rounds: a slow round counts on both sides.
"""

import time

import numpy as np
import torch

BOOTSTRAP_ROUNDS = 7


def measure(functions, rounds, device=torch.device("cpu")):
    """Run functions in turn, several rounds after one that does not count.

    Args:
        functions: dict from name to a function without arguments.
        rounds: how often each is timed.
        device: torch.device; on a GPU the time is that between two CUDA events, with everything
            before finished.

    Returns:
        dict from name to a (rounds,) array of seconds.
    """
    for function in functions.values():
        _seconds(function, device)
    times = [[_seconds(function, device) for function in functions.values()] for _ in range(rounds)]
    return dict(zip(functions, np.array(times).T, strict=True))


def summary(times):
    """Return median and quartiles in seconds, and how many rounds there were."""
    low, median, high = np.percentile(times, (25, 50, 75)).tolist()
    return {"median": median, "quartiles": [low, high], "rounds": len(times)}


def ratio(above, below, plus=0.0):
    """Return the ratio of two medians, plus a constant, with its spread.

    Args:
        above, below: times of the same rounds.
        plus: 1 where ``above`` is what comes on top of ``below``.

    Returns:
        {"value": float, "interval": [low, high]}: 95 % by bootstrap over the rounds; of fewer than
        ``BOOTSTRAP_ROUNDS``, which tell too little for that, the ratios of the single rounds.
    """
    above, below = np.asarray(above, float), np.asarray(below, float)
    if above.shape != below.shape:
        raise ValueError(f"{len(above)} and {len(below)} rounds cannot be compared")
    if len(above) < BOOTSTRAP_ROUNDS:
        values = above / below
        interval = np.array([values.min(), values.max()])
    else:
        drawn = np.random.default_rng(0).integers(len(above), size=(2000, len(above)))
        values = np.median(above[drawn], axis=1) / np.median(below[drawn], axis=1)
        interval = np.percentile(values, (2.5, 97.5))
    return {
        "value": plus + float(np.median(above) / np.median(below)),
        "interval": (plus + interval).tolist(),
    }


def _seconds(function, device):
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        function()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
