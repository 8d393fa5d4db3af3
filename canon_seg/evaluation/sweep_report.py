"""Report a sweep: a table to read, ``sweep.json`` to compute with, ``sweep.png`` to show.

All three take the dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
"""

import math
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from tabulate import tabulate

from canon_seg.coco.dataset import describe_empty, name_annotations
from canon_seg.evaluation.figures import save_figure
from canon_seg.evaluation.realigned import TITLES, realigned
from canon_seg.evaluation.rotated_coco import METRICS
from canon_seg.evaluation.sweep import AVERAGE, TASKS
from canon_seg.evaluation.views import MIRRORED, View, split_label
from canon_seg.io.files import write_json
from canon_seg.io.names import figure_text

# Colours of Okabe and Ito's palette, which colour-blind readers can tell apart; marks for print.
_STYLES = {
    "vanilla": ("#E69F00", "s"),
    "canonical": ("#0072B2", "o"),
    "oracle": ("#999999", "^"),
    "tta": ("#009E73", "D"),
    "C4": ("#56B4E9", "X"),
    "C8": ("#CC79A7", "v"),
    "SO2": ("#D55E00", "P"),
    "oracle_any": ("#000000", "*"),
    "D4": ("#0072B2", "d"),
    "O2": ("#009E73", "p"),
}
_OTHER_STYLES = (("#CC79A7", "v"), ("#D55E00", "P"), ("#56B4E9", "X"), ("#000000", "*"))


def format_table(result):
    """Format the scores as text: task, mode and angle down, detectron2's columns across.

    Where poses were found, a column holds the share of images whose pose is not clear, in %. The
    paper's mAP, where it was asked for, has the last one.
    """
    rows, paper, unclear = [], result.get("paper"), _unclear(result)
    for task in TASKS:
        for mode, by_angle in result["modes"].items():
            for angle, scores in by_angle.items():
                row = [task, mode, angle, *(scores[task][metric] for metric in METRICS)]
                if unclear:
                    row.append(unclear.get(angle) if mode == "canonical" else None)
                if paper:
                    row.append(paper["modes"][mode][angle][task]["AP"])
                rows.append(row)
    headers = [
        *METRICS,
        *(["unclear %"] if unclear else []),
        *(["paper's mAP"] if paper else []),
    ]
    return tabulate(
        rows,
        headers=["task", "mode", "angle", *headers],
        floatfmt=".2f",
        missingval="-",
        colalign=("left", "left", "right", *("right",) * len(headers)),
        disable_numparse=[2],
    )


def format_realigned(result):
    """Format the figures as FOCAL reports them, a row for each task."""
    figures = realigned(result)
    accuracy, distance = figures["pose_accuracy"], figures["pose_distance"]
    rows = [
        [
            task,
            *(figures[task][name] for name in TITLES),
            None if accuracy is None else f"{100 * accuracy:.1f} %",
            None if distance is None else f"{distance:.1f}°",
        ]
        for task in TASKS
    ]
    headers = ["AP", *TITLES.values(), "pose accuracy", "pose distance"]
    return tabulate(
        rows,
        headers=headers,
        floatfmt=".2f",
        missingval="-",
        colalign=("left", *("right",) * (len(headers) - 1)),
    )


def format_summary(result):
    """Format what the table lacks, a line each: poses found, instances cut away, time taken."""
    lines = []
    if result["pose"] is not None:
        confusion = result["pose"]["confusion"]
        right, total = sum(confusion[i][i] for i in range(len(confusion))), sum(map(sum, confusion))
        share = f"{100 * result['pose']['accuracy']:.1f} %"
        lines.append(f"pose found: {right} of {total} ({share}{_interval(result['pose'])})")
        if result["pose"].get("mirror_accuracy") is not None:
            lines.append(
                f"side of the mirror found: {100 * result['pose']['mirror_accuracy']:.1f} %"
            )
        unclear = _unclear(result).values()
        if any(unclear):
            lines.append(
                f"pose not clear (probability below a half): {sum(unclear) / len(unclear):.1f} %; "
                "MODEL.CANONICALIZER.UNCERTAIN vote may help"
            )
    for mode, errors in result.get("angle_errors", {}).items():
        lines.append(
            f"{mode}: angle off by {errors['median_error']:.1f} degrees in the median, within 10 "
            f"degrees {100 * errors['within_10']:.1f} %"
        )
    for mode, found in result.get("over_angles", {}).items():
        if len(result["modes"][mode]) > 1:
            lines.append(f"{mode}: {_mean_and_least(found)} over the angles")
    cut = {angle: count for angle, count in result.get("instances_cut", {}).items() if count}
    if cut:
        counts = ", ".join(f"{count} at {angle}°" for angle, count in cut.items())
        named = {number for ids in result.get("instances_cut_ids", {}).values() for number in ids}
        lines.append(f"instances cut away wholly: {counts}{name_annotations(sorted(named))}")
    for mode, by_angle in result.get("masks_vanished", {}).items():
        if any(by_angle.values()):
            lines.append(
                f"{mode}: masks that lie outside of the tilted image, scored as empty ones: "
                f"{sum(by_angle.values())}"
            )
    lines += describe_empty(result.get("instances_empty", []))
    for mode, seconds in result["seconds"].items():
        lines.append(
            f"{mode}: {1000 * seconds['per_image']:.0f} ms for each image, "
            f"{seconds['total']:.1f} s in all"
        )
    return "\n".join(lines)


