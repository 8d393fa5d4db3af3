"""A SAM behind a canonicalizer gives what CanonicalizedSegmenter gives, without detectron2."""

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

from canon_seg.core.canonicalizer import (
    AllPosesCanonicalizer,
    FixedPoseCanonicalizer,
    IdentityCanonicalizer,
)
from canon_seg.core.group import C
from canon_seg.core.pose import UncertainPoses
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor
from canon_seg.sam.canonical import CanonicalSam
from canon_seg.sam.prompted import PromptedSam, turn_prompted_masks

CANONICALIZERS = {
    "network": random_canonicalizer(),
    "keep": random_canonicalizer(uncertain=UncertainPoses("keep", 1.0)),
    "vote": random_canonicalizer(uncertain=UncertainPoses("vote", 1.0, 4)),
    "identity": IdentityCanonicalizer(),
    "fixed": FixedPoseCanonicalizer(1),
    "all": AllPosesCanonicalizer(),
    "tilt": any_angle_canonicalizer(),
    "vote of tilts": any_angle_canonicalizer(uncertain=UncertainPoses("vote", 1.0)),
    "vote of some tilts": any_angle_canonicalizer(C(8), uncertain=UncertainPoses("vote", 1.0, 4)),
}


@pytest.mark.parametrize("kind", ["boxes", "points", "both"])
@pytest.mark.parametrize("name", CANONICALIZERS)
def test_the_same_as_the_meta_architecture(name, kind):
    segmenter, canonicalizer = tiny_segmenter("sam"), CANONICALIZERS[name].eval()
    image, prompts = random_image(40, 61), random_prompts(40, 61, kind)
    model = canonicalized(segmenter, canonicalizer)
    theirs = model([{"image": image, "prompts": prompts}])[0]
    pose, ours = CanonicalSam(canonicalizer, PromptedSam(segmenter.sam))(image, prompts)
    assert pose == theirs["pose"]
    theirs = theirs["instances"]
    assert ours.size == theirs.image_size and ours.masks.any()
    assert torch.equal(ours.masks, theirs.pred_masks)
    assert torch.equal(ours.boxes, theirs.pred_boxes.tensor)
    assert torch.equal(ours.ious, theirs.pred_ious)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.classes, theirs.pred_classes)
    if "tilt" in name:
        assert not all(turn.exact for turn in (pose.turn, *pose.others))
        assert torch.equal(ours.vanished, theirs.pred_vanished)


def test_a_tilt_interpolates_what_the_predictor_interpolates():
    """The drop-in predictor warps SAM's logits as well; only near their edge can masks differ."""
    sam, image = tiny_segmenter("sam").sam, random_image(40, 61)
    canonicalizer = any_angle_canonicalizer()
    prompts = random_prompts(40, 61, "points").snapped()
    _, ours = CanonicalSam(canonicalizer, PromptedSam(sam))(image, prompts)
    predictor = CanonicalSamPredictor(sam, canonicalizer)
    predictor.set_image(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    assert not predictor.pose.turn.exact
    for row, mask in enumerate(ours.masks.numpy()):
        logits, scores, _ = predictor.predict(
            prompts.points[row].double().numpy(),
            prompts.point_labels[row].numpy(),
            return_logits=True,
        )
        logits = logits[scores.argmax()]
        assert scores.max() == pytest.approx(float(ours.ious[row]), abs=1e-5)
        clear = np.abs(logits) > 1e-2 * np.abs(logits).max()
        assert np.array_equal(mask[clear], logits[clear] > 0) and mask.any()


@pytest.mark.parametrize("name", ["network", "vote", "tilt", "vote of tilts", "vote of some tilts"])
@pytest.mark.parametrize("size", [(40, 61), (48, 48)])
def test_masks_turn_with_image_and_prompts(name, size):
    model = CanonicalSam(CANONICALIZERS[name].eval(), PromptedSam(tiny_segmenter("sam").sam))
    image, prompts = random_image(*size), random_prompts(*size)
    _, upright = model(image, prompts.snapped())
    for turns in C4.elements:
        turned = turn_maps(image, turns).contiguous()
        _, found = model(turned, prompts.snapped().turned(turns, *size))
        expected = turn_prompted_masks(upright, turns, *size)
        for field, value in found.rows().items():
            assert torch.equal(value, expected.rows()[field]), field
