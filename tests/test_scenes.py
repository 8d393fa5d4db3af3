import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest

from canon_seg.coco.dataset import check_images, load_coco
from canon_seg.errors import InputError
from canon_seg.images.reading import read_image
from canon_seg.scenes import dataset as scenes
from canon_seg.scenes.dataset import (
    CATEGORIES,
    DEMO_SEED,
    SCENES_VERSION,
    TRAIN_SEED,
    make_scene,
    make_scenes,
)

ROOT = Path(__file__).parents[1]
NUM_IMAGES = 24


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"), NUM_IMAGES)


@pytest.fixture(scope="module")
def dataset(written):
    return load_coco(*written)


def _pixels(images_dir, entry):
    return read_image(images_dir / entry["file_name"], "RGB")


def test_pixels_of_a_seed_are_the_same_everywhere():
    # Raise SCENES_VERSION with these digests whenever the pictures change.
    digests = []
    for index in range(4):
        image, instances = make_scene(np.random.default_rng([DEMO_SEED, index]))
        content = image.tobytes() + b"".join(mask.tobytes() for _, mask in instances)
        digests.append(hashlib.sha256(content).hexdigest()[:12])
    expected = ["761def27f93a", "2c293cb29ab0", "e0efdf9c6c1c", "6c4a95c7c890"]
    assert (SCENES_VERSION, digests) == (1, expected)


def test_seeds_and_indices_give_different_scenes():
    images = [
        make_scene(np.random.default_rng([seed, index]))[0].tobytes()
        for seed in (DEMO_SEED, TRAIN_SEED)
        for index in range(3)
    ]
    assert len(set(images)) == 6


def test_the_data_set_passes_its_own_checks(written, dataset):
    check_images(dataset, written[1], progress=False)
    assert len(dataset["images"]) == NUM_IMAGES
    present = {entry["category_id"] for entry in dataset["annotations"]}
    assert present == set(range(1, len(CATEGORIES) + 1))
    shapes = {np.sign(entry["width"] - entry["height"]) for entry in dataset["images"]}
    assert shapes == {-1, 0, 1}
    assert all(160 <= min(i["height"], i["width"]) <= 256 for i in dataset["images"])
    areas = [entry["area"] for entry in dataset["annotations"]]
    assert min(areas) < 100 and max(areas) > 64**2
    assert min(np.bincount([e["image_id"] for e in dataset["annotations"]])[1:]) >= 1


def test_masks_boxes_and_areas_agree(dataset):
    covered = {}
    for entry in dataset["annotations"]:
        mask = mask_util.decode(entry["segmentation"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = columns[0], rows[0]
        assert entry["bbox"] == [x, y, columns[-1] + 1 - x, rows[-1] + 1 - y]
        assert entry["area"] == mask.sum() > 0
        # Every pixel belongs to the one instance that is seen there.
        others = covered.setdefault(entry["image_id"], np.zeros_like(mask))
        others += mask
        assert others.max() == 1


def test_upright_can_be_seen(written, dataset):
    brighter = 0
    for entry in dataset["images"]:
        image = _pixels(written[1], entry).astype(float)
        quarter = len(image) // 4
        brighter += image[:quarter].mean() > image[-quarter:].mean() + 5
    assert brighter >= 0.8 * NUM_IMAGES


def test_masks_lie_on_what_is_drawn(written, dataset):
    # Across a mask's outline colours change more than elsewhere.
    inside, across = [], []
    images = {entry["id"]: _pixels(written[1], entry).astype(int) for entry in dataset["images"]}
    for entry in dataset["annotations"]:
        if entry["area"] < 400:
            continue
        mask = mask_util.decode(entry["segmentation"]).astype(bool)
        image = images[entry["image_id"]]
        step = np.abs(image[:, 2:] - image[:, :-2]).mean(axis=2)
        left, right = mask[:, :-2], mask[:, 2:]
        inside.append(step[left & right].mean())
        across.append(step[left != right].mean())
    assert np.mean(across) > 2 * np.mean(inside)


def test_a_scene_does_not_depend_on_the_number_of_scenes(written, tmp_path):
    _, images_dir = make_scenes(tmp_path, 2)
    for name in ("000000.png", "000001.png"):
        assert (images_dir / name).read_bytes() == (written[1] / name).read_bytes()


def test_a_complete_set_is_kept_and_another_replaced(tmp_path, monkeypatch):
    annotations, images_dir = make_scenes(tmp_path, 2)
    before = os.stat(annotations).st_mtime_ns, os.stat(images_dir / "000000.png").st_mtime_ns
    make_scenes(tmp_path, 2)
    assert before == (
        os.stat(annotations).st_mtime_ns,
        os.stat(images_dir / "000000.png").st_mtime_ns,
    )
    (images_dir / "000001.png").unlink()
    make_scenes(tmp_path, 2)
    assert (images_dir / "000001.png").is_file()

    make_scenes(tmp_path, 2, seed=TRAIN_SEED)
    assert json.loads(annotations.read_text())["info"]["seed"] == TRAIN_SEED

    def fail(rng):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "make_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path, 2)
    assert not annotations.exists()


@pytest.mark.parametrize("text", ['{"info": {"description": "mine"}}', "[]", "{", ""])
def test_annotations_of_something_else_are_never_replaced(tmp_path, text):
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances.json"
    path.write_text(text)
    with pytest.raises(InputError, match="holds annotations of something else"):
        make_scenes(tmp_path, 1)
    assert path.read_text() == text


@pytest.mark.parametrize(("num_images", "seed"), [(0, 1), (-1, 1), (1, -1)])
def test_impossible_numbers(tmp_path, num_images, seed):
    with pytest.raises(InputError, match="cannot make"):
        make_scenes(tmp_path, num_images, seed)


def _run_tool(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_scenes.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_tool(tmp_path):
    done = _run_tool("--output", tmp_path / "set", "--num-images", 2, "--seed", 5)
    assert done.returncode == 0 and "2/2" in done.stderr
    assert (tmp_path / "set" / "annotations" / "instances.json").is_file()
    (tmp_path / "file").touch()
    refused = _run_tool("--output", tmp_path / "file", "--num-images", 1)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: ")
