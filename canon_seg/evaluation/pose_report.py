"""Draw how well poses are found, from the results of :mod:`canon_seg.evaluation.poses`."""

import numpy as np
from matplotlib.figure import Figure

from canon_seg.core.group import C4, elements_of
from canon_seg.io.names import figure_text, printable

_BLUE, _GREY = "#0072B2", "0.75"


def plot_poses(measured, title, group=C4):
    """Plot a reliability diagram, with the photographs in each bin, and the confusion matrix.

    Args:
        measured: dict of :func:`canon_seg.evaluation.poses.measure_poses`.
        title: str.
        group: finite one of the poses.

    Returns:
        matplotlib ``Figure``.
    """
    low, high = measured["intervals"]["accuracy"]
    figure, right = _beside_reliability(
        measured,
        f"{figure_text(title)}: {measured['num_images']} photographs, "
        f"{100 * measured['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) found upright, "
        f"ECE {measured['ece']:.3f}",
        "found upright",
    )
    _plot_confusion(right.subplots(), np.array(measured["confusion"]), group)
    return figure


def plot_angles(measured, title):
    """Plot a reliability diagram, and the error of the angle against the true angle.

    Args:
        measured: dict of :func:`canon_seg.evaluation.poses.measure_angles`.
        title: str.

    Returns:
        matplotlib ``Figure``.
    """
    rows = sorted((float(angle), row) for angle, row in measured["by_angle"].items())
    figure, right = _beside_reliability(
        measured,
        f"{figure_text(title)}: {measured['num_images']} photographs at {len(rows)} angles, "
        f"{100 * measured['within_10']:.1f} % within 10°, median error "
        f"{measured['median_error']:.1f}°",
        "found within 10°",
    )
    error, share = right.subplots(2, 1, sharex=True)
    angles = [angle for angle, _ in rows]
    for axes, key, label in (
        (error, "median_error", "median error in degrees"),
        (share, "within_10", "fraction within 10°"),
    ):
        for quarter in range(0, 361, 90):
            axes.axvline(quarter, color="0.85", linewidth=1, zorder=0)
        axes.plot(angles, [row[key] for _, row in rows], "o-", color=_BLUE, markersize=4)
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    share.set(xlabel="photographs turned counterclockwise by", ylim=(0, 1))
    share.xaxis.set_major_formatter("{x:g}°")
    return figure


def _beside_reliability(measured, title, found):
    """Return a figure with a reliability diagram at its left, and the empty half beside it."""
    figure = Figure(figsize=(9.6, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1])
    diagram, histogram = left.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _plot_reliability(diagram, histogram, measured, found)
    figure.suptitle(title, fontsize=10, wrap=True)
    return figure, right


def _plot_reliability(diagram, histogram, measured, found):
    bins = measured["reliability"]
    width = 1 / len(bins)
    lefts = np.arange(len(bins)) * width
    filled = [i for i, entry in enumerate(bins) if entry["count"]]
    accuracies = [bins[i]["accuracy"] for i in filled]
    confidences = [bins[i]["confidence"] for i in filled]
    diagram.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="perfect calibration")
    diagram.bar(
        lefts[filled],
        accuracies,
        width,
        align="edge",
        color=_BLUE,
        edgecolor="white",
        label=found,
    )
    diagram.plot(
        confidences, accuracies, "o", color="black", markersize=4, label="mean probability of bin"
    )
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel=f"fraction {found}")
    diagram.legend(loc="upper left", frameon=False, fontsize=8)
    counts = [entry["count"] for entry in bins]
    bars = histogram.bar(lefts, counts, width, align="edge", color=_GREY, edgecolor="white")
    histogram.bar_label(bars, [count or "" for count in counts], fontsize=7, padding=1)
    histogram.set(
        ylim=(0, 1.2 * max(counts)),
        ylabel="photographs",
        xlabel="probability of the likeliest pose",
    )
    for axes in (diagram, histogram):
        axes.spines[["top", "right"]].set_visible(False)


def _plot_confusion(axes, counts, group):
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(counts)):
        for column in range(len(counts)):
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{100 * shares[row, column]:.1f} %",
                ha="center",
                va="center",
                fontsize=9 if len(counts) <= 4 else 6,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    angles = [pose.described() for pose in elements_of(group)]
    axes.set_xticks(range(len(angles)), angles, rotation=45 if group.mirrors else 0)
    axes.set_yticks(range(len(angles)), angles)
    axes.set_xlabel("pose found")
    axes.set_ylabel("photographs turned counterclockwise by")


def plot_photos(images, captions, columns=4):
    """Plot a contact sheet.

    Args:
        images: H x W x 3 uint8 RGB arrays, at least one.
        captions: a text below each, as :func:`caption` makes it.
        columns: photographs in a row.

    Returns:
        matplotlib ``Figure``.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image)
        axes.set_title(caption, fontsize=8)
    return figure


def caption(name, probabilities, group=C4):
    """Say in two lines what was found in a photograph.

    Args:
        name: of its file.
        probabilities: its N pose probabilities.
        group: finite one of the poses.
    """
    pose = int(np.argmax(probabilities))
    found = "upright" if pose == 0 else elements_of(group)[pose].described()
    return f"{_short(name)}\nfound {found}: {probabilities[pose]:.2f}"


def angle_caption(name, angle, error, probability):
    """Say in two lines how far the angle found in a photograph is from the true one.

    Args:
        name: of its file.
        angle, error: degrees.
        probability: of what was found.
    """
    return f"{_short(name)}\n{angle:g}°: off by {error:.0f}°, {probability:.2f}"


def _short(name):
    name = printable(name)
    return figure_text(name if len(name) <= 24 else f"…{name[-23:]}")
