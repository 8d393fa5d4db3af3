r"""Evaluate what a SAM finds where nothing is asked: recall, stability under JPEG, and time.

    canon-seg-eval-everything --config-file configs/sam_tiny_c4.yaml \
        --annotations instances.json --images DIR --output DIR [KEY VALUE ...]

The masks are those of canon-seg-demo without prompts. Vanilla is the SAM alone; canonical the SAM
behind the canonicalizer of the config. Writes everything.json.
"""

import argparse
from pathlib import Path

from canon_seg.apps.files.segment import build_sam_segment
from canon_seg.cli.eval_prompts import add_data_arguments, describe, load_config_and_data
from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import LOADING, said
from canon_seg.errors import InputError
from canon_seg.evaluation.everything import format_everything, measure_everything
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.files import check_output_dir, write_json

MAX_MASKS = 50


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--max-masks",
        type=int,
        default=MAX_MASKS,
        metavar="N",
        help=f"masks of an image, the best ones; default: {MAX_MASKS}",
    )
    parser.add_argument(
        "--points-per-side",
        type=int,
        metavar="N",
        help="ask for N x N points by segment_anything's generator; default: as canon-seg-demo",
    )
    return parse_with_options(parser)


def main() -> None:
    """Run the command."""
    args = parse_arguments()
    for name in ("max_masks", "points_per_side"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give at least 1")
    output = check_output_dir(args.output)
    cfg, dataset = load_config_and_data(args)
    with said(LOADING):
        finders = {mode: _finder(cfg, mode, args) for mode in args.modes}
    result = measure_everything(
        finders, dataset, args.images, reading=ReadingOptions.from_config(cfg)
    )
    recall = f"recall_{args.max_masks}"
    result["modes"] = {
        mode: {recall if name == "recall" else name: value for name, value in values.items()}
        for mode, values in result["modes"].items()
    }
    path = Path(output, "everything.json")
    described = describe(args, cfg) | {"points_per_side": args.points_per_side}
    write_json(path, {"config": described, **result})
    print(format_everything(result), f"written: {path}", sep="\n\n")


def _finder(cfg, mode, args):
    """Return the function from an RGB image to its masks (N, H, W)."""
    cfg = cfg.clone()
    if mode == "vanilla":
        cfg.MODEL.CANONICALIZER.NAME = "IdentityCanonicalizer"
    segment = build_sam_segment(
        cfg, False, points_per_side=args.points_per_side, max_masks=args.max_masks
    )
    return lambda image: segment(image).objects.masks.numpy()
