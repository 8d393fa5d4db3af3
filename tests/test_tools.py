"""The small tools: splits of COCO files, baselines without a network, studies."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from optional import need
from PIL import Image
from tiny_models import random_image
from toy_coco import write_toy_coco

from canon_seg.coco.dataset import load_coco
from canon_seg.errors import InputError
from canon_seg.images.pose_files import read_poses

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(tmp_path):
    return write_toy_coco(tmp_path / "toy")


def call(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return tool(name).main()


def test_a_split_is_complete_and_without_overlap(toy, tmp_path, monkeypatch):
    annotations, images = toy
    call(
        monkeypatch,
        "split_coco",
        "--annotations",
        annotations,
        "--images",
        images,
        "--every",
        3,
        "--output",
        tmp_path / "split",
    )
    whole = load_coco(annotations, images)
    held_out, rest = (
        load_coco(tmp_path / "split" / f"{name}.json", images) for name in ("held_out", "train")
    )
    ids = [{image["id"] for image in part["images"]} for part in (held_out, rest, whole)]
    assert ids[0] == {11, 14} and not ids[0] & ids[1] and ids[0] | ids[1] == ids[2]
    assert len(held_out["annotations"]) + len(rest["annotations"]) == len(whole["annotations"])
    assert all(a["image_id"] in ids[0] for a in held_out["annotations"])
    with pytest.raises(InputError, match="--every is 1"):
        call(
            monkeypatch,
            "split_coco",
            "--annotations",
            annotations,
            "--images",
            images,
            "--every",
            1,
            "--output",
            tmp_path / "other",
        )
    assert not (tmp_path / "other").exists()


def test_baseline_masks_fill_their_boxes():
    baselines = tool("eval_baselines")
    image, box = np.zeros((60, 80, 3), np.uint8), (10.0, 20.0, 50.0, 40.0)
    image[20:40, 20:40] = 255  # an object in the middle of its box
    whole = baselines.box_mask(image, box)
    assert whole.sum() == 40 * 20 and whole[20:40, 10:50].all()
    ellipse = baselines.ellipse_mask(image, box)
    assert not (ellipse & ~whole).any() and abs(ellipse.sum() / whole.sum() - np.pi / 4) < 0.02
    found = baselines.grabcut_mask(image, box)
    assert found[22:38, 22:38].all() and not (found & ~whole).any()
    assert np.array_equal(baselines.grabcut_mask(image, (0, 0, 80, 60)), np.ones((60, 80), bool))


def test_baselines_of_a_data_set(toy, tmp_path, monkeypatch):
    annotations, images = toy
    output = tmp_path / "baselines.json"
    call(
        monkeypatch,
        "eval_baselines",
        "--annotations",
        annotations,
        "--images",
        images,
        "--baselines",
        "box",
        "ellipse",
        "--output",
        output,
    )
    scores = json.loads(output.read_text())["segm"]
    assert list(scores) == ["box", "ellipse"]
    assert all(20 < own["AP"] < 100 for own in scores.values())  # the objects are hexagons


@pytest.mark.parametrize("text", ["[]", "train: a", "train: a\nruns: {}\nimages: b\nspeed: c", ":"])
def test_what_is_no_study_is_named(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="--study: .*study.yaml"):
        tool("run_study").read_study(path)


def test_studies_of_the_project_can_be_read():
    studies = sorted((TOOLS / "studies").glob("*.yaml"))
    assert studies
    for path in studies:
        study = tool("run_study").read_study(path)
        assert (TOOLS.parent / study["train"]).is_file() and len(study["runs"]) > 1
        assert all(len(options) % 2 == 0 for options in study["runs"].values())


def test_a_study_trains_once_and_measures(tmp_path, monkeypatch):
    module, called = tool("run_study"), []

    def instead(command, log):
        called.append(Path(command[0]).name)
        if called[-1] == "eval_pose.py":
            pose = {"accuracy": 0.5, "ece": 0.1, "kl": 0.2, "network": {"parameters": 1234}}
            pose["intervals"] = {"accuracy": [0.4, 0.6], "kl": None}
            Path(command[command.index("--output") + 1]).write_text(json.dumps(pose))

    monkeypatch.setattr(module, "_call", instead)
    study = {"train": "a.yaml", "runs": {"one": ["SEED", 1]}, "images": "photos"}
    rows = {"one": module.run("one", study, tmp_path)}
    assert rows["one"]["pose"]["accuracy"] == 0.5 and rows["one"]["options"] == ["SEED", "1"]
    table = module.format_table(rows)
    assert "0.500 (0.400 to 0.600)" in table and "1,234" in table and "(None" not in table
    del rows["one"]["intervals"]  # of an earlier study
    assert "| 0.500" in module.format_table(rows).replace("  ", "")
    module.run("one", study, tmp_path)
    assert called == ["train_net.py", "eval_pose.py", "eval_pose.py"]


def test_a_study_by_held_out_photographs_draws_its_course(tmp_path, monkeypatch):
    module = tool("run_study")
    length, held_out = "canonicalizer/vector_length", {"held_out/median_error": 12.34}

    def instead(command, log):
        lines = [{"iteration": 19, length: 0.1}, {"iteration": 39, length: 0.3, **held_out}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics.json").write_text(text)

    monkeypatch.setattr(module, "_call", instead)
    monkeypatch.setattr(module, "count_free_parameters", lambda path: 1234)
    study = {"train": "a.yaml", "runs": {"one": []}, "plot": [length]}
    rows = {"one": module.run("one", study, tmp_path)}
    assert rows["one"]["held_out"] == {"median_error": 12.34, "vector_length": 0.3}
    assert rows["one"]["history"] == {length: [[19, 0.1], [39, 0.3]]}
    table = module.format_table(rows)
    assert "12.3°" in table and "1,234" in table and "0.30" in table
    (panel,) = module.plot(rows, study["plot"]).get_axes()
    assert panel.get_lines()[0].get_xdata().tolist() == [20, 40]


def test_how_far_vectors_turn_along(tmp_path, monkeypatch):
    need("canon_seg.networks.escnn_layers")  # escnn, by way of the stand-ins
    module = tool("measure_turning")
    monkeypatch.setattr(module, "VARIANTS", {"small": {"fields": (2, 3)}})
    monkeypatch.setattr(module, "ANGLES", (90.0, 45.0))
    pixels = random_image(70, 90).permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    output = tmp_path / "turning.json"
    arguments = ["--images", str(tmp_path), "--seeds", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["measure_turning.py", *arguments])
    module.main()
    found = json.loads(output.read_text())
    assert found["photos"] == found["seeds"] == 1
    by_angle = found["networks"]["small"]["by_angle"]
    assert by_angle["90"] < 1 and by_angle["90"] < by_angle["45"] <= 180
    assert "| small" in output.with_suffix(".md").read_text()


def test_photographs_are_turned_as_the_truth_says(tmp_path, monkeypatch):
    for index in range(12):
        path = tmp_path / "mine" / "deep" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random_image(40, 50 + index, index).permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    output = tmp_path / "turned"
    call(monkeypatch, "turn_photos", "--photos", tmp_path / "mine", "--output", output)
    held_out = {path.name for path in (output / "held_out").rglob("*.png")}
    upright = {path.name for path in (output / "upright").rglob("*.png")}
    assert held_out and upright and len(held_out) + len(upright) == 12 and not held_out & upright
    truth = read_poses(str(output / "truth.json"), str(output / "turned"), "truth")
    assert {Path(photo.file).name for photo in truth} == upright
    assert len({photo.turns for photo in truth}) > 1
    for photo in truth:
        turned = np.array(Image.open(photo.file))
        original = np.array(Image.open(tmp_path / "mine" / "deep" / Path(photo.file).name))
        assert np.array_equal(turned, np.rot90(original, photo.turns))
    with pytest.raises(InputError, match="is not empty"):
        call(monkeypatch, "turn_photos", "--photos", tmp_path / "mine", "--output", output)
    with pytest.raises(InputError, match="--every is 1"):
        call(
            monkeypatch,
            "turn_photos",
            "--photos",
            tmp_path / "mine",
            "--every",
            1,
            "--output",
            tmp_path / "new",
        )
