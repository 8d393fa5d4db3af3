r"""Evaluate a SAM as people prompt it: mean IoU by boxes and by 1, 3, 5, 10 clicks.

    canon-seg-eval-prompts --config-file configs/sam_tiny_c4.yaml \
        --annotations instances.json --images DIR --output DIR [KEY VALUE ...]

Each object of the data set that is not small is clicked on where it is deepest, then where the mask
is most wrong. Vanilla is the SAM alone, upright and as a mean over the four turns; canonical the
SAM behind the canonicalizer of the config, whose masks turn along. Writes prompts.json, and a plot
of the IoU against the clicks to prompts.png.
"""

import argparse
import sys
from pathlib import Path

import torch
from segment_anything import SamPredictor

from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import DRAWING, LOADING, READING, said
from canon_seg.coco.dataset import check_images, load_coco
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError
from canon_seg.evaluation.figures import save_figure
from canon_seg.evaluation.prompts import MIN_AREA, format_prompts, measure_dataset, plot_prompts
from canon_seg.evaluation.sweep import first_images
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.files import check_output_dir, write_json
from canon_seg.networks.build import build_canonicalizer
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor
from canon_seg.sam.loading import is_sam, sam_from_config

MODES = {
    "vanilla": "the SAM alone, upright and on the four turns",
    "canonical": "the SAM behind the canonicalizer of the config",
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--min-area",
        type=int,
        default=MIN_AREA,
        metavar="PIXELS",
        help=f"only objects with a larger area; default: {MIN_AREA}",
    )
    return parse_with_options(parser)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which config, which data set, which modes, and where to write."""
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of its images")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images by id")
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=MODES,
        default=list(MODES),
        metavar="MODE",
        help="; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items()) + "; default: both",
    )
    parser.add_argument("--output", required=True, metavar="DIR")


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    output = check_output_dir(args.output)
    cfg, dataset = load_config_and_data(args)
    with said(LOADING):
        sam = sam_from_config(cfg).to(cfg.MODEL.DEVICE)
    predictors = {"vanilla": lambda: SamPredictor(sam)}
    if "canonical" in args.modes:
        canonicalizer = build_canonicalizer(cfg).to(cfg.MODEL.DEVICE).eval()
        predictors["canonical"] = lambda: CanonicalSamPredictor(sam, canonicalizer)
    result = measure_dataset(
        {mode: predictors[mode] for mode in args.modes},
        dataset,
        args.images,
        min_area=args.min_area,
        reading=ReadingOptions.from_config(cfg),
    )
    path = Path(output, "prompts.json")
    write_json(path, {"config": describe(args, cfg), **result})
    picture = path.with_suffix(".png")
    title = f"{result['num_objects']} objects"
    with said(DRAWING):
        written = [path, *save_figure(picture, lambda: plot_prompts(result, title))]
    print(format_prompts(result), " ".join(map(str, ["written:", *written])), sep="\n\n")


def load_config_and_data(args: argparse.Namespace) -> tuple:
    """Load (config, data set) that the options of :func:`add_data_arguments` name.

    Raises:
        InputError: naming the option, the key or the file that cannot be used.
    """
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    if not is_sam(cfg):
        raise InputError(
            f"{args.config_file}: is not of a SAM behind a canonicalizer "
            "(MODEL.SEGMENTER.META_ARCHITECTURE SamSegmenter); give one such as "
            "configs/sam_tiny_c4.yaml"
        )
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    with said(READING):
        dataset = first_images(load_coco(args.annotations, args.images), args.limit)
    line = check_images(
        dataset,
        args.images,
        options=ReadingOptions.from_config(cfg),
        cache=cfg.DATASETS.CHECK_CACHE,
    )
    if line:
        print(line, file=sys.stderr)
    return cfg, dataset


def describe(args: argparse.Namespace, cfg) -> dict:
    """Describe what it takes to run the same again, paths as they were given."""
    keys = cfg.MODEL
    return {
        "config_file": args.config_file,
        "options": args.options,
        "annotations": args.annotations,
        "images": args.images,
        "limit": args.limit,
        "modes": args.modes,
        "min_area": getattr(args, "min_area", MIN_AREA),
        "segmenter_weights": keys.SEGMENTER.WEIGHTS,
        "sam_size": keys.SAM.SIZE,
        "canonicalizer": keys.CANONICALIZER.NAME,
        "canonicalizer_weights": keys.CANONICALIZER.WEIGHTS,
        "device": keys.DEVICE,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