def _interval(pose):
    if "accuracy_interval" not in pose:  # of an earlier version
        return ""
    low, high = pose["accuracy_interval"]
    return f", 95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def _unclear(result):
    """Return the share of unclear poses in % by degrees; {} where none were looked for."""
    by_angle = (result["pose"] or {}).get("unclear_by_angle", {})
    return {angle: 100 * share for angle, share in by_angle.items()}


def _mean_and_least(found):
    """Say mask AP, or box AP where there is none, in the mean and at the worst angle."""
    task = "segm" if found["mean"]["segm"]["AP"] is not None else "bbox"
    values = [found[name][task]["AP"] for name in ("mean", "min")]
    shown = ["-" if value is None else f"{value:.2f}" for value in values]
    return f"{task} AP {shown[0]} in the mean, {shown[1]} at least"


def write_report(result, folder, config, dataset):
    """Write ``sweep.json`` and ``sweep.png`` to a folder, each whole or not at all.

    Args:
        result: dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
        folder: created if needed.
        config: dict of what is needed to run the same again, for the JSON file.
        dataset: the name of the data set.

    Returns:
        list of the two paths, or of the first alone where the picture could not be made, which is
        an :class:`canon_seg.errors.InputWarning`.

    Raises:
        InputError: if the results cannot be written.
    """
    folder = Path(folder)
    paths = folder / "sweep.json", folder / "sweep.png"
    write_json(paths[0], {"config": config, "dataset": dataset, **result})
    note = f"canvas {config['canvas']}" if config.get("canvas") else ""
    if config.get("box_prompts"):
        note += f", boxes {config['box_prompts']}"
    return [paths[0], *save_figure(paths[1], lambda: plot(result, dataset, note), dpi=150)]


def plot(result, dataset, note=""):
    """Plot AP by angle: a bar for each mode at quarter turns, or else lines, straight and polar.

    Args:
        result: dict of :func:`canon_seg.evaluation.sweep.run_sweep`.
        dataset: the name of the data set, for the title.
        note: on canvas and boxes, which matter off the quarter turns.

    Returns:
        matplotlib ``Figure``. It shows mask AP, or box AP where no mode has mask AP.
    """
    has_masks = any(
        scores["segm"]["AP"] is not None
        for by_angle in result["modes"].values()
        for scores in by_angle.values()
    )
    task = "segm" if has_masks else "bbox"
    values = {
        mode: {angle: scores[task]["AP"] for angle, scores in by_angle.items()}
        for mode, by_angle in result["modes"].items()
    }
    views = [split_label(label) for label in next(iter(values.values()))]
    only_quarters = all(View(view[0]).remainder == 0 for view in views if view)
    figure = (_plot_bars if only_quarters else _plot_lines)(values, f"{task} AP")
    title = f"{figure_text(dataset)}: {result['num_images']} images"
    if note and not only_quarters:
        title += f", {note}"
    figure.suptitle(title, fontsize=10, wrap=True)
    return figure


def _plot_bars(values, name):
    angles = list(next(iter(values.values())))
    figure = Figure(figsize=(2.4 + 1.2 * len(angles), 4.2), layout="constrained")
    axes = figure.subplots()
    width, styles = 0.8 / len(values), _styles(values)
    for index, (mode, by_angle) in enumerate(values.items()):
        places = [place + (index - (len(values) - 1) / 2) * width for place in range(len(angles))]
        heights = [by_angle[angle] or 0 for angle in angles]
        bars = axes.bar(places, heights, 0.92 * width, label=mode, color=styles[mode][0])
        labels = ["-" if by_angle[angle] is None else f"{by_angle[angle]:.1f}" for angle in angles]
        axes.bar_label(bars, labels, padding=2, fontsize=9)
    if AVERAGE in angles:
        axes.axvline(angles.index(AVERAGE) - 0.5, color="0.7", linewidth=0.8)
    names = [f"{angle}°" if split_label(angle) else angle for angle in angles]
    axes.set_xticks(range(len(angles)), [name.replace(MIRRORED, "mirrored\n") for name in names])
    axes.set_ylim(0, _top(values))
    axes.set_xlabel("images turned counterclockwise by")
    axes.set_ylabel(name)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(values), frameon=False)
    return figure


