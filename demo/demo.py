#!/usr/bin/env python
"""Segment photographs in their canonical pose, and write pictures of what was found.

    python demo/demo.py --input photo.jpg [more, or a glob] --output DIR \\
        [--box x0 y0 x1 y1 ...] [--point x y ...] [--turns] [KEY VALUE ...]

Writes DIR/photo.png: the photograph with its masks, the pose found and its probability. SAM takes
boxes and points, and segments everything where there are none; detectors need no prompts. Without
--input: photographs that come with scikit-image. Config options KEY VALUE come last.
"""

import argparse
import glob
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import List

import numpy as np
import torch
from tqdm import tqdm

from canon_seg import compat  # noqa: F401
from canon_seg.canonicalizers.canonicalizer import Pose
from canon_seg.config import load_config
from canon_seg.data.images import image_size, read_image
from canon_seg.device import resolve_device
from canon_seg.errors import InputError, run_main
from canon_seg.evaluation.modes import build_models
from canon_seg.everything import CanonicalSamAutomaticMaskGenerator
from canon_seg.files import check_output_dir
from canon_seg.geometry.arrays import turn_image, turn_maps
from canon_seg.geometry.group import C4
from canon_seg.segmenters.prompts import Prompts
from canon_seg.visualize import (
    add_caption,
    colors,
    draw_segmentation,
    fit,
    save_picture,
    side_by_side,
    zoom_factor,
)
from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer

CONFIG_FILE = Path(__file__).resolve().parents[1] / "configs" / "sam_tiny_c4.yaml"
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
COLUMN = 512  # px, longer side of each image in the picture of four turns

# Which masks of everything are kept: least predicted IoU, least stability, and how many of the
# best. segment_anything's thresholds are made for its large models; those of a small one, which is
# less sure of itself, are chosen by their order instead.
KEEP, KEEP_TINY = (0.88, 0.95, 1000), (0.0, 0.0, 20)
# Values in the three mask logits of all points that are decoded at once: bounds the memory.
VALUES_PER_BATCH = 2**27


@dataclass
class Segmentation:
    """What was found in one image, in its frame: N (H, W) bool masks, or N boxes without any."""

    pose: Pose
    masks: List[np.ndarray]
    picture: np.ndarray
    boxes: int = 0

    def __str__(self):
        count, noun = (self.boxes, "box") if self.boxes else (len(self.masks), "mask")
        plural = "" if count == 1 else "es" if noun == "box" else "s"
        return f"{count} {noun}{plural}"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=str(CONFIG_FILE), metavar="FILE")
    parser.add_argument(
        "--input", nargs="+", metavar="FILE", help="image files or glob patterns in quotes"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--box", nargs="+", action="extend", default=[], metavar="N",
        help="x0 y0 x1 y1 in pixel edges, again and again; each box is one prompt",
    )
    parser.add_argument(
        "--point", nargs="+", action="extend", default=[], metavar="N",
        help="x y of a pixel, counted from 0, again and again; each point is one prompt",
    )
    parser.add_argument(
        "--turns", action="store_true", help="also write all four turns of each input side by side"
    )
    parser.add_argument(
        "--points-per-side", type=int, default=16, metavar="N",
        help="without prompts, SAM is asked at N x N points; default: 16",
    )
    parser.add_argument(
        "--min-iou", type=float, metavar="P",
        help="without prompts: least IoU that SAM predicts for a mask; default: "
        f"{KEEP[0]:g}, tiny SAM {KEEP_TINY[0]:g}",
    )
    parser.add_argument(
        "--min-stability", type=float, metavar="P",
        help="without prompts: least stability of a mask; default: "
        f"{KEEP[1]:g}, tiny SAM {KEEP_TINY[1]:g}",
    )
    parser.add_argument(
        "--max-masks", type=int, metavar="N",
        help="without prompts: only the N best masks by predicted IoU times stability; default: "
        f"{KEEP[2]}, tiny SAM {KEEP_TINY[2]}",
    )
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="P",
        help="least score of a detector's instances; default: 0.5",
    )
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options, at the end"
    )
    return parser.parse_args()


