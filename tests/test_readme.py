"""The README's figures are those of the sweep files, and the files it names are there."""

import hashlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "update_readme.py"


@pytest.fixture
def run(monkeypatch):
    """A function from the tool's arguments to its exit status."""

    def run_tool(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOL), run_name="__main__")
        return ended.value.code

    return run_tool


def test_tables_are_those_of_the_sweep_files(run, capsys):
    assert run("--check") == 0, capsys.readouterr().err


def test_a_changed_figure_is_noticed_and_mended(run, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    copy = tmp_path / "copy.md"
    changed = re.sub(r"(\| canonical \| )\S+", r"\g<1>99.99", text, count=1)
    assert changed != text
    copy.write_text(changed, encoding="utf-8")
    assert run("--check", copy) == 1
    assert run(copy) == 0
    assert copy.read_text(encoding="utf-8") == text


def test_a_missing_sweep_file_is_an_error(run, tmp_path, capsys):
    copy = tmp_path / "copy.md"
    copy.write_text("<!-- sweep: nowhere.json -->\n<!-- end of sweep -->\n", encoding="utf-8")
    assert run(copy) == 2
    assert "nowhere.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "document", ["README.md", "MODEL_ZOO.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_files_that_are_named_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(
        re.findall(r"\b(?:configs|tools|demo|canon_seg|requirements|docs)/[\w./-]+\w", text)
    )
    assert named or document in ("docs/api.md", "docs/libraries.md")
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_figures_in_the_text_are_those_of_their_files():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    near = json.loads((ROOT / "docs" / "results" / "jpegtran.json").read_text())
    assert near["same_pose"] == 1  # "all ... files got the same pose"
    for figure in (near["images"], near["turned_files"], f"{near['mean_mask_iou']:.4f}"):
        assert re.search(rf"\b{figure}\b", readme), figure


def read(path):
    return json.loads((ROOT / "docs" / "results" / path).read_text())


def unsure():
    return read("uncertain/keep/sweep.json")["pose"]["policies"]["keep"]


def baseline_ap50(kind):
    return read("pedestrians/sweep.json")["modes"]["vanilla"]["0"][kind]["AP50"]


SCORING = "coco_eval_pycocotools_over_ours"


def ratio(name, key=SCORING):
    return read(f"{name}/benchmark.json")["ratios"][key]


@pytest.mark.parametrize(
    ("document", "figures"),
    [
        (
            "docs/evaluation.md",
            lambda: [
                f"{100 * unsure() / (4 * 182):.1f} %",
                *(
                    f"{read(f'uncertain/vote_{n}/sweep.json')['pose']['passes']:.2f} "
                    for n in (2, 4)
                ),
            ],
        ),
        (
            "docs/benchmark.md",
            lambda: [
                f"{ratio('benchmark'):.1f} times as fast",
                f"{ratio('benchmark', f'{SCORING}_with_preparation'):.1f} times",
            ],
        ),
        (
            "MODEL_ZOO.md",
            lambda: [
                f"mask AP50 {baseline_ap50('segm'):.1f}",
                f"box AP50 {baseline_ap50('bbox'):.1f}",
            ],
        ),
    ],
)
def test_figures_in_the_prose_are_those_of_their_files(document, figures):
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert [figure for figure in figures() if figure not in text] == []


def test_zoo_describes_the_files_that_are_there():
    zoo = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
    for path in (ROOT / "canon_seg" / "assets").glob("*.pth"):
        assert f"## {path.name}" in zoo
        assert hashlib.sha256(path.read_bytes()).hexdigest() in zoo
    for name in ("canonicalizer_gcnn", "canonicalizer_gwrn"):
        last = {"canonicalizer_gcnn": "canonicalizer_gcnn_any_angle"}.get(name, name)
        log = (ROOT / "docs" / "results" / "training" / f"{last}.json").read_text()
        accuracy = json.loads(log.splitlines()[-1])["held_out/pose_accuracy"]
        assert f"{100 * accuracy:.1f} % (last line of" in zoo
