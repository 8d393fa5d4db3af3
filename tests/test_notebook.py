"""The notebook runs from top to bottom, without a network."""

import json
import socket
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from optional import need

NOTEBOOK = Path(__file__).parents[1] / "demo" / "canon_seg.ipynb"


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_runs_offline_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    need("skimage")

    def refuse(*args):
        pytest.fail(f"asked for another machine: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams.copy())
    plt.switch_backend("agg")
    names = {"__name__": "__main__"}
    for number, source in enumerate(cells("code")):
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    assert len(plt.get_fignums()) == 4
    plt.close("all")
    said = capsys.readouterr().out
    assert "equal in every pixel: [True, True, True, True]" in said
    assert said.count("turned by") == 4 and "masks; the largest" in said
    assert list(tmp_path.iterdir()) == []


def test_it_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert "api.md" not in "".join(cells("markdown"))  # read alone, where there are no links
