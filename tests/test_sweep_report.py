"""The report of a sweep at any angles; tests/test_evaluation.py has that of quarter turns."""

import json

import numpy as np
import pytest
from PIL import Image

from canon_seg.evaluation.rotated_coco import METRICS
from canon_seg.evaluation.sweep import AVERAGE, TASKS
from canon_seg.evaluation.sweep_report import (
    format_realigned,
    format_summary,
    format_table,
    plot,
    write_report,
)
from canon_seg.evaluation.views import View

EVERY_15 = range(0, 360, 15)


def sweep(angles, modes=("vanilla", "canonical"), value=lambda mode, angle: 40.0):
    by_mode = {}
    for mode in modes:
        by_angle = {View(angle).label: value(mode, angle) for angle in angles}
        quarters = [by_angle.get(angle) for angle in ("0", "90", "180", "270")]
        if None not in quarters:
            by_angle[AVERAGE] = sum(quarters) / 4
        by_mode[mode] = {
            label: {task: dict.fromkeys(METRICS, ap) for task in TASKS}
            for label, ap in by_angle.items()
        }
    seconds = {mode: {"total": 1.0, "per_image": 0.1} for mode in modes}
    return {"num_images": 3, "modes": by_mode, "pose": None, "seconds": seconds}


def curves(figure, panel):
    """The plotted lines of several points, broken ones in pieces."""
    return [line for line in figure.axes[panel].lines if line.get_marker() not in ("None", None)]


def test_quarter_turns_are_bars():
    figure = plot(sweep([270, 0, 90, 180]), "a set")
    [axes] = figure.axes
    assert len(axes.patches) == 2 * 5 and not axes.lines[1:]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["270°", "0°", "90°", "180°", AVERAGE]


def test_the_papers_figures_have_a_column_of_their_own():
    result = sweep([0, 90, 180, 270])
    assert "paper" not in format_table({**result, "paper": None})
    paper = sweep([0, 90, 180, 270], value=lambda mode, angle: 70 + angle / 90)
    lines = format_table({**result, "paper": {"modes": paper["modes"]}}).splitlines()
    assert lines[0].endswith("paper's mAP")
    cells = [line.split() for line in lines[2:7]]
    assert [row[2] for row in cells] == ["0", "90", "180", "270", AVERAGE]
    assert [row[3] for row in cells] == ["40.00"] * 5
    assert [row[-1] for row in cells] == ["70.00", "71.00", "72.00", "73.00", "71.50"]


def test_realigned_figures_as_text():
    result = sweep(
        [0, 90], value=lambda mode, angle: 40.0 - (angle / 10 if mode == "vanilla" else 1.0)
    )
    lines = format_realigned(result).splitlines()
    assert lines[2].split() == ["segm", "40.00", "31.00", "-", "39.00", "39.00", "-", "-"]
    pose = {"accuracy": 0.5, "distance": 45.0}
    lines = format_realigned({**result, "pose": pose}).splitlines()
    assert lines[3].split()[-3:] == ["50.0", "%", "45.0°"]


def test_poses_found_have_an_interval():
    pose = {"confusion": [[3, 1], [0, 4]], "accuracy": 0.875, "accuracy_interval": [0.5, 0.97]}
    result = {**sweep([0, 90]), "pose": pose}
    assert "pose found: 7 of 8 (87.5 %, 95 % interval 50.0 to 97.0 %)" in format_summary(result)
    del pose["accuracy_interval"]
    assert "pose found: 7 of 8 (87.5 %)" in format_summary(result)


