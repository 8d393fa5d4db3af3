"""tools/label_poses.py as users call it, and training from what it wrote."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_models import random_canonicalizer, random_image

from canon_seg.cli import label_poses
from canon_seg.errors import run_main
from canon_seg.images.arrays import turn_image
from canon_seg.images.pose_files import read_poses

WEIGHTS = ("MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth")
NOTHING = ("MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer")


@pytest.fixture
def label(tmp_path, monkeypatch, capsys):
    """Call the script with arguments in a folder with photographs: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    pixels = random_image(40, 60).permute(1, 2, 0).numpy()
    for turns, name in enumerate(["a.png", "b.png", "deep/c.png", "d.png"]):
        turned = np.ascontiguousarray(turn_image(pixels, turns))
        Image.fromarray(turned).save(tmp_path / "photos" / name)

    def call(*arguments):
        arguments = (*arguments, "MODEL.DEVICE", "cpu")
        monkeypatch.setattr(sys, "argv", ["label_poses.py", *arguments])
        with pytest.raises(SystemExit) as end:
            run_main(label_poses.main)
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def test_turned_photographs_get_turned_labels(tmp_path, label):
    status, said, message = label("--photos", "photos", "--output", "out/poses.json", *WEIGHTS)
    assert status == 0, message
    entries = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [entry["file"] for entry in entries] == ["a.png", "b.png", "d.png", "deep/c.png"]
    degrees = [entry["degrees"] for entry in entries]
    assert [(one - degrees[0]) % 360 for one in degrees] == [0, 90, 270, 180]
    for entry in entries:
        assert entry["degrees"] == 90 * int(np.argmax(entry["probabilities"]))
    assert "4 photographs: 1 at 0°, 1 at 90°, 1 at 180°, 1 at 270°" in said
    photos = read_poses("out/poses.json", "photos", "DATASETS.POSES")
    assert [photo.file for photo in photos] == [f"photos/{entry['file']}" for entry in entries]


def test_a_detector_is_the_judge(tmp_path, label):
    """A config of the project's says nothing of many keys of detectron2's that a detector reads."""
    judge = ("MODEL.CANONICALIZER.SCORER.NAME", "SegmenterScorer", "INPUT.MIN_SIZE_TEST", "64")
    arguments = ("--photos", "photos", "--config-file", "configs/mask_rcnn_pedestrian_c4.yaml")
    status, _said, message = label(*arguments, "--output", "poses.json", *judge)
    assert status == 0, message
    degrees = [entry["degrees"] for entry in json.loads((tmp_path / "poses.json").read_text())]
    assert [(one - degrees[0]) % 360 for one in degrees] == [0, 90, 270, 180]


def test_raw_frames_are_labelled_as_such(tmp_path, label):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, a quarter clockwise
    Image.open(tmp_path / "photos" / "a.png").save(tmp_path / "photos" / "a.png", exif=exif)
    degrees = []
    for applied in ("True", "False"):
        status, _, message = label(
            "INPUT.EXIF", applied, "--photos", "photos", "--output", "poses.json", *WEIGHTS
        )
        assert status == 0, message
        degrees.append(json.loads((tmp_path / "poses.json").read_text())[0]["degrees"])
    assert (degrees[0] - degrees[1]) % 360 == 270


def test_labels_are_compared_with_what_is_known(tmp_path, label):
    label("--photos", "photos", "--output", "poses.json", *WEIGHTS)
    found = json.loads((tmp_path / "poses.json").read_text())
    truth = [{"file": entry["file"], "degrees": entry["degrees"]} for entry in found[:3]]
    truth[1]["degrees"] = (truth[1]["degrees"] + 90) % 360
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    arguments = ("--photos", "photos", "--output", "again.json", "--truth", "truth.json")
    status, said, message = label(*arguments, *WEIGHTS)
    assert status == 0, message
    assert "right, all: 2 of 3 (66.7 %, 95 % interval 20.8 to 93.9 %)" in said
    truth.append({"file": "other.png", "degrees": 0})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "again.json").unlink()
    status, _, message = label(*arguments, *WEIGHTS)
    assert status == 2 and "--truth: truth.json: 1 of 4 photographs are not in photos" in message
    assert not (tmp_path / "again.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--photos", "photos", "--output", "poses.txt"], "--output: poses.txt is no name"),
        (["--photos", "nowhere", "--output", "p.json"], "--photos: there is no folder nowhere"),
        (
            ["--photos", "photos", "--output", "p.json", "--truth", "photos/../p.json"],
            "--truth: photos/../p.json is also --output; give another file",
        ),
        (
            ["--photos", "photos", "--output", "p.json", *WEIGHTS, *NOTHING],
            "MODEL.CANONICALIZER.NAME is 'IdentityCanonicalizer', which looks for no pose",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, label, arguments, named):
    status, _, message = label(*arguments)
    assert status == 2 and named in message
    assert not list(tmp_path.glob("*.json"))


def test_a_scorer_of_more_poses(label, monkeypatch, tmp_path):
    class Eight(type(random_canonicalizer())):
        def pose(self, image):
            found = super().pose(image)
            return type(found)(found.turn, found.probabilities * 2, probability=0.1)

    canonicalizer = random_canonicalizer()
    canonicalizer.__class__ = Eight
    monkeypatch.setattr(label_poses, "build_pose_finder", lambda *loaded: canonicalizer)
    status, _, message = label("--photos", "photos", "--output", "poses.json")
    assert status == 2 and "the scorer knows 8 poses" in message
    assert not (tmp_path / "poses.json").exists()
