#!/usr/bin/env python
"""Compare our scores of made-up data sets with pycocotools', which defines them, byte by byte.

    python tools/score_parity.py --output docs/results/score_parity.json

Every set is drawn by a seed of its own: crowds, areas that are not the mask's, ties of scores, ids
of all kinds, images, classes and whole sets without objects or detections, masks without a pixel,
more than 1,000 detections of a class. The arrays of precision, recall and scores are compared, for
masks and boxes, by class and class-agnostic, at the best 1, 10, 100 and 1, 10, 1000 detections.
"""

import argparse
import contextlib
import copy
import io
import time
from importlib.metadata import version

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from canon_seg.coco.masks import annotation_to_rle
from canon_seg.coco.scoring import Scorer
from canon_seg.errors import run_main
from canon_seg.io.files import write_json

TASKS = ("segm", "bbox")
MAX_DETECTIONS = ((1, 10, 100), (1, 10, 1000))
ARRAYS = ("precision", "recall", "scores")

# Functions of (rng, number of ids) that draw ids, for images and for categories.
IDS = {
    "1 to N": lambda rng, n: np.arange(1, n + 1),
    "from 0": lambda rng, n: np.arange(n),
    "gaps, unsorted": lambda rng, n: rng.permutation(1000)[:n] + 1,
    "negative": lambda rng, n: -1 - rng.permutation(100)[:n],
    "2^53 + k": lambda rng, n: 2**53 + rng.permutation(n),
    "10^17 + k": lambda rng, n: 10**17 + rng.permutation(n),
}


def random_set(seed):
    """Make up a ground truth, and detections of it.

    Args:
        seed: int; its remainders choose what is special about the set.

    Returns:
        (dict of a COCO instances file, list of COCO results, list of str: what is special).
    """
    rng = np.random.default_rng(seed)
    kinds = list(IDS)
    kind = kinds[seed % len(kinds)]
    special = [f"ids {kind}"]
    image_ids, category_ids = (
        [int(number) for number in IDS[kind](rng, rng.integers(1, most))] for most in (6, 5)
    )
    images = [
        {"id": number, "height": int(height), "width": int(width)}
        for number, (height, width) in zip(
            image_ids, rng.integers(8, 170, (len(image_ids), 2)), strict=True
        )
    ]
    many, no_objects, no_detections = seed % 10 == 3, seed % 25 == 4, seed % 25 == 5
    annotations, results = [], []
    for image in images:
        boxes = _boxes(rng, rng.integers(0, 9), image)
        objects = [_annotation(rng, box, image, category_ids) for box in boxes]
        if not no_objects:
            annotations += objects
        if not no_detections and (many or rng.random() < 0.85):
            most = 1100 if many and image is images[0] else 20
            results += _detections(rng, objects, image, category_ids, most)
    if many:
        special.append("more than 1,000 detections of one class in an image")
    if not annotations:
        special.append("no objects")
    if not results:
        special.append("no detections")
    if any(entry["iscrowd"] for entry in annotations):
        special.append("crowds")
    scores = [entry["score"] for entry in results]
    if len(set(scores)) < len(scores):
        special.append("ties of scores")
    # Ids of annotations: those of the last kinds cannot be held by pycocotools.
    for number, entry in enumerate(annotations, start=1):
        entry["id"] = {"from 0": number - 1, "negative": -number, "10^17 + k": 10**17 + number}.get(
            kind, number
        )
    categories = [{"id": number, "name": f"class {number}"} for number in category_ids]
    return (
        {"images": images, "annotations": annotations, "categories": categories},
        results,
        special,
    )


def differences(seed):
    """Score one set both ways.

    Returns:
        (list of str: the arrays that differ in any byte, number of values compared).
    """
    dataset, results, _ = random_set(seed)
    scorer = Scorer(dataset)
    different, values = [], 0
    for task in TASKS:
        for max_detections in MAX_DETECTIONS:
            for by_class in (True, False):
                ours = scorer.curves(results, task, max_detections, by_class)
                expected = reference_curves(dataset, results, task, max_detections, by_class)
                for name in ARRAYS:
                    values += expected[name].size
                    if not same_bytes(ours[name], expected[name]):
                        different.append(
                            f"set {seed}: {name}, {task}, the best {max_detections[-1]}, "
                            + ("by class" if by_class else "class-agnostic")
                        )
    return different, values


