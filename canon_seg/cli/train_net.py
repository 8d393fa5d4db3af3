r"""Train a canonicalizer or a segmenter, by detectron2's conventions.

    canon-seg-train --config-file configs/sam_c4.yaml \
        DATASETS.PHOTOS '["folder of upright photographs"]' OUTPUT_DIR output/mine [KEY VALUE ...]

trains the canonicalizer on photographs alone: while MODEL.CANONICALIZER.TASK_WEIGHT is 0 the
segmenter and its checkpoint are not touched. It starts from MODEL.CANONICALIZER.WEIGHTS; give "" to
start from random weights, with the network of MODEL.CANONICALIZER.NETWORK. With a task weight, or
with a segmenter as MODEL.META_ARCHITECTURE, annotated images are needed: DATASETS.TRAIN.

--resume goes on where the last checkpoint in OUTPUT_DIR was written; a folder with results of an
earlier training is not trained into without it, or --overwrite. What to use afterwards is
OUTPUT_DIR/canonicalizer.pth (MODEL.CANONICALIZER.WEIGHTS) and, for a segmenter that was trained,
OUTPUT_DIR/segmenter.pth (MODEL.SEGMENTER.WEIGHTS).

--eval-only evaluates on DATASETS.TEST with the weights that these two keys name; with --resume, the
files in OUTPUT_DIR go before these. AP at turned angles: canon-seg-eval.

--num-processes N trains in N processes on the CPU, --num-gpus N on as many GPUs; they share the
SOLVER.IMS_PER_BATCH images of a step.
"""

import sys
import zlib
from contextlib import nullcontext
from pathlib import Path

from canon_seg.cli.options import split_options
from canon_seg.cli.waiting import STARTING
from canon_seg.config.assets import resolve_config
from canon_seg.config.device import resolve_device
from canon_seg.d2 import (
    compat,  # noqa: F401
    meta_arch,  # noqa: F401  registers CanonicalizedSegmenter
)
from canon_seg.d2.catalog import register_coco
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.config import load_config
from canon_seg.d2.distributed import add_launch_arguments, check_device, comm, launch
from canon_seg.d2.loaders import trains_on_photos
from canon_seg.d2.trainer import Trainer
from canon_seg.errors import InputError, interrupted_with
from canon_seg.images.folders import list_photos
from canon_seg.io.files import check_output_dir, said_where_full
from canon_seg.networks.numerics import used_numerics

from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils.env import seed_all_rng

RESULTS = ("canonicalizer.pth", "segmenter.pth")


def setup(args):
    """Return the frozen config, with data sets registered and the output folder ready."""
    cfg = load_config(args.config_file, args.opts)
    resolve_device(cfg, args.config_file, args.opts)
    check_device(args, cfg.MODEL.DEVICE)
    if cfg.SOLVER.IMS_PER_BATCH % comm.get_world_size():
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {comm.get_world_size()} "
            "processes cannot share evenly; give a multiple"
        )
    if cfg.MODEL.META_ARCHITECTURE != "CanonicalizedSegmenter" and used_numerics(cfg):
        raise InputError(
            f"MODEL.SEGMENTER.{used_numerics(cfg)[0]} is for a segmenter behind "
            "CanonicalizedSegmenter, and MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE}; set it to False "
            "(SOLVER.BFLOAT16 is training's own key)"
        )
    for name, annotations, images in cfg.DATASETS.COCO:
        register_coco(name, annotations, images)
    cfg.freeze()
    if not (args.eval_only or args.resume or args.overwrite):
        check_nothing_is_lost(cfg.OUTPUT_DIR)
    check_output_dir(cfg.OUTPUT_DIR)
    if not args.eval_only:
        check_photos(cfg)  # before the whole config is printed
    with said_where_full(cfg.OUTPUT_DIR, advice(args)):  # the log, and the config as a file
        default_setup(cfg, args)
    if args.resume and cfg.SEED >= 0:
        seed_all_rng(cfg.SEED + comm.get_rank() + _resumed_from(cfg.OUTPUT_DIR))
    return cfg