def main():
    args = parse_arguments()
    for name in ("points_per_side", "max_masks"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give at least 1")
    prompts = parse_prompts(args)
    output = check_output_dir(args.output)
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    segmenter = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
    if prompts and segmenter != "SamSegmenter":
        raise InputError(
            f"--box and --point: {segmenter} takes no prompts; leave them out, or take a config "
            "with SamSegmenter, such as configs/sam_tiny_c4.yaml"
        )
    # All inputs are looked at before the first is worked on, so that mistakes show at once.
    paths, errors = find_inputs(args.input, prompts)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if paths:
        segment = build_segment(args, cfg, prompts)
        names = output_names(paths, output)
        for path, name in zip(tqdm(paths, unit="image", disable=None), names):
            try:
                line = process(path, output / name, segment, prompts, args.turns)
            except InputError as error:
                errors.append(error)
                tqdm.write(f"error: {error}", file=sys.stderr)
            else:
                tqdm.write(line)
    return 2 if errors else 0


def parse_prompts(args):
    """The prompts of --box and --point: a list of up to two Prompts, boxes first."""
    boxes, points = _rows(args.box, 4, "--box"), _rows(args.point, 2, "--point")
    prompts = []
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise InputError(
                f"--box {x0:g} {y0:g} {x1:g} {y1:g} has no area: give x0 y0 x1 y1 with x0 < x1 "
                "and y0 < y1"
            )
    if boxes:
        prompts.append(Prompts(boxes=torch.tensor(boxes)))
    for x, y in points:
        if x % 1 or y % 1:
            raise InputError(f"--point {x:g} {y:g}: give a pixel's column and row, whole numbers")
    if points:
        labels = torch.ones((len(points), 1), dtype=torch.int64)
        prompts.append(Prompts(points=torch.tensor(points)[:, None], point_labels=labels))
    return prompts


def _rows(words, length, name):
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            raise InputError(
                f"{name}: {word!r} is not a number (config options KEY VALUE come last, after "
                "--output DIR)"
            ) from None
    if len(numbers) % length:
        raise InputError(f"{name} takes {length} numbers for each, got {len(numbers)}")
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} takes finite numbers, got {' '.join(words)}")
    return [numbers[i : i + length] for i in range(0, len(numbers), length)]


def find_inputs(patterns, prompts):
    """Existing image files that the prompts fit, and an InputError for each of the others."""
    paths, errors = [], []
    for path in expand(patterns) if patterns else sample_photographs():
        try:
            check_prompts(prompts, path, *image_size(path))
        except InputError as error:
            errors.append(error)
        else:
            paths.append(path)
    return paths, errors


def expand(patterns):
    """Paths of files and globs in order, each once; a glob without a match stays, as a path."""
    paths = []
    for pattern in patterns:
        found = [] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        paths += found or [pattern]
    return [Path(path) for path in dict.fromkeys(paths)]


def sample_photographs():
    """Photographs in scikit-image's own files: nothing is downloaded."""
    spec = find_spec("skimage")
    if spec is None:
        raise InputError(
            "--input is missing, and scikit-image with its photographs is not installed: name an "
            "image, or install the extra: pip install -e .[demo]"
        )
    folder = Path(spec.origin).parent / "data"
    paths = [folder / name for name in SAMPLES if (folder / name).is_file()]
    if not paths:
        raise InputError(f"--input is missing, and there are no photographs in {folder}")
    return paths


def check_prompts(prompts, path, height, width):
    """Raise InputError where a prompt is outside an image."""
    for part in prompts:
        # A box ends at the image's edges, a click at its last pixels.
        limit = 0 if part.boxes is not None else 1
        coords = part.boxes if part.boxes is not None else part.points[:, 0]
        for row in coords.tolist():
            xs, ys = row[::2], row[1::2]
            if min(row) < 0 or max(xs) > width - limit or max(ys) > height - limit:
                name = "--point" if limit else "--box"
                numbers = " ".join(f"{value:g}" for value in row)
                raise InputError(
                    f"{path}: {name} {numbers} is outside the image, which is {width} wide and "
                    f"{height} high"
                )


