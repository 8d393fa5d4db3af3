"""Results of groups with mirrors turn with the image to the last bit, on what acts by index."""

import numpy as np
import pytest
import torch
from tiny_models import (
    any_angle_canonicalizer,
    canonicalized,
    random_canonicalizer,
    random_image,
    random_prompts,
    tiny_segmenter,
)

from canon_seg import CanonicalSamAutomaticMaskGenerator, CanonicalSamPredictor
from canon_seg.core.clip import clip_pose
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import D4, O2, D
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.turn import Turn, compose
from canon_seg.d2.instances import turn_instances
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.coordinates import turn_boxes
from canon_seg.images.energy import EnergyScorer, SegmenterScorer

HEIGHT, WIDTH = 40, 61
LEFT, TOP, SQUARE = random_image(30, 21), random_image(17, 40), random_image(20, 20)
SYMMETRIC = {
    "constant": torch.full((3, 40, 40), 9, dtype=torch.uint8),
    "constant, not square": torch.full((3, 30, 44), 9, dtype=torch.uint8),
    "left and right": torch.cat([LEFT, turn_maps(LEFT, Turn(mirrored=True))], dim=2),
    "top and bottom": torch.cat([TOP, turn_maps(TOP, Turn(2, mirrored=True))], dim=1),
    "diagonal": torch.maximum(SQUARE, turn_maps(SQUARE, Turn(1, mirrored=True))),
    "half turn": torch.maximum(LEFT, turn_maps(LEFT, 2)),
}


def chaotic(image):
    """An energy of which nothing turns with the image."""
    weights = torch.arange(image[:, 1].numel()).view_as(image[:, 1])
    return float((image[:, 1].double() * weights).sum().sin())


def canonicalizer_of(name, image_format):
    if name == "network":
        return random_canonicalizer(image_format, mirrors=True).eval()
    if name == "energy":
        return GroupCanonicalizer(EnergyScorer(chaotic, group=D4, image_format=image_format)).eval()
    if name == "segmenter":
        return GroupCanonicalizer(SegmenterScorer(group=D4, image_format=image_format)).eval()
    return any_angle_canonicalizer({"O2": O2, "D8": D(8)}[name], image_format)


NAMES = ["network", "energy", "segmenter", "O2", "D8"]


def run(model, image, turn, prompts=None):
    inputs = {"image": turn_maps(image, turn).contiguous()}
    if prompts is not None:
        inputs["prompts"] = prompts.snapped().turned(turn, *image.shape[-2:])
    return model([inputs])[0]


def assert_same(found, expected):
    assert found.image_size == expected.image_size
    assert found.get_fields().keys() == expected.get_fields().keys()
    for name, value in expected.get_fields().items():
        ours = found.get(name)
        assert torch.equal(getattr(ours, "tensor", ours), getattr(value, "tensor", value)), name


@pytest.mark.parametrize("kind", ["sam", "mask_rcnn"])
@pytest.mark.parametrize("name", NAMES)
def test_eight_elements_give_the_same_bytes(name, kind):
    canonicalizer = canonicalizer_of(name, "RGB" if kind == "sam" else "BGR")
    model = canonicalized(tiny_segmenter(kind), canonicalizer)
    image = random_image(HEIGHT, WIDTH)
    prompts = random_prompts(HEIGHT, WIDTH) if kind == "sam" else None
    upright, poses = run(model, image, Turn(), prompts), set()
    assert len(upright["instances"])
    for turn in D4.elements:
        found = run(model, image, turn, prompts)
        assert found["pose"].turn == compose(upright["pose"].turn, turn)
        assert found["pose"].probability == upright["pose"].probability
        assert sorted(found["pose"].probabilities) == sorted(upright["pose"].probabilities)
        assert_same(found["instances"], turn_instances(upright["instances"], turn))
        poses.add(found["pose"].turn)
    assert len(poses) == 8
    if name == "O2":
        assert not any(pose.exact for pose in poses)


