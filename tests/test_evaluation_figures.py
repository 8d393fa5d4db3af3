"""Pictures come after results, and a picture that fails costs the picture."""

import json
import os

import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_sweep_report import sweep

from canon_seg.errors import InputWarning
from canon_seg.evaluation import sweep_report
from canon_seg.evaluation.figures import save_figure
from canon_seg.evaluation.pose_report import caption, plot_photos
from canon_seg.evaluation.sweep_report import write_report

NAMES = ["a$b$_{.jpg", "$a_{$ {$b_{$.jpg", r"$\frac{1}{2", os.fsdecode(b"a\xff.jpg"), "a\x07.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind_are_drawn(tmp_path, name):
    written = write_report(sweep([0, 90]), tmp_path, {}, name)
    assert [path.name for path in written] == ["sweep.json", "sweep.png"]
    image = [[[1, 2, 3]]]
    path = tmp_path / "mistakes.png"
    assert save_figure(
        path, lambda: plot_photos([image], [caption(name, [0.1, 0.2, 0.3, 0.4])])
    ) == [path]
    assert Image.open(path).width > 100


def test_results_are_there_without_a_picture(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("fonts are gone")

    monkeypatch.setattr(sweep_report, "plot", fail)
    with pytest.warns(InputWarning, match=r"sweep.png: the picture .*fonts are gone.*written"):
        written = write_report(sweep([0]), tmp_path, {}, "a set")
    assert [path.name for path in written] == ["sweep.json"] == os.listdir(tmp_path)
    assert json.loads(written[0].read_text())["modes"]


def test_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.warns(InputWarning, match="a.png: the picture could not be made"):
        assert save_figure(tmp_path / "a.png", Figure) == []