def check_nothing_is_lost(folder):
    """Raise InputError where a folder holds results of an earlier training."""
    earlier = [name for name in (*RESULTS, "last_checkpoint") if Path(folder, name).is_file()]
    if earlier:
        raise InputError(
            f"OUTPUT_DIR {folder} holds {', '.join(earlier)} of an earlier training: go on with "
            "--resume, give another OUTPUT_DIR, or --overwrite"
        )


def check_photos(cfg):
    """Raise InputError that names DATASETS.PHOTOS, where a folder to train on has no photograph."""
    if trains_on_photos(cfg):
        for folder in cfg.DATASETS.PHOTOS:
            list_photos(folder, "DATASETS.PHOTOS")


def _resumed_from(folder):
    """Return a number for the last checkpoint: after it, other data are drawn than at the start."""
    last = Path(folder, "last_checkpoint")
    return zlib.crc32(last.read_bytes()) % 2**31 if last.is_file() else 0


def train(args):
    """Train, or evaluate alone, in this process as the arguments ask."""
    cfg = setup(args)
    if args.eval_only:
        with said_where_full(cfg.OUTPUT_DIR, advice(args)):
            return evaluate(cfg, args.resume)
    if comm.is_main_process() and sys.stderr.isatty():
        print(STARTING, file=sys.stderr)  # a line of its own: the log follows
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    if comm.is_main_process():
        print(describe_end(cfg.OUTPUT_DIR, trainer.measured, len(trainer.held_out)))
    return results


def advice(args):
    """Say how to go on after something outside of the program stopped it."""
    # Of an evaluation --resume names the weights, and there is nothing to go on from.
    return "run the same command again" if args.eval_only else "go on with --resume"


def describe_end(folder, measured, num_held_out):
    """Say in a line which files a training wrote, and how good they are.

    Args:
        folder: OUTPUT_DIR.
        measured: last results of the evaluation during training, a dict by kind.
        num_held_out: photographs.
    """
    written = [str(path) for path in (Path(folder, name) for name in RESULTS) if path.is_file()]
    line = f"written: {', '.join(written)}"
    poses = measured.get("held_out")
    if poses:
        accuracy = f"{100 * poses['pose_accuracy']:.1f} %"
        line += f"; poses found of {num_held_out} held-out photographs: {accuracy}"
    return line


def evaluate(cfg, resume):
    """Evaluate on DATASETS.TEST; return the results as detectron2's dict."""
    if not cfg.DATASETS.TEST:
        raise InputError("--eval-only: DATASETS.TEST is empty; name registered COCO-format sets")
    if cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter":
        if cfg.MODEL.WEIGHTS:
            raise InputError(
                "--eval-only: MODEL.WEIGHTS is for training; give the weights in their two parts, "
                "MODEL.CANONICALIZER.WEIGHTS and MODEL.SEGMENTER.WEIGHTS"
            )
        model = Trainer.build_model(with_results(cfg) if resume else cfg)
    else:
        model = Trainer.build_model(cfg)
        checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def with_results(cfg):
    """Return the config with the weights that a training left in its OUTPUT_DIR."""
    cfg = cfg.clone()
    cfg.defrost()
    for keys, name in (
        (cfg.MODEL.CANONICALIZER, "canonicalizer.pth"),
        (cfg.MODEL.SEGMENTER, "segmenter.pth"),
    ):
        path = Path(cfg.OUTPUT_DIR, name)
        if path.is_file():
            keys.WEIGHTS = str(path)
    return cfg


def main():
    """Run the command."""
    parser = default_argument_parser(__doc__)
    add_launch_arguments(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="train into a folder with results, replacing them"
    )
    rest, options = split_options(sys.argv[1:])
    args = parser.parse_args(rest)
    args.opts = options + args.opts
    args.config_file = args.config_file and resolve_config(args.config_file)
    again = "the same command with --resume goes on from the last checkpoint"
    with nullcontext() if args.eval_only else interrupted_with(again):
        launch(train, (args,), args)
