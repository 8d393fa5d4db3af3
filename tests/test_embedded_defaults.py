"""The models that come with the package, on drawn scenes: real predictions, scored as COCO does."""

from pathlib import Path

import pytest

from canon_seg.coco.dataset import load_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.models import build_models
from canon_seg.evaluation.sweep import run_sweep
from canon_seg.evaluation.views import View
from canon_seg.scenes.dataset import DEMO_SEED, make_scenes

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "sam_tiny_c4.yaml"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    cfg = load_config(str(CONFIG), ["MODEL.DEVICE", "cpu", "MODEL.CANONICALIZER.CACHE", 64])
    annotations, images = make_scenes(tmp_path_factory.mktemp("scenes"), 8, DEMO_SEED)
    dataset = load_coco(annotations, images)
    return run_sweep(
        build_models(cfg, ["vanilla", "canonical"]),
        dataset,
        images,
        views=[View(angle) for angle in (0, 90, 180, 270)],
        image_format=cfg.INPUT.FORMAT,
        prompts=load_box_prompts("boxes", dataset),
        progress=False,
    )


def test_canonical_average_is_above_vanilla(sweep):
    modes = sweep["modes"]
    canonical, vanilla = (modes[m]["C4-avg"]["segm"]["AP"] for m in ("canonical", "vanilla"))
    assert canonical > vanilla


def test_canonical_is_the_same_at_all_angles(sweep):
    first, *others = (sweep["modes"]["canonical"][angle] for angle in ("0", "90", "180", "270"))
    assert all(other == first for other in others)


def test_segmenter_segments(sweep):
    assert sweep["modes"]["vanilla"]["0"]["segm"]["AP50"] > 20  # untrained: 0


def test_poses_are_found_far_above_chance(sweep):
    assert sweep["pose"]["accuracy"] > 0.6


def test_weights_are_small():
    folders = ROOT / "canon_seg" / "assets", ROOT / "docs"
    sizes = [path.stat().st_size for folder in folders for path in folder.rglob("*.pth")]
    assert len(sizes) >= 5 and sum(sizes) < 72e6 and max(sizes) < 16e6
