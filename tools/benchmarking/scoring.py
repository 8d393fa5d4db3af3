"""Time COCO's AP by pycocotools and by ours, on made-up results of the size of COCO's."""

import contextlib
import io

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarking.timing import measure, ratio, summary
from canon_seg.evaluation.rotated_coco import METRICS, RotatedCOCOEvaluator
from canon_seg.evaluation.views import View

HEIGHT, WIDTH, CATEGORIES, DETECTIONS = 480, 640, 80, 100
TRUTHS = 36_000 / 5_000
"""Objects in an image of COCO val2017, on average."""


def time_scoring(settings):
    """Time masks and boxes together, from ground truth and results in memory to the figures.

    Returns:
        (dict that JSON can hold, dict of ratios): scoring alone, and with what prepares the ground
        truth (ours makes run-length codes of the polygons, to turn them).
    """
    dataset, results = made_up(settings.coco_images)
    view, reference = View(0), COCO()
    ours = RotatedCOCOEvaluator(dataset, view)
    ours.extend(results)
    with _silence():
        reference = _indexed(dataset)
    figures = {}

    def score_ours():
        figures["ours"] = ours.evaluate()

    def score_pycocotools():
        figures["pycocotools"] = _pycocotools(reference, results)

    with _silence():
        times = measure(
            {
                "ours": score_ours,
                "pycocotools": score_pycocotools,
                "ours, preparation": lambda: RotatedCOCOEvaluator(dataset, view),
                "pycocotools, preparation": lambda: _indexed(dataset),
            },
            max(2, settings.rounds // 2),
        )
    whole = [times[name] + times[f"{name}, preparation"] for name in ("pycocotools", "ours")]
    facts = {
        "images": settings.coco_images,
        "objects": len(dataset["annotations"]),
        "detections": len(results),
        "seconds": {name: summary(values) for name, values in times.items()},
        "largest_difference": max(
            abs(figures["ours"][task][metric] - figures["pycocotools"][task][metric])
            for task in ("segm", "bbox")
            for metric in METRICS
        ),
    }
    return facts, {
        "coco_eval_pycocotools_over_ours": ratio(times["pycocotools"], times["ours"]),
        "coco_eval_pycocotools_over_ours_with_preparation": ratio(*whole),
    }


def made_up(num_images, seed=0):
    """Make up a data set of polygons and the results of a fair detector on it.

    Returns:
        (dict of a COCO instances file, list of COCO results with masks and boxes).
    """
    rng = np.random.default_rng(seed)
    images = [
        {"id": number, "height": HEIGHT, "width": WIDTH, "file_name": f"{number}.jpg"}
        for number in range(1, num_images + 1)
    ]
    annotations, results = [], []
    for image in images:
        count = rng.poisson(TRUTHS - 1) + 1
        ellipses = _ellipses(rng, count)
        classes = rng.integers(1, CATEGORIES + 1, count)
        rles = _rles(ellipses)
        for ellipse, category, rle in zip(ellipses, classes, rles, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "iscrowd": 0,
                    "category_id": int(category),
                    "segmentation": [_polygon(ellipse)],
                    "area": float(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                }
            )
        # Two detections of each object, and as many false ones as are missing to a hundred.
        near = np.repeat(ellipses, 2, axis=0)
        near = near * rng.normal(1, 0.08, near.shape)
        detected = np.concatenate([near, _ellipses(rng, DETECTIONS)])[:DETECTIONS]
        classes = np.concatenate([np.repeat(classes, 2), rng.integers(1, CATEGORIES + 1, 100)])
        for category, rle in zip(classes, _rles(detected), strict=False):
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": int(category),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "score": float(rng.uniform()),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    categories = [{"id": number, "name": str(number)} for number in range(1, CATEGORIES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _ellipses(rng, count):
    """Return (count, 4) centre and radii in pixels; many small ones, as in COCO."""
    centres = rng.uniform(0, 1, (count, 2)) * (WIDTH, HEIGHT)
    radii = 8 * np.exp(rng.uniform(0, 3, (count, 1))) * rng.uniform(0.6, 1.6, (count, 2))
    return np.concatenate([centres, radii], axis=1)


def _polygon(ellipse, points=24):
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x = np.clip(ellipse[0] + ellipse[2] * np.cos(angles), 0, WIDTH)
    y = np.clip(ellipse[1] + ellipse[3] * np.sin(angles), 0, HEIGHT)
    return np.stack([x, y], axis=1).ravel().tolist()


def _rles(ellipses):
    return coco_mask.frPyObjects([_polygon(ellipse) for ellipse in ellipses], HEIGHT, WIDTH)


def _indexed(dataset):
    reference = COCO()
    reference.dataset = dataset
    reference.createIndex()
    return reference


def _pycocotools(reference, results):
    """Return the figures of :meth:`RotatedCOCOEvaluator.evaluate`, in detectron2's way."""
    figures = {}
    for task in ("segm", "bbox"):
        # loadRes writes into the entries, and takes an object's size from a box that is there.
        left_out = "bbox" if task == "segm" else "segmentation"
        entries = [{k: v for k, v in entry.items() if k != left_out} for entry in results]
        evaluation = COCOeval(reference, reference.loadRes(entries), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        figures[task] = {
            metric: 100 * float(value)
            for metric, value in zip(METRICS, evaluation.stats, strict=False)
        }
    return figures


def _silence():
    return contextlib.redirect_stdout(io.StringIO())
