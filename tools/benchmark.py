#!/usr/bin/env python
"""Measure what the canonicalizer costs, beside its peers, on one machine in one run.

    python tools/benchmark.py --output DIR

Writes DIR/benchmark.json and a table, DIR/benchmark.md, and prints it. equiadapt is compared with
where it is installed (`make benchmark` does that). Random weights are used where only time matters.
"""

import argparse
import gc
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from benchmarking.classification import time_classification
from benchmarking.memory import memory_of_ways
from benchmarking.parts import time_canonicalizers, time_parts
from benchmarking.peers import HYPERPARAMETERS, NETWORK, Equiadapt, find_equiadapt
from benchmarking.points import time_points
from benchmarking.scoring import time_scoring
from benchmarking.sweeps import time_sweeps
from benchmarking.tables import describe_machine, format_table, split_ratios
from benchmarking.training import time_training
from benchmarking.ways import SEGMENTERS, Settings, time_numerics, time_ways
from canon_seg.config.device import check_device
from canon_seg.errors import InputError, run_main
from canon_seg.io.files import check_output_dir, write_json, write_text

SECTIONS = (
    "ways",
    "canonicalize",
    "parts",
    "sweep",
    "scoring",
    "numerics",
    "training",
    "memory",
    "points",
    "classification",
)


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--segmenters",
        nargs="+",
        choices=SEGMENTERS,
        metavar="NAME",
        default=["sam_vit_b", "sam_tiny", "mask_rcnn_r50"],
        help=f"of {', '.join(SEGMENTERS)}; default: sam_vit_b sam_tiny mask_rcnn_r50",
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        metavar="NAME",
        default=SECTIONS,
        help=f"of {', '.join(SECTIONS)}; default: all",
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; default: its own")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--coco-images",
        type=int,
        default=300,
        metavar="N",
        help="images whose made-up results are scored; COCO val has 5000; default: 300",
    )
    parser.add_argument(
        "--compile", action="store_true", help="measure torch.compile too, which takes minutes"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes: only shows that it runs")
    return parser.parse_args()


def main():
    """Run the command."""
    args = parse_arguments()
    output = check_output_dir(args.output)
    for key in ("threads", "rounds", "coco_images"):
        value = getattr(args, key)
        if value is not None and value < 1:
            raise InputError(f"--{key.replace('_', '-')} is {value}; give at least 1")
    check_device(args.device, "--device")
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    settings = Settings(
        torch.device(args.device),
        rounds=args.rounds,
        coco_images=args.coco_images,
        compiles=args.compile,
    )
    if args.quick:
        settings = replace(settings.toy(), compiles=args.compile)
    arguments = {key: value for key, value in vars(args).items() if key != "output"}
    for result in run(settings, args.segmenters, args.sections):
        result["arguments"] = arguments
        write_json(output / "benchmark.json", result)
        table = format_table(result)
        write_text(output / "benchmark.md", f"{table}\n")
    print(table)
    print("written:", output / "benchmark.json", output / "benchmark.md")


def run(settings, segmenters, sections):
    """Yield all that was asked for so far, as a dict that JSON can hold, after each section."""
    start = time.perf_counter()
    found, versions = find_equiadapt()
    print("equiadapt:", versions, file=sys.stderr)
    result = {
        "quick": settings.quick,
        "machine": describe_machine(settings.device),
        "equiadapt": {"versions": versions, **HYPERPARAMETERS, **NETWORK}
        if found
        else {"note": versions},
    }
    peer = None
    if found and {"ways", "canonicalize"} & set(sections):
        peer = Equiadapt(settings)
        result["equiadapt"]["parameters"] = peer.parameters
    heavy = [name for name in segmenters if name != "sam_tiny"]
    steps = {
        "ways": {name: lambda name=name: time_ways(name, settings, peer) for name in segmenters},
        "canonicalize": lambda: time_canonicalizers(settings, peer),
        "parts": lambda: (time_parts(settings), {}),
        "sweep": lambda: time_sweeps(settings),
        "scoring": lambda: time_scoring(settings),
        "numerics": {name: lambda name=name: time_numerics(name, settings) for name in heavy},
        "training": lambda: time_training(settings, found),
        "memory": lambda: (memory_of_ways(settings, segmenters, found), {}),
        "points": lambda: time_points(settings, found),
        "classification": lambda: time_classification(settings, found),
    }
    ratios = {}
    for section in SECTIONS:
        if section not in sections:
            continue
        step = steps[section]
        result[section] = (
            {name: _take(part, f"{section}, {name}", ratios) for name, part in step.items()}
            if isinstance(step, dict)
            else _take(step, section, ratios)
        )
        result["ratios"], result["ratio_intervals"] = split_ratios(ratios)
        result["seconds_in_all"] = time.perf_counter() - start
        yield result


def _take(step, name, ratios):
    """Take the facts of one step; its ratios go to the others."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        facts, own = step()
    except (MemoryError, RuntimeError, subprocess.CalledProcessError) as error:
        # What was measured before, for an hour perhaps, is not lost to one step.
        print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        return {"note": f"failed: {error}"}
    ratios.update(own)
    gc.collect()  # models and images of one step shall not press on the next
    return facts


if __name__ == "__main__":
    run_main(main)
