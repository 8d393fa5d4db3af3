"""canon-seg-upright on files, with a scorer that takes the bright side for the top."""

import csv
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from canon_seg.apps.files import upright as app
from canon_seg.apps.files.upright import JOURNAL, find_photos
from canon_seg.cli import upright as command
from canon_seg.core.group import C4, D4, SO2
from canon_seg.core.scorer import SCORERS, CircularDistribution, GridDistribution
from canon_seg.errors import InputError, run_main
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.tilt import rotate_image, rotated_size
from canon_seg.predictors.upright import quarter_probabilities, upright

SIZE = 64, 32


class BrightTop:
    """Take the side that is bright for the top, the surer the brighter."""

    group, image_format = C4, "RGB"

    def __call__(self, images):
        sides = [
            [torch.rot90(i.float(), -k, (1, 2))[:, : i.shape[1 + k % 2] // 2] for k in range(4)]
            for i in images
        ]
        return GridDistribution(
            C4, torch.tensor([[side.mean() / 10 for side in row] for row in sides])
        )


@SCORERS.register("BrightTop of the photographs")
def build(cfg):
    return BrightTop()


def scene(quarters=0, contrast=200, size=SIZE):
    """A bright sky over dark ground, turned by quarters counterclockwise."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 20, (size[1], size[0], 3))
    pixels[: size[1] // 2] += contrast
    return np.rot90(pixels, quarters).astype(np.uint8)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of photographs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    for name, quarters, contrast in (
        ("upright.jpg", 0, 200),
        ("a/left.jpg", 1, 200),
        ("a/deep/right.png", 3, 200),
        ("over.JPG", 2, 200),
        ("unclear.jpg", 1, 5),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(quarters, contrast)).save(path)
        os.utime(path, (1e9, 1e9))
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command: its exit status, stdout and stderr."""

    def call(*words):
        scorer = "MODEL.CANONICALIZER.SCORER.NAME"
        options = ["MODEL.DEVICE", "cpu"]
        options += [] if scorer in words else [scorer, "BrightTop of the photographs"]
        monkeypatch.setattr(sys, "argv", ["canon-seg-upright", *map(str, words), *options])
        with pytest.raises(SystemExit) as end:
            run_main(command.main)
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


NAMES = ["a/deep/right.png", "a/left.jpg", "over.JPG", "unclear.jpg", "upright.jpg"]


def is_upright(path):
    from canon_seg.images.reading import read_image

    pixels = read_image(path).astype(int)
    return pixels.shape == (SIZE[1], SIZE[0], 3) and pixels[:10].mean() > pixels[-10:].mean() + 100


def test_every_photograph_is_there_and_upright(photos, run, tmp_path):
    code, said, message = run("photos", "--output", "out", "--csv", "table.csv")
    assert code == 0, message
    out = tmp_path / "out"
    assert files(out) == [JOURNAL, *NAMES]
    for name in ("a/deep/right.png", "a/left.jpg", "over.JPG"):
        assert is_upright(out / name), name
        assert (out / name).stat().st_mtime == 1e9
    for name in ("upright.jpg", "unclear.jpg"):
        assert (out / name).read_bytes() == (photos / name).read_bytes()
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["result"], row["degrees"]) for row in rows] == [
        ("a/deep/right.png", "turned", "90"),
        ("a/left.jpg", "turned", "270"),
        ("over.JPG", "turned", "180"),
        ("unclear.jpg", "uncertain", "270"),
        ("upright.jpg", "upright", "0"),
    ]
    assert all(
        (float(row["probability"]) >= 0.95) == (row["result"] != "uncertain") for row in rows
    )
    ways = {row["way"] for row in rows if row["file"].lower().endswith("jpg") and row["way"]}
    assert ways == ({"pixels"} if shutil.which("jpegtran") else {"tag"})
    assert "90 degrees clockwise " in said and "uncertain (90 degrees clockwise?)" in said
    assert "5 photographs: 3 turned" in said and "uncertain: unclear.jpg" in said


