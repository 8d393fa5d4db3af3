r"""Train a classifier, its canonicalizer, or the two together.

    canon-seg-train --config-file configs/cifar10_c8.yaml DATASETS.CLASSES DIR \
        OUTPUT_DIR output/mine [KEY VALUE ...]

trains the canonicalizer by the prior alone on upright images with one class each, see
docs/experiments.md. --resume goes on where the last checkpoint in OUTPUT_DIR was written. What to
use afterwards is OUTPUT_DIR/canonicalizer.pth (MODEL.CANONICALIZER.WEIGHTS) and, for a classifier
that was trained, OUTPUT_DIR/classifier.pth (MODEL.CLASSIFIER.WEIGHTS).
"""

import argparse
from pathlib import Path

from canon_seg.classification.build import leave_out_embedded
from canon_seg.classification.data import PROCEDURAL
from canon_seg.classification.training import CHECKPOINT, RESULTS, Training
from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import STARTING, said
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError, interrupted_with
from canon_seg.io.files import check_output_dir


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--overwrite", action="store_true", help="train into a folder with results, replacing them"
    )
    args = parse_with_options(parser)
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    if not cfg.DATASETS.CLASSES:
        leave_out_embedded(cfg)
        print(f"no DATASETS.CLASSES: trained on {PROCEDURAL}, without embedded weights")
    folder = Path(cfg.OUTPUT_DIR)
    earlier = [name for name in (*RESULTS.values(), CHECKPOINT) if (folder / name).is_file()]
    if earlier and not (args.resume or args.overwrite):
        raise InputError(
            f"OUTPUT_DIR {folder} holds {', '.join(earlier)} of an earlier training: go on with "
            "--resume, give another OUTPUT_DIR, or --overwrite"
        )
    check_output_dir(folder)
    with said(STARTING):
        training = Training(cfg)
    if not args.resume:
        (folder / "metrics.json").unlink(missing_ok=True)
    with interrupted_with("the same command with --resume goes on from the last checkpoint"):
        measured = training.run(folder, resume=args.resume)
    written = [folder / name for name in RESULTS.values() if (folder / name).is_file()]
    found = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    print(f"written: {', '.join(map(str, written))}; of {len(training.held_out)} held-out: {found}")
