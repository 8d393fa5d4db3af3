import copy

import numpy as np
import pytest
import torch
from tiny_models import (
    MIN_SIZE,
    any_angle_canonicalizer,
    canonicalized,
    random_canonicalizer,
    random_image,
    random_prompts,
    tiny_config,
    tiny_segmenter,
)
from torch import nn

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.coco.panoptic import turn_panoptic
from canon_seg.core.canonicalizer import (
    AllPosesCanonicalizer,
    Canonicalizer,
    FixedPoseCanonicalizer,
    IdentityCanonicalizer,
)
from canon_seg.core.group import C4 as CORE_C4
from canon_seg.core.group import SO2, C
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.scorer import GridDistribution
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn
from canon_seg.d2.cache import ResultCache
from canon_seg.d2.config import load_config
from canon_seg.d2.instances import tilt_instances, turn_instances, turn_own_instances
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.sam.prompted import boxes_around
from canon_seg.sam.prompts import Prompts

from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

SIZES = [(48, 48), (47, 47), (40, 61), (61, 40), (33, 80), (64, 97)]
KINDS = ["mask_rcnn", "keypoint_rcnn", "retinanet", "semantic", "panoptic_fpn"]


@pytest.fixture(scope="module")
def sam():
    return canonicalized(tiny_segmenter("sam"), random_canonicalizer())


@pytest.fixture(scope="module", params=KINDS)
def detectron(request):
    return canonicalized(tiny_segmenter(request.param), random_canonicalizer("BGR"))


def turned_inputs(image, turns, prompts=None, **size):
    inputs = {"image": turn_maps(image, turns).contiguous()}
    if size:
        swap = turns % 2
        inputs["height"], inputs["width"] = (
            (size["width"], size["height"]) if swap else (size["height"], size["width"])
        )
    if prompts is not None:
        inputs["prompts"] = prompts.turned(turns, *image.shape[1:])
    return inputs


def turned_result(result, turns):
    """What the segmenter would have to give for an image turned by ``turns``."""
    turned = {"pose": C4.compose(result["pose"].turns, turns)}
    if "instances" in result:
        turned["instances"] = turn_instances(result["instances"], turns)
    if "sem_seg" in result:
        turned["sem_seg"] = turn_maps(result["sem_seg"], turns)
    if "panoptic_seg" in result:
        turned["panoptic_seg"] = turn_panoptic(*result["panoptic_seg"], turns)
    return turned


def assert_identical(result, expected):
    """Equal to the last bit: poses, masks, boxes, scores, classes, maps."""
    assert result.keys() == expected.keys()
    pose = expected["pose"]
    assert result["pose"].turns == getattr(pose, "turns", pose)
    if "instances" in expected:
        ours, theirs = result["instances"], expected["instances"]
        assert ours.image_size == theirs.image_size
        assert ours.get_fields().keys() == theirs.get_fields().keys()
        for name, value in theirs.get_fields().items():
            have = ours.get(name)
            if isinstance(value, Boxes):
                value, have = value.tensor, have.tensor
            assert torch.equal(have, value), name
    if "sem_seg" in expected:
        assert torch.equal(result["sem_seg"], expected["sem_seg"])
    if "panoptic_seg" in expected:
        assert torch.equal(result["panoptic_seg"][0], expected["panoptic_seg"][0])
        assert result["panoptic_seg"][1] == expected["panoptic_seg"][1]


def assert_equivariant(model, image, prompts=None, **size):
    """The results of the four turns agree; returns them."""
    results = [model([turned_inputs(image, turns, prompts, **size)])[0] for turns in C4.elements]
    for turns, result in zip(C4.elements, results):
        assert_identical(result, turned_result(results[0], turns))
    return results


# --- exactness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (1, 30), (30, 1), (1, 300)])
@pytest.mark.parametrize("kind", ["boxes", "points", "both"])
def test_sam_is_exactly_equivariant(sam, size, kind):
    image, prompts = random_image(*size), random_prompts(*size, kind)
    results = assert_equivariant(sam, image, prompts)
    assert sorted(result["pose"].turns for result in results) == [0, 1, 2, 3]
    if min(size) > 30:  # not because there is nothing to be seen
        assert 0 < results[0]["instances"].pred_masks.float().mean() < 1


@pytest.mark.parametrize("size", SIZES[1:5])
def test_detectron2_models_are_exactly_equivariant(detectron, size):
    results = assert_equivariant(detectron, random_image(*size))
    assert sorted(result["pose"].turns for result in results) == [0, 1, 2, 3]
    if "instances" in results[0] and "panoptic_seg" not in results[0]:
        assert len(results[0]["instances"]) > 0


@pytest.mark.parametrize("group", [SO2, C(8)], ids=lambda group: group.name)
@pytest.mark.parametrize("kind", ["sam", *KINDS])
def test_quarter_turns_of_a_tilted_image_are_exact_for_every_group(kind, group):
    """One interpolation there and one back, in the frame that all four share."""
    rgb = "RGB" if kind == "sam" else "BGR"
    model = canonicalized(tiny_segmenter(kind), any_angle_canonicalizer(group, rgb))
    tilted = 0
    for size in SIZES[2:5]:
        image = random_image(*size)
        prompts = random_prompts(*size) if kind == "sam" else None
        results = assert_equivariant(model, image, prompts)
        tilted += not results[0]["pose"].turn.exact
        for name, value in results[0].get("instances", Instances(size)).get_fields().items():
            assert len(value) == len(results[0]["instances"]), name
    assert tilted