def output_names(paths, output):
    """A file name for each path's picture: its stem, numbered where that is taken.

    Neither the pictures with and without _turns nor the inputs themselves may overwrite another.
    """
    taken = {path.resolve() for path in paths}
    names = []
    for path in paths:
        number, stem = 1, path.stem
        while taken & (files := _files(output, stem)):
            number += 1
            stem = f"{path.stem}_{number}"
        taken |= files
        names.append(f"{stem}.png")
    return names


def _files(output, stem):
    return {(output / f"{stem}{end}.png").resolve() for end in ("", "_turns")}


def build_segment(args, cfg, prompts):
    """A function from an RGB image and its prompts to a :class:`Segmentation`."""
    model = build_models(cfg, ["canonical"])["canonical"](0)
    if not cfg.MODEL.SEGMENTER.WEIGHTS:
        print(
            "warning: MODEL.SEGMENTER.WEIGHTS is empty, the segmenter has random weights",
            file=sys.stderr,
        )
    if prompts:
        return partial(segment_prompts, model, cfg.INPUT.FORMAT)
    if cfg.MODEL.SEGMENTER.META_ARCHITECTURE != "SamSegmenter":
        return partial(
            segment_by_detectron2, model, cfg.INPUT.FORMAT, class_names(cfg), args.score_threshold
        )
    defaults = KEEP_TINY if cfg.MODEL.SAM.SIZE == "tiny" else KEEP
    given = args.min_iou, args.min_stability, args.max_masks
    iou, stability, count = (
        default if value is None else value for value, default in zip(given, defaults)
    )
    return partial(
        segment_everything,
        model,
        count,
        points_per_side=args.points_per_side,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        # A small model finds one thing many times, with boxes that differ.
        box_nms_thresh=0.3 if cfg.MODEL.SAM.SIZE == "tiny" else 0.7,
    )


def process(path, target, segment, prompts, all_turns):
    """Segment one image, write its pictures, and return the line to print."""
    start = time.perf_counter()
    image = read_image(path, "RGB")
    height, width = image.shape[:2]
    found = segment(image, prompts)
    save_picture(target, add_caption(found.picture, [f"{describe(found.pose)}, {found}"]))
    line = f"{path.name}: {width} x {height}, {describe(found.pose, ' degrees')}, {found}"
    if all_turns:
        turned = [found] + [
            segment(
                np.array(turn_image(image, turns), order="C"),
                [part.turned(turns, height, width) for part in prompts],
            )
            for turns in (1, 2, 3)
        ]
        save_picture(target.with_name(f"{target.stem}_turns.png"), draw_turns(turned))
        line += f", {'the same' if same_masks(turned) else 'NOT the same'} in all turns"
    return f"{line}, {time.perf_counter() - start:.1f} s -> {target}"


def describe(pose, degrees="°"):
    """The pose in words; a terminal may not have the degree sign."""
    return f"pose {C4.degrees(pose.turns):.0f}{degrees}, probability {pose.probability:.3f}"


def draw_turns(turned):
    """The pictures of the four turns of one image in a row, each with what was found."""
    columns = []
    for turns, found in zip(C4.elements, turned):
        lines = [f"turned by {C4.degrees(turns):.0f}°", describe(found.pose), str(found)]
        columns.append(add_caption(fit(found.picture, COLUMN), lines))
    return side_by_side(columns)


def same_masks(turned):
    """Whether the masks of the four turns of one image are the same, pixel by pixel."""
    upright = turned[0].masks
    return all(
        len(found.masks) == len(upright)
        and all(
            np.array_equal(turn_maps(mask, turns), other)
            for mask, other in zip(upright, found.masks)
        )
        for turns, found in zip(C4.elements, turned)
    )


def _inputs(image, image_format):
    pixels = image if image_format == "RGB" else image[..., ::-1]
    tensor = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


