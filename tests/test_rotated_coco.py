"""The scores against pycocotools, which defines them. More of the evaluator: test_evaluation.py."""

import contextlib
import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from toy_coco import write_toy_coco

from canon_seg.coco.annotations import turn_coco
from canon_seg.coco.dataset import load_coco
from canon_seg.coco.masks import decode_rle, encode_mask, with_str_counts
from canon_seg.evaluation.rotated_coco import METRICS, RotatedCOCOEvaluator
from canon_seg.evaluation.views import View

COCO_VAL = Path(__file__).parents[2] / "shared" / "data" / "coco_val182"
KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")


def detections(dataset, seed=0):
    """Results that are right, shifted, of another class, doubled, or of nothing at all."""
    rng = np.random.default_rng(seed)
    categories = [category["id"] for category in dataset["categories"]]
    found = []
    for entry in dataset["annotations"]:
        mask = decode_rle(entry["segmentation"])
        for _ in range(rng.integers(0, 4)):
            shift = rng.integers(-6, 7, 2) * rng.integers(0, 2)
            moved = np.roll(mask, shift, (0, 1)) if rng.random() < 0.9 else np.zeros_like(mask)
            box = np.array(entry["bbox"]) + rng.normal(0, 3, 4)
            known = rng.random() < 0.9
            found.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": entry["category_id"] if known else int(rng.choice(categories)),
                    "bbox": [*box[:2].tolist(), *np.maximum(box[2:], 0).tolist()],
                    "score": round(rng.random(), 1),  # many are equal
                    "segmentation": with_str_counts(encode_mask(moved)),
                }
            )
    return found


def pycocotools_scores(dataset, results, task):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        other = {"segm": "bbox", "bbox": "segmentation"}[task]
        own = [{key: value for key, value in entry.items() if key != other} for entry in results]
        evaluation = COCOeval(truth, truth.loadRes(own), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * value if value >= 0 else math.nan for value in evaluation.stats[: len(METRICS)]]


def check(dataset, turns):
    annotations = [{key: entry[key] for key in KEYS} for entry in dataset["annotations"]]
    turned = turn_coco({**dataset, "annotations": annotations}, turns)
    results = detections(turned)
    evaluator = RotatedCOCOEvaluator(dataset, View(90 * turns))
    evaluator.extend(copy.deepcopy(results))
    scores = evaluator.evaluate()
    for task in ("segm", "bbox"):
        expected = pycocotools_scores(turned, results, task)
        assert list(scores[task]) == list(METRICS)
        np.testing.assert_array_equal(list(scores[task].values()), expected)
        assert 5 < scores[task]["AP"] < 95
    assert str(evaluator.evaluate()) == str(scores)  # nothing was used up


@pytest.mark.parametrize("turns", [0, 1])
def test_scores_are_those_of_pycocotools_with_crowds(tmp_path, turns):
    check(load_coco(*write_toy_coco(tmp_path)), turns)


@pytest.mark.skipif(not COCO_VAL.is_dir(), reason="needs ../shared/data/coco_val182")
def test_scores_are_those_of_pycocotools_on_coco():
    dataset = load_coco(COCO_VAL / "annotations" / "instances_val.json", COCO_VAL / "images")
    images = dataset["images"][:40]
    kept = {image["id"] for image in images}
    annotations = [entry for entry in dataset["annotations"] if entry["image_id"] in kept]
    assert any(entry["iscrowd"] for entry in annotations)
    check({**dataset, "images": images, "annotations": annotations}, 3)


def test_more_detections_than_count(tmp_path):
    """Of one image and class, only the best 100 count."""
    dataset = load_coco(*write_toy_coco(tmp_path))
    turned = turn_coco(
        {
            **dataset,
            "annotations": [{key: entry[key] for key in KEYS} for entry in dataset["annotations"]],
        },
        2,
    )
    results = [entry for seed in range(30) for entry in detections(turned, seed)]
    assert len(results) > 255  # more than 8 bits count: pycocotools on numpy 2
    for entry in results:
        entry.update(category_id=7)
    evaluator = RotatedCOCOEvaluator(dataset, View(180))
    evaluator.extend(results)
    for task in ("segm", "bbox"):
        np.testing.assert_array_equal(
            list(evaluator.evaluate()[task].values()), pycocotools_scores(turned, results, task)
        )