@pytest.mark.parametrize("kind", ["retinanet", "keypoint_rcnn"])
def test_boxes_without_masks_become_hulls_beside_the_boxes_themselves(kind):
    model = canonicalized(tiny_segmenter(kind), FixedPoseCanonicalizer(Turn.by(20), SO2))
    image = random_image(64, 97)
    found = model([{"image": image}])[0]["instances"]
    assert len(found) and "pred_keypoint_heatmaps" not in found.get_fields()
    hulls, boxes = found.pred_boxes.tensor, found.pred_rotated_boxes.tensor
    assert torch.allclose(boxes[:, 4], torch.tensor(20.0))
    # The corners of each box, turned by its angle, have the hull.
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    half = torch.stack(
        [boxes[:, 2] * cos + boxes[:, 3] * sin, boxes[:, 2] * sin + boxes[:, 3] * cos], dim=1
    )
    wanted = torch.cat([boxes[:, :2] - half / 2, boxes[:, :2] + half / 2], dim=1)
    wanted[:, 0::2] = wanted[:, 0::2].clamp(0, 97)
    wanted[:, 1::2] = wanted[:, 1::2].clamp(0, 64)
    assert torch.allclose(hulls, wanted, atol=0.02)


def test_masks_that_vanish_stay_as_empty_ones_with_their_score():
    # In the canonical frame there is room for masks that lie outside of the given image.
    canvas = Tilting.expanding(30, (40, 60))
    masks = torch.zeros(2, *canvas.target, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 30:40, 30:50] = True
    instances = Instances(
        canvas.target,
        pred_masks=masks,
        pred_boxes=Boxes(boxes_around(masks)),
        scores=torch.tensor([0.9, 0.8]),
    )
    back = tilt_instances(instances, canvas.inverse())
    assert back.image_size == (40, 60) and back.scores.tolist() == instances.scores.tolist()
    assert not back.pred_masks[0].any() and back.pred_boxes.tensor[0].tolist() == [0, 0, 0, 0]
    assert torch.equal(back.pred_boxes.tensor, boxes_around(back.pred_masks))
    assert back.pred_vanished.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["sam", *KINDS])
def test_results_of_another_size_by_a_tilt(kind):
    """They are those of the image's own size, enlarged, and exact for quarter turns."""
    rgb = "RGB" if kind == "sam" else "BGR"
    model = canonicalized(tiny_segmenter(kind), any_angle_canonicalizer(SO2, rgb))
    image = random_image(40, 61)
    prompts = random_prompts(40, 61).snapped() if kind == "sam" else None
    plain = model([turned_inputs(image, 0, prompts)])[0]
    large = assert_equivariant(model, image, prompts, height=80, width=183)[0]
    assert not large["pose"].turn.exact
    if "sem_seg" in plain:
        assert tuple(large["sem_seg"].shape[1:]) == (80, 183)
    if "instances" not in plain:
        return
    small, large = plain["instances"], large["instances"]
    assert large.image_size == (80, 183) and len(large) == len(small)
    if small.has("pred_masks"):
        shares = [one.pred_masks.float().mean(dim=(1, 2)) for one in (small, large)]
        assert torch.allclose(*shares, atol=0.02) and (
            kind == "panoptic_fpn" or shares[0].max() > 0
        )
    if small.has("pred_rotated_boxes"):
        centres = [one.pred_rotated_boxes.tensor[:, :2] for one in (small, large)]
        assert torch.allclose(centres[0] * torch.tensor([3.0, 2.0]), centres[1], atol=0.5)


@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet"])
def test_votes_of_tilted_poses_and_others(kind):
    canonicalizer = any_angle_canonicalizer(C(8), "BGR", uncertain=UncertainPoses("vote", 1.0, 4))
    model = canonicalized(tiny_segmenter(kind), canonicalizer)
    result = assert_equivariant(model, random_image(40, 61))[0]
    turns = [result["pose"].turn, *result["pose"].others]
    assert {turn.exact for turn in turns} == {True, False} and len(result["instances"])


def test_a_detector_s_masks_are_cut_after_the_tilt(monkeypatch):
    """They are nearer to those of twice the resolution than masks that were cut before."""
    model = canonicalized(tiny_segmenter("mask_rcnn"), FixedPoseCanonicalizer(Turn.by(20), SO2))
    inputs = {"image": random_image(64, 97)}
    soft = model([inputs])[0]["instances"]
    fine = model([{**inputs, "height": 5 * 64, "width": 5 * 97}])[0]["instances"]
    monkeypatch.setattr("canon_seg.d2.meta_arch.gives_soft_masks", lambda segmenter: False)
    cut = model([inputs])[0]["instances"]
    truth = fine.pred_masks[:, 2::5, 2::5]
    assert truth.any() and len(soft) == len(fine) == len(cut)
    wrong = [int((one.pred_masks != truth).sum()) for one in (soft, cut)]
    assert wrong[0] < 0.5 * wrong[1]


def test_results_depend_on_the_pose_without_a_canonicalizer(detectron):
    plain = canonicalized(detectron.segmenter, IdentityCanonicalizer())
    with pytest.raises(AssertionError):
        assert_equivariant(plain, random_image(40, 61))


def test_one_pixel_wide_images_in_mask_rcnn():
    model = canonicalized(tiny_segmenter("mask_rcnn"), random_canonicalizer("BGR"))
    assert_equivariant(model, random_image(1, 50))


