import itertools

import pytest
import torch
from test_images_canonicalizer import NETWORKS, SYMMETRIC, canonicalizer_of, random_image

from canon_seg.core.canonicalizer import (
    AllPosesCanonicalizer,
    FixedPoseCanonicalizer,
    IdentityCanonicalizer,
)
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4, D4
from canon_seg.core.turn import Turn
from canon_seg.images.arrays import turn_maps
from canon_seg.sam.prompts import Prompts

PROMPTS = Prompts(
    boxes=torch.tensor([[3.0, 4.5, 10.123, 20.25], [1.0, 2.0, 9.0, 9.5]]),
    points=torch.tensor([[[2.0, 7.0]], [[11.0, 5.0]]]),
    point_labels=torch.ones(2, 1, dtype=torch.int64),
)


def same(one, other):
    return one.key() == other.key() and torch.equal(one.point_labels, other.point_labels)


@pytest.mark.parametrize("network", NETWORKS)
def test_turned_images_have_one_canonical_frame(network):
    canonicalizer, image = canonicalizer_of(network()), random_image(37, 52)
    prompts = PROMPTS.snapped()
    frame = CanonicalFrame(canonicalizer, image, prompts)
    masks = torch.rand(2, *frame.canonical_size) > 0.5
    for turn in C4.elements:
        turned = CanonicalFrame(canonicalizer, turn_maps(image, turn), prompts.turned(turn, 37, 52))
        assert torch.equal(turned.image, frame.image)
        assert same(turned.prompts, frame.prompts)
        assert torch.equal(turned.back(masks, "masks"), turn_maps(frame.back(masks, "masks"), turn))
        assert torch.equal(turned.there(turned.back(masks, "masks"), "masks"), masks)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("image", SYMMETRIC)
def test_prompts_that_come_later_find_the_same_pose(image, network):
    """The network and the search for the representative run once, whatever the prompts are."""
    canonicalizer, image = canonicalizer_of(network()), image()
    calls = []
    canonicalizer.scorer.register_forward_hook(lambda *args: calls.append(1))
    for turn in C4.elements:
        turned, prompts = turn_maps(image, turn), PROMPTS.turned(turn, *image.shape[-2:])
        at_once = CanonicalFrame(canonicalizer, turned, prompts)
        without = CanonicalFrame(canonicalizer, turned)
        del calls[:]
        later = without.with_prompts(prompts)
        assert not calls
        assert later.pose.turn == at_once.pose.turn
        assert later.pose.probabilities == at_once.pose.probabilities
        assert same(later.prompts, at_once.prompts)
        assert torch.equal(later.image, at_once.image)


def test_votes_come_to_the_frame_of_the_likeliest():
    image = random_image(20, 30)
    frame = CanonicalFrame(AllPosesCanonicalizer(), image)
    for other in frame.pose.others:
        seen = frame.in_pose(other)
        assert seen.pose.others == ()
        there = seen.image
        assert torch.equal(there, turn_maps(image, C4.inverse(other)))
        assert torch.equal(frame.to_vote(other, there.clone(), "image"), frame.image)
    assert CanonicalFrame(AllPosesCanonicalizer(), image, votes=False).pose.others == ()


def test_mirrors_there_and_back():
    """The frame takes any exact group: all pairs of a mirrored pose and a mirrored image."""
    image = random_image(20, 30)
    for pose, turn in itertools.product(D4.elements, repeat=2):
        turned = turn_maps(image, turn).contiguous()
        frame = CanonicalFrame(FixedPoseCanonicalizer(pose, D4), turned)
        assert torch.equal(frame.back(frame.image, "image"), turned)
        assert tuple(frame.image.shape[-2:]) == frame.canonical_size


def test_the_identity_changes_nothing():
    image = random_image(20, 30)
    frame = CanonicalFrame(IdentityCanonicalizer(), image, PROMPTS)
    thing = object()
    assert frame.image is image and frame.back(thing, "anything") is thing
    assert frame.prompts.boxes is PROMPTS.boxes or torch.equal(frame.prompts.boxes, PROMPTS.boxes)


def test_a_frame_of_another_size():
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn(1)), random_image(20, 30), size=(40, 60))
    assert frame.size == (40, 60) and frame.canonical_size == (60, 40)
    boxes = torch.tensor([[0.0, 0.0, 60.0, 20.0]])
    assert frame.there(boxes, "boxes").tolist() == [[20, 0, 40, 60]]
