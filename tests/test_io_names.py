import json
import os

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure

from canon_seg.io.files import write_json, write_text
from canon_seg.io.names import figure_text, printable

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


@pytest.mark.parametrize("name", ["$a_{$.jpg", "$a$.jpg", "one $.jpg", r"\$x$.jpg"])
def test_dollars_are_drawn_as_they_are(name):
    assert not is_math_text(figure_text(name))
    assert np.array_equal(drawn(figure_text(name)), drawn(name, parse_math=False))


def drawn(text, **options):
    figure = Figure(figsize=(2, 0.5))
    canvas = FigureCanvasAgg(figure)
    figure.text(0.05, 0.5, text, **options)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


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