@pytest.mark.parametrize("kind", ["sam", "mask_rcnn", "retinanet", "semantic"])
def test_images_of_a_few_pixels_by_a_tilt(kind):
    model = canonicalized(tiny_segmenter(kind), FixedPoseCanonicalizer(Turn.by(110), SO2))
    for size in [(1, 1), (1, 2), (3, 1), (1, 60)]:
        inputs = {"image": random_image(*size)}
        if kind == "sam":
            inputs["prompts"] = random_prompts(*size, "both")
        result = model([inputs])[0]
        if "instances" in result:
            found = result["instances"]
            assert found.image_size == size
            assert not found.has("pred_masks") or tuple(found.pred_masks.shape[1:]) == size
        else:
            assert tuple(result["sem_seg"].shape[1:]) == size
            assert result["sem_seg"].isfinite().all()


def test_prompts_on_an_image_of_one_colour_turn_with_it_for_every_angle():
    model = canonicalized(tiny_segmenter("sam"), any_angle_canonicalizer())
    for size in [(40, 40), (40, 52)]:
        image = torch.full((3, *size), 90, dtype=torch.uint8)
        results = assert_equivariant_but_for_poses(model, image, random_prompts(*size).snapped())
        assert all(result["pose"].turn.exact for result in results)


def assert_equivariant_but_for_poses(model, image, prompts):
    """Of an image that equals its turns, the prompts alone tell the pose."""
    results = [model([turned_inputs(image, turns, prompts)])[0] for turns in C4.elements]
    for turns, result in zip(C4.elements, results):
        expected = turn_instances(results[0]["instances"], turns)
        for name in ("pred_masks", "scores"):
            assert torch.equal(result["instances"].get(name), expected.get(name)), name
    return results


def test_results_of_another_size_are_turned_too(sam):
    image, prompts = random_image(40, 61), random_prompts(40, 61)
    results = assert_equivariant(sam, image, prompts, height=93, width=120)
    assert [result["instances"].image_size for result in results] == [
        (93, 120),
        (120, 93),
        (93, 120),
        (120, 93),
    ]
    assert results[1]["instances"].pred_masks.shape[1:] == (120, 93)


def test_results_of_another_size_in_detectron2_models(detectron):
    results = assert_equivariant(detectron, random_image(40, 61), height=93, width=120)
    for turns, result in enumerate(results):
        size = (93, 120) if turns % 2 == 0 else (120, 93)
        if "instances" in result:
            assert result["instances"].image_size == size
        if "sem_seg" in result:
            assert tuple(result["sem_seg"].shape[1:]) == size


@pytest.mark.parametrize("kind", ["sam", "mask_rcnn"])
def test_batches_are_exactly_equivariant(kind):
    model = canonicalized(
        tiny_segmenter(kind), random_canonicalizer("RGB" if kind == "sam" else "BGR")
    )
    images = [random_image(*size) for size in SIZES[2:5]]
    prompts = [random_prompts(*size) if kind == "sam" else None for size in SIZES[2:5]]

    def run(turns_of_each):
        return model(
            [
                turned_inputs(image, turns, prompt)
                for image, turns, prompt in zip(images, turns_of_each, prompts)
            ]
        )

    upright = run((0, 0, 0))
    for turns_of_each in ((1, 2, 3), (3, 0, 1), (2, 2, 2)):
        for result, base, turns in zip(run(turns_of_each), upright, turns_of_each):
            assert_identical(result, turned_result(base, turns))


def symmetric_images():
    half = random_image(24, 31)
    quarter = random_image(20, 20)
    upper = torch.cat([quarter, turn_maps(quarter, 3)], dim=2)
    return {
        "constant": torch.full((3, 40, 40), 90, dtype=torch.uint8),
        "constant, not square": torch.full((3, 40, 52), 90, dtype=torch.uint8),
        "180 degrees": torch.cat([half, turn_maps(half, 2)], dim=1),
        "90 degrees": torch.cat([upper, turn_maps(upper, 2)], dim=1),
    }


@pytest.mark.parametrize("name", symmetric_images())
@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_prompts_break_the_tie_of_symmetric_images(sam, name, kind):
    image = symmetric_images()[name]
    order = 2 if image.shape[1] != image.shape[2] or name == "180 degrees" else 1
    assert torch.equal(turn_maps(image, order), image)
    results = assert_equivariant(sam, image, random_prompts(*image.shape[1:], kind))
    assert len({result["pose"].turns for result in results}) == 4


@pytest.mark.parametrize(
    ("name", "votes"), [*((name, False) for name in symmetric_images()), ("90 degrees", True)]
)
def test_without_prompts_the_canonical_result_of_symmetric_images_is_defined(name, votes):
    canonicalizer = random_canonicalizer("BGR")
    if votes:
        canonicalizer = voting(canonicalizer, 4)
    model = canonicalized(tiny_segmenter("mask_rcnn"), canonicalizer)
    image = symmetric_images()[name]
    canonical = []
    for turns in C4.elements:
        result = model([turned_inputs(image, turns)])[0]
        back = turned_result(result, result["pose"].turns_to_canonical)
        assert back["pose"] == 0
        canonical.append(back)
    for back in canonical[1:]:
        for field in ("pred_boxes", "pred_masks", "scores", "pred_classes"):
            ours, theirs = (r["instances"].get(field) for r in (back, canonical[0]))
            assert torch.equal(getattr(ours, "tensor", ours), getattr(theirs, "tensor", theirs))


def test_no_prompts_at_all_on_a_symmetric_image(sam):
    image = torch.zeros((3, 20, 20), dtype=torch.uint8)
    result = sam([{"image": image, "prompts": Prompts(boxes=torch.zeros(0, 4))}])[0]
    assert len(result["instances"]) == 0


# --- uncertain poses ------------------------------------------------------------------------------


