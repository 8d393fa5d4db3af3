import json
import os

import pytest

from canon_seg.io.files import write_json, write_text
from canon_seg.io.names import printable

BYTES = os.fsdecode(b"caf\xe9$.jpg")  # Latin 1, as old archives have it


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo one.jpg", "photo one.jpg"),
        ("Grüße 日本 🚲.jpg", "Grüße 日本 🚲.jpg"),
        (BYTES, r"caf\xe9$.jpg"),
        ("a\nb\x1b[31m.jpg", r"a\nb\x1b[31m.jpg"),
        ("\ud800.jpg", r"\ud800.jpg"),
    ],
)
def test_names_are_made_printable(name, expected):
    assert printable(name) == expected
    printable(name).encode("utf-8")


def test_json_is_valid_for_strict_readers(tmp_path):
    value = {"file": BYTES, BYTES: [(BYTES,), "🚲", 1.5, None]}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    read = json.loads(text)
    assert read == {"file": r"caf\xe9$.jpg", r"caf\xe9$.jpg": [[r"caf\xe9$.jpg"], "🚲", 1.5, None]}
    json.dumps(read, ensure_ascii=False).encode("utf-8")  # no lone surrogates


def test_text_files_take_names_of_any_bytes(tmp_path):
    write_text(tmp_path / "a.csv", f"file\n{BYTES}\nGrüße 🚲\n")
    assert (tmp_path / "a.csv").read_text("utf-8") == "file\ncaf\\xe9$.jpg\nGrüße 🚲\n"