def segment_prompts(model, image_format, image, prompts):
    """A mask for each prompt, by SAM."""
    inputs = _inputs(image, image_format)
    results = model([{**inputs, "prompts": part} for part in prompts])
    masks = [mask for result in results for mask in result["instances"].pred_masks.cpu().numpy()]
    boxes = [box for part in prompts if part.boxes is not None for box in part.boxes]
    clicks = [click for part in prompts if part.points is not None for click in part.points[:, 0]]
    picture = draw_segmentation(image, masks, boxes, clicks)
    return Segmentation(results[0]["pose"], masks, picture)


def segment_everything(model, count, image, prompts, **options):
    """The ``count`` best masks of everything in the image, by SAM; there are no prompts."""
    points_per_batch = min(64, max(1, VALUES_PER_BATCH // (3 * image.shape[0] * image.shape[1])))
    generator = CanonicalSamAutomaticMaskGenerator(
        model.segmenter.sam, model.canonicalizer, points_per_batch=points_per_batch, **options
    )
    pose, records = generator.generate_with_pose(image)
    records = sorted(
        (record for record in records if record["area"]),
        key=lambda record: -record["predicted_iou"] * record["stability_score"],
    )
    masks = [record["segmentation"] for record in records[:count]]
    return Segmentation(pose, masks, draw_segmentation(image, masks))


def segment_by_detectron2(model, image_format, names, threshold, image, prompts):
    """Instances, segments or regions of any other detectron2 model; there are no prompts."""
    result = model([_inputs(image, image_format)])[0]
    drawn = overlay(result, names, threshold)
    visualizer = Visualizer(image, scale=zoom_factor(*image.shape[:2]))
    count = len(drawn["labels"])
    drawn["assigned_colors"] = [tuple(color / 255) for color in colors(count)]
    picture = visualizer.overlay_instances(**drawn).get_image()
    if "masks" in drawn:
        return Segmentation(result["pose"], drawn["masks"], picture)
    return Segmentation(result["pose"], [], picture, boxes=count)


def overlay(result, names, threshold):
    """What to draw of a detectron2 model's result, as arguments of `overlay_instances`."""
    if "panoptic_seg" in result:
        ids, segments = result["panoptic_seg"]
        ids = ids.cpu().numpy()
        return {
            "masks": [ids == segment["id"] for segment in segments],
            "labels": [
                _name(names["thing" if segment["isthing"] else "stuff"], segment["category_id"])
                for segment in segments
            ],
        }
    if "sem_seg" in result and "instances" not in result:
        regions = result["sem_seg"].argmax(dim=0).cpu().numpy()
        present = np.unique(regions).tolist()
        return {
            "masks": [regions == label for label in present],
            "labels": [_name(names["stuff"], label) for label in present],
        }
    if "instances" not in result:
        raise InputError(
            f"MODEL.SEGMENTER.META_ARCHITECTURE: a model that gives only {', '.join(result)} has "
            "nothing to draw; take one that gives instances or segments"
        )
    instances = result["instances"].to("cpu")
    instances = instances[instances.scores >= threshold]
    drawn = {
        "boxes": instances.pred_boxes,
        "labels": [
            f"{_name(names['thing'], label)} {score:.0%}"
            for label, score in zip(instances.pred_classes.tolist(), instances.scores.tolist())
        ],
    }
    if instances.has("pred_masks"):
        drawn["masks"] = list(instances.pred_masks.numpy())
    if instances.has("pred_keypoints"):
        drawn["keypoints"] = instances.pred_keypoints
    return drawn


def class_names(cfg):
    """Names of things and stuff in the data that the model was made for, as far as known."""
    datasets = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    if not datasets and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80:
        datasets = ["coco_2017_val"]  # 80 classes are COCO's
    known = [MetadataCatalog.get(name) for name in datasets[:1] if name in MetadataCatalog.list()]
    return {
        kind: next((data.get(f"{kind}_classes", []) for data in known), [])
        for kind in ("thing", "stuff")
    }


def _name(names, label):
    return names[label] if label < len(names) else f"class {label}"


if __name__ == "__main__":
    run_main(main)
