import numpy as np
import pytest
import torch

from canon_seg.core import action
from canon_seg.core.turn import IDENTITY, Turn
from canon_seg.images.arrays import turn_maps


class Arrow:
    def __init__(self, degrees):
        self.degrees = degrees


class LongArrow(Arrow):
    pass


@action.register(Arrow)
def turn_arrow(arrow, turn, height, width):
    return type(arrow)((arrow.degrees + turn.degrees) % 360)


@action.register(np.ndarray, "heights of a field")
def turn_heights(heights, turn, height, width):
    assert heights.shape == (height, width)
    return turn_maps(heights, turn)


def test_a_new_type_and_its_subclasses():
    assert action.act(Arrow(10), Turn(1), 4, 5).degrees == 100
    assert type(action.act(LongArrow(10), Turn(1), 4, 5)) is LongArrow


def test_a_new_field_of_a_plain_type():
    heights = np.arange(20).reshape(4, 5)
    turned = action.act(heights, Turn(1), 4, 5, "heights of a field")
    assert np.array_equal(turned, np.rot90(heights))
    with pytest.raises(TypeError, match="not known how ndarray turns"):
        action.act(heights, Turn(1), 4, 5)


def test_the_identity_acts_on_anything():
    thing = object()
    assert action.act(thing, IDENTITY, 4, 5, "any") is thing


def test_what_has_no_action_is_named():
    with pytest.raises(TypeError, match="'ages' of type list turns.*register its action"):
        action.act([1, 2], Turn(1), 4, 5, "ages")


def test_invariant_fields():
    action.register_invariant("ages of a test")
    ages = [1, 2]
    assert action.act(ages, Turn(1), 4, 5, "ages of a test") is ages


def test_an_action_is_not_replaced_unnoticed():
    with pytest.raises(ValueError, match="an action on Arrow already"):
        action.register(Arrow)(lambda *args: None)


def test_images_and_prompts_are_known():
    image = torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5)
    assert torch.equal(action.act(image, Turn(1), 4, 5, "image"), torch.rot90(image, 1, (1, 2)))
    pixels = image.permute(1, 2, 0).numpy()
    turned = action.act(pixels, Turn(1), 4, 5, "image")
    assert turned.flags.c_contiguous and np.array_equal(turned, np.rot90(pixels))
    boxes = action.act(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), Turn(2), 4, 5, "boxes")
    assert boxes.tolist() == [[3, 1, 5, 3]]
