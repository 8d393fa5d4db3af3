import math

import numpy as np
import pytest
from test_images_canonicalizer import SYMMETRIC, canonicalizer_of, four_looks, random_network
from tiny_models import random_image, random_prompts

from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.turn import IDENTITY, Turn
from canon_seg.evaluation.poses import measure_gate
from canon_seg.images.arrays import turn_maps

PROBABILITIES = [0.3, 0.6, 0.06, 0.04]


def chosen(policy, probabilities):
    likely = dict(zip(C4.elements, probabilities, strict=True))
    return policy.choose(sorted(likely.items(), key=lambda item: -item[1]), probabilities)


@pytest.mark.parametrize(
    ("gate", "turn", "policy"),
    [
        (0.0, Turn(1), "argmax"),
        (math.log(2) - 1e-9, Turn(1), "argmax"),
        (math.log(2) + 1e-9, IDENTITY, "gate"),
        (50.0, IDENTITY, "gate"),
    ],
)
def test_the_gate_is_a_margin_over_the_given_pose(gate, turn, policy):
    pose = chosen(UncertainPoses(gate=gate), PROBABILITIES)
    assert (pose.turn, pose.policy, pose.others) == (turn, policy, ())
    assert pose.probability == PROBABILITIES[turn.quarters]
    assert pose.probabilities == tuple(PROBABILITIES)


def test_what_is_likeliest_as_given_is_not_gated():
    pose = chosen(UncertainPoses(gate=9.0), [0.6, 0.3, 0.06, 0.04])
    assert (pose.turn, pose.policy) == (IDENTITY, "argmax")


def test_a_given_pose_of_no_probability_is_turned_whatever_the_margin():
    assert chosen(UncertainPoses(gate=1e6), [0.0, 1.0, 0.0, 0.0]).turn == Turn(1)


def test_the_gate_comes_before_what_is_done_with_uncertain_poses():
    for name in UncertainPoses.POLICIES:
        assert chosen(UncertainPoses(name, 1.0, gate=1.0), PROBABILITIES).policy == "gate"
    # "keep" asks for the likeliest pose alone: 0.6 is sure enough, though 0.3 is not far.
    assert chosen(UncertainPoses("keep", 0.55), PROBABILITIES).turn == Turn(1)
    # And the gate turns an image that keep leaves: unsure, but far likelier than as given.
    unsure = [0.01, 0.4, 0.3, 0.29]
    assert chosen(UncertainPoses("keep", 0.5), unsure).turn == IDENTITY
    assert chosen(UncertainPoses("argmax", gate=2.0), unsure).turn == Turn(1)


@pytest.mark.parametrize("gate", [-1.0, float("nan"), math.inf])
def test_gates_that_are_none(gate):
    with pytest.raises(ValueError, match=f"GATE is {gate}; give a margin in log-probability"):
        UncertainPoses(gate=gate)


@pytest.mark.parametrize("network", [random_network, four_looks])
def test_gated_images_are_as_given_and_others_turn_with_the_image(network):
    free, gated = canonicalizer_of(network()), canonicalizer_of(network())
    seen = set()
    for seed in range(6):
        image = random_image(37, 52, seed)
        likely = free.pose(image).probabilities
        ordered = sorted(math.log(value) for value in likely)
        gated.uncertain = UncertainPoses(gate=(ordered[-1] - ordered[-2]) + 1e-6)
        for turn in C4.elements:
            turned = turn_maps(image, turn)
            pose, without = gated.pose(turned), free.pose(turned)
            margin = math.log(max(without.probabilities) / without.probabilities[0])
            is_gated = without.turn != IDENTITY and margin < gated.uncertain.gate
            assert pose.policy == ("gate" if is_gated else "argmax")
            assert pose.turn == (IDENTITY if is_gated else without.turn)
            assert pose.probabilities == without.probabilities
            seen.add(is_gated)
    assert seen == {True, False}


@pytest.mark.parametrize("gate", [0.001, 0.1, 5.0])
@pytest.mark.parametrize("image", SYMMETRIC)
def test_prompts_that_come_later_find_the_same_pose_of_symmetric_images(image, gate):
    image, canonicalizer = image(), canonicalizer_of(random_network())
    canonicalizer.uncertain = UncertainPoses(gate=gate)
    height, width = image.shape[-2:]
    prompts = random_prompts(height, width, "both").snapped()
    for turn in C4.elements:
        turned, own = turn_maps(image, turn), prompts.turned(turn, height, width)
        at_once = CanonicalFrame(canonicalizer, turned, own).pose
        later = CanonicalFrame(canonicalizer, turned).with_prompts(own).pose
        assert (later.turn, later.policy) == (at_once.turn, at_once.policy)
        assert later.probabilities == at_once.probabilities
        assert later.probability == at_once.probability


def test_the_measure_of_a_gate_is_what_happens_to_turned_photographs():
    canonicalizer = canonicalizer_of(random_network())
    images = [random_image(37, 52, seed) for seed in range(5)]
    probabilities = np.array([canonicalizer.pose(image).probabilities for image in images])
    # Half of what could be gated is.
    margins = np.log(probabilities.max(axis=1, keepdims=True) / probabilities)
    gate = float(np.median(margins[margins > 0])) + 1e-9
    canonicalizer.uncertain = UncertainPoses(gate=gate)
    measured = measure_gate(probabilities, gate)
    for name, turns in (("upright", [0]), ("turned", [1, 2, 3])):
        poses = [(k, canonicalizer.pose(turn_maps(image, k))) for k in turns for image in images]
        assert measured[name] == {
            "accuracy": pytest.approx(np.mean([pose.turns == k for k, pose in poses])),
            "gated": pytest.approx(np.mean([pose.policy == "gate" for _, pose in poses])),
        }
    assert 0 < measured["turned"]["gated"] < 1 and measured["margin"] == gate
