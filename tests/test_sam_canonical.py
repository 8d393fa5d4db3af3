"""A SAM behind a canonicalizer gives what CanonicalizedSegmenter gives, without detectron2."""

import pytest
import torch
from tiny_models import (
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
from canon_seg.core.pose import UncertainPoses
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.sam.canonical import CanonicalSam
from canon_seg.sam.prompted import PromptedSam, turn_prompted_masks

CANONICALIZERS = {
    "network": random_canonicalizer(),
    "keep": random_canonicalizer(uncertain=UncertainPoses("keep", 1.0)),
    "vote": random_canonicalizer(uncertain=UncertainPoses("vote", 1.0, 4)),
    "identity": IdentityCanonicalizer(),
    "fixed": FixedPoseCanonicalizer(1),
    "all": AllPosesCanonicalizer(),
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


@pytest.mark.parametrize("name", ["network", "vote"])
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
