"""What a user adds from outside of the package: a canonicalizer, a scorer, an action."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import canonicalized, tiny_segmenter
from torch import nn

import canon_seg
import canon_seg.core
import canon_seg.images
from canon_seg.core import action
from canon_seg.core.canonicalizer import CANONICALIZERS, Canonicalizer
from canon_seg.core.group import C4
from canon_seg.core.pose import Pose
from canon_seg.core.scorer import SCORERS, GridDistribution, Scorer
from canon_seg.d2.config import load_config
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.networks.build import build_canonicalizer

from detectron2.structures import Boxes, Instances


class BrightTop:
    """Takes the side that is bright for the top; not a network, and not equivariant to the bit."""

    group, image_format = C4, "RGB"

    def __call__(self, images):
        rows = []
        for image in images:
            turned = [torch.rot90(image, -k, (1, 2)) for k in range(4)]
            rows.append([side[:, : side.shape[1] // 2].float().mean() for side in turned])
        return GridDistribution(C4, torch.tensor(rows))


@SCORERS.register("BrightTop of a test")
def build_bright_top(cfg):
    return BrightTop()


@CANONICALIZERS.register("LandscapeCanonicalizer of a test")
class LandscapeCanonicalizer(Canonicalizer):
    """Holds tall images for landscapes that were turned by 90 degrees."""

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.INPUT.FORMAT)

    def pose(self, image, prompt_key=None):
        is_tall = image.shape[1] > image.shape[2]
        return Pose(int(is_tall), (0.0, 1.0, 0.0, 0.0) if is_tall else (1.0, 0.0, 0.0, 0.0))


def photo():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (3, 40, 60), np.uint8))
    image[:, :15] += 150
    return image


def test_a_scorer_from_outside_by_its_name_in_a_config():
    assert isinstance(BrightTop(), Scorer)
    cfg = load_config(
        "sam_tiny_c4.yaml", ["MODEL.CANONICALIZER.SCORER.NAME", "BrightTop of a test"]
    )
    canonicalizer = build_canonicalizer(cfg)
    for turn in C4.elements:
        assert canonicalizer.pose(turn_maps(photo(), turn)).turn == turn
    with pytest.raises(TypeError, match="BrightTop has no weights to save"):
        canonicalizer.save("anywhere.pth")


def test_a_canonicalizer_from_outside_by_its_name_in_a_config():
    name = "LandscapeCanonicalizer of a test"
    cfg = load_config("sam_tiny_c4.yaml", ["MODEL.CANONICALIZER.NAME", name])
    model = canonicalized(tiny_segmenter("mask_rcnn"), build_canonicalizer(cfg))
    upright = model([{"image": photo()}])[0]
    turned = model([{"image": turn_maps(photo(), 1)}])[0]
    assert (upright["pose"].turns, turned["pose"].turns) == (0, 1)
    assert torch.equal(
        turn_maps(upright["instances"].pred_masks, 1), turned["instances"].pred_masks
    )
    with pytest.raises(TypeError, match="there is nothing to train"):
        model.train()([{"image": photo()}])


@pytest.mark.parametrize(("key", "kind"), [("NAME", "canonicalizer"), ("SCORER.NAME", "scorer")])
def test_names_that_are_not_registered(key, kind):
    cfg = load_config("sam_tiny_c4.yaml", [f"MODEL.CANONICALIZER.{key}", "Nothing"])
    with pytest.raises(InputError, match=f"CANONICALIZER.{key}: 'Nothing' is not.*{kind}; known"):
        build_canonicalizer(cfg)


class Depths:
    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return len(self.maps)


class DepthSegmenter(nn.Module):
    """A segmenter whose instances hold a field of its own type."""

    resizes_itself = True

    def forward(self, batched_inputs):
        results = []
        for inputs in batched_inputs:
            height, width = inputs["image"].shape[-2:]
            instances = Instances((height, width))
            instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 5.0, 9.0]]))
            instances.set("depths", Depths(inputs["image"][:1].float()))
            results.append({"instances": instances})
        return results


def test_an_action_from_outside():
    model = canonicalized(DepthSegmenter(), LandscapeCanonicalizer())
    tall = turn_maps(photo(), 1)
    with pytest.raises(ValueError, match="'depths' of type Depths turns.*register its action"):
        model([{"image": tall}])
    # The plain segmenter stays plain: what is not turned needs no action.
    assert isinstance(model([{"image": photo()}])[0]["instances"].depths, Depths)

    @action.register(Depths)
    def turn_depths(depths, turn, height, width):
        return Depths(turn_maps(depths.maps, turn))

    found = model([{"image": tall}])[0]["instances"].depths
    assert torch.equal(found.maps, tall[:1].float())


ROOMS = [canon_seg.core, canon_seg.images]
MODULES = [
    f"{room.__name__}.{module.name}"
    for room in ROOMS
    for module in pkgutil.iter_modules(room.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples_in_docstrings():
    attempted = [doctest.testmod(importlib.import_module(name)).attempted for name in MODULES]
    assert sum(count > 0 for count in attempted) >= 5


def test_core_loads_no_library_of_images():
    """Beyond what torch itself loads."""
    code = """
import sys, torch
before = set(sys.modules)
import importlib, pkgutil, canon_seg.core
for module in pkgutil.iter_modules(canon_seg.core.__path__):
    importlib.import_module(f"canon_seg.core.{module.name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
unwanted = {"cv2", "pycocotools", "tqdm", "detectron2", "PIL", "fvcore"} & loaded
rooms = {name.split(".")[1] for name in set(sys.modules) - before if name.startswith("canon_seg.")}
print(sorted(unwanted), sorted(rooms - {"core", "errors"}))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] []"
