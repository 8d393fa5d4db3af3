import json
import os

import pytest

from canon_seg.errors import InputError
from canon_seg.images.pose_files import PosedPhoto, pose_entry, read_poses
from canon_seg.io.files import write_json


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg", "c.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path


def written(folder, entries):
    path = folder / "poses.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return str(path)


def test_entries_say_the_likeliest_pose():
    entry = pose_entry("a.jpg", [0.1, 0.2, 0.1, 0.6])
    assert entry == {"file": "a.jpg", "probabilities": [0.1, 0.2, 0.1, 0.6], "degrees": 270}


def test_photos_as_a_scorer_or_a_person_writes_them(folder):
    path = written(
        folder,
        [
            pose_entry("a.jpg", [0.1, 0.2, 0.1, 0.6]),
            {"file": "deep/b.jpg", "degrees": 90},
            {"file": "c.jpg", "probabilities": [0.2, 0.1, 0.7, 0.0]},
        ],
    )
    photos = folder / "photos"
    assert read_poses(path, str(photos), "KEY") == [
        PosedPhoto(str(photos / "a.jpg"), 3, 0.6),
        PosedPhoto(str(photos / "deep" / "b.jpg"), 1, 1.0),
        PosedPhoto(str(photos / "c.jpg"), 2, 0.7),
    ]


def test_what_a_person_put_right_without_the_probabilities_is_as_probable_as_they_say(folder):
    entry = {**pose_entry("a.jpg", [0.1, 0.2, 0.1, 0.6]), "degrees": 90}
    [photo] = read_poses(written(folder, [entry]), str(folder / "photos"), "KEY")
    assert (photo.turns, photo.probability) == (1, 0.2)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "is no JSON file"),
        ("[" * 10**5, "is no JSON file"),
        ({}, "is no list of photographs"),
        ([], "is no list of photographs"),
        ([3], "entry 1: has no file"),
        ([{"degrees": 0}], "entry 1: has no file"),
        ([{"file": "a.jpg"}], r"entry 1 \(a.jpg\): has neither degrees nor probabilities"),
        ([{"file": "a.jpg", "degrees": 45}], "degrees are 45; give 0, 90, 180 or 270"),
        ([{"file": "a.jpg", "degrees": 0, "mirrored": True}], "is mirrored, .* leave it out"),
        ([{"file": "a.jpg", "degrees": False}], "degrees are False"),
        ([{"file": "a.jpg", "degrees": "90"}], "degrees are '90'"),
        ([{"file": "a.jpg", "probabilities": [0.5, 0.5]}], "give 4 numbers that sum to 1"),
        ([{"file": "a.jpg", "probabilities": [1, 1, 0, 0]}], "give 4 numbers that sum to 1"),
        ([{"file": "a.jpg", "probabilities": [1, "0", 0, 0]}], "give 4 numbers that sum to 1"),
        ([{"file": "a.jpg", "probabilities": [float("nan")] * 4}], "give 4 numbers"),
        (
            [{"file": "a.jpg", "degrees": 0}, {"file": "other/x.jpg", "degrees": 0}],
            "1 of 2 photographs are not in .*photos, such as other/x.jpg; give the folder",
        ),
        ([{"file": "a.jpg", "degrees": d} for d in (0, 90)], "1 photographs are there twice"),
    ],
)
def test_files_that_cannot_be_used(folder, entries, message):
    path = written(folder, entries)
    with pytest.raises(InputError, match=message) as caught:
        read_poses(path, str(folder / "photos"), "DATASETS.POSES")
    assert str(caught.value).startswith(f"DATASETS.POSES: {path}")


def test_names_that_are_no_utf8_are_found_again(folder):
    """JSON holds their bytes as escape codes."""
    name = os.fsdecode(b"deep/\xff.jpg")
    (folder / "photos" / name).touch()
    write_json(
        folder / "poses.json", [{"file": name, "degrees": 90}, {"file": "a.jpg", "degrees": 0}]
    )
    photos = read_poses(str(folder / "poses.json"), str(folder / "photos"), "DATASETS.POSES")
    assert [photo.file for photo in photos] == [str(folder / "photos" / n) for n in (name, "a.jpg")]
    assert [photo.turns for photo in photos] == [1, 0]


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.json: cannot be read \(No such file"):
        read_poses(str(tmp_path / "nowhere.json"), str(tmp_path), "DATASETS.POSES")