class Undecided(nn.Module):
    """A network to which all poses are equally likely."""

    def forward(self, images):
        return torch.zeros(len(images), 4)


class Corner(nn.Module):
    """Finds the same in the top left corner of any image: equal scores, equal predicted IoUs."""

    resizes_itself = True

    def forward(self, batched_inputs):
        results = []
        for inputs in batched_inputs:
            count = len(inputs["prompts"]) if "prompts" in inputs else 2
            instances = Instances((inputs["height"], inputs["width"]))
            instances.pred_boxes = Boxes(torch.tensor([[1.0, 1.0, 13.0, 9.0]] * count))
            instances.pred_masks = torch.zeros(count, *instances.image_size, dtype=torch.bool)
            instances.pred_masks[:, 1:9, 1:13] = inputs["image"][0, 1:9, 1:13] > 127
            instances.pred_classes = torch.arange(count) % 2
            instances.scores = instances.pred_ious = torch.full((count,), 0.5)
            results.append({"instances": instances})
        return results


def voting(canonicalizer, vote_poses):
    """It, which now takes every pose for uncertain."""
    return GroupCanonicalizer(
        canonicalizer.scorer, uncertain=UncertainPoses("vote", 1.0, vote_poses)
    )


@pytest.mark.parametrize("vote_poses", [2, 4])
@pytest.mark.parametrize("with_prompts", [True, False])
def test_ties_of_a_vote_are_resolved_in_the_canonical_frame(with_prompts, vote_poses):
    canonicalizer = GroupCanonicalizer(
        NetworkScorer(Undecided(), input_size=33, group=CORE_C4),
        uncertain=UncertainPoses("vote", 0.5, vote_poses),
    )
    model = canonicalized(Corner(), canonicalizer)
    for size in [(40, 61), (48, 48)]:
        prompts = random_prompts(*size) if with_prompts else None
        result = assert_equivariant(model, random_image(*size), prompts)[0]
        assert result["pose"].policy == "vote"
        count = len(prompts) if with_prompts else 2 * vote_poses  # corners that do not overlap
        assert len(result["instances"]) == count


@pytest.mark.parametrize(("kind", "vote_poses"), [("sam", 2), ("sam", 4), ("mask_rcnn", 2)])
def test_votes_are_exactly_equivariant(kind, vote_poses):
    decided = random_canonicalizer("RGB" if kind == "sam" else "BGR")
    segmenter = tiny_segmenter(kind)
    model = canonicalized(segmenter, voting(decided, vote_poses))
    image = random_image(40, 61)
    prompts = random_prompts(40, 61) if kind == "sam" else None
    results = assert_equivariant(model, image, prompts, height=50, width=71)
    assert all(result["pose"].policy == "vote" for result in results)
    assert all(len(result["pose"].others) == vote_poses - 1 for result in results)
    single = canonicalized(segmenter, decided)(
        [turned_inputs(image, 0, prompts, height=50, width=71)]
    )[0]
    assert single["pose"].policy == "argmax"
    assert single["pose"].turns == results[0]["pose"].turns
    ours, theirs = results[0]["instances"], single["instances"]
    assert not torch.equal(ours.pred_masks, theirs.pred_masks)
    if kind == "sam":
        assert (ours.pred_ious >= theirs.pred_ious).all()


@pytest.mark.parametrize("name", symmetric_images())
def test_votes_on_symmetric_images(sam, name):
    image = symmetric_images()[name]
    model = canonicalized(sam.segmenter, voting(sam.canonicalizer, 4))
    assert_equivariant(model, image, random_prompts(*image.shape[1:]))


def test_batches_with_and_without_votes(sam):
    images, prompts = [random_image(*size) for size in SIZES[1:4]], random_prompts(30, 30)
    below = sorted(sam.canonicalizer.pose(image).probability for image in images)[1]
    canonicalizer = voting(sam.canonicalizer, 4)
    canonicalizer.uncertain = UncertainPoses("vote", below, 4)
    model = canonicalized(sam.segmenter, canonicalizer)
    batch = [turned_inputs(image, 0, prompts) for image in images]
    results = model(batch)
    assert sorted(result["pose"].policy for result in results) == ["argmax", "argmax", "vote"]
    for inputs, result in zip(batch, results):
        assert_identical(result, model([inputs])[0])


def test_votes_need_instances():
    model = canonicalized(tiny_segmenter("semantic"), voting(random_canonicalizer("BGR"), 2))
    with pytest.raises(InputError, match="this segmenter gives sem_seg"):
        model([{"image": random_image(40, 61)}])


def test_an_uncertain_image_is_kept_as_given(sam):
    canonicalizer = voting(sam.canonicalizer, 2)
    canonicalizer.uncertain = UncertainPoses("keep", 1.0)
    plain = canonicalized(sam.segmenter, IdentityCanonicalizer())
    model = canonicalized(sam.segmenter, canonicalizer)
    for turns in C4.elements:
        prompts = random_prompts(40, 61).snapped()
        inputs = turned_inputs(random_image(40, 61), turns, prompts)
        kept, expected = model([inputs])[0], plain([inputs])[0]
        assert_identical(kept, expected)
        assert kept["pose"].policy == "keep"
        assert kept["pose"].probabilities == sam([inputs])[0]["pose"].probabilities


