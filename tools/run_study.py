#!/usr/bin/env python
"""Train the same thing in several ways, measure each, and write one table.

    python tools/run_study.py --study tools/studies/prior.yaml --output DIR

A study names a training config, options for all runs, and a few options for each:

    train: configs/train/canonicalizer_gcnn.yaml
    options: ["SOLVER.MAX_ITER", "1500"]
    runs:
      upright: []
      "30 % turned": ["DATASETS.TURNED_FRACTION", "0.3"]
    images: DIR                # upright photographs, for tools/eval_pose.py
    sweep:                     # optional: arguments of tools/eval_rotated.py
      config_file: configs/sam_tiny_c4.yaml
      annotations: instances.json
      images: DIR

Each run trains with tools/train_net.py --resume in a folder of its own below --output, so that
an interrupted study goes on where it stopped. Writes study.json and the table, study.md, and prints
it.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml
from tabulate import tabulate
from tqdm import tqdm

from canon_seg.errors import InputError, run_main
from canon_seg.io.files import check_output_dir, write_json, write_text

TOOLS = Path(__file__).resolve().parent
KEYS = {"train", "options", "runs", "images", "sweep"}
COLUMNS = {
    "accuracy": ("poses found", ".3f"),
    "ece": ("calibration error", ".3f"),
    "kl": ("KL (nats)", ".3f"),
    "wasserstein": ("Wasserstein (turns)", ".3f"),
    "parameters": ("free parameters", ",d"),
    "canonical_ap": ("canonical AP", ".2f"),
}


def read_study(path):
    """Return the dict of a study file.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        study = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--study: {path} cannot be read ({error}); give a YAML file") from error
    if not isinstance(study, dict) or not {"train", "runs", "images"} <= set(study) <= KEYS:
        raise InputError(
            f"--study: {path} must hold train, runs and images, and may hold options and sweep"
        )
    return study


def run(name, study, folder):
    """Train and measure one run.

    Returns:
        dict: ``options``, ``pose`` (the numbers of pose.json), ``training_seconds`` and, with a
        sweep, ``canonical_ap`` (C4 average of mask AP).
    """
    options = [str(value) for value in (*study.get("options", ()), *study["runs"][name])]
    log = folder / "log.txt"
    weights = folder / "canonicalizer.pth"
    done = folder / "training_seconds.json"
    if not done.is_file():
        start = time.time()
        _call(
            [
                TOOLS / "train_net.py",
                "--config-file",
                study["train"],
                "--resume",
                *options,
                "OUTPUT_DIR",
                folder,
            ],
            log,
        )
        write_json(done, {"training_seconds": time.time() - start})
    chosen = ["MODEL.CANONICALIZER.WEIGHTS", weights]
    _call(
        [
            TOOLS / "eval_pose.py",
            "--images",
            study["images"],
            "--output",
            folder / "pose.json",
            *chosen,
        ],
        log,
    )
    pose = json.loads((folder / "pose.json").read_text())
    row = {
        "options": options,
        **json.loads(done.read_text()),
        "pose": {key: value for key, value in pose.items() if isinstance(value, float)},
        "intervals": {key: ends for key, ends in pose.get("intervals", {}).items() if ends},
        "parameters": pose["network"]["parameters"],
    }
    if "sweep" in study:
        arguments = study["sweep"]
        _call(
            [
                TOOLS / "eval_rotated.py",
                "--config-file",
                arguments["config_file"],
                "--annotations",
                arguments["annotations"],
                "--images",
                arguments["images"],
                "--modes",
                "canonical",
                "--output",
                folder,
                *chosen,
                "MODEL.CANONICALIZER.CACHE",
                "64",
            ],
            log,
        )
        sweep = json.loads((folder / "sweep.json").read_text())
        row["canonical_ap"] = sweep["modes"]["canonical"]["C4-avg"]["segm"]["AP"]
    return row


def _call(command, log):
    with Path(log).open("a", encoding="utf-8") as file:
        process = subprocess.run(
            [sys.executable, *map(str, command)],
            check=False,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if process.returncode:
        raise InputError(f"{Path(command[0]).name} failed; its last lines are in {log}")


def format_table(rows):
    """Format the study as Markdown: a run on each line."""
    table = []
    for name, row in rows.items():
        values = {**row["pose"], **row}
        table.append(
            [
                name,
                *(
                    _cell(values[key], form, row.get("intervals", {}).get(key))
                    if key in values
                    else "-"
                    for key, (_, form) in COLUMNS.items()
                ),
                f"{row['training_seconds'] / 60:.0f}",
            ]
        )
    headers = ["run", *(title for title, _ in COLUMNS.values()), "training (min)"]
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(table, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def _cell(value, form, interval):
    """Format a number, with its 95 % interval in brackets where it has one."""
    if interval is None:
        return format(value, form)
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parser.parse_args()
    study, output = read_study(args.study), check_output_dir(args.output)
    rows = {}
    for name in tqdm(study["runs"], desc="runs"):
        folder = check_output_dir(Path(output) / (re.sub(r"\W+", "_", name).strip("_") or "run"))
        rows[name] = run(name, study, Path(folder))
        write_json(Path(output) / "study.json", {"study": study, "runs": rows})
    table = format_table(rows)
    write_text(Path(output) / "study.md", f"{table}\n")
    print(table)
    print("written:", Path(output) / "study.json", Path(output) / "study.md")


if __name__ == "__main__":
    run_main(main)
