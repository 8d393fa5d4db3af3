"""Classify point clouds under rotations that training did not show.

    canon-seg-eval-points --output DIR [--data DIR] [--config-file FILE] [KEY VALUE ...]
    canon-seg-eval-points --output DIR --train [--resume] [--data DIR] ...

Writes points.json (accuracies in per cent, by classifier, row and scenario), points.md (the table)
and points.png (clouds given and canonical) to DIR. Without --data the clouds are procedural shapes,
which are no ModelNet, and the embedded weights are evaluated; with --train all models are trained
first, and written to DIR/points.pth after each; --resume keeps those that are there. With --data, a
folder of ModelNet40 in one of its usual forms, they are trained on its training part and evaluated
on its test part.
"""

import argparse
from pathlib import Path

import canon_seg
from canon_seg.cli.waiting import DRAWING, LOADING, said
from canon_seg.config.assets import resolve_asset
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError
from canon_seg.evaluation.figures import save_figure
from canon_seg.io.files import check_output_dir, write_json, write_text
from canon_seg.points.clouds import CloudSet
from canon_seg.points.config import points_config
from canon_seg.points.experiment import (
    evaluate,
    load_models,
    load_parts,
    save_parts,
    train_all,
)
from canon_seg.points.modelnet import read_clouds
from canon_seg.points.report import format_result, plot_clouds
from canon_seg.points.shapes import make_shapes

CONFIG_FILE = "configs/points/so3.yaml"
WEIGHTS = "canon_seg://points_so3.pth"


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default=CONFIG_FILE, metavar="FILE", help=f"default: {CONFIG_FILE}"
    )
    parser.add_argument("--data", metavar="DIR", help="ModelNet40; default: procedural shapes")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--train", action="store_true", help="train all models first")
    parser.add_argument(
        "--resume", action="store_true", help="with --train: keep the parts in DIR/points.pth"
    )
    parser.add_argument("--weights", metavar="FILE", help=f"written by --train; default: {WEIGHTS}")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options, at the end"
    )
    return parser.parse_args()


def main():
    """Run the command."""
    args = parse_arguments()
    if args.train and args.weights:
        raise InputError("--weights: with --train the weights are made; give one of the two")
    if args.resume and not args.train:
        raise InputError("--resume goes on with a training; give --train as well")
    if args.data and not (args.train or args.weights):
        raise InputError(
            "--data: the embedded weights are for procedural shapes; add --train to train on these "
            "clouds, or --weights with what was trained on them"
        )
    cfg = load_config(args.config_file, args.options, points_config())
    resolve_device(cfg, args.config_file, args.options)
    output = check_output_dir(args.output)
    weights = output / "points.pth" if args.train else Path(resolve_asset(args.weights or WEIGHTS))
    if args.train:
        parts = load_parts(weights, cfg) if args.resume and weights.exists() else {}
        train_all(
            cfg,
            read_part(cfg, args.data, "train"),
            parts,
            lambda parts: save_parts(weights, parts, cfg),
        )
    with said(LOADING):
        clouds = read_part(cfg, args.data, "test")
        models = load_models(weights, cfg, len(clouds.classes))
    result = {
        "data": clouds.name,
        **evaluate(cfg, models, clouds),
        "config": {
            "config_file": args.config_file,
            "options": args.options,
            "data": args.data,
            "versions": {"canon_seg": canon_seg.__version__},
        },
    }
    table = format_result(result)
    write_json(output / "points.json", result)
    write_text(output / "points.md", table + "\n")
    shown = models["PointNet/prior/z"].cpu()
    with said(DRAWING):
        pictures = save_figure(
            output / "points.png", lambda: plot_clouds(shown, clouds, cfg.DATA.SEED)
        )
    print(table)
    names = ["points.json", "points.md", *(picture.name for picture in pictures)]
    print(f"written: {output}/{', '.join(names)}")


def read_part(cfg, folder: "str | None", split: str) -> CloudSet:
    """Read or make the clouds of "train" or "test"."""
    keys = cfg.MODEL
    points = max(keys.POINTNET.POINTS, keys.DGCNN.POINTS, keys.CANONICALIZER.POINTS)
    if folder:
        return read_clouds(folder, split, points, cfg.DATA.UP)
    if points > cfg.DATA.POINTS:
        raise InputError(
            f"DATA.POINTS is {cfg.DATA.POINTS}, fewer than the {points} that the models look at"
        )
    count = cfg.DATA.TRAIN_SHAPES if split == "train" else cfg.DATA.TEST_SHAPES
    if count < 1:
        raise InputError(f"DATA.{split.upper()}_SHAPES is {count}; give at least 1")
    # Two seeds, so that no shape is in both parts.
    return make_shapes(count, cfg.DATA.POINTS, 2 * cfg.DATA.SEED + (split == "test"))