def test_other_angles_are_lines_straight_and_polar():
    result = sweep(EVERY_15, value=lambda mode, angle: angle / 10 + (mode == "canonical"))
    figure = plot(result, "a set")
    straight, remainder, polar = figure.axes
    assert polar.name == "polar" and polar.get_theta_direction() == 1
    for panel, unit in ((0, 1), (2, np.pi / 180)):
        vanilla, canonical = curves(figure, panel)
        np.testing.assert_allclose(vanilla.get_xdata(), np.arange(0, 361, 15) * unit)
        np.testing.assert_allclose(vanilla.get_ydata(), [*np.arange(0, 36, 1.5), 0])
        assert vanilla.get_color() != canonical.get_color()
    dashed = [line.get_ydata()[0] for line in straight.lines if line.get_linestyle() == "--"]
    assert dashed == [17.25, 18.25]  # means over all angles
    low, high = straight.get_ylim()
    assert low <= 0 and high > 35.5
    [filled] = remainder.collections
    outline = filled.get_paths()[0].vertices
    assert [45, 45] in outline.tolist() and [90, 0] in outline.tolist()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "vanilla (- - mean 17.2)",
        "canonical (- - mean 18.2)",
    ]


def test_gaps_and_undefined_values_break_the_line():
    undefined = plot(sweep([0, 15, 30], value=lambda _, angle: None if angle == 15 else 7.0), "")
    drawn = curves(undefined, 0)[0]
    assert np.isnan(drawn.get_ydata()).tolist() == [False, True, False, True]
    around_0 = curves(plot(sweep([330, 345, 0, 15]), "a set"), 0)[0]
    assert around_0.get_xdata().tolist() == [0, 15, 15, 330, 345, 360]
    assert np.isnan(around_0.get_ydata()).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("angles", "value"), [([22.5], None), ([0, 45], 0.0), ([15, 30], 100.0), ([90], None)]
)
def test_extremes_are_drawn(angles, value):
    figure = plot(sweep(angles, value=lambda *_: value), "a set")
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low < high and high > (value or 0)


def test_modes_can_be_told_apart():
    modes = ("vanilla", "canonical", "oracle", "tta", "first of others", "second of others")
    drawn = curves(plot(sweep([0, 15], modes), "a set"), 0)
    assert len({line.get_color() for line in drawn}) == len(modes)
    assert len({line.get_marker() for line in drawn}) == len(modes)


def test_table_and_summary():
    result = {**sweep([0, 22.5]), "instances_cut": {"0": 0, "22.5": 4}}
    rows = [line.split()[:4] for line in format_table(result).splitlines()[2:]]
    assert rows[1] == ["segm", "vanilla", "22.5", "40.00"] and len(rows) == 8
    assert "instances cut away wholly: 4 at 22.5°" in format_summary(result)
    assert "instances" not in format_summary(sweep([0]))
    result.update(instances_cut_ids={"0": [], "22.5": [9, 3, 5, 7]}, instances_empty=[8, 2])
    summary = format_summary(result)
    assert "4 at 22.5° (annotations 3, 5, 7, 9)" in summary
    assert "empty masks, left out: 2 (annotations 8, 2)" in summary


def test_a_report_of_many_angles_is_written(tmp_path):
    result = sweep(EVERY_15)
    json_path, png_path = write_report(result, tmp_path, {}, "a set")
    assert json.loads(json_path.read_text())["modes"] == result["modes"]
    with Image.open(png_path) as image:
        assert image.width > 1.5 * image.height > 600


def test_poses_that_are_not_clear_are_in_the_table():
    result = sweep([0, 90])
    assert "unclear" not in format_table(result) + format_summary(result)
    confusion = [[2, 0, 0, 0], [0, 2, 0, 0], [0] * 4, [0] * 4]
    result["pose"] = {"confusion": confusion, "accuracy": 1.0}
    assert "unclear" not in format_table(result)  # of an earlier version
    result["pose"]["unclear_by_angle"] = {"0": 0.0, "90": 0.5}
    lines = format_table(result).splitlines()
    assert lines[0].endswith("unclear %")
    shares = {tuple(line.split()[1:3]): line.split()[-1] for line in lines[2:6]}
    assert shares == {
        ("vanilla", "0"): "-",
        ("vanilla", "90"): "-",
        ("canonical", "0"): "0.00",
        ("canonical", "90"): "50.00",
    }
    summary = format_summary(result)
    assert "pose not clear (probability below a half): 25.0 %" in summary
    assert "UNCERTAIN vote" in summary
