"""Commands let waiting threads sleep; the library and the user's own choice are left alone."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from canon_seg.cli import commands, threads

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = [
    "app",
    "demo",
    "eval_classification",
    "eval_everything",
    "eval_points",
    "eval_pose",
    "eval_prompts",
    "eval_rotated",
    "install_detectron2",
    "label_poses",
    "train_net",
]


@pytest.fixture
def environment(monkeypatch):
    """The variables of this process, none of which says how threads wait."""
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    return os.environ


def policy_of(start, monkeypatch):
    """Start a command with --help; return what OMP_WAIT_POLICY is after it."""
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit):
        start()
    return os.environ.get("OMP_WAIT_POLICY")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_commands_let_threads_sleep(name, environment, monkeypatch):
    assert policy_of(getattr(commands, name), monkeypatch) == "PASSIVE"


@pytest.mark.parametrize("script", ["demo/demo.py", "demo/app.py", "tools/eval_rotated.py"])
def test_scripts_let_threads_sleep(script, environment, monkeypatch):
    path = str(ROOT / script)
    assert policy_of(lambda: runpy.run_path(path, run_name="__main__"), monkeypatch) == "PASSIVE"


@pytest.mark.parametrize("name", threads.WAITING)
def test_the_choice_of_the_user_wins(name):
    environment = {name: "7"}
    threads.let_waiting_threads_sleep(environment)
    assert environment == {name: "7"}


def test_nothing_heavy_is_imported_before():
    # OpenMP reads its variables when torch is imported.
    code = """
import sys
import canon_seg.cli.commands
print({"torch", "numpy", "cv2"} & set(sys.modules))
"""
    assert run(code) == "set()"


def test_importing_the_library_sets_nothing():
    code = """
import os
before = dict(os.environ)
import canon_seg, torch
from canon_seg import CanonicalSamPredictor, load_default_sam
changed = {name for name, _ in set(before.items()) ^ set(os.environ.items())}
print(sorted(changed & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS"}))
"""
    assert run(code) == "[]"


def run(code):
    environment = {k: v for k, v in os.environ.items() if k not in threads.WAITING}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, text=True, capture_output=True
    ).stdout.strip()
