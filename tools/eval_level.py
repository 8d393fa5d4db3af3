#!/usr/bin/env python
"""Measure how well canon-seg-upright --level straightens: level photographs, each tilted.

    python tools/eval_level.py --images DIR --output FILE [--every N] [KEY VALUE ...]

Each photograph is looked at as it is and tilted by an angle drawn from -20 to 20 degrees, each time
cut to the largest frame inside (canvas "inscribed"), so that no edge tells the angle. For several
values of --min-tilt-probability the file says of the tilted ones which share was levelled, and of
these how far from level they are then and which share is further from level than before; and of the
level ones which share was tilted by mistake. Photographs are taken for level as they are, which is
true to a degree or two.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from canon_seg.cli.options import parse_with_options
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.pose import Pose
from canon_seg.errors import run_main
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import read_image
from canon_seg.images.tilt import rotate_image
from canon_seg.io.files import write_json
from canon_seg.networks.build import build_canonicalizer
from canon_seg.predictors.defaults import ANY_ANGLE
from canon_seg.predictors.upright import MAX_TILT, level_pose

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


def look(canonicalizer, image: np.ndarray, degrees: float) -> "tuple[float, float, Pose]":
    """Return the given tilt, the tilt that was found at any probability, and the pose."""
    tilted = np.ascontiguousarray(rotate_image(image, degrees, "inscribed"))
    pose = level_pose(canonicalizer, tilted, min_tilt_probability=0.0)
    return degrees, pose.turn.tilt if pose.policy != "keep" else 0.0, pose


def summarize(looks, threshold: float) -> dict:
    """Sum up what a threshold does to photographs.

    Args:
        looks: list of what :func:`look` returns.
        threshold: --min-tilt-probability.
    """
    given = np.array([degrees for degrees, *_ in looks])
    found = np.array([tilt if pose.probability >= threshold else 0 for _, tilt, pose in looks])
    levelled, is_turned = found != 0, np.array([pose.turn.quarters != 0 for *_, pose in looks])
    left = np.abs(given - found)
    return {
        "photographs": len(looks),
        "levelled": float(levelled.mean()),
        "median_degrees_left": float(np.median(left[levelled])) if levelled.any() else None,
        "within_3_degrees": float((left[levelled] <= 3).mean()) if levelled.any() else None,
        "worse_than_before": float((left[levelled] > np.abs(given[levelled])).mean())
        if levelled.any()
        else None,
        "wrong_quarter_turn": float(is_turned.mean()),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder, or a JSON list")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th")
    args = parse_with_options(parser)
    any_angle = ["MODEL.CANONICALIZER.GROUP", "SO2", "MODEL.CANONICALIZER.WEIGHTS", ANY_ANGLE]
    options = [*any_angle, *args.options]
    cfg = load_config("canonicalizer.yaml", options)
    resolve_device(cfg, "canonicalizer.yaml", options)
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    canonicalizer = build_canonicalizer(cfg).to(cfg.MODEL.DEVICE).eval()
    if args.images.endswith(".json"):
        files = json.loads(Path(args.images).read_text())
    else:
        files = list_photos(args.images, "--images")
    rng, tilted, level = np.random.default_rng(0), [], []
    for file in tqdm(files[:: args.every], unit="photo", disable=None):
        image = read_image(file, "RGB")
        tilted.append(look(canonicalizer, image, float(rng.uniform(-MAX_TILT, MAX_TILT))))
        level.append(look(canonicalizer, image, 0.0))
    result = {
        "min_tilt": canonicalizer.min_tilt,
        "max_tilt": MAX_TILT,
        "tilted": {f"{value:g}": summarize(tilted, value) for value in THRESHOLDS},
        "level": {f"{value:g}": summarize(level, value) for value in THRESHOLDS},
    }
    write_json(Path(args.output), result)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    run_main(main)
