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
        assert written["tests"] == {"test_a.py::test_b": {"outcome": "passed", "seconds": 1.2}}
        assert written["failures"] == [] and written["cases_of_each_test"] == 7
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


def test_no_case_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--cases", "0"])
    with pytest.raises(InputError, match="--cases is 0; give 1 or more"):
        fuzz.main()
