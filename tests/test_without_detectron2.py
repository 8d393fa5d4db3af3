"""What works where detectron2 can't be imported, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import random_image

ROOT = Path(__file__).parents[1]
SCRIPT = """
import importlib.abc
import sys
import time
import traceback

import numpy as np


class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


sys.meta_path.insert(0, Blocker())
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
BOX = np.array([5, 5, 40, 30])


def demo(*words):
    from canon_seg.cli import demo

    sys.argv = ["demo", "--input", "in", "--output", "out", "--save-json", *words]
    return demo.main()


def box():
    assert demo("--turns", "--box", "5", "5", "40", "30") == 0


def point():
    assert demo("--point", "5", "5", "--output", "out") == 0


def vote():
    keys = "MODEL.CANONICALIZER.UNCERTAIN", "MODEL.CANONICALIZER.UNCERTAIN_BELOW"
    box = ["--box", "5", "5", "40", "30"]
    assert demo(*box, "--output", "out", keys[0], "vote", keys[1], "1") == 0


def everything():
    assert demo("--everything", "--points-per-side", "2", "--min-iou", "0") == 0


def detector():
    from canon_seg.errors import InputError

    try:
        demo("--config-file", "mask_rcnn_pedestrian_c4.yaml")
    except InputError as error:
        assert "META_ARCHITECTURE GeneralizedRCNN needs detectron2, " in str(error)
    else:
        raise AssertionError("no error")


def eval_pose():
    from canon_seg.cli import eval_pose

    sys.argv = ["eval_pose", "--images", "in", "--output", "out/pose.json"]
    eval_pose.main()


def classification():
    from canon_seg.cli import train
    from canon_seg.errors import InputError

    sys.argv = ["train", "--config-file", "cifar10_c8.yaml", "DATASETS.CLASSES", "nowhere"]
    sys.argv += ["MODEL.DEVICE", "cpu"]
    try:
        train.main()
    except InputError as error:
        assert "DATASETS.CLASSES: there is no folder nowhere" in str(error)
    else:
        raise AssertionError("no error")


def page():
    from canon_seg.apps.web.samples import load_samples
    from canon_seg.apps.web.turning import ObjectPrompt, agreement, pose_of
    from canon_seg.cli import app

    turner = app.build_turner(app.parse_arguments(["--device", "cpu"]))
    session = turner.open(IMAGE, 90, ObjectPrompt(box=tuple(BOX.tolist())))
    _, plain, canonical = turner.compare(session)
    assert agreement(canonical) == 1 and plain[0].mask.shape == (60, 40) and pose_of(session)
    assert load_samples()


def predictors():
    import canon_seg

    sam = canon_seg.load_default_sam()
    predictor = canon_seg.CanonicalSamPredictor(sam)
    predictor.set_image(IMAGE)
    masks, _, _ = predictor.predict(box=BOX, multimask_output=False)
    assert masks.shape == (1, 40, 60)
    other = canon_seg.CanonicalImagePredictor(canon_seg.CanonicalSamPredictor(sam))
    other.set_image(IMAGE)
    assert other.predict(box=BOX, multimask_output=False)[0].shape == (1, 40, 60)
    options = dict(points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0)
    canon_seg.CanonicalSamAutomaticMaskGenerator(sam, **options).generate(IMAGE)


for name in sys.argv[1:]:
    start = time.perf_counter()
    try:
        globals()[name]()
        print("works:", name, f"in {time.perf_counter() - start:.1f} s", sep=" ")
    except BaseException:
        print("fails:", name)
        traceback.print_exc()
assert "detectron2" not in sys.modules
"""
PARTS = [
    "box",
    "point",
    "vote",
    "everything",
    "detector",
    "eval_pose",
    "classification",
    "page",
    "predictors",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The finished process, in which each part was tried."""
    folder = tmp_path_factory.mktemp("without_detectron2")
    (folder / "in").mkdir()
    pixels = np.ascontiguousarray(random_image(40, 60).permute(1, 2, 0))
    Image.fromarray(pixels).save(folder / "in" / "photo.png")
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *PARTS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("part", PARTS)
def test_it_works_without_detectron2(done, part):
    assert f"works: {part} in " in done.stdout, done.stderr


def test_detectron2_was_never_imported(done):
    assert done.returncode == 0, done.stderr
