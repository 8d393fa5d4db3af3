#!/usr/bin/env python
"""Measure how often canon-seg-upright is right: a folder of upright photographs in four turns.

    python tools/eval_upright.py --images DIR --output FILE [KEY VALUE ...]
    python tools/eval_upright.py --details FILE --output FILE

Each photograph is written in its four turns, without loss where it is a JPEG file that jpegtran can
turn, else as a JPEG file of quality 95. What canon-seg-upright makes of each of them is read again
and compared with the photograph. A file counts as changed when it was turned, and as right when it
then shows the photograph upright.

--details takes a file of canon-seg-eval-pose --details instead, of upright photographs that were
neither trained on nor evaluated on: for several values of --min-probability it shows what share is
clear, and what share of that is right. That is how the default was chosen.
"""

import argparse
import io
import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from tqdm import tqdm

import canon_seg
from canon_seg.apps.files.upright import FAILED, TURNED, UNCERTAIN, UPRIGHT, Photo, decide
from canon_seg.cli.options import parse_with_options
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.group import C4
from canon_seg.errors import InputError, run_main
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_turning import turn_file
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import read_image
from canon_seg.io.files import write_json
from canon_seg.networks.build import build_canonicalizer
from canon_seg.predictors.upright import MIN_PROBABILITY, clear_pose

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


def turned_contents(path, turn):
    """Make a turned copy of a photograph's file, upright for the tag to see; return its bytes."""
    data = path.read_bytes()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        turned = turn_file(data, turn)
        if turned.way == "pixels":
            return turned.contents
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(turn_image(read_image(path, "RGB"), turn)))
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def shows(contents, photo, folder):
    """Return whether a file shows the photograph upright, as near as its encodings allow."""
    path = folder / "result.jpg"
    path.write_bytes(contents)
    seen = read_image(path, "RGB")
    distances = [
        np.abs(turned.astype(int) - seen).mean() if turned.shape == seen.shape else np.inf
        for turned in (turn_image(photo, turn) for turn in C4.elements)
    ]
    return int(np.argmin(distances)) == 0


def measure(find_pose, files, folder):
    """Count what becomes of each photograph in each of its four turns.

    Args:
        find_pose: see :data:`canon_seg.apps.files.upright.FindPose`.
        files: paths of upright photographs.
        folder: for temporary files.

    Returns:
        dict that JSON can hold.
    """
    counts = dict.fromkeys([*(f"turned by {way}" for way in ("pixels", "tag"))], 0)
    results = dict.fromkeys([TURNED, UPRIGHT, UNCERTAIN, FAILED], 0)
    right = dict.fromkeys([TURNED, UPRIGHT], 0)
    upright_left = 0
    for file in tqdm(files, unit="photo"):
        photo = read_image(file, "RGB")
        for turn in C4.elements:
            source = folder / "photo.jpg"
            source.write_bytes(
                turned_contents(Path(file), turn) if turn.quarters else Path(file).read_bytes()
            )
            row, contents = decide(Photo(source, Path("photo.jpg")), find_pose)
            results[row.result] += 1
            if row.result == TURNED:
                right[TURNED] += shows(contents, photo, folder)
                counts[f"turned by {row.way}"] += 1
            elif row.result == UPRIGHT:
                right[UPRIGHT] += turn.quarters == 0
            if turn.quarters == 0 and row.result != TURNED:
                upright_left += 1
    files_in_all = 4 * len(files)
    return {
        "photographs": len(files),
        "files": files_in_all,
        "changed": results[TURNED],
        "changed_right": right[TURNED],
        "share_changed": results[TURNED] / files_in_all,
        "share_right_of_changed": right[TURNED] / max(1, results[TURNED]),
        "taken_for_upright": results[UPRIGHT],
        "taken_for_upright_right": right[UPRIGHT],
        "uncertain": results[UNCERTAIN],
        "share_left": (files_in_all - results[TURNED]) / files_in_all,
        "share_uncertain": results[UNCERTAIN] / files_in_all,
        "failed": results[FAILED],
        "upright_photographs_left": upright_left,
        **counts,
    }


def thresholds(entries):
    """Compute, for several least probabilities, the shares that are clear, and right of these.

    Args:
        entries: list of dicts with ``probabilities``, of upright photographs.
    """
    probabilities = np.array([entry["probabilities"] for entry in entries])
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == 0
    rows = []
    for least in THRESHOLDS:
        clear = confidence >= least
        rows.append(
            {
                "min_probability": least,
                "share_clear": float(clear.mean()),
                "share_right_of_clear": float(right[clear].mean()) if clear.any() else None,
            }
        )
    return {"photographs": len(entries), "thresholds": rows}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="DIR", help="upright photographs")
    source.add_argument("--details", metavar="FILE", help="of canon-seg-eval-pose --details")
    parser.add_argument("--output", required=True, metavar="FILE", help="a .json file to write")
    parser.add_argument("--min-probability", type=float, default=MIN_PROBABILITY, metavar="P")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N by path")
    parser.add_argument("--config-file", default="canonicalizer.yaml", metavar="FILE")
    args = parse_with_options(parser)
    if args.details:
        result = thresholds(json.loads(Path(args.details).read_text(encoding="utf-8")))
        for row in result["thresholds"]:
            right = row["share_right_of_clear"]
            print(
                f"{row['min_probability']:.2f}: {100 * row['share_clear']:.1f} % clear, "
                + ("" if right is None else f"{100 * right:.2f} % of these right")
            )
    else:
        files = list_photos(args.images, "--images")[: args.limit]
        cfg = load_config(args.config_file, args.options)
        resolve_device(cfg, args.config_file, args.options)
        canonicalizer = build_canonicalizer(cfg).to(cfg.MODEL.DEVICE).eval()
        find_pose = partial(clear_pose, canonicalizer, min_probability=args.min_probability)
        with TemporaryDirectory() as folder:
            result = measure(find_pose, files, Path(folder))
        if not result["changed"]:
            raise InputError(
                f"{args.images}: no file was changed; is this a folder of photographs?"
            )
        result["config"] = {
            "images": args.images,
            "limit": args.limit,
            "min_probability": args.min_probability,
            "options": args.options,
            "canonicalizer_weights": cfg.MODEL.CANONICALIZER.WEIGHTS,
            "passes": cfg.MODEL.CANONICALIZER.SCORER.PASSES,
            "version": canon_seg.__version__,
        }
        print(
            f"{result['files']} files: {100 * result['share_changed']:.1f} % changed, of these "
            f"{100 * result['share_right_of_changed']:.2f} % right; "
            f"{100 * result['share_left']:.1f} % left, {100 * result['share_uncertain']:.1f} % of "
            "all as uncertain"
        )
    write_json(args.output, result)
    print("written:", args.output)


if __name__ == "__main__":
    run_main(main)