def _plot_lines(values, name):
    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.55, 1])
    axes, strip = left.subplots(2, 1, sharex=True, height_ratios=[6, 1])
    polar = right.add_subplot(projection="polar")
    for panel in (axes, strip):
        panel.spines[["top", "right"]].set_visible(False)
    for angle in range(0, 361, 90):
        axes.axvline(angle, color="0.8", linewidth=1, zorder=0)
        strip.axvline(angle, color="0.8", linewidth=1, zorder=0)
        polar.axvline(math.radians(angle), color="0.7", linewidth=1, zorder=0)

    styles = _styles(values)
    for mode, by_angle in values.items():
        angles, heights = _line(by_angle)
        colour, mark = styles[mode]
        mirrored = {label.removeprefix(MIRRORED): value for label, value in by_angle.items()}
        if len(mirrored) < len(by_angle):
            axes.plot(*_line(mirrored), color=colour, linestyle=":", linewidth=1.6)
        axes.plot(angles, heights, color=colour, marker=mark, markersize=5, linewidth=1.6)
        polar.plot(
            [math.radians(angle) for angle in angles],
            heights,
            color=colour,
            marker=mark,
            markersize=3,
            linewidth=1.4,
        )
        mean = _mean(by_angle)
        if mean is not None:
            axes.axhline(mean, color=colour, linestyle="--", linewidth=1)

    axes.set_ylim(_bottom(values), _top(values))
    axes.set_ylabel(name)
    remainders = [abs(View(angle).remainder) for angle in range(0, 361, 45)]
    strip.fill_between(range(0, 361, 45), remainders, color="0.85", linewidth=0)
    strip.set(ylim=(0, 50), ylabel="remainder", xlabel="images turned counterclockwise by")
    strip.set_yticks([0, 45], ["0°", "45°"])
    strip.set_xticks(range(0, 361, 45))
    strip.xaxis.set_major_formatter("{x:g}°")

    polar.set_theta_zero_location("N")  # with 0 at the top, angles grow as pictures turn
    polar.set_thetagrids(range(0, 360, 45))
    polar.set_rlim(0, _top(values))
    polar.set_rlabel_position(67.5)
    polar.yaxis.set_major_locator(MaxNLocator(4))
    polar.grid(color="0.88", linewidth=0.8)
    polar.tick_params(labelsize=9)
    polar.set_title(f"{name}, from 0 at the centre", fontsize=10)

    figure.legend(
        handles=[_legend_line(mode, by_angle, *styles[mode]) for mode, by_angle in values.items()],
        loc="outside lower center",
        ncols=min(len(values), 4),
        frameon=False,
    )
    return figure


def _line(by_angle):
    """Return angles in order and their values, broken (NaN) where angles are far apart.

    What goes round is closed: the first angle is there once more, 360 degrees on. Mirrored views
    are left out.
    """
    views = [(split_label(label), value) for label, value in by_angle.items()]
    points = sorted((view[0], value) for view, value in views if view and not view[1])
    points.append((points[0][0] + 360, points[0][1]))
    angles, heights = [], []
    for (angle, value), (following, _) in pairwise(points):
        angles.append(angle)
        heights.append(math.nan if value is None else value)
        if following - angle > 90:
            angles.append(angle)
            heights.append(math.nan)
    if not math.isnan(heights[-1]) and points[0][0] == 0:
        angles.append(360.0)
        heights.append(heights[0])
    return angles, heights


def _mean(by_angle):
    """Return the mean over the angles, without mirrored views, or None if one is not defined."""
    views = [(split_label(label), value) for label, value in by_angle.items()]
    values = [value for view, value in views if view and not view[1]]
    return None if None in values else sum(values) / len(values)


def _styles(modes):
    """Return the (colour, mark) of each mode."""
    others = iter(_OTHER_STYLES)
    return {mode: _STYLES.get(mode) or next(others) for mode in modes}


def _legend_line(mode, by_angle, colour, mark):
    mean = _mean(by_angle)
    label = mode if mean is None else f"{mode} (- - mean {mean:.1f})"
    return Line2D([], [], color=colour, marker=mark, markersize=5, label=label)


def _top(values):
    """Return the upper end of the axis of AP."""
    return 1.12 * max(1.0, *_defined(values))


def _bottom(values):
    """Return the lower end of the axis of AP: near the least, to show what differs."""
    defined = _defined(values)
    return max(0.0, min(defined) - 0.3 * (_top(values) - min(defined)))


def _defined(values):
    """Return all numbers there are, 0 if there are none."""
    return [
        value for by_angle in values.values() for value in by_angle.values() if value is not None
    ] or [0.0]
