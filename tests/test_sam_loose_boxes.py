"""Boxes that were drawn in a tilted image, and what they are meant for."""

import numpy as np
import pytest
import torch
from tiny_models import random_image, random_prompts, tiny_segmenter

from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import SO2
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.sam.loose_boxes import CORRELATIONS, agreement, candidate_boxes
from canon_seg.sam.prompted import PromptedSam, boxes_around
from canon_seg.sam.prompts import Prompts

SIZE = (200, 240)


def ellipse(a, b, degrees):
    """(200, 240) bool mask of an ellipse around the centre, its first axis at an angle."""
    rows, columns = np.indices(SIZE)
    x, y = columns - 119.5, rows - 99.5
    angle = np.radians(degrees)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return torch.from_numpy((u / a) ** 2 + (v / b) ** 2 <= 1)


def drawn_around(mask, degrees):
    """Corners, in the mask's frame, of the box that is upright in the frame turned by -degrees."""
    rows, columns = np.nonzero(mask.numpy())
    points = np.stack([columns + 0.5, rows + 0.5], axis=1)
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    low, high = (points @ axes.T).min(axis=0), (points @ axes.T).max(axis=0)
    half = (abs(axes).sum(axis=1)) / 2
    low, high = low - half, high + half
    places = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    return torch.from_numpy(places @ axes).float()[None]


@pytest.mark.parametrize("tilt", [-40, 15, 30, 45])
@pytest.mark.parametrize(
    ("a", "b", "degrees"), [(60, 60, 0), (80, 30, 0), (80, 30, 60), (70, 20, 20)]
)
def test_one_of_the_candidates_is_nearly_the_object_s_box(tilt, a, b, degrees):
    mask = ellipse(a, b, degrees)
    drawn = drawn_around(mask, tilt)
    wanted = boxes_around(mask[None])[0]
    hull = torch.cat([drawn[0].amin(0), drawn[0].amax(0)])
    candidates = candidate_boxes(drawn, SIZE)[:, 0]
    assert candidates.shape == (len(CORRELATIONS), 4)
    off = (candidates - wanted).abs().amax(dim=1)
    assert off.min() <= 0.35 * (hull - wanted).abs().max() + 2
    assert (candidates[:, :2] >= hull[:2] - 0.1).all() and (
        candidates[:, 2:] <= hull[2:] + 0.1
    ).all()


def test_a_circle_has_one_box_whatever_the_tilt():
    drawn = drawn_around(ellipse(50, 50, 0), 30)
    box = candidate_boxes(drawn, SIZE)[CORRELATIONS.index(0.0), 0]
    assert torch.allclose(box, torch.tensor([69.5, 49.5, 170.5, 150.5]), atol=1.0)


@pytest.mark.parametrize("tilt", [-40, 0, 15, 45])
def test_an_object_agrees_with_the_box_around_it(tilt):
    masks = torch.stack([ellipse(60, 25, 10), ellipse(30, 25, 10), torch.zeros(SIZE) > 0])
    drawn = drawn_around(masks[0], tilt).expand(3, 4, 2)
    fits = agreement(masks, (1.0, 1.0), drawn)
    assert fits[0] == pytest.approx(1, abs=1e-6) and fits[1] < 0.8 and fits[2] == 0
    # In pixels of twice the size, up to these.
    small = agreement(masks[:, ::2, ::2], (2.0, 2.0), drawn)
    assert small[0] > 0.93


def test_boxes_at_the_edge_are_cut_to_the_frame():
    drawn = torch.tensor([[[-50.0, 20], [40, -30], [90, 40], [0, 90]]])
    boxes = candidate_boxes(drawn, (60, 80))
    assert (
        (boxes[..., :2] >= 0).all() and (boxes[..., 2] <= 80).all() and (boxes[..., 3] <= 60).all()
    )


def test_quarter_turns_of_drawn_boxes_are_exact():
    prompts = random_prompts(40, 61).snapped()
    tilted = prompts.tilted(Tilting.expanding(20, (40, 61)))
    assert tilted.drawn.shape == (5, 4, 2) and prompts.drawn is None
    turned = tilted.turned(1, 50, 60).turned(3, 60, 50)
    assert torch.equal(turned.drawn, tilted.drawn)
    assert len(tilted[1:3].drawn) == 2
    with pytest.raises(ValueError, match="drawn of 5 prompts have shape"):
        Prompts(boxes=prompts.boxes, drawn=torch.zeros(4, 4, 2))
    with pytest.raises(ValueError, match="corners need the boxes"):
        Prompts(
            points=torch.zeros(1, 1, 2),
            point_labels=torch.ones(1, 1, dtype=torch.int64),
            corners=torch.zeros(1, 4, 2),
        )


def test_upright_images_are_asked_once(monkeypatch):
    sam, image, prompts = tiny_segmenter("sam").sam, random_image(40, 61), random_prompts(40, 61)
    calls = []
    decode = PromptedSam._decode
    monkeypatch.setattr(PromptedSam, "_decode", lambda *args: (calls.append(1), decode(*args))[1])
    plain = PromptedSam(sam)(image, prompts)
    assert len(calls) == 1
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn.by(20), SO2), image, prompts)
    found = PromptedSam(sam)(frame.image, frame.prompts)
    assert len(calls) == 1 + len(CORRELATIONS) and len(found) == len(plain) == 5
    hulls = PromptedSam(sam, refines=False)(frame.image, frame.prompts)
    assert len(calls) == 2 + len(CORRELATIONS)
    assert not torch.equal(hulls.ious, found.ious)
