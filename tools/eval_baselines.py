#!/usr/bin/env python
"""Measure what a box without a network can do: mask AP of simple ways, from ground-truth boxes.

    python tools/eval_baselines.py --annotations instances.json --images DIR --output FILE.json

box: the box is the mask; ellipse: the ellipse in it; grabcut: OpenCV's GrabCut (Rother et al.,
SIGGRAPH 2004) begun with it. To compare with a segmenter that is prompted with the same boxes.
"""

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

import canon_seg.d2.compat  # noqa: F401
from canon_seg.coco.dataset import check_images, load_coco
from canon_seg.errors import run_main
from canon_seg.evaluation.rotated_coco import RotatedCOCOEvaluator
from canon_seg.evaluation.sweep import first_images
from canon_seg.evaluation.views import View
from canon_seg.images.reading import read_image
from canon_seg.io.files import check_output_dir, write_json

MARGIN = 0.5  # of the longer side of a box: what GrabCut sees around it, as background
ITERATIONS = 5


def box_mask(image, box):
    """Return (H, W) bool: the pixels whose centres lie in the box (x0, y0, x1, y1)."""
    u, v = _coordinates(image, box)
    return (np.abs(u) <= 1) & (np.abs(v) <= 1)


def ellipse_mask(image, box):
    """Return (H, W) bool: the ellipse that touches the four sides of the box."""
    u, v = _coordinates(image, box)
    return u * u + v * v <= 1


def grabcut_mask(image, box):
    """Return (H, W) bool: GrabCut from the box; the box itself where it finds nothing."""
    whole = box_mask(image, box)
    if not whole.any() or whole.all():
        return whole
    x0, y0, x1, y1 = box
    margin = MARGIN * max(x1 - x0, y1 - y0) + 4
    rows = slice(max(0, int(y0 - margin)), int(y1 + margin) + 1)
    columns = slice(max(0, int(x0 - margin)), int(x1 + margin) + 1)
    labels = np.where(whole[rows, columns], cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    pixels = np.ascontiguousarray(image[rows, columns])
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            pixels,
            labels,
            None,
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:  # too few pixels on one side for its colour models
        return whole
    found = np.zeros_like(whole)
    found[rows, columns] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found if found.any() else whole


BASELINES = {"box": box_mask, "ellipse": ellipse_mask, "grabcut": grabcut_mask}


def _coordinates(image, box):
    """Return pixel centres in the frame of the box, whose sides are at -1 and 1."""
    x0, y0, x1, y1 = box
    u = (2 * (np.arange(image.shape[1]) + 0.5) - x0 - x1) / max(x1 - x0, 1e-6)
    v = (2 * (np.arange(image.shape[0]) + 0.5) - y0 - y1) / max(y1 - y0, 1e-6)
    return u[None], v[:, None]


def evaluate(dataset, images_dir, names):
    """Return a dict from the name of a baseline to its mask scores, as COCO has them."""
    by_image = {image["id"]: [] for image in dataset["images"]}
    for annotation in dataset["annotations"]:
        if not annotation["iscrowd"]:
            by_image[annotation["image_id"]].append(annotation)
    results = {name: [] for name in names}
    for entry in tqdm(dataset["images"], desc="segmenting", unit="image"):
        image = read_image(Path(images_dir) / entry["file_name"], "BGR")
        for annotation in by_image[entry["id"]]:
            x, y, width, height = annotation["bbox"]
            for name in names:
                mask = BASELINES[name](image, (x, y, x + width, y + height))
                rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                results[name].append(
                    {
                        "image_id": entry["id"],
                        "category_id": annotation["category_id"],
                        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                        "bbox": annotation["bbox"],
                        "score": 1.0,
                    }
                )
    evaluator = RotatedCOCOEvaluator(dataset, View(0))
    scores = {}
    for name in names:
        evaluator.reset()
        evaluator.extend(results[name])
        scores[name] = {
            metric: value if math.isfinite(value) else None  # nothing of that size to be found
            for metric, value in evaluator.evaluate()["segm"].items()
        }
    return scores


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of its images")
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images by id")
    parser.add_argument("--output", required=True, metavar="FILE.json")
    args = parser.parse_args()
    check_output_dir(Path(args.output).parent)
    dataset = first_images(load_coco(args.annotations, args.images), args.limit)
    check_images(dataset, args.images)
    scores = evaluate(dataset, args.images, args.baselines)
    for name, own in scores.items():
        print(f"{name:8}  mask AP {own['AP']:5.2f}   AP50 {own['AP50']:5.2f}")
    write_json(
        args.output,
        {
            "annotations": args.annotations,
            "images": args.images,
            "num_images": len(dataset["images"]),
            "opencv": cv2.__version__,
            "segm": scores,
        },
    )
    print("written:", args.output)


if __name__ == "__main__":
    run_main(main)