def test_without_jpegtran_the_tag_is_set_and_said(photos, run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, said, message = run("photos", "--output", "out")
    assert code == 0 and "jpegtran is not installed" in message
    assert "2 by their tag" in said
    assert is_upright(tmp_path / "out" / "a" / "left.jpg")


def test_dry_run_writes_nothing(photos, run, tmp_path):
    before = files(tmp_path)
    code, said, _ = run("--dry-run", "photos")
    assert code == 0 and "90 degrees clockwise" in said
    assert files(tmp_path) == before


def test_uncertain_ones_are_collected(photos, run, tmp_path):
    assert run("photos", "--output", "out", "--uncertain", "unclear")[0] == 0
    assert files(tmp_path / "unclear") == ["unclear.jpg"]
    assert "unclear.jpg" in files(tmp_path / "out")


def test_min_probability(photos, run, tmp_path):
    assert run("photos", "--output", "out", "--min-probability", "0")[0] == 0
    assert (tmp_path / "out/unclear.jpg").read_bytes() != (photos / "unclear.jpg").read_bytes()


def test_a_second_run_does_only_what_is_missing(photos, run, tmp_path, monkeypatch):
    first = run("photos", "--output", "out")[1]
    (tmp_path / "out/over.JPG").unlink()
    calls = []
    set_upright = app.set_upright
    monkeypatch.setattr(
        command,
        "set_upright",
        lambda photo, *a, **k: calls.append(photo.name) or set_upright(photo, *a, **k),
    )
    code, second, _ = run("photos", "--output", "out")
    assert code == 0 and second == first
    assert calls == [Path("over.JPG")]
    # A file that has changed is found, and not written over.
    Image.fromarray(scene(2)).save(photos / "a/left.jpg")
    code, said, _ = run("photos", "--output", "out")
    assert code == 2 and calls[1:] == [Path("a/left.jpg")]
    assert "is there already, and is another file" in said


def test_an_interrupted_run_goes_on(photos, run, tmp_path, monkeypatch):
    set_upright = app.set_upright

    def interrupt(photo, *rest, **options):
        if photo.name.name == "over.JPG":
            raise KeyboardInterrupt
        return set_upright(photo, *rest, **options)

    monkeypatch.setattr(command, "set_upright", interrupt)
    code, _, message = run("photos", "--output", "out")
    assert code == 130 and "interrupted; the same command goes on from here" in message
    assert files(tmp_path / "out") == [JOURNAL, *NAMES[:2]]
    # The last line of the journal may be cut short, and a file may lack its line.
    journal = tmp_path / "out" / JOURNAL
    journal.write_text(journal.read_text()[:-20])
    monkeypatch.setattr(command, "set_upright", set_upright)
    assert run("photos", "--output", "out")[0] == 0
    assert files(tmp_path / "out") == [JOURNAL, *NAMES]
    assert len(journal.read_text().splitlines()) == 6


def test_other_settings_need_another_folder(photos, run):
    assert run("photos", "--output", "out")[0] == 0
    code, _, message = run("photos", "--output", "out", "--min-probability", "0.5")
    assert code == 2 and "out was begun with another --min-probability" in message


def test_a_broken_file_is_copied_and_named(photos, run, tmp_path):
    (photos / "broken.jpg").write_bytes((photos / "over.JPG").read_bytes()[:300])
    code, said, _ = run("photos", "--output", "out")
    assert code == 2 and "1 failed, left as they were" in said
    assert "failed: photos/broken.jpg: cannot be decoded" in said
    assert (tmp_path / "out/broken.jpg").stat().st_size == 300
    assert "broken" not in (tmp_path / "out" / JOURNAL).read_text()


def test_files_and_globs(photos, run, tmp_path):
    code, _, _ = run("photos/a/left.jpg", "photos/*.JPG", "--output", "out")
    assert code == 0 and files(tmp_path / "out") == [JOURNAL, "left.jpg", "over.JPG"]


def test_results_below_the_photographs_do_not_count(photos, run, tmp_path):
    assert run("photos", "--output", "photos/out", "--uncertain", "photos/unclear")[0] == 0
    assert run("photos", "--output", "photos/out", "--uncertain", "photos/unclear")[0] == 0
    assert files(photos / "out") == [JOURNAL, *NAMES]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos"], "--output DIR is missing"),
        (["photos", "--output", "photos"], "photos lies in a folder of the results"),
        (["photos/over.JPG", "--output", "photos"], "over.JPG lies in a folder of the results"),
        (["nothing", "--output", "out"], "nothing: there is no such file or folder"),
        (["photos", "--output", "out", "--min-probability", "95"], "--min-probability is 95"),
        (["photos", "--dry-run", "--uncertain", "u"], "--uncertain collects files"),
        (["photos", "--output", "out", "--uncertain", "out"], "also --output"),
        (["photos", "--output", "out", "--csv", "photos/over.JPG"], "is another file"),
        (["photos", "--output", "out", "--csv", "photos"], "is a folder"),
        (["photos", "--output", "out", "--device", "tpu9"], "tpu9"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    photos, run, tmp_path, words, message
):
    before = files(tmp_path)
    code, _, error = run(*words)
    assert code == 2 and message in error and "Traceback" not in error
    assert files(tmp_path) == before


def test_only_quarter_turns_set_files_upright(photos, run, monkeypatch):
    monkeypatch.setattr(BrightTop, "group", D4)
    code, _, error = run("photos", "--output", "out")
    assert code == 2 and "GROUP is D4; files are set upright by quarter turns" in error


def test_one_place_for_two_photographs(photos):
    (photos.parent / "other").mkdir()
    shutil.copy(photos / "upright.jpg", photos.parent / "other")
    with pytest.raises(InputError, match="would both become"):
        find_photos(["photos", "other"])
    assert len(find_photos(["photos", "photos"])) == 5


@pytest.mark.parametrize("quarters", range(4))
def test_in_python(quarters, tmp_path):
    canonicalizer = GroupCanonicalizer(BrightTop())
    image = np.ascontiguousarray(scene(quarters))
    found, pose = upright(image, canonicalizer)
    assert pose.turns == quarters and np.array_equal(found, scene())
    pillow, pose = upright(Image.fromarray(image), canonicalizer)
    assert isinstance(pillow, Image.Image) and np.array_equal(np.asarray(pillow), scene())
    Image.fromarray(image).save(tmp_path / "a.png")
    found, pose = upright(tmp_path / "a.png", canonicalizer)
    assert pose.turns == quarters and np.array_equal(found, scene())


@pytest.mark.parametrize("image", [scene(1, 5), np.full((20, 20, 3), 200, np.uint8)])
def test_unclear_poses_are_kept_in_python(image):
    found, pose = upright(np.ascontiguousarray(image), GroupCanonicalizer(BrightTop()))
    assert pose.policy == "keep" and pose.turns == 0 and np.array_equal(found, image)


def test_the_embedded_canonicalizer_is_the_default():
    _, pose = upright(np.ascontiguousarray(scene(0)), min_probability=0)
    assert pose.policy == "argmax" and abs(sum(pose.probabilities) - 1) < 1e-6


# --- tilts ------------------------------------------------------------------------------------


class BrightSide:
    """Take the direction in which it gets brighter for up, the surer the more colours differ."""

    group, image_format = SO2, "RGB"

    def __call__(self, images):
        rows = []
        for image in images:
            grey = image.double().mean(0)
            up, left = (grey - grey.roll(1, axis) for axis in (0, 1))
            x, y = -left[2:-2, 2:-2].mean(), -up[2:-2, 2:-2].mean()
            angle = math.degrees(math.atan2(x, y))  # of up, counterclockwise
            away = torch.arange(72) * 5.0 - angle
            kappa = 100 if grey.amax() > 150 else 6 if grey.amax() > 70 else 0.1
            rows.append(kappa * torch.cos(torch.deg2rad(away)))
        return CircularDistribution(torch.stack(rows))


@SCORERS.register("BrightSide of the photographs")
def build_for_angles(cfg):
    return BrightSide()


ANGLES = "MODEL.CANONICALIZER.SCORER.NAME", "BrightSide of the photographs"


def ramp(degrees=0.0, most=250, size=(72, 96)):
    """A sky that gets brighter upwards, turned by an angle and cut to what is inside."""
    rows = np.linspace(most, 0, 160).astype(np.uint8)
    pixels = np.repeat(np.repeat(rows[:, None, None], 160, axis=1), 3, axis=2)
    turned = rotate_image(pixels, degrees, "inscribed")
    top, left = ((have - want) // 2 for have, want in zip(turned.shape, size, strict=False))
    return np.ascontiguousarray(turned[top : top + size[0], left : left + size[1]])


def up(pixels):
    """The direction of up in degrees, as BrightSide sees it."""
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return (BrightSide()([image]).mode()[0].degrees + 180) % 360 - 180


def test_level_straightens_what_is_tilted(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, degrees, most in (
        ("a_level", 0, 250),
        ("b_tilted", 8, 250),
        ("c_turned", 90, 250),
        ("d_both", 263, 250),
        ("e_hardly", 1, 250),
        ("f_far", 25, 250),
        ("g_unsure", 8, 120),
        ("h_unclear", 8, 60),
    ):
        Image.fromarray(ramp(degrees, most)).save(f"photos/{name}.png")
    words = "photos", "--level", "--csv", "t.csv", "--min-probability", "0.9", *ANGLES
    code, said, message = run(*words, "--output", "out")
    assert code == 0, message
    with Path("t.csv").open() as file:
        rows = {row["file"][0]: row for row in csv.DictReader(file)}
    results = {key: (row["result"], row["degrees"], row["way"]) for key, row in rows.items()}
    assert results == {
        "a": ("upright", "0", ""),
        "b": ("turned", "0", "levelled"),
        "c": ("turned", "270", "pixels"),
        "d": ("turned", "90", "levelled"),
        "e": ("upright", "0", ""),
        "f": ("upright", "0", ""),
        "g": ("upright", "0", ""),
        "h": ("uncertain", "0", ""),
    }
    tilts = {key: float(row["tilt"]) for key, row in rows.items()}
    assert tilts.pop("b") == pytest.approx(-8, abs=1) and tilts.pop("d") == pytest.approx(7, abs=1)
    assert set(tilts.values()) == {0}
    assert "tilt, °" in said and "levelled" in said and "2 levelled" in said
    for name in ("b_tilted", "d_both"):
        assert abs(up(Image.open(f"out/{name}.png"))) < 1.5
    assert Image.open("out/d_both.png").size == rotated_size(72, 96, -263, "inscribed")[::-1]
    again = run(*words, "--output", "out")
    assert again[0] == 0 and again[1] == said
    code, _, message = run("photos", "--output", "out", "MODEL.CANONICALIZER.GROUP", "C4")
    assert code == 2 and "begun with another" in message and "--level" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-tilt", "5"], "--max-tilt is for --level"),
        (["--canvas", "expand"], "--canvas is for --level"),
        (["--level", "--max-tilt", "46"], "0 to 45"),
        (["--level", "--min-tilt-probability", "2"], "0 to 1"),
        (["--level"], "SO2"),  # by the scorer of quarter turns
        (["MODEL.CANONICALIZER.GROUP", "SO2", *ANGLES], "--level"),
    ],
)
def test_options_of_level(photos, run, words, said):
    code, table, message = run("photos", "--dry-run", *words)
    assert code == 2 and said in message + table and "Traceback" not in message


def test_level_in_python():
    finder = GroupCanonicalizer(BrightSide()).eval()
    image, pose = upright(ramp(98), finder, level=True)
    assert abs(up(image)) < 1.5 and pose.turn.degrees == pytest.approx(98, abs=1)
    assert image.shape[:2] == rotated_size(72, 96, -pose.turn.degrees, "inscribed")
    picture, same = upright(Image.fromarray(ramp(98)), finder, level=True, canvas="expand")
    assert same == pose and picture.size == rotated_size(72, 96, -pose.turn.degrees)[::-1]
    image, pose = upright(ramp(90), finder, level=True)
    assert np.array_equal(image, np.rot90(ramp(90), -1)) and pose.turns == 1
    image, pose = upright(ramp(8, 60), finder, level=True)
    assert pose.policy == "keep" and np.array_equal(image, ramp(8, 60))
    assert sum(quarter_probabilities(pose)) == pytest.approx(1)


def test_tilts_without_level_are_an_error_with_its_remedy():
    with pytest.raises(InputError, match="level=True"):
        upright(ramp(8), GroupCanonicalizer(BrightSide()).eval())
    with pytest.raises(InputError, match="SO2"):
        upright(ramp(8), GroupCanonicalizer(BrightTop()).eval(), level=True)
    with pytest.raises(InputError, match="canvas is 'crop'"):
        upright(ramp(8), GroupCanonicalizer(BrightSide()).eval(), level=True, canvas="crop")
