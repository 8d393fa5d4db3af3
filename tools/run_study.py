#!/usr/bin/env python
"""Train the same thing in several ways, measure each, and write one table.

    python tools/run_study.py --study tools/studies/prior.yaml --output DIR

A study names a training config, options for all runs, and a few options for each:

    train: configs/train/canonicalizer_gcnn.yaml
    options: ["SOLVER.MAX_ITER", "1500"]
    runs:
      upright: []
      "30 % turned": ["DATASETS.TURNED_FRACTION", "0.3"]
    images: DIR                # upright photographs, for tools/eval_pose.py; without it, the runs
                               # are compared by the training's own held-out photographs
    plot: ["canonicalizer/within_10"]  # optional: what of metrics.json is drawn over the steps
    sweep:                     # optional: arguments of tools/eval_rotated.py
      config_file: configs/sam_tiny_c4.yaml
      annotations: instances.json
      images: DIR

Each run trains with tools/train_net.py --resume in a folder of its own below --output, so that
an interrupted study goes on where it stopped. Writes study.json and the table, study.md, and prints
it; with plot also study.png.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure
from tabulate import tabulate
from tqdm import tqdm

from canon_seg.errors import InputError, run_main
from canon_seg.evaluation.figures import save_figure
from canon_seg.io.files import check_output_dir, write_json, write_text
from canon_seg.networks.weights import count_free_parameters

TOOLS = Path(__file__).resolve().parent
KEYS = {"train", "options", "runs", "images", "sweep", "plot"}
COLUMNS = {
    "accuracy": ("poses found", ".3f"),
    "ece": ("calibration error", ".3f"),
    "kl": ("KL (nats)", ".3f"),
    "wasserstein": ("Wasserstein (turns)", ".3f"),
    "parameters": ("free parameters", ",d"),
    "canonical_ap": ("canonical AP", ".2f"),
}
# Of held-out photographs, in place of these, where a study names no images.
HELD_OUT_COLUMNS = {
    "pose_accuracy": ("upright found", ".3f"),
    "within_45": ("within 45°", ".3f"),
    "within_10": ("within 10°", ".3f"),
    "median_error": ("median error", ".1f°"),
    "turning_error": ("does not turn along", ".1f°"),
    "vector_length": ("vector length", ".2f"),
    "parameters": ("free parameters", ",d"),
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
    if not isinstance(study, dict) or not {"train", "runs"} <= set(study) <= KEYS:
        raise InputError(
            f"--study: {path} must hold train and runs, and may hold images, options, sweep and "
            "plot"
        )
    return study


def run(name, study, folder):
    """Train and measure one run.

    Returns:
        dict: ``options``, ``pose`` (the numbers of pose.json), ``training_seconds`` and, with a
        sweep, ``canonical_ap`` (C4 average of mask AP). Without images ``held_out``: what the
        training measured at its end, and the length of vectors. With a plot ``history``.
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
    measured = _read_metrics(folder / "metrics.json")
    history = {
        key: [[line["iteration"], line[key]] for line in measured if key in line]
        for key in study.get("plot", ())
    }
    row = {"options": options, **json.loads(done.read_text())}
    if history:
        row["history"] = history
    if "images" not in study:
        last = {key: value for line in measured for key, value in line.items()}
        row["held_out"] = {
            key.rsplit("/", 1)[1]: value
            for key, value in last.items()
            if key.startswith("held_out/") or key == "canonicalizer/vector_length"
        }
        return {**row, "parameters": count_free_parameters(str(weights))}
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
        **row,
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


def _read_metrics(path):
    """Return the lines of a training's metrics.json, [] where there is none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    held_out = any("held_out" in row for row in rows.values())
    columns, table = HELD_OUT_COLUMNS if held_out else COLUMNS, []
    for name, row in rows.items():
        values = {**row.get("held_out", {}), **row.get("pose", {}), **row}
        table.append(
            [
                name,
                *(
                    _cell(values[key], form, row.get("intervals", {}).get(key))
                    if key in values
                    else "-"
                    for key, (_, form) in columns.items()
                ),
                f"{row['training_seconds'] / 60:.0f}",
            ]
        )
    headers = ["run", *(title for title, _ in columns.values()), "training (min)"]
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(table, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def _cell(value, form, interval):
    """Format a number, with its 95 % interval in brackets where it has one."""
    if interval is None:
        return f"{value:{form.removesuffix('°')}}{'°' if form.endswith('°') else ''}"
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def plot(rows, keys):
    """Plot what a study's runs logged over the steps, one panel for each key.

    Args:
        rows: dict from the name of a run to what :func:`run` returned.
        keys: of metrics.json.

    Returns:
        matplotlib ``Figure``.
    """
    figure = Figure(figsize=(10.5, 1.2 + 2.6 * len(keys)), layout="constrained")
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for axes, key in zip(panels, keys, strict=True):
        for number, row in enumerate(rows.values()):
            steps = np.array(row["history"][key]).reshape(-1, 2)
            axes.plot(
                steps[:, 0] + 1,
                steps[:, 1],
                color=f"C{number % 10}",
                linestyle=("-", "--", ":")[number // 10 % 3],
            )
        axes.set_ylabel(key.rsplit("/", 1)[-1].replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("steps of training")
    panels[0].legend(
        panels[0].get_lines(),
        rows,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
    return figure


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
    written = [Path(output) / "study.json", Path(output) / "study.md"]
    if study.get("plot"):
        written += save_figure(Path(output) / "study.png", lambda: plot(rows, study["plot"]))
    print(table)
    print("written:", *written)


if __name__ == "__main__":
    run_main(main)
