#!/usr/bin/env python
r"""Train a classifier and its canonicalizer together by several prior weights, from one start.

python tools/study_classification.py --config-file configs/cifar10_c8.yaml --data DIR \
    --images 10000 --output DIR [KEY VALUE ...]

Writes study.json, the table study.md, and study.png: by how many poses the classifier's images are
still augmented, and the accuracy, against the steps of each training. Goes on where it stopped.
"""

import argparse
import json
from pathlib import Path

from tabulate import tabulate

from canon_seg.classification.data import read_images
from canon_seg.classification.report import plot_training
from canon_seg.classification.training import Training
from canon_seg.cli.options import parse_with_options
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import run_main
from canon_seg.evaluation.figures import save_figure
from canon_seg.io.files import check_output_dir, write_json, write_text

WEIGHTS = (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)
COLUMNS = {
    "accuracy": "upright",
    "turned_accuracy": "C8 average",
    "pose_accuracy": "poses found",
    "kl": "KL (nats)",
    "wasserstein": "Wasserstein (steps)",
    "mmd": "MMD",
}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--data", default="", metavar="DIR", help="of images with one class each")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="that are trained on")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, metavar="WEIGHT")
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parse_with_options(parser)
    output = check_output_dir(args.output)
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    cfg.MODEL.CLASSIFIER.FREEZE = False
    cfg.MODEL.CANONICALIZER.TASK_WEIGHT = 1.0
    count = args.images + cfg.DATASETS.HELD_OUT_IMAGES if args.images else 0
    data = read_images(args.data, "train", cfg.INPUT.IMAGE_SIDE, "--data").drawn(count)
    logs = {}
    for weight in args.weights:
        folder = check_output_dir(Path(output) / f"weight_{weight:g}")
        own = cfg.clone()
        own.MODEL.CANONICALIZER.PRIOR_WEIGHT = weight
        if not (folder / "done.json").is_file():
            measured = Training(own, data).run(folder, resume=True)
            write_json(folder / "done.json", measured)
        lines = (folder / "metrics.json").read_text(encoding="utf-8").splitlines()
        logs[f"{weight:g}"] = [json.loads(line) for line in lines]
    table = tabulate(
        [
            [name, *(f"{lines[-1].get(k, float('nan')):.3f}" for k in COLUMNS)]
            for name, lines in logs.items()
        ],
        ["prior weight", *COLUMNS.values()],
        tablefmt="pipe",
        colalign=["right"] * (1 + len(COLUMNS)),
        disable_numparse=True,
    )
    about = {"options": args.options, "images": len(data) - cfg.DATASETS.HELD_OUT_IMAGES}
    write_json(Path(output) / "study.json", {**about, "source": data.source, "runs": logs})
    write_text(Path(output) / "study.md", f"{table}\n")
    named = {f"prior weight {name}": lines for name, lines in logs.items()}
    save_figure(Path(output) / "study.png", lambda: plot_training(named))
    print(table)
    print("written:", *(Path(output) / f"study.{end}" for end in ("json", "md", "png")))


if __name__ == "__main__":
    run_main(main)
