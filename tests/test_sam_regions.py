"""Regions of like colour, and which masks of them are shown."""

import builtins

import numpy as np
import pytest
import torch

from canon_seg.errors import InputError
from canon_seg.sam.regions import choose_masks, find_regions


def test_things_of_one_colour_are_found():
    pytest.importorskip("skimage", reason="regions need scikit-image")
    image = np.full((180, 240, 3), 40, np.uint8)
    image[20:80, 40:140] = 200, 30, 30
    image[100:160, 120:220] = 30, 200, 30
    masks, boxes = find_regions(image)
    for x0, y0, x1, y1 in ((40, 20, 140, 80), (120, 100, 220, 160)):
        thing = torch.zeros(180, 240, dtype=torch.bool)
        thing[y0:y1, x0:x1] = True
        alike = (masks & thing).sum(dim=(1, 2)) / (masks | thing).sum(dim=(1, 2))
        assert alike.max() > 0.85  # edges are smoothed
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        assert (x0, x1) == (columns.min(), columns.max() + 1)
        assert (y0, y1) == (rows.min(), rows.max() + 1)
        assert (x1 - x0) * (y1 - y0) < 0.95 * 180 * 240  # not the ground, which is everywhere


def test_a_plain_image_has_none():
    pytest.importorskip("skimage", reason="regions need scikit-image")
    masks, boxes = find_regions(np.full((30, 40, 3), 9, np.uint8))
    assert masks.shape == (0, 30, 40) and boxes.shape == (0, 4)


def test_without_scikit_image_it_is_said_what_to_do(monkeypatch):
    load = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("skimage"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="pip install scikit-image"):
        find_regions(np.zeros((30, 40, 3), np.uint8))


def rectangles(*boxes):
    masks = torch.zeros(len(boxes), 20, 30, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = True
    return masks


def test_each_thing_is_chosen_once_and_the_best_first():
    masks = rectangles((0, 0, 10, 10), (0, 0, 10, 9), (12, 0, 20, 10), (0, 12, 9, 20), (5, 5, 5, 5))
    regions = masks.clone()
    regions[2] = rectangles((12, 0, 20, 5))[0]  # the mask follows half of it
    ious = torch.tensor([0.7, 0.8, 0.9, 0.6, 1.0])
    # 0 shows what 1 does, 4 shows nothing.
    assert choose_masks(masks, regions, ious, 10) == [1, 3, 2]
    assert choose_masks(masks, regions, ious, 2) == [1, 3]


def test_nothing_to_choose_from():
    nothing = torch.zeros(0, 20, 30, dtype=torch.bool)
    assert choose_masks(nothing, nothing, torch.zeros(0), 20) == []
