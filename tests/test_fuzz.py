"""tools/fuzz.py, without running the tests that it runs."""

import json
import os
import sys
from types import SimpleNamespace

import fuzz
import pytest

from canon_seg.errors import InputError


def report(name, when="call", outcome="passed", said=""):
    return SimpleNamespace(
        nodeid=f"tests/fuzz/{name}",
        when=when,
        outcome=outcome,
        failed=outcome == "failed",
        duration=1.25,
        longreprtext=said,
    )


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fuzz.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        fuzz.main()
    return end.value.code


def test_what_pytest_says_is_written(tmp_path, monkeypatch):
    path, called = tmp_path / "fuzz.json", []

    def main(words, plugins):
        called.append(words)
        (record,) = plugins
        for when in ("setup", "call", "teardown"):
            record.pytest_runtest_logreport(report("test_a.py::test_b", when))
        written = json.loads(path.read_text())
        assert written["tests"] == {
            "test_a.py::test_b": {"cases": 7, "outcome": "passed", "seconds": 1.2}
        }
        assert written["failures"] == []
        record.pytest_runtest_logreport(report("test_a.py::test_c", "call", "failed", "seven"))
        return 1

    monkeypatch.setenv("CANON_SEG_FUZZ_CASES", "300")
    monkeypatch.setattr(fuzz.pytest, "main", main)
    assert run(monkeypatch, "--cases", 7, "--output", path, "--pytest=-k coco") == 1
    assert os.environ["CANON_SEG_FUZZ_CASES"] == "7"
    assert called[0][0].endswith("fuzz") and called[0][-2:] == ["-k", "coco"]
    written = json.loads(path.read_text())
    assert list(written["tests"]) == ["test_a.py::test_b", "test_a.py::test_c"]
    assert written["failures"] == [{"test": "test_a.py::test_c", "said": "seven"}]


def test_parts_are_added_up(tmp_path, monkeypatch):
    path = tmp_path / "fuzz.json"
    outcomes = iter(["passed", "failed", "passed"])
    monkeypatch.setenv("CANON_SEG_FUZZ_CASES", "300")

    def main(words, plugins):
        plugins[0].pytest_runtest_logreport(report("a.py::b", outcome=next(outcomes), said="x"))
        return 0

    monkeypatch.setattr(fuzz.pytest, "main", main)
    for cases in (7, 5, 2):
        run(monkeypatch, "--add", "--cases", cases, "--output", path)
    written = json.loads(path.read_text())
    assert written["tests"] == {"a.py::b": {"cases": 14, "outcome": "failed", "seconds": 3.8}}
    assert written["failures"] == [{"test": "a.py::b", "said": "x"}]
    path.write_text(json.dumps({**written, "versions": {**written["versions"], "numpy": "1"}}))
    for words, message in (
        (["--add"], "--add goes with --output"),
        (["--add", "--output", str(path)], "is of other versions"),
        (["--add", "--output", __file__], "test_fuzz.py is no result of tools/fuzz.py"),
    ):
        monkeypatch.setattr(sys, "argv", ["fuzz.py", *words])
        with pytest.raises(InputError, match=message):
            fuzz.main()


def test_no_case_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--cases", "0"])
    with pytest.raises(InputError, match="--cases is 0; give 1 or more"):
        fuzz.main()
