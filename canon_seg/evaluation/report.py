"""What is left of a sweep: a table to read, ``sweep.json`` to compute with, ``sweep.png`` to show.

All three take the dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
"""

from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from canon_seg.errors import InputError
from canon_seg.evaluation.rotated_coco import METRICS
from canon_seg.evaluation.sweep import AVERAGE, TASKS
from canon_seg.files import write_atomically, write_json

# Of Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = {"vanilla": "#E69F00", "canonical": "#0072B2", "oracle": "#999999"}


def format_table(result):
    """The scores as text: task, mode and angle down, detectron2's columns across."""
    rows = []
    for task in TASKS:
        for mode, by_angle in result["modes"].items():
            for angle, scores in by_angle.items():
                rows.append([task, mode, angle, *(scores[task][metric] for metric in METRICS)])
    return tabulate(
        rows,
        headers=["task", "mode", "angle", *METRICS],
        floatfmt=".2f",
        missingval="-",
        colalign=("left", "left", "right", *("right",) * len(METRICS)),
        disable_numparse=[2],
    )


def format_summary(result):
    """What the table does not hold, a line each: poses found, time taken."""
    lines = []
    if result["pose"] is not None:
        confusion = result["pose"]["confusion"]
        right, total = sum(confusion[i][i] for i in range(len(confusion))), sum(map(sum, confusion))
        lines.append(
            f"pose found: {right} of {total} ({100 * result['pose']['accuracy']:.1f} %)"
        )
    for mode, seconds in result["seconds"].items():
        lines.append(
            f"{mode}: {1000 * seconds['per_image']:.0f} ms for each image, "
            f"{seconds['total']:.1f} s in all"
        )
    return "\n".join(lines)


def write_report(result, folder, config, dataset):
    """Write ``sweep.json`` and ``sweep.png`` to a folder, each whole or not at all.

    Args:
        result: dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
        folder: created if needed.
        config: dict of what is needed to run the same again, for the JSON file.
        dataset: the name of the data set.
    Returns:
        the two paths.
    Raises:
        InputError: if they cannot be written.
    """
    folder = Path(folder)
    paths = folder / "sweep.json", folder / "sweep.png"
    write_json(paths[0], {"config": config, "dataset": dataset, **result})
    figure = plot(result, dataset)
    with write_atomically(paths[1]) as temporary:
        try:
            figure.savefig(temporary, dpi=150)
        except OSError as error:
            raise InputError(f"{paths[1]}: cannot be written ({error.strerror})") from error
    return paths


def plot(result, dataset):
    """AP by angle, a bar for each mode.

    Args:
        result: dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
        dataset: the name of the data set, for the title.
    Returns:
        matplotlib ``Figure``. It shows mask AP, or box AP where no mode has mask AP.
    """
    modes = result["modes"]
    has_masks = any(
        scores["segm"]["AP"] is not None for by_angle in modes.values() for scores in
        by_angle.values()
    )
    task = "segm" if has_masks else "bbox"
    angles = list(next(iter(modes.values())))
    figure = Figure(figsize=(2.4 + 1.2 * len(angles), 4.2), layout="constrained")
    axes = figure.subplots()
    width, highest = 0.8 / len(modes), 1.0
    for index, (mode, by_angle) in enumerate(modes.items()):
        values = [by_angle[angle][task]["AP"] for angle in angles]
        places = [place + (index - (len(modes) - 1) / 2) * width for place in range(len(angles))]
        heights = [value or 0 for value in values]
        highest = max(highest, *heights)
        bars = axes.bar(places, heights, 0.92 * width, label=mode, color=_COLOURS.get(mode))
        labels = ["-" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(bars, labels, padding=2, fontsize=9)
    if AVERAGE in angles:
        axes.axvline(angles.index(AVERAGE) - 0.5, color="0.7", linewidth=0.8)
    axes.set_xticks(
        range(len(angles)), [angle if angle == AVERAGE else f"{angle}°" for angle in angles]
    )
    axes.set_ylim(0, 1.12 * highest)
    axes.set_xlabel("images turned counterclockwise by")
    axes.set_ylabel(f"{task} AP")
    axes.set_title(f"{dataset}: {result['num_images']} images", fontsize=10, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(modes), frameon=False)
    return figure
