"""The files in docs/results are those that `make results` makes: the same commands and options."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from canon_seg.d2.config import load_config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
WEIGHTS = "MODEL.CANONICALIZER.WEIGHTS"


def results(tmp_path, *parts):
    """Return (exit status, stderr, commands' arguments) of tools/results.sh, which runs none."""
    recorder, log = tmp_path / "recorder", tmp_path / "commands"
    recorder.write_text(
        f'#!/bin/bash\nprintf "%q " "$@" >> {shlex.quote(str(log))}\n'
        f"echo >> {shlex.quote(str(log))}\n"
    )
    recorder.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "results.sh", *parts],
        env={**os.environ, "PYTHON": str(recorder)},
        capture_output=True,
        text=True,
    )
    lines = log.read_text().splitlines() if log.exists() else []
    return done.returncode, done.stderr, [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    status, message, commands = results(tmp_path_factory.mktemp("all"))
    assert status == 0, message
    assert commands[-1] == ["tools/update_readme.py"]
    return commands


def option(command, name, default=None):
    return command[command.index(name) + 1] if name in command else default


def _first_key(command):
    keys = [index for index, word in enumerate(command) if word.startswith("MODEL.")]
    return keys[0] if keys else len(command)


def test_sweeps_are_those_of_the_commands(commands):
    sweeps = [command for command in commands if command[0] == "tools/eval_rotated.py"]
    made = {ROOT / option(command, "--output") / "sweep.json" for command in sweeps}
    assert made == set(RESULTS.rglob("sweep.json")) and len(made) == len(sweeps) > 10
    for command in sweeps:
        path = ROOT / option(command, "--output") / "sweep.json"
        config = json.loads(path.read_text())["config"]
        for name in ("config_file", "annotations", "images"):
            assert config[name] == option(command, f"--{name.replace('_', '-')}"), path
        assert config["limit"] == (int(option(command, "--limit", 0)) or None), path
        options = command[_first_key(command) :]
        keys = load_config(config["config_file"], options).MODEL.CANONICALIZER
        if WEIGHTS in options and WEIGHTS not in config["options"]:
            # They were the default when the file was made, which says below which it used.
            options = [w for w in options if w not in (WEIGHTS, keys.WEIGHTS)]
        assert config["options"] == options, path
        if "canonical" in config["modes"]:  # else it has none, whatever the config says
            assert config["canonicalizer_weights"] == keys.WEIGHTS, path
        if "--modes" in command:
            assert set(config["modes"]) <= set(command[command.index("--modes") :]), path


def test_poses_are_those_of_the_commands(commands):
    poses = [command for command in commands if command[0] == "tools/eval_pose.py"]
    made = {ROOT / option(command, "--output") for command in poses}
    assert made == set((RESULTS / "poses").glob("*.json")) and len(made) == len(poses) > 3
    for command in poses:
        config = json.loads((ROOT / option(command, "--output")).read_text())["config"]
        assert config["images"] == option(command, "--images")
        assert config["angle"] == float(option(command, "--angle", 0))
        assert config.get("stress", False) == ("--stress" in command)
        assert config["options"] == command[_first_key(command) :]


def test_an_unknown_part_is_refused_before_anything_runs(tmp_path):
    status, message, commands = results(tmp_path, "coco", "nothing")
    assert status == 2 and "no part nothing; known: scenes coco" in message and not commands
