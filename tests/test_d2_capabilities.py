import pytest
from torch import nn

from canon_seg.d2.capabilities import (
    Capabilities,
    capabilities,
    hook,
    prompted_by_detector,
    prompted_from_outside,
    segmenter_class,
)
from canon_seg.d2.config import load_config
from canon_seg.d2.detector_sam import DetectorSam
from canon_seg.d2.sam import SamSegmenter

from detectron2.modeling import GeneralizedRCNN


def test_what_is_not_declared_has_the_default():
    assert capabilities(None) == capabilities(GeneralizedRCNN) == Capabilities()
    assert hook(GeneralizedRCNN, "build_train_loader") is None


def test_sam_and_its_wrapper():
    can = capabilities(SamSegmenter)
    assert can.takes_prompts and can.needs_prompts and can.resizes_itself
    assert can.checkpoint_module == "sam" and can.leaves_parameters_unused
    assert capabilities(DetectorSam) == Capabilities(takes_prompts=True, resizes_itself=True)


def test_a_built_model_says_what_its_class_says():
    class Mine(nn.Module):
        resizes_itself = True
        checkpoint_module = "inner"

    wanted = Capabilities(resizes_itself=True, checkpoint_module="inner")
    assert capabilities(Mine) == capabilities(Mine()) == wanted


def test_declarations_of_the_wrong_kind():
    class Lazy(nn.Module):
        @property
        def takes_prompts(self):
            return True

    with pytest.raises(TypeError, match="Lazy.takes_prompts is a property"):
        capabilities(Lazy)

    class Resized(nn.Module):
        takes_prompts = True

    with pytest.raises(TypeError, match="Resized declares takes_prompts without resizes_itself"):
        capabilities(Resized)


@pytest.mark.parametrize(
    ("model", "segmenter", "prompts", "by_detector", "from_outside"),
    [
        ("CanonicalizedSegmenter", "SamSegmenter", "boxes", False, True),
        ("CanonicalizedSegmenter", "SamSegmenter", "detector", True, False),
        ("SamSegmenter", "GeneralizedRCNN", "boxes", False, True),
        ("CanonicalizedSegmenter", "GeneralizedRCNN", "detector", False, False),
        ("CanonicalizedSegmenter", "NobodyKnows", "boxes", False, False),
        ("CanonicalizedSegmenter", "", "boxes", False, False),
    ],
)
def test_who_gives_the_prompts(model, segmenter, prompts, by_detector, from_outside):
    cfg = load_config("")
    cfg.MODEL.META_ARCHITECTURE = model
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = segmenter
    cfg.MODEL.SAM.PROMPTS = prompts
    assert (prompted_by_detector(cfg), prompted_from_outside(cfg)) == (by_detector, from_outside)
    if not (by_detector or from_outside):
        assert segmenter_class(cfg) is (GeneralizedRCNN if segmenter == "GeneralizedRCNN" else None)
