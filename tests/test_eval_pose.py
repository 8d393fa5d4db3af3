"""tools/eval_pose.py as users call it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_sam_options
from optional import need
from PIL import Image
from tiny_models import random_image

from canon_seg.cli import eval_pose
from canon_seg.errors import run_main
from canon_seg.evaluation.stress import KINDS
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_weights import save_pose_network
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.weights import FORMAT

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "eval_pose.py"
PHOTOS = ROOT.parent / "shared" / "data" / "coco_val182" / "images"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with canonicalizer weights and photographs."""
    folder = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    spec = NetworkSpec("GCNN", 4, (2, 4), 1)
    exported = build_plain_network(spec).state_dict()
    torch.save(
        {
            "format": FORMAT,
            "network": spec.to_dict(),
            "input_size": 33,
            "exported": {key: value.half() for key, value in exported.items()},
            "trainable": {"conv.weights": torch.zeros(7), "norm.running_mean": torch.zeros(4)},
        },
        folder / "canonicalizer.pth",
    )
    for index, name in enumerate(["b.jpg", "a/1.PNG", "a/deep/2.webp", "c.bmp", ".hidden.jpg"]):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random_image(40 + index, 50, index).permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return folder


@pytest.fixture
def evaluate(toy, monkeypatch, capsys):
    """Call the script with arguments, in the toy's folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(toy)

    def call(*arguments, weights="canonicalizer.pth"):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                str(SCRIPT),
                *map(str, arguments),
                "MODEL.DEVICE",
                "cpu",
                "MODEL.CANONICALIZER.WEIGHTS",
                weights,
            ],
        )
        with pytest.raises(SystemExit) as end:
            run_main(eval_pose.main)
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def test_a_folder_of_photos(toy, evaluate):
    code, said, message = evaluate(
        "--images", "photos", "--output", "new/pose.json", "--details", "new/details.json"
    )
    assert code == 0, message
    assert "4/4" in message  # the progress bar
    result = json.loads((toy / "new" / "pose.json").read_text())
    assert list(result)[:7] == [
        "accuracy",
        "num_images",
        "ece",
        "identity_rate",
        "wasserstein",
        "mmd",
        "kl",
    ]
    assert result["num_images"] == 4 and result["turned"] == {"photos": 4, "agreeing": 4}
    assert result["network"] == {
        "name": "GCNN",
        "fields": [2, 4],
        "depth": 1,
        "input_size": 33,
        "parameters": 7,
        "exported_parameters": sum(
            p.numel() for p in build_plain_network(NetworkSpec("GCNN", 4, (2, 4), 1)).parameters()
        ),
    }
    assert result["config"]["images"] == "photos"
    assert result["config"]["config_file"] == "configs/sam_c4.yaml"
    assert str(toy) not in json.dumps(result)
    details = json.loads((toy / "new" / "details.json").read_text())
    assert [entry["file"] for entry in details] == ["a/1.PNG", "a/deep/2.webp", "b.jpg", "c.bmp"]
    poses = [int(np.argmax(entry["probabilities"])) for entry in details]
    assert [entry["degrees"] for entry in details] == [90 * pose for pose in poses]
    assert result["confusion"][0] == np.bincount(poses, minlength=4).tolist()
    assert result["accuracy"] == poses.count(0) / 4
    assert f"found upright: {poses.count(0)} of 4" in said
    for name in ("pose.png", "pose_mistakes.png"):
        with Image.open(toy / "new" / name) as image:
            image.load()
    assert len(list((toy / "new").iterdir())) == 4


def test_limit(toy, evaluate):
    code, _, message = evaluate("--images", "photos", "--limit", 2, "--output", "few.json")
    assert code == 0, message
    assert json.loads((toy / "few.json").read_text())["num_images"] == 2


def test_rotated_photos(toy, evaluate):
    """They are what the canonicalizer sees, and all else stays as it is."""
    for name, options in [("upright", ()), ("rotated", ("--angle", -30))]:
        code, _, message = evaluate(
            "--images", "photos", *options, "--output", f"{name}.json", "--details", f"{name}_.json"
        )
        assert code == 0, message
    result = json.loads((toy / "rotated.json").read_text())
    assert result["config"]["angle"] == -30 and result["turned"] == {"photos": 4, "agreeing": 4}
    assert (toy / "rotated_.json").read_text() != (toy / "upright_.json").read_text()


def test_angles(toy, evaluate):
    """A network of the circle, asked at several angles; a fixed one knows the errors beforehand."""
    need("timm")
    torch.manual_seed(0)
    save_pose_network(toy / "so2.pth", PoseNetwork(BackboneSpec("test_efficientnet", 72)), 64)
    code, said, message = evaluate(
        "--images",
        "photos",
        "--angles",
        "0:360:90",
        "30.5",
        "--canvas",
        "inscribed",
        "--output",
        "angles.json",
        "--details",
        "angles_.json",
        "MODEL.CANONICALIZER.GROUP",
        "SO2",
        weights="so2.pth",
    )
    assert code == 0, message
    result = json.loads((toy / "angles.json").read_text())
    errors = np.array([entry["errors"] for entry in json.loads((toy / "angles_.json").read_text())])
    assert errors.shape == (4, 5) and (0 <= errors).all() and (errors <= 180).all()
    # Quarter turns of one photograph are found as well as each other, to the bit.
    assert (errors[:, :4] == errors[:, :1]).all()
    assert result["mean_error"] == pytest.approx(errors.mean())
    assert result["median_error"] == pytest.approx(np.median(errors))
    for limit in (5, 10, 45):
        assert result[f"within_{limit}"] == pytest.approx((errors <= limit).mean())
    assert result["accuracy"] == result["within_10"] and result["confusion"] is None
    assert list(result["by_angle"]) == ["0", "90", "180", "270", "30.5"]
    assert result["by_angle"]["30.5"]["mean_error"] == pytest.approx(errors[:, 4].mean())
    assert result["config"]["canvas"] == "inscribed" and result["network"]["input_size"] == 64
    assert "within 10 degrees:" in said and "5 angles" in said
    for name in ("angles.png", "angles_mistakes.png"):
        with Image.open(toy / name) as image:
            image.load()


def test_any_angle_without_angles_is_upright_photographs(toy, evaluate):
    need("timm")
    torch.manual_seed(0)
    save_pose_network(toy / "so2.pth", PoseNetwork(BackboneSpec("test_efficientnet", 72)), 64)
    group = ("MODEL.CANONICALIZER.GROUP", "SO2")
    code, _, message = evaluate(
        "--images", "photos", "--output", "one.json", *group, weights="so2.pth"
    )
    assert code == 0, message
    assert list(json.loads((toy / "one.json").read_text())["by_angle"]) == ["0"]
    code, _, message = evaluate(
        "--images", "photos", "--stress", "--output", "two.json", *group, weights="so2.pth"
    )
    assert code == 2 and "--stress measures quarter turns" in message


def test_angles_of_quarter_turns(toy, evaluate):
    """Of a finite group an angle is found by the element nearest to it."""
    code, _, message = evaluate("--images", "photos", "--angles", "40", "--output", "c4.json")
    assert code == 0, message
    result = json.loads((toy / "c4.json").read_text())
    assert result["accuracy"] == result["within_45"] and result["within_10"] == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--images", "photos", "--angle", "45"], "--angle is 45"),
        (["--images", "nowhere"], "--images: there is no folder nowhere"),
        (["--images", "."], "broken.jpg"),
        (["--images", "photos", "--limit", "0"], "--limit is 0"),
        (["--images", "photos", "--output", "refused/pose.png"], "--output: refused/pose.png"),
        (["--images", "photos", "--details", "refused/pose.json"], "--details: refused/pose.json"),
        (["--images", "photos", "--details", "canonicalizer.pth"], "--details: canonicalizer.pth"),
        (
            ["--images", "photos", "MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer"],
            "MODEL.CANONICALIZER.NAME is 'IdentityCanonicalizer'",
        ),
        (
            ["--images", "photos", "MODEL.CANONICALIZER.PRIOR", "[1.0, 1.0]"],
            "MODEL.CANONICALIZER.PRIOR",
        ),
        (["--images", "photos", "--config-file", "none.yaml"], "none.yaml"),
        (["--images", "photos", "MODEL.NOTHING", "1"], "MODEL.NOTHING"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(toy, evaluate, arguments, named):
    (toy / "broken.jpg").write_bytes(b"no image")
    code, _, message = evaluate("--output", "refused/pose.json", *arguments)
    assert code == 2
    assert named in message and "Traceback" not in message
    assert not (toy / "refused").exists() or not os.listdir(toy / "refused")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"{PHOTOS} is not there")
def test_the_embedded_canonicalizer(evaluate, tmp_path):
    code, _, message = evaluate(
        "--images",
        PHOTOS,
        "--limit",
        40,
        "--output",
        tmp_path / "pose.json",
        weights="canon_seg://canonicalizer_gcnn.pth",
    )
    assert code == 0, message
    result = json.loads((tmp_path / "pose.json").read_text())
    assert result["accuracy"] > 0.7 and result["ece"] < 0.2
    assert result["turned"] == {"photos": 8, "agreeing": 8}


def test_names_of_any_bytes(evaluate, toy):
    folder = toy / os.fsdecode(b"odd $x_{$\xff")
    folder.mkdir(exist_ok=True)
    for name in (b"$a_{$.png", b"\xe9.png", b"a\nb.png"):
        Image.new("RGB", (40, 30), (len(name), 9, 9)).save(folder / os.fsdecode(name))
    status, _, message = evaluate(
        "--images", folder, "--output", folder / "pose.json", "--details", folder / "all.json"
    )
    assert status == 0, message
    assert (folder / "pose.png").is_file() and (folder / "pose_mistakes.png").is_file()
    details = json.loads((folder / "all.json").read_text())
    assert {row["file"] for row in details} == {"$a_{$.png", r"\xe9.png", "a\nb.png"}
    status, _, message = evaluate(
        "--images", folder, "--angles", 0, "--output", folder / "angles.json"
    )
    assert status == 0 and "could not be made" not in message
    assert (folder / "angles.png").is_file() and (folder / "angles_mistakes.png").is_file()


def test_results_are_written_before_pictures(evaluate, toy, monkeypatch):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(eval_pose, "plot_poses", fail)
    status, _, message = evaluate("--images", "photos", "--output", "first.json")
    assert status == 0 and "warning: first.png: the picture could not be made (no font)" in message
    assert json.loads((toy / "first.json").read_text())["num_images"] == 4
    assert (toy / "first_mistakes.png").is_file()


def test_stress(evaluate, toy):
    arguments = ["--images", "photos", "--output", "stress.json"]
    status, output, _ = evaluate(*arguments, "--stress")
    assert status == 0
    stress = json.loads((toy / "stress.json").read_text())["stress"]
    assert list(stress) == list(KINDS)
    for kind, row in stress.items():
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["ece"] <= 1
        line = next(line for line in output.splitlines() if line.startswith(kind))
        assert float(line.split()[1]) == pytest.approx(row["accuracy"], abs=5e-4)
    evaluate(*arguments)
    assert "stress" not in json.loads((toy / "stress.json").read_text())


def test_a_pretrained_backbone(evaluate, toy):
    need("timm")
    network = PoseNetwork(BackboneSpec("test_efficientnet"))
    save_pose_network(toy / "backbone.pth", network, 64, {1: 2.0, 0: 1.0})
    status, _, _ = evaluate(
        *["--images", "photos", "--output", "backbone.json"],
        *["MODEL.CANONICALIZER.SCORER.PASSES", "0"],
        weights="backbone.pth",
    )
    assert status == 0
    measured = json.loads((toy / "backbone.json").read_text())
    assert measured["network"] == {
        "name": "test_efficientnet",
        "input_size": 64,
        "passes": 0,
        "temperature": 1.0,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    assert measured["turned"]["agreeing"] == measured["turned"]["photos"]


def test_a_gate_is_counted(evaluate, toy):
    arguments = ["--images", "photos", "--output", "gate.json"]
    status, said, message = evaluate(*arguments, "MODEL.CANONICALIZER.GATE", "100.0")
    assert status == 0, message
    gate = json.loads((toy / "gate.json").read_text())["gate"]
    assert gate["margin"] == 100 and gate["upright"]["accuracy"] == 1  # nothing is ever turned
    assert gate["turned"]["accuracy"] == 0 and gate["turned"]["gated"] <= 1
    assert "gate of 100: upright 100.0 % right" in said
    evaluate(*arguments)
    assert "gate" not in json.loads((toy / "gate.json").read_text())
    status, _, message = evaluate(*arguments, "MODEL.CANONICALIZER.GATE", "-1.0")
    assert status == 2 and "MODEL.CANONICALIZER.GATE is -1.0; give a margin" in message


def test_the_segmenter_as_judge(evaluate, toy):
    name = ["MODEL.CANONICALIZER.SCORER.NAME", "SegmenterScorer"]
    arguments = ["--images", "photos", "--limit", 2, "--output", "judge.json"]
    sam = ["MODEL.SEGMENTER.WEIGHTS", "", "MODEL.SAM.TINY.BACKBONE", "", *tiny_sam_options()]
    config = ["--config-file", "configs/sam_tiny_c4.yaml"]
    status, _, message = evaluate(*arguments, *config, *name, *sam)
    assert status == 0, message
    measured = json.loads((toy / "judge.json").read_text())
    assert measured["network"]["name"] == "SegmenterScorer"
    assert measured["turned"] == {"photos": 2, "agreeing": 2}
    options = [*name, "MODEL.SEGMENTER.META_ARCHITECTURE", ""]
    status, _, message = evaluate(*arguments, *options)
    assert status == 2 and "no segmenter to ask" in message


def test_mirrors_are_measured_apart(toy, evaluate):
    torch.manual_seed(0)
    spec = NetworkSpec("GCNN", 4, (2, 4), 1, mirrors=True)
    exported = build_plain_network(spec).state_dict()
    torch.save(
        {
            "format": FORMAT,
            "network": spec.to_dict(),
            "input_size": 33,
            "exported": {key: value.half() for key, value in exported.items()},
            "trainable": {},
        },
        toy / "d4.pth",
    )
    options = ("MODEL.CANONICALIZER.GROUP", "D4")
    arguments = ("--images", "photos", "--output", "d4.json", "--details", "d4_.json")
    code, said, message = evaluate(*arguments, *options, weights="d4.pth")
    assert code == 0, message
    result = json.loads((toy / "d4.json").read_text())
    details = json.loads((toy / "d4_.json").read_text())
    assert result["turned"] == {"photos": 4, "agreeing": 4}
    assert len(result["confusion"]) == 8 and result["config"]["group"] == "D4"
    assert result["mirror_accuracy"] == np.mean([not entry["mirrored"] for entry in details])
    assert result["turn_accuracy"] == np.mean([entry["degrees"] == 0 for entry in details])
    assert "rotation alone" in said and "side of the mirror alone" in said
    code, _, message = evaluate("--images", "photos", "--output", "x.json", weights="d4.pth")
    assert code == 2 and "GROUP is C4, and the network is for D4" in message
    code, said, message = evaluate(
        "--images",
        "photos",
        "--angles",
        "0",
        "30",
        "--output",
        "a.json",
        *options,
        weights="d4.pth",
    )
    assert code == 0, message
    result = json.loads((toy / "a.json").read_text())
    assert 0 <= result["mirror_accuracy"] <= 1 and "side of the mirror" in said
