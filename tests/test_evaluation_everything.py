"""What is found where nothing is asked: recall, masks that stay, and what is written."""

import json
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
from conftest import tiny_sam_options
from toy_coco import write_toy_coco

from canon_seg.cli import eval_everything
from canon_seg.coco.dataset import load_coco
from canon_seg.errors import InputError
from canon_seg.evaluation.everything import (
    format_everything,
    iou_matrix,
    measure_everything,
    share_found,
    through_jpeg,
)
from canon_seg.evaluation.prompts import object_masks, objects_by_image


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The files of two images, and their data set."""
    files = write_toy_coco(tmp_path_factory.mktemp("toy"), ((60, 83), (96, 64)))
    return *files, load_coco(*files)


def test_iou_matrix_is_pycocotools():
    rng = np.random.default_rng(0)
    one, other = (rng.random((n, 20, 30)) < rng.random((n, 1, 1)) for n in (3, 5))
    encoded = [
        [mask_util.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
        for masks in (one, other)
    ]
    expected = mask_util.iou(*encoded, [0] * 5)
    np.testing.assert_allclose(iou_matrix(one, other), expected)
    assert share_found(one, other, 0.3) == ((expected.max(axis=1) >= 0.3).sum(), 3)
    assert share_found(one[:0], other, 0.3) == (0, 0)
    assert share_found(one, other[:0], 0.3) == (0, 3)


def test_jpeg_changes_pixels_a_little():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image[:, 25:] = (200, 20, 90)
    changed = through_jpeg(image).astype(int)
    assert changed.shape == image.shape and (changed != image).any()
    assert np.abs(changed[:, 35:] - image[:, 35:]).max() < 6  # channels keep their order


def test_measures(toy):
    _, images, dataset = toy
    entries = [e for e in dataset["annotations"] if not e["iscrowd"] and e["area"] > 1000]
    seen = []

    def find(image):
        """Three masks, one of which is seen on the first look at each image only."""
        seen.append(image)
        height, width = image.shape[:2]
        masks = np.zeros((3, height, width), bool)
        masks[0] = True
        masks[1, : height // 2] = True
        masks[2, :, : width // 2] = True
        return masks if len(seen) % 3 == 1 else masks[:2]

    result = measure_everything({"vanilla": find}, dataset, images, min_area=1000, progress=False)
    assert result["num_images"] == 2 and result["num_objects"] == len(entries)
    found = result["modes"]["vanilla"]
    assert len(seen) == 6 and seen[2].shape[:2] == seen[0].shape[1::-1]
    assert found["masks_per_image"] == 3
    # The upper half of the turned image is the right half of the image, which is not there before.
    assert found["kept_after_jpeg"] == pytest.approx(2 / 3)
    assert found["kept_after_jpeg_turned"] == pytest.approx(1 / 3)
    assert found["seconds_per_image"] > 0
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    hits = 0
    for entry in entries:
        size = sizes[entry["image_id"]]
        rle = mask_util.merge(mask_util.frPyObjects(entry["segmentation"], *size))
        hits += mask_util.iou([rle], halves(*size), [0] * 3).max() >= 0.5
    assert found["recall"] == pytest.approx(hits / len(entries))


def test_empty_masks_change_no_figure(toy):
    """An object outside the image is no object that is missed; it is named."""
    _, images, dataset = toy
    outside = {
        **dataset["annotations"][0],
        "id": 99,
        "segmentation": [[500.0, 500.0, 600.0, 500.0, 600.0, 600.0]],
        "area": 5000.0,
    }
    more = {**dataset, "annotations": [outside, *dataset["annotations"]]}

    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    masks = {
        sizes[number]: object_masks(entries, *sizes[number])
        for number, entries in objects_by_image(dataset, 1000).items()
    }

    def find(image):
        size = image.shape[:2]
        return masks.get(size, np.zeros((0, *size), bool))

    plain, with_empty = (
        measure_everything({"vanilla": find}, given, images, min_area=1000, progress=False)
        for given in (dataset, more)
    )
    assert with_empty["modes"]["vanilla"]["recall"] == plain["modes"]["vanilla"]["recall"] == 1
    assert with_empty["num_objects"] == plain["num_objects"]
    assert (with_empty["instances_empty"], plain["instances_empty"]) == ([99], [])
    assert "empty masks, left out: 1 (annotations 99)" in format_everything(with_empty)
    assert "empty" not in format_everything(plain)


def halves(height, width):
    masks = np.zeros((3, height, width), np.uint8)
    masks[0] = masks[1, : height // 2] = masks[2, :, : width // 2] = 1
    return [mask_util.encode(np.asfortranarray(mask)) for mask in masks]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["eval_everything.py", *map(str, arguments)])
    eval_everything.main()


def test_command(toy, tmp_path, monkeypatch, capsys):
    annotations, images, _ = toy
    given = ["--config-file", "sam_tiny_c4.yaml", "--annotations", annotations]
    given += ["--images", images, "--output", tmp_path / "out"]
    with pytest.raises(InputError, match="--max-masks is 0"):
        run(monkeypatch, *given, "--max-masks", 0)
    with pytest.raises(InputError, match="--points-per-side is -1"):
        run(monkeypatch, *given, "--points-per-side", -1)
    options = [
        *["MODEL.DEVICE", "cpu", "MODEL.SEGMENTER.WEIGHTS", ""],
        *tiny_sam_options(),
    ]
    run(monkeypatch, *given, "--limit", 1, "--points-per-side", 2, "--max-masks", 5, *options)
    report = json.loads((tmp_path / "out" / "everything.json").read_text())
    assert list(report["modes"]) == ["vanilla", "canonical"]
    for found in report["modes"].values():
        assert set(found) == {
            *("recall_5", "masks_per_image", "seconds_per_image"),
            *("kept_after_jpeg", "kept_after_jpeg_turned"),
        }
    assert "recall_5" in capsys.readouterr().out
