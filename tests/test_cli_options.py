"""Config options among the other words of a command line."""

import argparse
import itertools

import pytest

from canon_seg.cli.options import is_key, is_number, may_name_files, parse_with_options
from canon_seg.errors import InputError


def parser():
    made = argparse.ArgumentParser()
    made.add_argument("photos", nargs="*")
    made.add_argument("--output")
    made.add_argument("--turns", action="store_true")
    made.add_argument("--box", nargs="+", action="extend", default=[])
    return made


PARTS = (
    ["photo.jpg"],
    ["--output", "out"],
    ["--turns"],
    ["--box", "1", "2", "-3", "4"],
    ["MODEL.DEVICE", "cpu"],
    ["SEED", "-1"],
    ["other.PNG"],
)


def test_all_orders():
    for order in itertools.permutations(PARTS):
        words = [word for part in order for word in part]
        args = parse_with_options(parser(), words, lists={"--box": is_number})
        assert sorted(args.photos) == ["other.PNG", "photo.jpg"]
        assert (args.output, args.turns, args.box) == ("out", True, ["1", "2", "-3", "4"])
        pairs = list(zip(args.options[::2], args.options[1::2]))
        assert sorted(pairs) == [("MODEL.DEVICE", "cpu"), ("SEED", "-1")]


def test_several_lists():
    words = ["--box", "1", "2", "3", "4", "a.jpg", "--box", "5", "6", "7", "8"]
    args = parse_with_options(parser(), words, lists={"--box": is_number})
    assert args.photos == ["a.jpg"] and len(args.box) == 8


def test_flags_are_not_abbreviated():
    with pytest.raises(SystemExit):
        parse_with_options(parser(), ["--turn"])


def test_values_may_look_like_anything():
    words = ["DATASETS.PHOTOS", "['a b']", "MODEL.SEGMENTER.WEIGHTS", "", "A.B", "-1"]
    assert parse_with_options(parser(), words).options == words


@pytest.mark.parametrize(
    "words", [["MODEL.DEVICE"], ["MODEL.DEVICE", "--turns"], ["MODEL.DEVICE", "SEED", "1"]]
)
def test_a_key_without_a_value(words):
    with pytest.raises(InputError, match="MODEL.DEVICE has no value"):
        parse_with_options(parser(), words)


def test_keys_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_key("MODEL.SAM.SIZE") and is_key("SEED") and is_key("A.B_2")
    assert not any(map(is_key, ["IMG_1.JPG", "photo.jpg", "model.device", "A", "A.", "out"]))
    assert is_key("IMG.EDITED")
    (tmp_path / "IMG.EDITED").touch()
    assert not is_key("IMG.EDITED") and may_name_files("IMG.EDITED")
    assert may_name_files("a.jpg") and may_name_files("*.x") and not may_name_files("x0")
