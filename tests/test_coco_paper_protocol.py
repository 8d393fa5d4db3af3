import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from toy_coco import write_toy_coco

from canon_seg.coco.dataset import load_coco, without_empty_masks
from canon_seg.coco.masks import with_str_counts
from canon_seg.coco.paper_protocol import BATCH_SIZE, PaperScorer
from canon_seg.coco.rotation import rotate_coco
from canon_seg.coco.scoring import METRICS, Scorer, only_scored_keys

SIZE = 200


def rle(box):
    x, y, w, h = box
    mask = np.zeros((SIZE, SIZE), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return with_str_counts(coco_mask.encode(mask))


def found(image_id, category_id, box, score=0.9):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(value) for value in box],
        "segmentation": rle(box),
        "score": score,
    }


def data_set(*objects, images=None):
    """A set of square images with (image id, category id, box, crowd or not) objects."""
    ids = sorted({image for image, *_ in objects} | set(images or ()))
    return {
        "images": [{"id": number, "height": SIZE, "width": SIZE} for number in ids],
        "categories": [{"id": number, "name": str(number)} for number in (1, 2)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [float(value) for value in box],
                "segmentation": rle(box),
                "area": float(box[2] * box[3]),
                "iscrowd": crowd,
            }
            for number, (image, category, box, crowd) in enumerate(objects, start=1)
        ],
    }


A, B, C = (0, 0, 120, 120), (100, 0, 100, 100), (0, 130, 150, 70)


def mean_ap(dataset, results, order=None, batch_size=2, task="segm", metric="AP"):
    order = [image["id"] for image in dataset["images"]] if order is None else order
    return PaperScorer(dataset, order, batch_size).score(results)[task][metric]


def whole_ap(dataset, results):
    return Scorer(dataset).score(results)["segm"]["AP"]


def points(recall):
    """COCO's AP, 0 to 100, of detections without errors that stop at a recall."""
    return 100 * sum(point / 100 <= recall + 1e-9 for point in range(101)) / 101


def test_batches_are_averaged_by_hand():
    # Both objects of the first batch, one of three in the second.
    dataset = data_set((1, 1, A, 0), (2, 1, A, 0), (3, 1, A, 0), (3, 1, B, 0), (3, 1, C, 0))
    results = [found(1, 1, A), found(2, 1, A), found(3, 1, A)]
    expected = (points(1) + points(1 / 3)) / 2
    assert expected == pytest.approx(100 * (101 + 34) / 2 / 101)
    for task in ("segm", "bbox"):
        assert mean_ap(dataset, results, task=task) == pytest.approx(expected)
    assert whole_ap(dataset, results) == pytest.approx(points(3 / 5))  # 61 of 101 points
    scorer = PaperScorer(dataset, [1, 2, 3], 2)
    assert (scorer.num_images, scorer.num_batches) == (3, 2)


def test_a_class_counts_where_it_has_objects():
    # A false detection of class 2, surer than the true one, in a batch without such objects.
    dataset = data_set((1, 1, A, 0), (2, 1, A, 0), (3, 2, A, 0))
    results = [found(1, 1, A), found(2, 1, A), found(2, 2, A, 0.99), found(3, 2, A, 0.5)]
    assert mean_ap(dataset, results) == pytest.approx(100)
    assert whole_ap(dataset, results) == pytest.approx((100 + 50) / 2)
    # In another order the two meet.
    assert mean_ap(dataset, results, order=[2, 3, 1]) == pytest.approx((75 + 100) / 2)


def test_an_image_without_detections_counts_as_found():
    dataset = data_set((1, 1, A, 0), (2, 1, A, 0), (2, 1, B, 0))
    results = [found(1, 1, A)]
    assert mean_ap(dataset, results) == pytest.approx(100)
    assert whole_ap(dataset, results) == pytest.approx(points(1 / 3))
    assert mean_ap(dataset, []) == pytest.approx(100)


def test_crowds_are_objects():
    dataset = data_set((1, 1, A, 0), (1, 1, C, 1))
    results = [found(1, 1, A)]
    assert mean_ap(dataset, results) == pytest.approx(points(1 / 2))
    assert whole_ap(dataset, results) == pytest.approx(100)


def test_degenerate_objects_and_images_without_objects_are_left_out():
    dataset = data_set((1, 1, A, 0), (2, 1, B, 0), (3, 1, A, 0), images=[4])
    dataset["annotations"][1]["bbox"][2] = 0.5
    results = [found(1, 1, A), found(3, 1, B, 0.99), found(3, 1, A), found(4, 1, A)]
    scorer = PaperScorer(dataset, [4, 1, 2, 3], 1)
    assert (scorer.num_images, scorer.num_batches) == (2, 2)
    assert scorer.score(results)["segm"]["AP"] == pytest.approx((100 + 50) / 2)


def test_a_size_without_objects_counts_as_zero():
    small = (0, 0, 20, 20)
    dataset = data_set((1, 1, small, 0), (2, 1, A, 0))
    results = [found(1, 1, small), found(2, 1, A)]
    scores = PaperScorer(dataset, [1, 2], 1).score(results)["segm"]
    # What is found wholly has 100 less the smallest step, as in pycocotools.
    assert [scores[name] for name in ("AP", "APs", "APm", "APl")] == pytest.approx([100, 50, 0, 50])


def test_models_without_masks():
    dataset = data_set((1, 1, A, 0), (2, 1, A, 0))
    results = [{key: value for key, value in found(1, 1, A).items() if key != "segmentation"}]
    scores = PaperScorer(dataset, [1, 2], 2).score(results)
    assert scores.keys() == {"bbox"} and scores["bbox"]["AP"] == pytest.approx(100)


def test_nothing_to_score():
    assert PaperScorer(data_set((1, 1, A, 0)), []).score([]) == {}


def pycocotools_ap(dataset, results, task):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [max(100 * value, 0.0) for value in evaluation.stats[:6]]


@pytest.mark.parametrize("task", ["segm", "bbox"])
def test_each_batch_is_scored_as_by_pycocotools(tmp_path, task):
    sizes = [(60 + 3 * number, 90 - 2 * number) for number in range(7)]
    dataset = load_coco(*write_toy_coco(tmp_path, sizes))
    dataset, _ = rotate_coco(without_empty_masks(only_scored_keys(dataset))[0], 90)
    rng = np.random.default_rng(2)
    results = [
        {
            **{key: entry[key] for key in ("image_id", "bbox", "segmentation")},
            "category_id": int(rng.choice([3, 7])),
            "score": float(rng.random()),
        }
        for entry in dataset["annotations"]
        if rng.random() < 0.7
    ]
    order = [image["id"] for image in dataset["images"]][::-1]
    expected = []
    for batch in (order[:3], order[3:6], order[6:]):
        truth = [
            {**entry, "iscrowd": 0, "area": float(coco_mask.area(entry["segmentation"]))}
            for entry in dataset["annotations"]
            if entry["image_id"] in batch
        ]
        own = {
            "images": [image for image in dataset["images"] if image["id"] in batch],
            "categories": dataset["categories"],
            "annotations": truth,
        }
        detected = [dict(entry) for entry in results if entry["image_id"] in batch]
        expected.append(pycocotools_ap(own, detected, task))
    scores = PaperScorer(dataset, order, 3).score(results)[task]
    assert [scores[name] for name in METRICS] == pytest.approx(np.mean(expected, axis=0))
    assert scores["AP"] != pytest.approx(Scorer(dataset).score(results)[task]["AP"], abs=0.5)
    assert BATCH_SIZE == 12
