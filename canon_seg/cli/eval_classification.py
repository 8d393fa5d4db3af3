r"""Evaluate image classification behind a canonicalizer: accuracy by the turn of the images.

    canon-seg-eval-classification --config-file configs/cifar10_c8.yaml --data DIR --group C8 \
        --output DIR [KEY VALUE ...]

Each image is turned by every element of the group (docs/experiments.md says how). Vanilla is the
classifier alone, canonical behind the canonicalizer of the config, orbit by its own confidence in
all poses, oracle behind one that is told how the image was turned. --data is a folder of class
folders or torchvision's folder of CIFAR-10; without it, images are drawn. Writes
classification.json, and a plot to classification.png.
"""

import argparse
import sys
from pathlib import Path

import torch

import canon_seg
from canon_seg.classification.build import META_ARCHITECTURE, build_pose_finder, build_predictor
from canon_seg.classification.classifier import CanonicalizedClassifier, ConfidenceScorer
from canon_seg.classification.data import PROCEDURAL, check_classes, read_images
from canon_seg.classification.evaluation import ORACLE, evaluate, measure_overhead
from canon_seg.classification.report import format_modes, format_poses, plot_modes
from canon_seg.classification.training import train_both
from canon_seg.cli.options import add_device, all_options, parse_with_options
from canon_seg.cli.waiting import DRAWING, said
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.group import PlanarGroup, group_named
from canon_seg.errors import InputError, of_key
from canon_seg.evaluation.figures import save_figure
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.io.files import check_output_dir, write_json

DRAWN_BLOCKS, DRAWN_STEPS = 5, 250
"""Blocks of the networks that learn drawn images, and how many steps they learn for."""