def test_models_without_masks_have_no_mask_scores(tmp_path):
    dataset = load_coco(*write_toy_coco(tmp_path))
    evaluator = RotatedCOCOEvaluator(dataset, View(0))
    entry = dataset["annotations"][0]
    evaluator.extend(
        [
            {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": entry["bbox"],
                "score": 0.5,
            }
        ]
    )
    scores = evaluator.evaluate()
    assert list(scores) == ["bbox"] and scores["bbox"]["AP"] > 0


@pytest.mark.parametrize(
    ("image", "annotation", "category"),
    [
        (lambda n: n, lambda n: -n, lambda n: n),
        (lambda n: n - 11, lambda n: n - 1, lambda n: n - 3),  # from 0
        (lambda n: 2**53 + n, lambda n: 2**53 + n, lambda n: 2**53 + n),
        (lambda n: 10**17 + n, lambda n: -(10**17) - n, lambda n: n - 10**17),
        (lambda n: 10**20 + n, lambda n: 10**20 + n, lambda n: 10**20 + n),
    ],
    ids=["negative", "from 0", "2^53", "10^17", "10^20"],
)
def test_ids_change_no_figure(tmp_path, image, annotation, category):
    dataset = load_coco(*write_toy_coco(tmp_path))
    turned = turn_coco(
        {
            **dataset,
            "annotations": [{key: entry[key] for key in KEYS} for entry in dataset["annotations"]],
        },
        1,
    )
    results = detections(turned)
    other = copy.deepcopy(dataset)
    for section, function in (("images", image), ("categories", category)):
        for entry in other[section]:
            entry["id"] = function(entry["id"])
    for entry in [*other["annotations"], *results]:
        entry["image_id"] = image(entry["image_id"])
        entry["category_id"] = category(entry["category_id"])
    for entry in other["annotations"]:
        entry["id"] = annotation(entry["id"])
    given = copy.deepcopy(results)
    evaluator = RotatedCOCOEvaluator(other, View(90))
    evaluator.extend(results)
    scores = evaluator.evaluate()
    assert str(scores) == str(plain_scores(tmp_path / "plain"))
    assert results == given and scores["segm"]["AP"] > 5


def plain_scores(folder):
    """The figures at 90 degrees of the toy data set with its own ids."""
    dataset = load_coco(*write_toy_coco(folder))
    turned = turn_coco(
        {
            **dataset,
            "annotations": [{key: entry[key] for key in KEYS} for entry in dataset["annotations"]],
        },
        1,
    )
    evaluator = RotatedCOCOEvaluator(dataset, View(90))
    evaluator.extend(detections(turned))
    return evaluator.evaluate()


@pytest.mark.parametrize("angle", [0, 90, 180, 30])
def test_empty_masks_are_left_out_at_all_angles(tmp_path, angle):
    """Objects outside the image, and of no area, change no figure; they are named."""
    dataset = load_coco(*write_toy_coco(tmp_path))
    rotated, _ = View(angle).dataset(
        {
            **dataset,
            "annotations": [{key: entry[key] for key in KEYS} for entry in dataset["annotations"]],
        }
    )
    results = detections(rotated)
    first = dataset["annotations"][0]
    outside = [[500.0, 500.0, 520.0, 500.0, 520.0, 520.0]]
    flat = [[5.0, 5.0, 20.0, 5.0, 12.0, 5.0]]
    more = [
        {**first, "id": 100 + number, "segmentation": polygon, "area": 200.0}
        for number, polygon in enumerate((outside, flat))
    ]
    plain = RotatedCOCOEvaluator(dataset, View(angle))
    with_empty = RotatedCOCOEvaluator(
        {**dataset, "annotations": [*more, *dataset["annotations"]]}, View(angle)
    )
    for evaluator in (plain, with_empty):
        evaluator.extend(results)
    assert str(with_empty.evaluate()) == str(plain.evaluate())
    assert with_empty.instances_empty == [100, 101] and plain.instances_empty == []
    assert with_empty.instances_cut == plain.instances_cut == 0 and with_empty.cut == []
