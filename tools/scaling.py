#!/usr/bin/env python
r"""Tell how a sweep scales: measured on the CPU, calculated for GPUs from measured parts.

    python tools/scaling.py --config-file configs/sam_tiny_c4.yaml \
        --annotations instances.json --images DIR --limit 8 --processes 1 2 \
        --embedding-seconds 0.1 --prompts-seconds 0.02 --scoring-seconds 30 --output scaling.json

The calculation is for a sweep in the modes vanilla and canonical. All angles of an image have as
many canonical images as there are angles without their quarter turn; the cache saves the others.
What a process does for a view beside running models (read, rotate, draw prompts, encode masks) is
taken from the measured sweep, whose four angles are 15, 105, 195 and 285 degrees.
--benchmark takes the seconds of scoring and of canonicalizing from what tools/benchmark.py wrote.
Beside scaling.json a table is written, scaling.md.
"""

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.coco.dataset import load_coco
from canon_seg.d2.capabilities import capabilities, segmenter_class
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.distributed import add_launch_arguments, launch
from canon_seg.d2.models import build_models
from canon_seg.errors import InputError, run_main
from canon_seg.evaluation.records import Records
from canon_seg.evaluation.sweep import first_images, run_sweep
from canon_seg.evaluation.views import View
from canon_seg.io.files import write_json, write_text

from detectron2.utils import comm

MODES = ["vanilla", "canonical"]
ANGLES = [15, 105, 195, 285]


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", help="measured on the CPU")
    parser.add_argument("--annotations", metavar="FILE")
    parser.add_argument("--images", metavar="DIR")
    parser.add_argument("--limit", type=int, default=8, metavar="N", help="images; default: 8")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--embedding-seconds", type=float, metavar="S", help="for one image")
    parser.add_argument(
        "--prompts-seconds", type=float, default=0.0, metavar="S", help="all prompts of one image"
    )
    parser.add_argument(
        "--scoring-seconds", type=float, default=0.0, metavar="S", help="one angle in one mode"
    )
    parser.add_argument(
        "--canonicalize-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="pose and turn, one image",
    )
    parser.add_argument(
        "--benchmark", metavar="FILE", help="benchmark.json, for the two seconds that it knows"
    )
    parser.add_argument(
        "--view-seconds",
        type=float,
        metavar="S",
        help="one view of an image beside the models; default: as measured",
    )
    parser.add_argument("--start-seconds", type=float, default=60.0, metavar="S")
    parser.add_argument("--num-images", type=int, default=5000, metavar="N", help="default: 5000")
    parser.add_argument("--num-angles", type=int, default=24, metavar="N", help="default: 24")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    parser.add_argument("--output", required=True, metavar="FILE")
    return parser.parse_args()


def measure(args):
    """Time one sweep over four angles for each number of processes, without their start."""
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu"])
    dataset = first_images(load_coco(args.annotations, args.images), args.limit)
    rows = []
    for processes in args.processes:
        options = argparse.ArgumentParser()
        add_launch_arguments(options)
        options = options.parse_args(["--num-processes", str(processes), "--threads", "1"])
        with tempfile.TemporaryDirectory() as folder:
            Records(Path(folder, "records")).begin({}, resume=False)
            seconds = Path(folder, "seconds")
            launch(timed_sweep, (cfg, dataset, args.images, folder, seconds), options)
            whole, models = json.loads(seconds.read_text())
            views = len(dataset["images"]) * len(ANGLES)
            rows.append(
                {
                    "processes": processes,
                    "seconds": whole,
                    "view_seconds": (whole * processes - models) / views,
                }
            )
        rows[-1]["speedup"] = rows[0]["seconds"] / rows[-1]["seconds"]
    return {
        "config_file": args.config_file,
        "images": len(dataset["images"]),
        "angles": ANGLES,
        "cores": os.cpu_count(),
        "rows": rows,
    }