@pytest.mark.parametrize("kind", ["sam", "mask_rcnn"])
def test_test_time_augmentation_takes_the_best_of_four_turns(kind):
    segmenter = tiny_segmenter(kind)
    model = canonicalized(segmenter, AllPosesCanonicalizer())
    image = random_image(40, 61)
    prompts = random_prompts(40, 61) if kind == "sam" else None
    inputs = turned_inputs(image, 0, prompts)
    ours = model([inputs])[0]["instances"]
    each = [
        canonicalized(segmenter, FixedPoseCanonicalizer(turns))([inputs])[0]["instances"]
        for turns in C4.elements
    ]
    if kind == "sam":
        ious = torch.stack([instances.pred_ious for instances in each])
        assert torch.equal(ours.pred_ious, ious.max(dim=0).values)
        masks = torch.stack([instances.pred_masks for instances in each])
        best = masks[ious.argmax(dim=0), torch.arange(len(prompts))]
        assert torch.equal(ours.pred_masks, best)
        assert len(set(ious.argmax(dim=0).tolist())) > 1
    else:
        scores = torch.cat([instances.scores for instances in each])
        assert ours.scores[0] == scores.max()
        assert set(ours.scores.tolist()) <= set(scores.tolist())
        assert torch.equal(ours.scores, ours.scores.sort(descending=True).values)
        assert len(ours) > max(map(len, each))


# --- the cache ------------------------------------------------------------------------------------


def counted(segmenter):
    """It, with a list of how many images each of its runs had."""
    runs = []
    segmenter.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    return segmenter, runs


@pytest.mark.parametrize("kind", ["sam", "panoptic_fpn"])
def test_the_cache_serves_all_turns_with_the_same_bytes(kind):
    canonicalizer = random_canonicalizer("RGB" if kind == "sam" else "BGR")
    segmenter, runs = counted(tiny_segmenter(kind))
    plain = canonicalized(segmenter, canonicalizer)
    model = canonicalized(segmenter, canonicalizer, cache=ResultCache(2**20))
    image, prompts = random_image(40, 61), random_prompts(40, 61) if kind == "sam" else None
    for turns in (2, 0, 3, 1):
        inputs = turned_inputs(image, turns, prompts)
        expected = plain([inputs])[0]
        runs.clear()
        result = model([inputs])[0]
        assert runs == ([1] if turns == 2 else [])
        assert_identical(result, expected)
        # What a caller does to his result is his.
        result["instances"].scores.zero_()
        result["instances"].pred_masks.fill_(True)
        result["instances"].pred_boxes.tensor.zero_()
    assert (model.cache.hits, model.cache.misses) == (3, 1)


def test_the_cache_tells_inputs_and_weights_apart(sam):
    segmenter, runs = counted(copy.deepcopy(sam.segmenter))
    model = canonicalized(segmenter, sam.canonicalizer, cache=ResultCache(2**20))
    image, prompts = random_image(40, 61), random_prompts(40, 61)
    inputs = turned_inputs(image, 0, prompts)
    other_boxes = Prompts(boxes=prompts.boxes + 1, classes=prompts.classes)
    other_classes = Prompts(boxes=prompts.boxes, classes=prompts.classes + 1)
    different = [
        inputs,
        {**inputs, "height": 80, "width": 122},
        {**inputs, "prompts": other_boxes},
        {**inputs, "prompts": other_classes},
        {**inputs, "image": random_image(40, 61, seed=1)},
    ]
    for inputs in different:
        model([inputs])
    model([different[0], different[1]])
    assert model.cache.misses == len(runs) == 6 and model.cache.hits == 0
    model([different[0], different[1]])
    assert model.cache.hits == 1
    with torch.no_grad():
        segmenter.sam.image_encoder.neck[-1].bias += 1
    model([different[0]])
    assert model.cache.misses == 7
    model.train().eval()
    assert len(model.cache) == 0


def test_votes_are_cached_pose_by_pose(sam):
    segmenter, runs = counted(copy.deepcopy(sam.segmenter))
    model = canonicalized(segmenter, voting(sam.canonicalizer, 4), cache=ResultCache(2**20))
    assert_equivariant(model, random_image(40, 61), random_prompts(40, 61))
    assert len(runs) == 4 and model.cache.hits == 12


# --- special inputs -------------------------------------------------------------------------------


def test_a_single_pixel(sam):
    assert_equivariant(sam, random_image(1, 1), random_prompts(1, 1, "boxes"))


def test_boxes_and_keypoints_come_back_on_the_grid():
    model = canonicalized(tiny_segmenter("keypoint_rcnn"), random_canonicalizer("BGR"))
    instances = model([{"image": random_image(40, 61)}])[0]["instances"]
    for coords in (instances.pred_boxes.tensor, instances.pred_keypoints[..., :2]):
        assert coords.numel() > 0
        assert torch.equal(coords * 256, (coords * 256).round())


def test_results_of_the_segmenter_are_not_changed():
    class Remembers(nn.Module):
        resizes_itself = True

        def forward(self, batched_inputs):
            self.given = Instances((20, 30))
            self.given.pred_boxes = Boxes(torch.tensor([[0.3, 1.1, 7.7, 9.9]]))
            return [{"instances": self.given}]

    segmenter = Remembers()
    canonicalized(segmenter, FixedPoseCanonicalizer(1))([{"image": random_image(30, 20)}])
    assert torch.equal(segmenter.given.pred_boxes.tensor, torch.tensor([[0.3, 1.1, 7.7, 9.9]]))


# --- the identity canonicalizer -------------------------------------------------------------------


def test_identity_is_detectron2_alone(detectron):
    image = random_image(40, 61)
    model = canonicalized(detectron.segmenter, IdentityCanonicalizer())
    result = model([{"image": image}])[0]
    # As in detectron2.engine.DefaultPredictor.
    array = image.permute(1, 2, 0).numpy()
    resize = ResizeShortestEdge([MIN_SIZE, MIN_SIZE], 2 * MIN_SIZE)
    resized = resize.get_transform(array).apply_image(array).astype("float32")
    inputs = {
        "image": torch.as_tensor(resized.transpose(2, 0, 1)),
        "height": 40,
        "width": 61,
    }
    with torch.no_grad():
        expected = detectron.segmenter([inputs])[0]
    assert_identical(result, {"pose": 0, **expected})