@pytest.mark.parametrize("image", SYMMETRIC)
@pytest.mark.parametrize("name", ["network", "O2"])
def test_symmetric_images_are_decided_by_their_prompts(name, image):
    image = SYMMETRIC[image]
    model = canonicalized(tiny_segmenter("sam"), canonicalizer_of(name, "RGB"))
    prompts = random_prompts(*image.shape[-2:], "points")
    upright = run(model, image, Turn(), prompts)
    assert upright["pose"].is_symmetric
    for turn in D4.elements:
        found = run(model, image, turn, prompts)
        assert_same(found["instances"], turn_instances(upright["instances"], turn))


@pytest.mark.parametrize("image", SYMMETRIC)
@pytest.mark.parametrize("name", ["network", "O2"])
def test_the_canonical_result_of_symmetric_images_is_defined_without_prompts(name, image):
    image = SYMMETRIC[image]
    canonicalizer = canonicalizer_of(name, "RGB")
    frames = [CanonicalFrame(canonicalizer, turn_maps(image, turn)) for turn in D4.elements]
    assert all(torch.equal(frame.image, frames[0].image) for frame in frames)


@pytest.mark.parametrize("name", ["network", "O2"])
def test_votes_turn_along(name):
    canonicalizer = canonicalizer_of(name, "BGR")
    canonicalizer.uncertain = UncertainPoses("vote", below=1.0, vote_poses=2)
    model = canonicalized(tiny_segmenter("mask_rcnn"), canonicalizer)
    image = random_image(HEIGHT, WIDTH)
    upright = run(model, image, Turn())
    assert upright["pose"].others
    for turn in D4.elements[3:6]:
        found = run(model, image, turn)
        assert found["pose"].others == tuple(compose(o, turn) for o in upright["pose"].others)
        assert_same(found["instances"], turn_instances(upright["instances"], turn))


@pytest.mark.parametrize("name", ["network", "O2"])
def test_predictor_and_mask_generator(name):
    canonicalizer, sam = canonicalizer_of(name, "RGB"), tiny_segmenter("sam").sam
    predictor = CanonicalSamPredictor(sam, canonicalizer)
    options = {"points_per_side": 2, "pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}
    generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **options)
    pixels, box = random_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy(), np.array([5.0, 4, 40, 30])
    first = None
    for turn in (Turn(), Turn(1), Turn(2, mirrored=True), Turn(3, mirrored=True)):
        turned = np.ascontiguousarray(turn_image(pixels, turn))
        predictor.set_image(turned)
        masks, scores, _ = predictor.predict(box=turn_boxes(box, turn, HEIGHT, WIDTH))
        every = generator.generate(turned)
        first = first or (masks, scores, every)
        assert np.array_equal(masks, turn_maps(first[0], turn))
        assert np.array_equal(scores, first[1])
        assert len(every) == len(first[2])
        for ours, theirs in zip(every, first[2], strict=True):
            assert np.array_equal(ours["segmentation"], turn_maps(theirs["segmentation"], turn))


@pytest.mark.parametrize("group", [D4, O2], ids=lambda group: group.name)
def test_clips_turn_along(group):
    canonicalizer = canonicalizer_of("network" if group == D4 else "O2", "RGB")
    frames = [random_image(HEIGHT, WIDTH, seed) for seed in range(3)]

    def pose_of(turn):
        turned = [turn_maps(frame, turn) for frame in frames]
        return clip_pose(canonicalizer.pose, turned, UncertainPoses(), group)

    upright = pose_of(Turn())
    for turn in D4.elements:
        pose, expected = pose_of(turn), compose(upright.turn, turn)
        assert (pose.turn.quarters, pose.turn.mirrored) == (expected.quarters, expected.mirrored)
        assert pose.turn.tilt == pytest.approx(expected.tilt, abs=1e-5)
        assert pose.probability == pytest.approx(upright.probability)