def timed_sweep(cfg, dataset, images_dir, folder, path):
    """Time one sweep in this process; the main one writes the seconds to ``path``."""
    models, prompts = build_models(cfg, MODES), None
    if capabilities(segmenter_class(cfg)).takes_prompts:
        prompts = load_box_prompts("boxes", dataset)
    comm.synchronize()
    start = time.perf_counter()
    result = run_sweep(
        models,
        dataset,
        images_dir,
        views=[View(angle) for angle in ANGLES],
        progress=False,
        image_format=cfg.INPUT.FORMAT,
        prompts=prompts,
        records=Records(Path(folder, "records")),
    )
    if comm.is_main_process():
        models = sum(own["total"] for own in result["seconds"].values())
        path.write_text(json.dumps([time.perf_counter() - start, models]))


def calculate(args):
    """Calculate the hours of the whole sweep by the number of GPUs."""
    embeddings = args.num_angles + math.ceil(args.num_angles / 4)  # vanilla, canonical
    image = embeddings * (args.embedding_seconds + args.prompts_seconds)
    image += args.num_angles * (args.canonicalize_seconds + args.view_seconds)
    rows = []
    for gpus in args.gpus:
        seconds = args.start_seconds + math.ceil(args.num_images / gpus) * image
        seconds += math.ceil(args.num_angles / gpus) * 2 * args.scoring_seconds
        rows.append({"gpus": gpus, "hours": seconds / 3600})
    for row in rows:
        row["efficiency"] = rows[0]["hours"] * rows[0]["gpus"] / (row["hours"] * row["gpus"])
    parts = {key: value for key, value in vars(args).items() if key.endswith("_seconds")}
    return {"images": args.num_images, "angles": args.num_angles, **parts, "rows": rows}


def read_benchmark(args):
    """Return the arguments with what ``--benchmark`` knows in place of their defaults."""
    try:
        benchmark = json.loads(Path(args.benchmark).read_text(encoding="utf-8"))
        scoring, canonicalize = benchmark["scoring"], benchmark["canonicalize"]
        seconds = [scoring["seconds"][name]["median"] for name in ("ours", "ours, preparation")]
        args.scoring_seconds = sum(seconds) * args.num_images / scoring["images"]
        args.canonicalize_seconds = canonicalize["seconds"]["default"]["median"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--benchmark: {args.benchmark} gives no seconds of scoring and canonicalizing "
            f"({error}); write it with tools/benchmark.py, with these sections"
        ) from error


def format_table(result):
    """Format as Markdown what was measured and what was calculated."""
    lines = []
    if result["measured"]:
        measured = result["measured"]
        lines += [
            _rows(measured, "processes", "seconds", "speedup"),
            "",
            f"Measured: {measured['images']} images, {len(measured['angles'])} angles, vanilla and "
            f"canonical, on {measured['cores']} cores, one thread for each process.",
            "",
        ]
    if result["calculated"]:
        calculated = result["calculated"]
        lines += [
            _rows(calculated, "gpus", "hours", "efficiency"),
            "",
            f"Calculated: {calculated['images']} images, {calculated['angles']} angles, vanilla "
            f"and canonical, with {calculated['embedding_seconds']:.3g} s for an embedding, "
            f"{calculated['prompts_seconds']:.3g} s for the prompts of an image, "
            f"{calculated['canonicalize_seconds']:.2g} s for its pose, "
            f"{calculated['view_seconds']:.2g} s for a view beside the models, "
            f"{calculated['scoring_seconds']:.3g} s for scoring an angle, "
            f"{calculated['start_seconds']:.3g} s to start.",
        ]
    return "\n".join(lines)


def _rows(part, *keys):
    rows = [[row[key] for key in keys] for row in part["rows"]]
    titles = {"speedup": "speed-up", "gpus": "GPUs"}
    return tabulate(rows, [titles.get(key, key) for key in keys], tablefmt="pipe", floatfmt=".3g")


def main():
    """Run the command."""
    args = parse_arguments()
    if args.benchmark:
        read_benchmark(args)
    measured = measure(args) if args.config_file else None
    if args.view_seconds is None:
        args.view_seconds = measured["rows"][0]["view_seconds"] if measured else 0.0
    result = {
        "measured": measured,
        "calculated": calculate(args) if args.embedding_seconds is not None else None,
    }
    write_json(args.output, result)
    table = format_table(result)
    write_text(Path(args.output).with_suffix(".md"), f"{table}\n")
    print(table)


if __name__ == "__main__":
    run_main(main)
