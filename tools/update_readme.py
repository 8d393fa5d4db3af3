#!/usr/bin/env python
"""Write the tables of the README from the sweep files that tools/eval_rotated.py wrote.

    python tools/update_readme.py [--check] [README.md ...]

A table stands between two comments, the first of which names the file that it is made from:

    <!-- sweep: docs/results/coco_val182/sweep.json -->
    <!-- end of sweep -->

With --check nothing is written, and the exit status is 1 if a table differs from its file.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from canon_seg.errors import InputError, run_main
from canon_seg.files import write_text

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"(<!-- sweep: (\S+) -->\n).*?(<!-- end of sweep -->)", re.DOTALL)


def markdown_table(sweep):
    """Mask and box AP by angle, a row for each mode, as Markdown.

    Args:
        sweep: dict of a ``sweep.json``.
    """
    angles = list(next(iter(sweep["modes"].values())))
    names = [angle if angle == "C4-avg" else f"{angle}°" for angle in angles]
    lines = [
        "| " + " | ".join(["", *(f"{task} {name}" for task in ("mask", "box") for name in names)])
        + " |",
        "|---|" + "---:|" * (2 * len(names)),
    ]
    for mode, by_angle in sweep["modes"].items():
        values = [by_angle[angle][task]["AP"] for task in ("segm", "bbox") for angle in angles]
        cells = ["–" if value is None else f"{value:.2f}" for value in values]
        lines.append("| " + " | ".join([mode, *cells]) + " |")
    facts = [f"AP, 0 to 100; {sweep['num_images']} images"]
    if sweep["pose"]:
        facts.append(f"poses found: {100 * sweep['pose']['accuracy']:.1f} %")
    return "\n".join([*lines, "", "; ".join(facts) + "."]) + "\n"


def updated(text, source):
    """A document with every table made anew.

    Raises:
        InputError: if a sweep file is missing or no sweep file.
    """

    def replace(match):
        path = ROOT / match[2]
        try:
            sweep = json.loads(path.read_text())
            return match[1] + markdown_table(sweep) + match[3]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{source} names {match[2]}, which is no sweep file ({error}); write it with "
                "tools/eval_rotated.py"
            ) from error

    return TABLE.sub(replace, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="*", type=Path, default=[ROOT / "README.md"])
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
