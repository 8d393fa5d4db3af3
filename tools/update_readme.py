#!/usr/bin/env python
"""Write the tables of the documents from the files that the other commands wrote.

    python tools/update_readme.py [--check] [README.md ...]

A table stands between two comments, the first of which names the file that it is made from:

    <!-- sweep: docs/results/coco_val182/sweep.json -->
    <!-- end of sweep -->

    <!-- comparison: docs/results/pedestrians/rows.json -->
    <!-- end of comparison -->

    <!-- poses: docs/results/poses.json -->
    <!-- end of poses -->

    <!-- stress: docs/results/poses/coco_val182_stress.json -->
    <!-- end of stress -->

    <!-- realigned: docs/results/pedestrians/rows.json -->
    <!-- end of realigned -->

    <!-- classification: docs/results/cifar10/rows.json -->
    <!-- end of classification -->

    <!-- everything: docs/results/everything/everything.json -->
    <!-- end of everything -->

    <!-- table: docs/results/studies/prior/study.md -->
    <!-- end of table -->

A sweep is what tools/eval_rotated.py wrote. A comparison takes a mode of one sweep for each of its
rows: {"note", "rows": [{"label", "sweep", "mode"}, ...], "baselines": FILE}. ``sweep`` is a folder
beside the file, ``baselines``, which may be left out, what tools/eval_baselines.py wrote. Realigned
shows the canonical rows of such a file as FOCAL reports them, with the first rows of vanilla and
oracle. Poses are what tools/eval_pose.py wrote: {"note", "columns": {TITLE: FILE}, "rows": {LABEL:
NAME}}, where NAME goes into the files' names. A table is taken as it is.

With --check nothing is written, and the exit status is 1 if a table differs from its file.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import choose_gate

from canon_seg.classification.report import format_rows
from canon_seg.errors import InputError, run_main
from canon_seg.evaluation.intervals import wilson
from canon_seg.evaluation.realigned import TITLES, realigned
from canon_seg.io.files import write_text

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "MODEL_ZOO.md", *sorted(ROOT.glob("docs/*.md"))]
KINDS = (
    "sweep|mirrors|comparison|poses|stress|realigned|gate|angles|prompts|classification|everything|"
    "table"
)
TABLE = re.compile(
    rf"(<!-- ({KINDS}): (\S+) -->\n).*?(<!-- end of \2 -->)",
    re.DOTALL,
)
QUARTERS = ("0", "90", "180", "270", "C4-avg")
PASSES = {"vanilla": 1, "oracle": 1, "tta": 4}
"""How often the segmenter runs for an image; of the mode canonical the sweep says it."""


def markdown_table(sweep):
    """Mask and box AP by angle, a row for each mode, as Markdown.

    Args:
        sweep: dict of a ``sweep.json``.
    """
    angles = [angle for angle in next(iter(sweep["modes"].values())) if angle in QUARTERS]
    names = [angle if angle == "C4-avg" else f"{angle}°" for angle in angles]
    lines = [
        "| "
        + " | ".join(["", *(f"{task} {name}" for task in ("mask", "box") for name in names)])
        + " |",
        "|---|" + "---:|" * (2 * len(names)),
    ]
    for mode, by_angle in sweep["modes"].items():
        values = [by_angle[angle][task]["AP"] for task in ("segm", "bbox") for angle in angles]
        cells = ["–" if value is None else f"{value:.2f}" for value in values]
        lines.append("| " + " | ".join([mode, *cells]) + " |")
    facts = [f"AP, 0 to 100; {sweep['num_images']} images"]
    if sweep["pose"]:
        facts.append(f"poses found: {_share(sweep['pose']['accuracy'], sweep['num_images'])}")
    return "\n".join([*lines, "", "; ".join(facts) + "."]) + "\n"


def mirrors_table(path):
    """Format mask AP at the eight elements of D4, a row for each mode, as Markdown.

    Args:
        path: of a ``sweep.json`` with mirrored views.
    """
    sweep = json.loads(path.read_text())
    labels = list(next(iter(sweep["modes"].values())))
    labels = [label for label in labels if label != "C4-avg"]
    names = [label if label.endswith("avg") else f"{label}°" for label in labels]
    lines = ["| mask AP | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for mode, by_view in sweep["modes"].items():
        cells = [f"{by_view[label]['segm']['AP']:.2f}" for label in labels]
        lines.append("| " + " | ".join([mode, *cells]) + " |")
    facts = f"{sweep['dataset']}: AP, 0 to 100; {sweep['num_images']} images."
    return "\n".join([*lines, "", facts]) + "\n"


def comparison_table(path):
    """Mask AP of several ways to the same end, their passes and their time, as Markdown.

    Args:
        path: of the file that names the rows.
    """
    spec = json.loads(path.read_text())
    names = [angle if angle == "C4-avg" else f"{angle}°" for angle in QUARTERS]
    lines = [
        "| " + " | ".join(["mask AP", *names, "poses found", "passes", "time"]) + " |",
        "|---|" + "---:|" * (len(names) + 3),
    ]
    for row in spec["rows"]:
        sweep = json.loads((path.parent / row["sweep"] / "sweep.json").read_text())
        by_angle, seconds = sweep["modes"][row["mode"]], sweep["seconds"]
        cells = [f"{by_angle[angle]['segm']['AP']:.2f}" for angle in QUARTERS]
        found = sweep["pose"] if row["mode"] == "canonical" else None
        cells.append(_share(found["accuracy"], sweep["num_images"]) if found else "–")
        cells.append(f"{found['passes'] if found else PASSES[row['mode']]:.3g}")
        # Only times of one run can be compared.
        alone = seconds.get("vanilla")
        ratio = seconds[row["mode"]]["per_image"] / alone["per_image"] if alone else None
        cells.append("–" if ratio is None else f"{ratio:.2f}")
        lines.append("| " + " | ".join([row["label"], *cells]) + " |")
    if "baselines" in spec:
        baselines = json.loads((path.parent / spec["baselines"]).read_text())["segm"]
        for name, scores in baselines.items():
            cells = [f"{scores['AP']:.2f}", *["–"] * 5, "0", "–"]
            lines.append("| " + " | ".join([f"{name}, no network", *cells]) + " |")
    return (
        "\n".join(
            [
                *lines,
                "",
                f"{spec['note']} AP, 0 to 100; {sweep['num_images']} images; poses found with "
                "their 95 % interval; time of running the model, relative to vanilla in the same "
                "run.",
            ]
        )
        + "\n"
    )


def angles_table(path):
    """Format mask AP over all angles of several sweeps, the mean and the least, as Markdown.

    Args:
        path: of the file that names the sweeps, whose folders are beside it.
    """
    spec = json.loads(path.read_text())
    lines = []
    for label, folder in spec["rows"].items():
        sweep = json.loads((path.parent / folder / "sweep.json").read_text())
        found = [sweep["over_angles"].get(mode) for mode in spec["modes"]]
        cells = [
            f"{of['mean']['segm']['AP']:.2f} ({of['min']['segm']['AP']:.2f})" if of else "–"
            for of in found
        ]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    head = ["mask AP, mean (least)", *spec["modes"].values()]
    return (
        "\n".join(
            [
                "| " + " | ".join(head) + " |",
                "|---|" + "---:|" * len(spec["modes"]),
                *lines,
                "",
                f"{spec['note']} AP, 0 to 100.",
            ]
        )
        + "\n"
    )


PROMPTS = {
    "clicks_1": "1 click",
    "clicks_3": "3 clicks",
    "clicks_5": "5 clicks",
    "clicks_10": "10 clicks",
    "box": "box",
    "box_click": "box and a click",
}
PROMPTED = {
    "vanilla": "vanilla, upright",
    "vanilla_turned": "vanilla, four turns",
    "canonical": "canonical, any turn",
}


def everything_table(path):
    """Format what was found unasked of a file of ``eval_everything``, as Markdown."""
    result = json.loads(path.read_text(encoding="utf-8"))
    names = {
        "recall_50": "objects found, %",
        "masks_per_image": "masks an image",
        "kept_after_jpeg": "kept after JPEG, %",
        "kept_after_jpeg_turned": "kept after a turn and JPEG, %",
        "seconds_per_image": "seconds an image",
    }
    lines = [f"| | {' | '.join(names.values())} |", "|---|" + "---:|" * len(names)]
    for mode, values in result["modes"].items():
        shown = [
            f"{100 * values[name]:.1f}" if "%" in title else f"{values[name]:.1f}"
            for name, title in names.items()
        ]
        lines.append(f"| {mode} | {' | '.join(shown)} |")
    threads = result["config"]["threads"]
    note = (
        f"{result['num_objects']} objects of {result['num_images']} images; {threads} "
        f"thread{'s' * (threads != 1)}."
    )
    return "\n".join([*lines, "", note]) + "\n"


def prompts_table(path):
    """Format the mean IoU by prompt of a file of ``eval_prompts``, as Markdown."""
    measured = json.loads(path.read_text())
    lines = []
    for prompt, title in PROMPTS.items():
        found = [measured["modes"][mode][prompt] for mode in PROMPTED]
        cells = [f"{of['iou_best_scored']:.3f} ({of['iou_best']:.3f})" for of in found]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    head = ["mean IoU", *PROMPTED.values()]
    images = f" of the first {measured['config']['limit']} images" * bool(
        measured["config"]["limit"]
    )
    note = (
        f"{measured['num_objects']} objects{images} larger than "
        f"{measured['config']['min_area']} pixels; the best-scored of three masks, in brackets the "
        "best."
    )
    rule = "|---|" + "---:|" * len(PROMPTED)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *lines, "", note]) + "\n"


def poses_table(path):
    """Format the share of poses found by several canonicalizers in several folders.

    As Markdown.

    Args:
        path: of the file that names them. The results are in a folder of its name beside it.
    """
    spec = json.loads(path.read_text())
    lines, counts = [], {}
    for label, network in spec["rows"].items():
        cells, errors = [], []
        for column, name in spec["columns"].items():
            pose = json.loads((path.with_suffix("") / f"{name.format(network)}.json").read_text())
            counts[column] = pose["num_images"]
            cells.append(_share(pose["accuracy"], pose["num_images"]))
            errors.append(f"{pose['ece']:.3f}{_ends(pose.get('intervals', {}).get('ece'))}")
        lines.append("| " + " | ".join([label, *cells, errors[0]]) + " |")
    titles = [f"{column} ({count})" for column, count in counts.items()]
    head = ["poses found (photographs)", *titles, f"calibration error, {next(iter(counts))}"]
    return (
        "\n".join(
            [
                "| " + " | ".join(head) + " |",
                "|---|" + "---:|" * (len(head) - 1),
                *lines,
                "",
                f"{spec['note']} In brackets 95 % intervals.",
            ]
        )
        + "\n"
    )


def stress_table(path):
    """Format the poses found under each kind of stress, of a file of ``eval_pose``, as Markdown."""
    measured = json.loads(path.read_text())
    count = measured["num_images"]
    lines = [f"| photographs ({count}) | poses found | calibration error |", "|---|---:|---:|"]
    for kind, row in {"as they are": measured, **measured["stress"]}.items():
        ends = _ends(row["intervals"]["ece"])
        share = _share(row["accuracy"], count)
        lines.append(f"| {kind.replace('_', ' ')} | {share} | {row['ece']:.3f}{ends} |")
    return "\n".join([*lines, "", "In brackets 95 % intervals."]) + "\n"


def realigned_table(path):
    """Format mask AP of upright, turned and re-aligned images, and the poses found, as Markdown.

    Args:
        path: of the file that names the rows, see :func:`comparison_table`.
    """
    spec = json.loads(path.read_text())
    sweeps = [
        json.loads((path.parent / row["sweep"] / "sweep.json").read_text()) for row in spec["rows"]
    ]
    common, lines = {}, []
    for row, sweep in zip(spec["rows"], sweeps, strict=True):
        if row["mode"] in ("vanilla", "oracle"):
            common.setdefault(row["mode"], sweep["modes"][row["mode"]])
    for row, sweep in zip(spec["rows"], sweeps, strict=True):
        if row["mode"] != "canonical":
            continue
        modes = {**common, "canonical": sweep["modes"]["canonical"]}
        figures = realigned({"modes": modes, "pose": sweep["pose"]})
        values = [figures["segm"][name] for name in TITLES]
        cells = ["–" if value is None else f"{value:.2f}" for value in values]
        cells.append(_share(figures["pose_accuracy"], sweep["num_images"]))
        distance = figures["pose_distance"]
        cells.append("–" if distance is None else f"{distance:.1f}°")
        lines.append("| " + " | ".join([row["label"], *cells]) + " |")
    head = ["mask AP", *TITLES.values(), "pose accuracy", "pose distance"]
    return (
        "\n".join(
            [
                "| " + " | ".join(head) + " |",
                "|---|" + "---:|" * (len(head) - 1),
                *lines,
                "",
                f"{spec['note']} AP, 0 to 100; {sweep['num_images']} images; turned: the mean over "
                "90°, 180° and 270°; pose accuracy with its 95 % interval; pose distance: mean "
                "angle between the pose found and the true one.",
            ]
        )
        + "\n"
    )


def _share(share, count):
    """Format a share of so many images with its 95 % interval in brackets."""
    return f"{100 * share:.1f} %{_ends([100 * end for end in wilson(share, count)], 1)}"


def _ends(interval, digits=3):
    return "" if interval is None else f" ({interval[0]:.{digits}f}–{interval[1]:.{digits}f})"


MAKERS = {
    "poses": poses_table,
    "stress": stress_table,
    "sweep": lambda path: markdown_table(json.loads(path.read_text())),
    "mirrors": mirrors_table,
    "comparison": comparison_table,
    "realigned": realigned_table,
    "classification": lambda path: format_rows(json.loads(path.read_text()), path.parent) + "\n",
    "angles": angles_table,
    "prompts": prompts_table,
    "everything": everything_table,
    "gate": lambda path: choose_gate.table(json.loads(path.read_text())["gates"]) + "\n",
    "table": lambda path: path.read_text(encoding="utf-8").rstrip() + "\n",
}


def updated(text, source):
    """Return a document with every table made anew.

    Raises:
        InputError: if a file is missing or not of its kind.
    """

    def replace(match):
        path = ROOT / match[3]
        try:
            return match[1] + MAKERS[match[2]](path) + match[4]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{source} names {match[3]}, of which no table can be made ({error}); write it "
                "with the command that the document names"
            ) from error

    return TABLE.sub(replace, text)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="*", type=Path, default=DOCUMENTS)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    args = parser.parse_args()
    stale = 0
    for path in args.documents:
        text = path.read_text(encoding="utf-8")
        new = updated(text, path.name)
        if new == text:
            continue
        stale += 1
        if args.check:
            print(f"{path.name}: a table differs from its sweep file", file=sys.stderr)
        else:
            write_text(path, new)
            print(f"{path.name}: tables updated")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    run_main(main)
