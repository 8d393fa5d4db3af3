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
from canon_seg.core.turn import Turn
from canon_seg.d2.cache import ResultCache
from canon_seg.d2.models import GROUP_MODES, MODES, check_modes, models_by_mode
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4


@pytest.fixture(scope="module")
def model():
    return canonicalized(
        tiny_segmenter("sam"),
        random_canonicalizer(),
        cache=ResultCache(2**20),
        merge_nms_thresh=0.3,
        max_detections=7,
    )


def test_modes_share_the_segmenter_and_nothing_that_keeps_results(model):
    groups = {mode: any_angle_canonicalizer() for mode in GROUP_MODES}
    models = models_by_mode(model, list(MODES), groups)
    assert set(MODES) - set(GROUP_MODES) == {"vanilla", "canonical", "oracle", "oracle_any", "tta"}
    assert list(models) == list(MODES)
    assert all(models[mode](0).canonicalizer is found for mode, found in groups.items())
    for mode, model_for in models.items():
        for turns in C4.elements:
            built = model_for(turns)
            assert built.segmenter is model.segmenter and not built.training
            assert (built.merge_nms_thresh, built.max_detections) == (0.3, 7)
            assert (built.cache is None) == (mode != "canonical")
    assert models["canonical"](1) is model
    assert isinstance(models["vanilla"](1).canonicalizer, IdentityCanonicalizer)
    assert isinstance(models["tta"](1).canonicalizer, AllPosesCanonicalizer)
    oracles = [models["oracle"](turns).canonicalizer for turns in C4.elements]
    assert all(isinstance(oracle, FixedPoseCanonicalizer) for oracle in oracles)
    assert [oracle.turn.quarters for oracle in oracles] == [0, 1, 2, 3]
    # Of the true angle the one knows the quarter turn, the other all.
    assert models["oracle"](Turn.by(100)).canonicalizer.turn == Turn(1)
    assert models["oracle_any"](Turn.by(100)).canonicalizer.turn == Turn.by(100)


def test_only_the_canonical_mode_uses_the_cache(model):
    inputs = {"image": random_image(40, 61), "prompts": random_prompts(40, 61)}
    for model_for in models_by_mode(model, ["vanilla", "oracle", "tta"]).values():
        model_for(0)([inputs])
    assert (model.cache.hits, model.cache.misses) == (0, 0)
    canonical = models_by_mode(model, ["canonical"])["canonical"]
    first, second = canonical(0)([inputs])[0], canonical(1)([inputs])[0]
    assert (model.cache.hits, model.cache.misses) == (1, 1)
    assert torch.equal(first["instances"].pred_masks, second["instances"].pred_masks)


def test_check_modes():
    assert check_modes(["tta", "vanilla", "tta"]) == ["tta", "vanilla"]
    with pytest.raises(InputError, match="--modes: 'upright' is not a mode; known: .*, tta"):
        check_modes(["upright"])