def same_bytes(a, b):
    """Return whether two arrays have the same shape, type and bytes."""
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def reference_curves(dataset, results, task, max_detections=(1, 10, 100), by_class=True):
    """Return the arrays of pycocotools, as :meth:`canon_seg.coco.scoring.Scorer.curves` does."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        # It takes the id 0 for "no match", and notices the others by "larger than 0".
        for number, entry in enumerate(truth.dataset["annotations"], start=1):
            entry["id"] = number
        truth.createIndex()
        # loadRes sizes an object by its box where there is one, and cannot take an empty list.
        other = {"segm": "bbox", "bbox": "segmentation"}[task]
        own = [{key: entry[key] for key in entry if key != other} for entry in results]
        if own:
            found = truth.loadRes(own)
        else:
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, task)
        evaluation.params.maxDets = list(max_detections)
        evaluation.params.useCats = int(by_class)
        evaluation.evaluate()
        evaluation.accumulate()
    return {name: evaluation.eval[name] for name in ARRAYS}


def _boxes(rng, count, image):
    """Return (count, 4) boxes, of which many have whole numbers, as exact IoUs need them."""
    size = np.array([image["width"], image["height"]])
    corners = rng.uniform(0, 0.8, (count, 2)) * size
    sizes = rng.uniform(0.02, 1, (count, 2)) ** 2 * (size - corners)
    boxes = np.concatenate([corners, sizes], axis=1)
    whole = rng.random(count) < 0.5
    boxes[whole] = np.ceil(boxes[whole])
    return boxes


def _annotation(rng, box, image, category_ids):
    x, y, w, h = box.tolist()
    segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if rng.random() < 0.3:
        segmentation.append([x, y, x + w, y + h / 2, x, y + h])
    rle = annotation_to_rle(segmentation, image["height"], image["width"])
    area = float(coco_mask.area(rle))
    if rng.random() < 0.3:  # of the user's making: the ranges of areas begin and end there
        area = float(rng.choice([0, 32**2, 96**2, np.nextafter(32**2, 0), area / 3]))
    return {
        "image_id": image["id"],
        "category_id": int(rng.choice(category_ids)),
        "iscrowd": int(rng.random() < 0.15),
        "bbox": [x, y, w, h],
        "area": area,
        "segmentation": rle,
    }


def _detections(rng, objects, image, category_ids, most):
    """Return detections that are equal to objects, near them, anywhere, or without a pixel."""
    count = most if most > 100 else rng.integers(0, most)
    category = int(rng.choice(category_ids))
    entries = []
    for _ in range(count):
        if objects and rng.random() < 0.8:
            found = objects[rng.integers(len(objects))]
            box, found_category = np.array(found["bbox"]), found["category_id"]
        else:
            box, found_category = _boxes(rng, 1, image)[0], int(rng.choice(category_ids))
        if rng.random() < 0.5:
            box = box + rng.normal(0, 0.1, 4) * np.tile(box[2:], 2)
        elif rng.random() < 0.5:  # IoUs of exactly a half, three quarters, ...
            box = box * (1, 1, 1, rng.choice([0.5, 0.55, 0.75, 0.95]))
        x, y, w, h = [*box[:2].tolist(), *np.maximum(box[2:], 0).tolist()]
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        (rle,) = coco_mask.frPyObjects([polygon], image["height"], image["width"])
        entries.append(
            {
                "image_id": image["id"],
                # Of a thousand, all are of one class.
                "category_id": category if most > 100 else found_category,
                "bbox": [x, y, w, h],
                "score": float(np.round(rng.random(), 1 if rng.random() < 0.7 else 9)),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        )
    return entries


def main():
    """Compare the sets and write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--seed", type=int, default=0, help="of the first set; default: 0")
    parser.add_argument("--output", metavar="FILE", help="JSON file for the result")
    args = parser.parse_args()
    start = time.perf_counter()
    different, values, sets_with = [], 0, {}
    for seed in tqdm(range(args.seed, args.seed + args.sets), desc="comparing", unit="set"):
        for name in random_set(seed)[2]:
            sets_with[name] = sets_with.get(name, 0) + 1
        found, compared = differences(seed)
        different += found
        values += compared
    result = {
        "sets": args.sets,
        "first_seed": args.seed,
        "sets_with": dict(sorted(sets_with.items())),
        "values_compared": values,
        "different": different,
        "versions": {name: version(name) for name in ("hotcoco", "pycocotools", "numpy")},
        "seconds": round(time.perf_counter() - start, 1),
    }
    if args.output:
        write_json(args.output, result)
    print(
        f"{args.sets} sets, {values:,} values: "
        + ("equal to the last bit" if not different else f"{len(different)} arrays differ")
    )
    for line in different[:20]:
        print(f"  {line}")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    run_main(main)
