from importlib.util import find_spec

import pytest

from canon_seg.apps import photographs
from canon_seg.apps.photographs import sample_photographs
from canon_seg.images.reading import image_size


def test_the_boxes_are_in_the_photographs():
    pytest.importorskip("skimage")
    samples = sample_photographs()
    assert len(samples) == 4 == len({sample.title for sample in samples})
    for sample in samples:
        height, width = image_size(sample.path)
        x0, y0, x1, y1 = sample.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_none_without_scikit_image(monkeypatch):
    def find(name):
        return None if name == "skimage" else find_spec(name)

    monkeypatch.setattr(photographs, "find_spec", find)
    assert sample_photographs() == []