@pytest.mark.parametrize("pose", C4.elements)
def test_a_known_pose_gives_the_turned_plain_result(sam, pose):
    image, prompts = random_image(40, 61), random_prompts(40, 61).snapped()
    plain = canonicalized(sam.segmenter, IdentityCanonicalizer())
    expected = plain([{"image": image, "prompts": prompts}])[0]
    oracle = canonicalized(sam.segmenter, FixedPoseCanonicalizer(pose))
    result = oracle([turned_inputs(image, pose, prompts)])[0]
    assert_identical(result, turned_result(expected, pose))


def test_without_a_segmenter_poses_are_found():
    model = canonicalized(None, random_canonicalizer())
    image = random_image(40, 61)
    poses = [model([turned_inputs(image, turns)])[0]["pose"].turns for turns in C4.elements]
    assert [(pose - poses[0]) % 4 for pose in poses] == [0, 1, 2, 3]


def test_unknown_results_and_proposals_are_refused():
    class Strange(nn.Module):
        resizes_itself = True

        def forward(self, batched_inputs):
            return [{"depth": torch.zeros(3, 4)} for _ in batched_inputs]

    model = canonicalized(Strange(), FixedPoseCanonicalizer(1))
    with pytest.raises(ValueError, match="depth"):
        model([{"image": random_image(5, 6)}])
    with pytest.raises(ValueError, match="proposals"):
        model([{"image": random_image(5, 6), "proposals": Instances((5, 6))}])


def test_ground_truth_does_not_reach_the_segmenter_in_inference():
    class Looks(nn.Module):
        resizes_itself = True

        def forward(self, batched_inputs):
            assert batched_inputs[0].keys() == {"image", "height", "width", "image_id"}
            return [{}]

    model = canonicalized(Looks(), FixedPoseCanonicalizer(1))
    image = random_image(5, 6)
    model([{"image": image, "image_id": 3, "instances": Instances((5, 6)), "sem_seg": image[0]}])


# --- training -----------------------------------------------------------------------------------


class Untouchable(nn.Module):
    resizes_itself = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, batched_inputs):
        raise AssertionError("the segmenter was called")


def trainable_canonicalizer():
    canonicalizer = random_canonicalizer("BGR")
    canonicalizer.requires_grad_(True)
    return canonicalizer


def annotated(height, width, mask_type, seed=0):
    """A training example with two instances, as detectron2's DatasetMapper gives it."""
    instances = Instances((height, width))
    boxes = np.array([[4.0, 5.0, 24.0, 30.0], [20.0, 8.0, 38.0, 36.0]])
    polygons = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]
    masks = PolygonMasks(polygons)
    if mask_type is BitMasks:
        masks = BitMasks.from_polygon_masks(masks, height, width)
    instances.gt_masks = masks
    instances.gt_boxes = Boxes(torch.from_numpy(boxes).float())
    instances.gt_classes = torch.tensor([0, 2])
    return {"image": random_image(height, width, seed), "instances": instances}


def batch_of(mask_type=BitMasks):
    return [annotated(40, 61, mask_type), annotated(48, 48, mask_type, seed=1)]


def assert_same_state(module, state):
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_task_weight_0_never_calls_the_segmenter():
    model = canonicalized(Untouchable(), trainable_canonicalizer()).train()
    with EventStorage() as storage:
        losses = model([{"image": random_image(40, 61)}, {"image": random_image(61, 40)}])
    assert losses.keys() == {"loss_prior"}
    losses["loss_prior"].backward()
    assert all(p.grad is not None for p in model.canonicalizer.parameters())
    assert {"canonicalizer/kl", "canonicalizer/identity_rate", "canonicalizer/wasserstein"} <= set(
        storage.latest()
    )


def test_the_prior_loss_is_weighted():
    batch = [{"image": random_image(40, 61)}]
    canonicalizer = trainable_canonicalizer()
    logits = canonicalizer.scores([batch[0]["image"]]).logits
    model = canonicalized(None, canonicalizer).train()
    model.prior_weight = 100.0
    with EventStorage():
        loss = model(batch)["loss_prior"]
    expected = -100 * logits.log_softmax(dim=1)[0, 0]
    torch.testing.assert_close(loss, expected)


def test_a_teacher_of_turned_views_is_turned_back_with_them():
    image, canonicalizer = random_image(40, 61), trainable_canonicalizer()
    logits = canonicalizer.scores([image]).logits[0].detach()
    # What is said of pose k of a view that was turned by 1 is about pose k - 1 of the upright one.
    upright = [float(logits.log_softmax(dim=0)[k]) for k in (1, 2, 3, 0)]
    said = [0.1, 0.6, 0.2, 0.1]
    target = [0.5 * p + 0.5 * t for p, t in zip([1, 0, 0, 0], [said[k] for k in (1, 2, 3, 0)])]
    model = canonicalized(None, canonicalizer, teacher_share=0.5).train()
    with EventStorage() as storage:
        batch = [{"image": image, "pose": 1, "teacher": torch.tensor(said)}]
        loss = model(batch)["loss_prior"]
    expected = -sum(t * q for t, q in zip(target, upright))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert storage.latest()["canonicalizer/teacher_identity_rate"][0] == 1.0
    agrees = storage.latest()["canonicalizer/teacher_agreement"][0]
    assert agrees == float(max(range(4), key=upright.__getitem__) == 0)


