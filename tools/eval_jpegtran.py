#!/usr/bin/env python
"""Measure how near to exact results stay when a JPEG file, not its pixels, is turned.

    python tools/eval_jpegtran.py --config-file configs/sam_tiny_c4.yaml \
        --annotations instances.json --images DIR --output jpegtran.json [KEY VALUE ...]

`jpegtran` (Debian: libjpeg-turbo-progs) turns the coefficients of a JPEG file without loss, but the
turned file decodes to slightly other pixels. Each image that it can turn perfectly is segmented as
it is and in its three turned files, with the ground-truth boxes as prompts, and the masks are
compared after turning back.
"""

import argparse
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from canon_seg.coco.dataset import load_coco
from canon_seg.config.device import resolve_device
from canon_seg.d2 import meta_arch  # noqa: F401  registers CanonicalizedSegmenter
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.errors import InputError, run_main
from canon_seg.geometry import C4, turn_image, turn_maps
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import segmenter_inputs
from canon_seg.io.files import write_json

from detectron2.modeling import build_model

CLOCKWISE = {1: "270", 2: "180", 3: "90"}  # jpegtran's angle for each counterclockwise turn


def turned_file(source, turns, folder):
    """Make a losslessly turned copy of a JPEG file; return None where its size allows none."""
    target = Path(folder) / f"{turns}.jpg"
    command = ["jpegtran", "-perfect", "-rotate", CLOCKWISE[turns], "-outfile", target, source]
    done = subprocess.run(command, capture_output=True, check=False)
    return target if done.returncode == 0 else None


def compare(model, path, prompts, read):
    """Return differences between a file and its turned copies, or [] where none can be made.

    Returns:
        list of dicts, one for each turn: ``pixels`` (mean absolute difference, grey levels),
        ``same_pose``, ``ious`` (of each mask with the upright file's).
    """
    image = read(path)
    height, width = image.shape[:2]
    upright = _segment(model, image, prompts.turned(0, height, width, snapped=True))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for turns in CLOCKWISE:
            file = turned_file(path, turns, folder)
            if file is None:
                return []
            turned = read(file)
            result = _segment(model, turned, prompts.turned(turns, height, width, snapped=True))
            difference = turned.astype(int) - turn_image(image, turns).astype(int)
            masks = turn_maps(result["instances"].pred_masks, C4.inverse(turns))
            expected = upright["instances"].pred_masks
            union = (masks | expected).sum(dim=(1, 2))
            overlap = (masks & expected).sum(dim=(1, 2))
            ious = torch.where(union > 0, overlap / union.clamp(min=1), torch.ones(()))
            pose = C4.compose(upright["pose"].turns, turns)
            rows.append(
                {
                    "pixels": float(np.abs(difference).mean()),
                    "same_pose": result["pose"].turns == pose,
                    "ious": ious.tolist(),
                }
            )
    return rows


def _segment(model, image, prompts):
    return model([segmenter_inputs(image, prompts=prompts)])[0]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    if shutil.which("jpegtran") is None:
        raise InputError(
            "jpegtran is not installed; on Debian: apt-get install libjpeg-turbo-progs"
        )
    cfg = load_config(args.config_file, args.opts)
    resolve_device(cfg, args.config_file, args.opts)
    dataset = load_coco(args.annotations, args.images)
    prompts = load_box_prompts("boxes", dataset)
    model = build_model(cfg).eval()
    read = partial(read_image, format=cfg.INPUT.FORMAT, options=ReadingOptions.from_config(cfg))
    rows, images = [], 0
    for entry in tqdm(dataset["images"], unit="image"):
        own = prompts[entry["id"]]
        if len(own.boxes):
            found = compare(model, Path(args.images) / entry["file_name"], own, read)
            images += bool(found)
            rows += found
    if not rows:
        raise InputError(f"{args.images}: no JPEG file here can be turned without loss")
    ious = np.array([iou for row in rows for iou in row["ious"]])
    result = {
        "images": images,
        "turned_files": len(rows),
        "masks": len(ious),
        "mean_absolute_pixel_difference": float(np.mean([row["pixels"] for row in rows])),
        "same_pose": float(np.mean([row["same_pose"] for row in rows])),
        "mean_mask_iou": float(ious.mean()),
        "identical_masks": float((ious == 1).mean()),
    }
    write_json(args.output, result)
    for key, value in result.items():
        print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    run_main(main)
