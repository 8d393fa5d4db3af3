"""Prompts on a toy data set: what is measured, in which modes, and what is written."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_sam_options
from segment_anything.utils.transforms import ResizeLongestSide
from tiny_models import random_canonicalizer, tiny_segmenter
from toy_coco import write_toy_coco

from canon_seg.cli import eval_prompts
from canon_seg.coco.dataset import load_coco
from canon_seg.errors import InputError
from canon_seg.evaluation.prompts import (
    format_prompts,
    measure_dataset,
    object_masks,
    objects_by_image,
    plot_prompts,
)
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor

MIN_AREA = 1000


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The files of two images, and their data set."""
    files = write_toy_coco(tmp_path_factory.mktemp("toy"), ((60, 83), (96, 64)))
    return *files, load_coco(*files)


class LeftHalf:
    """Find the left half of whatever it is shown, whatever the prompt is."""

    device = torch.device("cpu")
    transform = ResizeLongestSide(64)

    def set_image(self, image):
        self.original_size = image.shape[:2]

    def predict_torch(self, coords, labels, boxes, mask_input):
        count = len(coords if coords is not None else boxes)
        masks = torch.zeros((count, 3, *self.original_size), dtype=torch.bool)
        masks[..., : self.original_size[1] // 2] = True
        masks[:, 2] = True
        return masks, torch.tensor([[0.9, 0.1, 0.2]]).expand(count, -1), torch.zeros(count, 3, 9, 9)


def test_means_over_objects(toy):
    _, images, dataset = toy
    result = measure_dataset(
        {"vanilla": LeftHalf}, dataset, images, min_area=MIN_AREA, clicks=(1,), progress=False
    )
    wanted = objects_by_image(dataset, MIN_AREA)
    assert all(
        entry["area"] > MIN_AREA and not entry["iscrowd"]
        for entries in wanted.values()
        for entry in entries
    )
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    by_half = {"0": [], "180": []}
    whole = []
    for image_id, entries in wanted.items():
        masks = object_masks(entries, *sizes[image_id])
        middle = sizes[image_id][1] // 2
        found = np.zeros(sizes[image_id], bool)
        found[:, :middle] = True
        # The left half of the image on its head is the right half of the image.
        for name, half in (("0", found), ("180", found[:, ::-1])):
            by_half[name] += [(m & half).sum() / (m | half).sum() for m in masks]
        whole += [m.mean() for m in masks]
    assert result["num_objects"] == len(whole) == sum(map(len, wanted.values()))
    for name, ious in by_half.items():
        measured = result["vanilla_by_angle"][name]["box"]
        assert measured["iou_best_scored"] == pytest.approx(np.mean(ious))
        assert measured["iou_best"] == pytest.approx(np.mean(np.maximum(ious, whole)))
    assert result["modes"]["vanilla"] == result["vanilla_by_angle"]["0"]
    angles = [values["clicks_1"]["iou_best"] for values in result["vanilla_by_angle"].values()]
    turned = result["modes"]["vanilla_turned"]["clicks_1"]["iou_best"]
    assert turned == pytest.approx(np.mean(angles)) and len(angles) == 4


def test_canonical_results_turn_along(toy):
    _, images, dataset = toy
    sam = tiny_segmenter("sam").sam
    canonicalizer = random_canonicalizer()
    # Shown as the vanilla predictor, on the four turns of each image.
    result = measure_dataset(
        {"vanilla": lambda: CanonicalSamPredictor(sam, canonicalizer)},
        dataset,
        images,
        min_area=MIN_AREA,
        clicks=(),
        progress=False,
    )
    # Of pixels that lie equally deep the first one is clicked on, which is another one when turned.
    upright, *others = (values["box"] for values in result["vanilla_by_angle"].values())
    assert others == [upright] * 3 and 0 < upright["iou_best_scored"] < 1


def test_report(toy):
    _, images, dataset = toy
    result = measure_dataset(
        {"vanilla": LeftHalf, "canonical": LeftHalf},
        dataset,
        images,
        min_area=MIN_AREA,
        clicks=(1, 3),
        progress=False,
    )
    assert list(result["modes"]) == ["vanilla", "canonical", "vanilla_turned"]
    assert list(result["modes"]["canonical"]) == ["clicks_1", "clicks_3", "box", "box_click"]
    assert "vanilla_turned" in format_prompts(result)
    axes = plot_prompts(result, "toy").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    expected = [100 * result["modes"]["vanilla"][f"clicks_{n}"]["iou_best"] for n in (1, 3)]
    assert lines["vanilla: best of three"].get_ydata() == pytest.approx(expected)
    assert list(lines["vanilla: best of three"].get_xdata()) == [1, 3]


def test_empty_masks_are_left_out_and_named(toy):
    _, images, dataset = toy
    outside = {"segmentation": [[500.0, 500, 600, 500, 600, 600]], "area": 5000.0}
    measure = {"min_area": MIN_AREA, "clicks": (), "progress": False}
    more = [{**dataset["annotations"][0], "id": 99, **outside}, *dataset["annotations"]]
    plain = measure_dataset({"canonical": LeftHalf}, dataset, images, **measure)
    found = measure_dataset(
        {"canonical": LeftHalf}, {**dataset, "annotations": more}, images, **measure
    )
    assert found == {**plain, "instances_empty": [99]} and plain["instances_empty"] == []
    assert "empty masks, left out: 1 (annotations 99)" in format_prompts(found)
    empty = {**dataset, "annotations": more[:1]}
    with pytest.raises(InputError, match="no object larger than 1000"):
        measure_dataset({"canonical": LeftHalf}, empty, images, **measure)


def test_nothing_to_measure_is_said(toy):
    with pytest.raises(InputError, match=r"no object larger than 1000000 pixels \(--min-area\)"):
        objects_by_image(toy[2], 10**6)


OPTIONS = [
    *["MODEL.DEVICE", "cpu", "MODEL.SEGMENTER.WEIGHTS", ""],
    *tiny_sam_options(),
]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["eval_prompts.py", *map(str, arguments)])
    eval_prompts.main()


def test_command(toy, tmp_path, monkeypatch, capsys):
    annotations, images, _ = toy
    data = ["--annotations", annotations, "--images", images]
    output = tmp_path / "out"
    torch.manual_seed(0)
    run(
        monkeypatch,
        *["--config-file", "sam_tiny_c4.yaml", *data, "--limit", 1, "--min-area", MIN_AREA],
        *["--modes", "canonical", "--output", output, *OPTIONS],
    )
    report = json.loads((output / "prompts.json").read_text())
    assert list(report["modes"]) == ["canonical"] and report["num_objects"] > 0
    assert set(report["modes"]["canonical"]) == {
        *(f"clicks_{count}" for count in (1, 3, 5, 10)),
        "box",
        "box_click",
    }
    assert report["config"]["min_area"] == MIN_AREA
    assert (output / "prompts.png").stat().st_size > 1000
    assert "clicks_10" in capsys.readouterr().out


def test_bad_arguments(toy, tmp_path, monkeypatch):
    annotations, images, _ = toy
    given = ["--config-file", "sam_tiny_c4.yaml", "--annotations", annotations]
    given += ["--images", images, "--output", tmp_path / "out"]
    with pytest.raises(InputError, match="--limit is 0"):
        run(monkeypatch, *given, "--limit", 0)
    with pytest.raises(InputError, match="is not of a SAM behind a canonicalizer"):
        run(monkeypatch, *given, "MODEL.SEGMENTER.META_ARCHITECTURE", "GeneralizedRCNN")