MODES = {
    "vanilla": "the classifier alone",
    "canonical": "behind the canonicalizer of the config",
    "orbit": "behind one that takes the pose in which the classifier is surest",
    ORACLE: "behind one that is told the pose",
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--data", default="", metavar="DIR", help="of images with one class each")
    parser.add_argument(
        "--group", metavar="NAME", help="turns of the images, such as C8; default: the config's"
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="N images, drawn by a seed; default: all"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=MODES,
        default=["vanilla", "canonical", ORACLE],
        metavar="MODE",
        help="; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
        + "; default: all but orbit",
    )
    parser.add_argument(
        "--overhead-only",
        action="store_true",
        help="measure what the canonicalizer costs, and classify nothing",
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    add_device(parser)
    return parse_with_options(parser, lists={"--modes": MODES.__contains__})


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    output = check_output_dir(args.output)
    options = all_options(args)
    cfg = load_config(args.config_file, options)
    resolve_device(cfg, args.config_file, options)
    if cfg.MODEL.META_ARCHITECTURE != META_ARCHITECTURE:
        raise InputError(
            f"{args.config_file}: MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, and "
            f"{META_ARCHITECTURE} is needed; give a config such as configs/cifar10_c8.yaml"
        )
    with of_key("--group"):
        group = group_named(args.group or cfg.MODEL.CANONICALIZER.GROUP)
    if group.elements is None:
        raise InputError(
            f"--group {group.name} is continuous: images are turned by each of its elements; give "
            "a finite one, such as C8"
        )
    if args.limit < 0:
        raise InputError(f"--limit is {args.limit}; give how many images, or 0 for all")
    data = read_images(args.data, "test", cfg.INPUT.IMAGE_SIDE, "--data").drawn(args.limit)
    if not args.data and not args.overhead_only:
        print(
            f"no --data: {PROCEDURAL}; small networks are trained on others of them first",
            file=sys.stderr,
        )
        learn_drawn(cfg, output)
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    predictor, classes = build_predictor(cfg, data.classes)
    if classes is not None:
        check_classes(data, classes, "--data")
    predictor = predictor.to(cfg.MODEL.DEVICE)
    models = _models(cfg, args.modes, predictor, group)
    result = {"config": describe(args, cfg)}
    timed = models.get("canonical")
    if timed is not None:
        result["overhead"] = measure_overhead(timed, data.images[:2])
    if not args.overhead_only:
        oracle = CanonicalizedClassifier(predictor).eval() if ORACLE in args.modes else None
        result.update(evaluate(models, data, group, oracle=oracle))
    path = Path(output, "classification.json")
    write_json(path, result)
    written = [path]
    if not args.overhead_only:
        with said(DRAWING):
            written += save_figure(path.with_suffix(".png"), lambda: plot_modes(result))
        print(format_modes(result), format_poses(result), sep="\n\n")
    if timed is not None:
        print(format_overhead(result["overhead"]))
    print("written:", *written)


def learn_drawn(cfg, output: Path) -> None:
    """Train small networks on drawn images, a minute's work, and put them into the config."""
    keys = cfg.MODEL
    keys.CLASSIFIER.NAME = keys.CANONICALIZER.SCORER.BACKBONE = "tf_efficientnet_lite0"
    keys.CANONICALIZER.NAME = "GroupCanonicalizer"
    keys.CANONICALIZER.SCORER.NAME = "SquareScorer"
    keys.CLASSIFIER.BLOCKS = keys.CANONICALIZER.SCORER.BLOCKS = DRAWN_BLOCKS
    keys.CLASSIFIER.PRETRAINED = keys.CANONICALIZER.SCORER.PRETRAINED = ""
    keys.CLASSIFIER.INPUT_SIZE = keys.CANONICALIZER.INPUT_SIZE = cfg.INPUT.IMAGE_SIDE
    keys.CANONICALIZER.TASK_WEIGHT, keys.CANONICALIZER.PRIOR_WEIGHT = 0.0, 100.0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH = DRAWN_STEPS, 64
    cfg.SOLVER.BASE_LR = 0.003
    cfg.TEST.EVAL_PERIOD = DRAWN_STEPS
    data = read_images("", "train", cfg.INPUT.IMAGE_SIDE, "--data")
    paths = train_both(cfg, data, output, resume=True)
    keys.CLASSIFIER.WEIGHTS, keys.CANONICALIZER.WEIGHTS = map(str, paths)
    keys.CLASSIFIER.INPUT_SIZE = 0


def _models(
    cfg, modes: "list[str]", predictor: torch.nn.Module, group: PlanarGroup
) -> "dict[str, CanonicalizedClassifier]":
    models = {}
    for mode in modes:
        if mode == ORACLE:
            continue
        finder = None
        if mode == "canonical":
            finder = build_pose_finder(cfg, predictor).to(cfg.MODEL.DEVICE)
        elif mode == "orbit":
            scorer = ConfidenceScorer(predictor, group=group, image_format=cfg.INPUT.FORMAT)
            finder = GroupCanonicalizer(scorer)
        models[mode] = CanonicalizedClassifier(predictor, finder).eval()
    return models


def format_overhead(measured: dict) -> str:
    """Format what the canonicalizer costs in one line."""
    return (
        f"one image: canonicalizer {measured['canonicalizer_ms']:.1f} ms "
        f"({measured['canonicalizer_parameters'] / 1e6:.2f} M parameters), classifier "
        f"{measured['classifier_ms']:.1f} ms ({measured['classifier_parameters'] / 1e6:.2f} M): "
        f"{measured['overhead']:.1f} % more, on {measured['threads']} threads"
    )


def describe(args: argparse.Namespace, cfg) -> dict:
    """Describe what it takes to run the same again, paths as they were given."""
    keys = cfg.MODEL
    return {
        "config_file": args.config_file,
        "options": args.options,
        "data": args.data,
        "group": args.group,
        "limit": args.limit,
        "modes": args.modes,
        "classifier": keys.CLASSIFIER.NAME,
        "classifier_weights": keys.CLASSIFIER.WEIGHTS,
        "canonicalizer_weights": keys.CANONICALIZER.WEIGHTS,
        "image_side": cfg.INPUT.IMAGE_SIDE,
        "device": keys.DEVICE,
        "versions": {"canon_seg": canon_seg.__version__, "torch": torch.__version__},
    }
