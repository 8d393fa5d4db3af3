#!/usr/bin/env python
"""Feed files of all kinds, whole and spoilt, to what reads them, and write down what came out.

    python tools/fuzz.py --cases 10000 --output docs/results/fuzz.json

The tests of tests/fuzz draw so many cases each, others every time: COCO files through loading,
turning and scoring, image files, configs and weights files. Of each case something right must come
out, or a message that names the file; a case in which neither does is printed, and ends its test.
The result file is written anew after each test. With --add, what it holds already stays, and the
cases are added up: a long run can be made in parts, and more of one kind than of another.
"""

import argparse
import json
import os
import shlex
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from canon_seg.errors import InputError, run_main
from canon_seg.io.files import write_json

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "fuzz"
LIBRARIES = ("hypothesis", "hotcoco", "numpy", "pillow", "pycocotools", "torch", "yacs")


class Record:
    """Keep what pytest says of each test, and write it where it was told to.

    Args:
        cases: of each test.
        path: of a JSON file, or None.
        result: of an earlier run, to which this one is added, or None.
    """

    def __init__(self, cases, path, result=None):
        self.cases, self.path, self.start = cases, path, time.monotonic()
        self.result = result or {
            "tests": {},
            "failures": [],
            "versions": versions(),
            "seconds": 0.0,
        }
        self.seconds_before = self.result["seconds"]

    def pytest_runtest_logreport(self, report):
        """Take down a test that has ended; pytest calls this, in its first process alone."""
        if report.when != "call" and not report.failed:
            return
        name = report.nodeid.rpartition("/")[2]
        before = self.result["tests"].get(name, {"cases": 0, "outcome": "passed", "seconds": 0.0})
        failed = "failed" in (report.outcome, before["outcome"])
        self.result["tests"][name] = {
            "cases": before["cases"] + (self.cases if report.when == "call" else 0),
            "outcome": "failed" if failed else report.outcome,
            "seconds": round(before["seconds"] + report.duration, 1),
        }
        if report.failed:
            self.result["failures"].append({"test": name, "said": report.longreprtext[-4000:]})
        self.result["seconds"] = round(self.seconds_before + time.monotonic() - self.start, 1)
        if self.path:
            write_json(self.path, self.result)


def versions():
    """Return the versions of the libraries that the cases go through."""
    return {name: version(name) for name in LIBRARIES}


def earlier_result(path):
    """Read the result file that --add goes on with; None where there is none yet.

    Raises:
        InputError: it is of other versions of libraries, or no such file.
    """
    if not path:
        raise InputError("--add goes with --output FILE, the result to add to")
    if not Path(path).exists():
        return None
    try:
        result = json.loads(Path(path).read_text())
        theirs, _ = result["versions"], [result[key] for key in ("tests", "failures", "seconds")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--add: {path} is no result of tools/fuzz.py; name another") from error
    if theirs != versions():
        raise InputError(
            f"--add: {path} is of other versions of libraries ({theirs}); name another file"
        )
    return result


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--output", metavar="FILE", help="JSON file for the result")
    parser.add_argument(
        "--add", action="store_true", help="add to the result that --output holds already"
    )
    parser.add_argument(
        "--pytest", default="", metavar="OPTIONS", help='options of pytest, as --pytest="-k coco"'
    )
    args = parser.parse_args()
    if args.cases < 1:
        raise InputError(f"--cases is {args.cases}; give 1 or more")
    os.environ["CANON_SEG_FUZZ_CASES"] = str(args.cases)
    record = Record(args.cases, args.output, earlier_result(args.output) if args.add else None)
    words = [str(FOLDER), "--timeout", "0", *shlex.split(args.pytest)]
    raise SystemExit(pytest.main(words, plugins=[record]))


if __name__ == "__main__":
    run_main(main)
