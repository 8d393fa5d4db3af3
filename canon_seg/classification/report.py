"""Show what was measured of classifiers: tables and plots."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

PAPER = {
    "vanilla": (96.97, 57.77),
    "rotation augmentation": (94.91, 90.11),
    "learned canonicalization, no prior": (93.29, 92.96),
    "learned canonicalization, with prior": (96.19, 95.31),
}
"""Accuracy and its C8 average on CIFAR-10 with a ResNet50, as quoted of Mondal et al. 2023."""


def format_modes(result: Mapping[str, Any]) -> str:
    """Format accuracies by mode as a Markdown table, with the elements of the group as columns.

    Args:
        result: of :func:`canon_seg.classification.evaluation.evaluate`.
    """
    first = next(iter(result["modes"].values()))
    names = [f"{name}°" for name in first["by_element"]]
    rows = [
        [
            mode,
            *(_with_interval(values, key) for key in ("accuracy", "group_accuracy")),
            *(f"{value:.1f}" for value in values["by_element"].values()),
        ]
        for mode, values in result["modes"].items()
    ]
    return _table(["mode", "upright", f"{result['group']} average", *names], rows)


def format_poses(result: Mapping[str, Any]) -> str:
    """Format how well poses are found, a line for each mode; "" where none are looked for."""
    lines = []
    for mode, pose in result["pose"].items():
        line = (
            f"{mode}: poses found {100 * pose['accuracy']:.1f} %, off by "
            f"{pose['mean_distance']:.1f} degrees in the mean"
        )
        if "alignment" in pose:
            aligned = pose["alignment"]
            kl = "infinite" if aligned["kl"] is None else f"{aligned['kl']:.4f} nats"
            line += (
                f"; upright images: KL {kl}, Wasserstein {aligned['wasserstein']:.4f} steps, MMD "
                f"{aligned['mmd']:.4f}"
            )
        lines.append(line)
    return "\n".join(lines)


def format_rows(spec: Mapping[str, Any], folder: "str | Path") -> str:
    """Format rows that come from several files beside the paper's, as Markdown.

    Args:
        spec: {"note": TEXT, "rows": [...]}; each row is {"label", "file", "mode", "paper" (a key
            of :data:`PAPER`, or none)}.
        folder: which the files lie in.
    """
    table, counts = [], set()
    for row in spec["rows"]:
        result = json.loads(Path(folder, row["file"]).read_text(encoding="utf-8"))
        counts.add(result["num_images"])
        values = result["modes"][row["mode"]]
        pose = result["pose"].get(row["mode"])
        paper = PAPER.get(row.get("paper", ""))
        table.append(
            [
                row["label"],
                _with_interval(values, "accuracy"),
                _with_interval(values, "group_accuracy"),
                f"{100 * pose['accuracy']:.1f}" if pose else "",
                f"{paper[0]:.2f} / {paper[1]:.2f}" if paper else "",
            ]
        )
    names = ["accuracy", "upright", "C8 average", "poses found", "paper, ResNet50"]
    images = " and ".join(map(str, sorted(counts)))
    note = f"{spec['note']} Percent of {images} images, in brackets 95 % intervals."
    return f"{_table(names, table)}\n\n{note}"


def plot_modes(result: Mapping[str, Any]) -> Figure:
    """Draw accuracy against the element by which the images were turned."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for mode, values in result["modes"].items():
        names = [f"{name}°" for name in values["by_element"]]
        axes.plot(names, list(values["by_element"].values()), marker="o", label=mode)
    axes.set(xlabel="turned by", ylabel="accuracy (%)", ylim=(0, 100))
    axes.set_title(f"{result['num_images']} images, {result['group']}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_training(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw the entropy of the poses found and the accuracy of turned images against steps.

    Args:
        logs: lines of ``metrics.json`` of each training, by its name.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for place, (key, title) in enumerate(
        (
            ("poses_entropy", "entropy of the poses found (nats)"),
            ("turned_accuracy", "accuracy on turned images"),
        )
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        for name, lines in logs.items():
            axes.plot(
                [line["iteration"] for line in lines],
                [line[key] for line in lines],
                marker=".",
                label=name,
            )
        axes.set(xlabel="steps", ylabel=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _with_interval(values: Mapping[str, Any], key: str) -> str:
    low, high = values["intervals"][key]
    return f"{values[key]:.2f} ({low:.1f} to {high:.1f})"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["left"] + ["right"] * (len(headers) - 1)
    table: str = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return table