@pytest.mark.parametrize("mask_type", [BitMasks, PolygonMasks])
@pytest.mark.parametrize("kind", ["sam", "mask_rcnn"])
def test_the_task_loss_reaches_the_canonicalizer_alone(kind, mask_type):
    model = canonicalized(tiny_segmenter(kind), trainable_canonicalizer(), task_weight=2.0).train()
    model.prior_weight = 0.0
    state = copy.deepcopy(model.segmenter.state_dict())
    with EventStorage():
        losses = model(batch_of(mask_type))
        sum(losses.values()).backward()
    assert len(losses) > 3 and all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is None for p in model.segmenter.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.canonicalizer.parameters())
    # Neither weights nor batch statistics have moved, and the segmenter is in eval mode again.
    assert_same_state(model.segmenter, state)
    assert not any(module.training for module in model.segmenter.modules())


@pytest.mark.parametrize("kind", ["retinanet", "semantic", "panoptic_fpn"])
def test_task_losses_of_other_models(kind):
    model = canonicalized(tiny_segmenter(kind), trainable_canonicalizer(), task_weight=1.0).train()
    batch = batch_of()
    for inputs in batch:
        if kind != "retinanet":
            inputs["sem_seg"] = torch.randint(0, 6, inputs["image"].shape[1:])
    state = copy.deepcopy(model.segmenter.state_dict())
    with EventStorage():
        losses = model(batch)
        sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None for p in model.canonicalizer.parameters())
    assert_same_state(model.segmenter, state)


class Says(Canonicalizer):
    """A canonicalizer that finds the same pose in every image."""

    def __init__(self, pose):
        super().__init__()
        self.row = nn.Parameter(torch.eye(4)[pose])

    def scores(self, images):
        return GridDistribution(CORE_C4, self.row.expand(len(images), 4))


@pytest.mark.parametrize("pose", C4.elements)
def test_the_task_is_set_in_the_canonical_frame(pose):
    seen = []

    class Recorder(nn.Module):
        resizes_itself = True

        def forward(self, batched_inputs):
            seen.extend(batched_inputs)
            return {"loss": sum(inputs["image"].sum() for inputs in batched_inputs)}

    model = canonicalized(Recorder(), Says(pose), task_weight=1.0).train()
    example = annotated(40, 61, BitMasks)
    # The first mask is painted into the image, so that they can be compared wherever they go.
    mask = example["instances"].gt_masks.tensor[0]
    example["image"][0] = 255 * mask
    example["sem_seg"] = mask.long()
    with EventStorage():
        model([example])["loss"].backward()
    assert model.canonicalizer.row.grad.abs().min() > 0
    given = seen[0]
    expected = turn_maps(example["image"], C4.inverse(pose)).float()
    assert torch.equal(given["image"].detach(), expected)
    mask = expected[0] == 255
    assert torch.equal(given["instances"].gt_masks.tensor[0], mask)
    assert torch.equal(given["sem_seg"], mask.long())
    box = given["instances"].gt_masks[0].get_bounding_boxes().tensor
    assert torch.equal(given["instances"].gt_boxes.tensor[:1], box)
    assert (given["height"], given["width"]) == tuple(expected.shape[1:])


def test_task_losses_are_weighted_means_over_the_images():
    class Fixed(nn.Module):
        resizes_itself = True

        def forward(self, batched_inputs):
            return {"loss": torch.tensor([float(len(batched_inputs)) * 3.0]).sum()}

    model = canonicalized(Fixed(), trainable_canonicalizer(), task_weight=0.5).train()
    with EventStorage():
        assert model(batch_of())["loss"].item() == 1.5


def test_a_frozen_segmenter_stays_in_eval_mode():
    model = canonicalized(tiny_segmenter("sam"), random_canonicalizer())
    model.train()
    assert model.training and model.canonicalizer.training
    assert not any(module.training for module in model.segmenter.modules())
    assert not any(p.requires_grad for p in model.segmenter.parameters())


def test_a_segmenter_that_is_not_frozen_trains():
    segmenter = tiny_segmenter("sam")
    model = canonicalized(
        segmenter, trainable_canonicalizer(), task_weight=1.0, freeze_segmenter=False
    ).train()
    assert segmenter.training
    with EventStorage():
        sum(model(batch_of()).values()).backward()
    assert all(p.grad is not None for p in segmenter.sam.image_encoder.parameters())


def test_a_failing_segmenter_is_left_in_eval_mode():
    segmenter = tiny_segmenter("mask_rcnn")
    model = canonicalized(segmenter, trainable_canonicalizer(), task_weight=1.0).train()
    batch = batch_of()
    batch[0]["instances"].remove("gt_classes")
    with EventStorage(), pytest.raises(AttributeError):
        model(batch)
    assert not any(module.training for module in segmenter.modules())


# --- from a config --------------------------------------------------------------------------------


def test_from_config():
    cfg = tiny_config("mask_rcnn")
    cfg.MODEL.META_ARCHITECTURE = "CanonicalizedSegmenter"
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.CANONICALIZER.NAME = "IdentityCanonicalizer"
    model = build_model(cfg).eval()
    assert isinstance(model, CanonicalizedSegmenter)
    assert isinstance(model.canonicalizer, IdentityCanonicalizer)
    assert not any(p.requires_grad for p in model.segmenter.parameters())
    assert model.resize.short_edge_length == [MIN_SIZE, MIN_SIZE]
    assert model([{"image": random_image(40, 61)}])[0]["instances"].image_size == (40, 61)
    assert model.cache is None and not model.evaluation_only
    assert model.max_detections == cfg.TEST.DETECTIONS_PER_IMAGE


