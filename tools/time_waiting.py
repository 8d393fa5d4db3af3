#!/usr/bin/env python
"""Time how threads that wait for each other slow the models down, alone and beside others.

python tools/time_waiting.py

A process finds the pose of an image and segments a box in it by the embedded models, again and
again; each row lets its threads wait in another way. The columns are medians in seconds for one
image, alone and beside one other process for each core that only counts. Docs: evaluation.md.
"""

import argparse
import os
import subprocess
import sys

from tabulate import tabulate

from canon_seg.cli.threads import WAITING
from canon_seg.errors import run_main

# Rows: what is set in the environment of the process.
ROWS = {
    "spinning (OpenMP's default)": {},
    "sleeping (our commands)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
MODEL = """
import statistics, sys, time
import numpy as np
from canon_seg import CanonicalSamPredictor, load_default_sam
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
predictor = CanonicalSamPredictor(load_default_sam())
times = []
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    predictor.set_image(image)
    predictor.predict(box=np.array([100, 100, 400, 300]), multimask_output=False)
    times.append(time.perf_counter() - start)
print(statistics.median(times[1:]))
"""


def time_model(variables, images):
    """Return the median seconds for one image in a new process with these variables."""
    ours = {*WAITING, "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MODEL, str(images)],
        env={**environment, **variables},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return float(done.stdout)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20, help="for each number; default: 20")
    images = parser.parse_args().images + 1  # the first one warms up
    rows = {name: [time_model(variables, images)] for name, variables in ROWS.items()}
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())
    ]
    try:
        for name, variables in ROWS.items():
            rows[name].append(time_model(variables, images))
    finally:
        for process in busy:
            process.kill()
    table = [[name, *times] for name, times in rows.items()]
    headers = ["waiting threads", "alone, s", "beside busy processes, s"]
    print(tabulate(table, headers, tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    run_main(main)
