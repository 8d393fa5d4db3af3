"""Results turn with the image to the last bit, whatever scorer says the pose."""

import numpy as np
import pytest
import torch
from optional import need
from tiny_models import canonicalized, random_image, random_prompts, tiny_segmenter

from canon_seg import CanonicalSamAutomaticMaskGenerator, CanonicalSamPredictor
from canon_seg.config.assets import resolve_asset
from canon_seg.core.group import C4
from canon_seg.d2.cache import ResultCache
from canon_seg.d2.config import load_config
from canon_seg.d2.instances import turn_instances
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.coordinates import turn_boxes
from canon_seg.images.energy import ENERGIES, judges_by_segmenter
from canon_seg.networks.build import build_canonicalizer
from canon_seg.sam.confidence import bound_to_sam
from canon_seg.sam.prompted import PromptedSam

NAME, ENERGY = "MODEL.CANONICALIZER.SCORER.NAME", "MODEL.CANONICALIZER.SCORER.ENERGY"
WEIGHTS, PASSES = "MODEL.CANONICALIZER.WEIGHTS", "MODEL.CANONICALIZER.SCORER.PASSES"
SCORERS = {
    "default, four looks": [],
    "one look": [PASSES, 1],
    "gcnn": [WEIGHTS, "canon_seg://canonicalizer_gcnn.pth"],
    "gwrn": [WEIGHTS, "canon_seg://canonicalizer_gwrn.pth"],
    "energy": [NAME, "EnergyScorer", ENERGY, "a photo's second row of a test"],
    "segmenter": [NAME, "SegmenterScorer"],
}


@ENERGIES.register("a photo's second row of a test")
def second_row(image):
    """Chaotic: nothing about it turns with the image."""
    return float((image[:, 1].double() * torch.arange(image.shape[2])).sum().sin())


HEIGHT, WIDTH = 40, 61
SYMMETRIC = {
    "constant": torch.full((3, 40, 40), 9, dtype=torch.uint8),
    "half turn": torch.maximum(random_image(31, 44), turn_maps(random_image(31, 44), 2)),
}


@pytest.fixture(scope="module", params=SCORERS)
def canonicalizer(request):
    need("timm")
    cfg = load_config("sam_tiny_c4.yaml", ["MODEL.DEVICE", "cpu", *SCORERS[request.param]])
    return build_canonicalizer(cfg).eval()


def rolled(pose, turns):
    return tuple(np.roll([value.hex() for value in pose.probabilities], turns))


def test_poses(canonicalizer):
    if judges_by_segmenter(canonicalizer):
        canonicalizer = bound_to_sam(canonicalizer, PromptedSam(tiny_segmenter("sam").sam))
    found = set()
    for seed in range(4):
        image = random_image(HEIGHT, WIDTH, seed)
        pose = canonicalizer.pose(image)
        found.add(pose.turns)
        for turn in C4.elements:
            other = canonicalizer.pose(turn_maps(image, turn))
            assert other.turn == C4.compose(pose.turn, turn)
            assert rolled(other, 0) == rolled(pose, turn.quarters)
    assert len(found) > 1  # it looks at the image


@pytest.mark.parametrize("kind", ["mask_rcnn", "sam"])
def test_instances(canonicalizer, kind):
    model = canonicalized(tiny_segmenter(kind), canonicalizer, cache=ResultCache(2**20))
    image, prompts = random_image(HEIGHT, WIDTH), random_prompts(HEIGHT, WIDTH)
    upright = None
    for turn in C4.elements:
        inputs = {"image": turn_maps(image, turn).contiguous()}
        if kind == "sam":
            inputs["prompts"] = prompts.snapped().turned(turn, HEIGHT, WIDTH)
        found = model([inputs])[0]["instances"]
        upright = found if upright is None else upright
        expected = turn_instances(upright, turn)
        assert len(found) and found.image_size == expected.image_size
        for name, value in expected.get_fields().items():
            ours = getattr(found.get(name), "tensor", found.get(name))
            assert torch.equal(ours, getattr(value, "tensor", value)), name
    # They share one canonical image, or four of which a judge chooses.
    runs = 4 if judges_by_segmenter(canonicalizer) else 1
    assert (model.cache.hits, model.cache.misses) == (3 * runs, runs)


def test_predictor(canonicalizer):
    predictor = CanonicalSamPredictor(tiny_segmenter("sam").sam, canonicalizer)
    pixels, box = random_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy(), np.array([5.0, 4, 40, 30])
    upright = None
    for turn in C4.elements:
        predictor.set_image(np.ascontiguousarray(turn_image(pixels, turn)))
        masks, scores, _ = predictor.predict(box=turn_boxes(box, turn, HEIGHT, WIDTH))
        upright = (masks, scores) if upright is None else upright
        assert np.array_equal(masks, turn_maps(upright[0], turn))
        assert np.array_equal(scores, upright[1])


def test_mask_generator(canonicalizer):
    options = {"points_per_side": 3, "pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}
    generator = CanonicalSamAutomaticMaskGenerator(
        tiny_segmenter("sam").sam, canonicalizer, **options
    )
    pixels = random_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy()
    upright = generator.generate(pixels)
    assert upright
    for turn in C4.elements:
        turned = generator.generate(np.ascontiguousarray(turn_image(pixels, turn)))
        assert len(turned) == len(upright)
        for ours, theirs in zip(turned, upright, strict=True):
            assert np.array_equal(ours["segmentation"], turn_maps(theirs["segmentation"], turn))
            assert ours["predicted_iou"] == theirs["predicted_iou"]


@pytest.mark.parametrize("image", SYMMETRIC)
def test_symmetric_images_are_decided_by_their_prompts(canonicalizer, image):
    image = SYMMETRIC[image]
    height, width = image.shape[-2:]
    model = canonicalized(tiny_segmenter("sam"), canonicalizer)
    prompts, upright = random_prompts(height, width).snapped(), None
    for turn in C4.elements:
        inputs = {"image": turn_maps(image, turn).contiguous()}
        found = model([{**inputs, "prompts": prompts.turned(turn, height, width)}])[0]["instances"]
        upright = found if upright is None else upright
        expected = turn_instances(upright, turn)
        assert torch.equal(found.pred_masks, expected.pred_masks)
        assert torch.equal(found.scores, expected.scores)


def test_the_default_is_that_of_the_configs_and_of_the_predictors():
    for name in ("sam_tiny_c4.yaml", "sam_c4.yaml", "mask_rcnn_c4.yaml"):
        keys = load_config(name).MODEL.CANONICALIZER
        assert resolve_asset(keys.WEIGHTS).endswith("canonicalizer_pretrained.pth")
        assert keys.SCORER.PASSES == 0