def test_the_size_of_the_cache_is_in_mebibytes():
    cfg = load_config("", ["MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer"])
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = ""
    cfg.MODEL.CANONICALIZER.CACHE = 3
    assert CanonicalizedSegmenter(cfg).cache.max_bytes == 3 * 2**20
    cfg.MODEL.CANONICALIZER.CACHE = -1
    with pytest.raises(InputError, match="MODEL.CANONICALIZER.CACHE is -1"):
        CanonicalizedSegmenter(cfg)


def test_what_is_for_evaluation_is_not_trained():
    model = canonicalized(
        tiny_segmenter("sam"), random_canonicalizer(), task_weight=1.0, evaluation_only=True
    )
    with pytest.raises(InputError, match="MODEL.SEGMENTER.BFLOAT16, COMPILE and CHANNELS_LAST"):
        model.train()
    model.task_weight = 0.0  # the segmenter is not run
    assert model.train().training


def test_the_task_needs_a_segmenter():
    cfg = load_config("", ["MODEL.META_ARCHITECTURE", "CanonicalizedSegmenter"])
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = ""
    cfg.MODEL.CANONICALIZER.NAME = "IdentityCanonicalizer"
    cfg.MODEL.CANONICALIZER.TASK_WEIGHT = 1.0
    with pytest.raises(InputError, match="TASK_WEIGHT"):
        CanonicalizedSegmenter(cfg)


@pytest.mark.parametrize("turns", C4.elements)
def test_masks_turned_in_their_own_memory_are_those_turned_elsewhere(turns):
    found = Instances((5, 7), scores=torch.rand(3), pred_masks=torch.rand(3, 5, 7) > 0.5)
    expected, memory = turn_instances(found, turns), found.pred_masks.data_ptr()
    turned = turn_own_instances(found, turns)
    assert turned.image_size == expected.image_size
    assert torch.equal(turned.pred_masks, expected.pred_masks)
    assert torch.equal(turned.scores, expected.scores)
    assert turned.pred_masks.data_ptr() == memory


class TakesTurnedViews(nn.Module):
    """A scorer that is not equivariant: it sees squares, and is trained on turned views."""

    group, image_format, needs_turned_views = CORE_C4, "RGB", True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.seen = []

    def prepare(self, image):
        return image[:, :8, :8].float()

    def forward(self, images):
        self.seen.append([tuple(image.shape) for image in images])
        means = torch.stack([image.float().mean(dim=(1, 2)) for image in images])
        return GridDistribution(CORE_C4, self.layer(means))


class KeepsItsInputs(nn.Module):
    """A segmenter whose loss is nothing, and that remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, batched_inputs):
        self.given += batched_inputs
        return {"loss_nothing": 0 * sum(inputs["image"].sum() for inputs in batched_inputs)}


def test_training_through_a_segmenter_turns_images_with_their_masks():
    """For a scorer that needs it: the prior turns along, and masks stay on their objects."""
    torch.manual_seed(0)
    scorer, segmenter = TakesTurnedViews(), KeepsItsInputs()
    nn.init.zeros_(scorer.layer.weight)  # says "upright" of all, so that none is turned back
    nn.init.zeros_(scorer.layer.bias)
    model = canonicalized(segmenter, GroupCanonicalizer(scorer), task_weight=1.0).train()
    batch = []
    for seed in range(12):
        image, mask = random_image(20, 30, seed), torch.zeros(1, 20, 30, dtype=torch.bool)
        mask[:, 2:9, 3:20] = True
        image[0] = 255 * mask[0]
        instances = Instances((20, 30), gt_masks=BitMasks(mask), gt_classes=torch.zeros(1).long())
        instances.gt_boxes = Boxes(torch.tensor([[3.0, 2.0, 20.0, 9.0]]))
        batch.append({"image": image, "instances": instances})
    with EventStorage():
        model(batch)
    assert scorer.seen == [[(3, 8, 8)] * 12]
    for inputs in segmenter.given:
        mask = inputs["instances"].gt_masks.tensor[0]
        assert torch.equal(inputs["image"][0] > 127, mask)
        x0, y0, x1, y1 = inputs["instances"].gt_boxes.tensor[0].int().tolist()
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (y1 - y0) * (x1 - x0)
    # Not all were turned to the same side: the scorer cannot learn to say always the same.
    assert len({inputs["image"].shape for inputs in segmenter.given}) == 2
    assert len({inputs["image"].detach().numpy().tobytes()[:400] for inputs in segmenter.given}) > 2
    assert all(inputs["image"].shape == (3, 20, 30) for inputs in batch)  # the given are as given


def test_the_prior_turns_with_the_views():
    """The loss does not depend on how a view was turned if the scorer says just that."""
    scorer = TakesTurnedViews()
    model = canonicalized(KeepsItsInputs(), GroupCanonicalizer(scorer), task_weight=1.0).train()
    said = iter([])
    draws = []

    def say(images):
        return GridDistribution(
            CORE_C4, torch.stack([20 * torch.eye(4)[next(said)] for _ in images])
        )

    scorer.forward = say
    for seed in range(8):
        torch.manual_seed(seed)
        turn = int(torch.randint(4, ()))
        draws.append(turn)
        said = iter([turn])
        torch.manual_seed(seed)
        with EventStorage():
            loss = model([{"image": random_image(20, 30)}])["loss_prior"]
        assert float(loss) < 1e-4
    assert len(set(draws)) > 1
