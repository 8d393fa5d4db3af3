r"""Evaluate on rotated COCO: AP by angle, with and without the canonicalizer.

    canon-seg-eval --config-file configs/sam_c4.yaml \
        --annotations instances.json --images DIR --output DIR [KEY VALUE ...]

Images are turned in memory, annotations with them. Writes sweep.json and sweep.png to --output.
Without a data set, procedural scenes are drawn and evaluated.

While it runs, every finished image is kept in the folder sweep.partial of --output. A sweep that
was interrupted, even by force, goes on from there with --resume, on any number of processes.

--num-processes runs on several processes of the CPU, --num-gpus on several GPUs. On several
machines, run it on each, with --num-machines, --machine-rank, --dist-url, and with --output in a
folder that all of them share.
"""

import argparse
import sys
from pathlib import Path

import torch

from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import LOADING, READING, said
from canon_seg.coco.dataset import check_images, load_coco
from canon_seg.config.device import resolve_device
from canon_seg.d2.capabilities import (
    capabilities,
    hook,
    prompted_from_outside,
    segmenter_class,
)
from canon_seg.d2.catalog import coco_files
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.distributed import add_launch_arguments, check_device, comm, launch
from canon_seg.d2.models import MODES, build_models, check_modes
from canon_seg.d2.versions import versions
from canon_seg.errors import InputError, interrupted_with
from canon_seg.evaluation.records import Records, describe_sweep
from canon_seg.evaluation.sweep import first_images, run_sweep
from canon_seg.evaluation.sweep_report import (
    format_realigned,
    format_summary,
    format_table,
    write_report,
)
from canon_seg.evaluation.views import View, parse_angles
from canon_seg.images.reading import ReadingOptions
from canon_seg.images.tilt import CANVASES
from canon_seg.io.files import check_output_dir
from canon_seg.scenes.dataset import DEMO_SEED, make_scenes

NUM_SCENES = 40
PROTOCOLS = ("coco", "paper")
BOX_PROMPTS = {
    "hull": "the box around the tilted box, as it is",
    "refined": "several smaller boxes, of which that is taken whose mask fits the drawn box best",
    "tight": "the object's own box where it is upright, which a user who draws boxes cannot give: "
    "a bound",
}
"""What becomes of box prompts by a tilt, by the name of the choice."""


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--dataset", metavar="NAME", help="a set of DATASETS.COCO, or registered with detectron2"
    )
    parser.add_argument("--annotations", metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", metavar="DIR", help="folder of the images of --annotations")
    parser.add_argument(
        "--angles",
        nargs="+",
        default=["0", "90", "180", "270"],
        metavar="DEGREES",
        help="counterclockwise, or ranges START:STOP:STEP without STOP, such as 0:360:15 (write "
        "--angles=-45:46:15 where one begins with a minus); default: 0 90 180 270",
    )
    parser.add_argument(
        "--canvas",
        choices=CANVASES,
        default="expand",
        help="what holds an image that is turned by no quarter turn: expand to the whole of it, or "
        "crop to its size, turned with the nearest quarter turn, or inscribed to what lies inside "
        "of it; default: expand",
    )
    parser.add_argument(
        "--mirrors",
        action="store_true",
        help="evaluate each angle on mirrored images too: with quarter turns all eight elements of "
        "D4",
    )
    parser.add_argument(
        "--box-prompts",
        choices=BOX_PROMPTS,
        help="what a SAM makes of the boxes that were drawn in a tilted image; "
        + "; ".join(f"{name}: {meaning}" for name, meaning in BOX_PROMPTS.items())
        + "; default: refined, or hull where MODEL.SAM.REFINE_BOXES is False",
    )
    parser.add_argument(
        "--tight-boxes", action="store_true", help="the same as --box-prompts tight"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["vanilla", "canonical"],
        metavar="MODE",
        help="; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
        + "; default: vanilla canonical",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="coco",
        help="coco: AP of the whole data set; paper: beside it, to compare with the paper's "
        "figures alone, the mAP of its own code, averaged over batches of 12 images; default: coco",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images by id")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the finished images of an interrupted sweep in --output",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="throw the finished images of an interrupted sweep in --output away, and begin anew",
    )
    parser.add_argument(
        "--keep-predictions",
        action="store_true",
        help="write what was predicted, in the frames of the turned images, to predictions.jsonl",
    )
    add_launch_arguments(parser)
    return parse_with_options(parser)


def main():
    """Run the command."""
    args = parse_arguments()
    output = check_output_dir(args.output)
    if args.resume and args.overwrite:
        raise InputError("--resume goes on, and --overwrite begins anew: give one of them")
    unfinished = Records(output / "sweep.partial")
    if unfinished.is_unfinished() and not (args.resume or args.overwrite):
        raise InputError(
            f"{unfinished.folder} holds a sweep that was interrupted: go on with --resume, or give "
            "--overwrite to throw it away"
        )
    modes = check_modes(args.modes)
    cfg = load_config(args.config_file, args.options)
    args.box_prompts = choose_box_prompts(args, cfg)
    tight = args.box_prompts == "tight"
    views = [
        View(angle, args.canvas, tight, mirrored)
        for mirrored in ((False, True) if args.mirrors else (False,))
        for angle in parse_angles(args.angles)
    ]
    resolve_device(cfg, args.config_file, args.options)
    check_device(args, cfg.MODEL.DEVICE)
    name, annotations, images_dir = find_dataset(args, cfg, output)
    with said(READING):
        whole = load_coco(annotations, images_dir)
    if not cfg.MODEL.SEGMENTER.WEIGHTS:
        print(
            "warning: MODEL.SEGMENTER.WEIGHTS is empty, the segmenter has random weights",
            file=sys.stderr,
        )
    with interrupted_with("the same command with --resume goes on from the finished images"):
        launch(evaluate, (args, cfg, views, modes, name, whole, images_dir), args)


def choose_box_prompts(args, cfg):
    """Return the key of ``BOX_PROMPTS`` that is asked for, and set the config to it.

    Returns:
        None for a segmenter that takes no prompts.

    Raises:
        InputError: if options contradict each other, or there are no boxes to choose for.
    """
    asked = args.box_prompts
    if args.tight_boxes and asked not in (None, "tight"):
        raise InputError(f"--tight-boxes is --box-prompts tight, and not {asked}: give one of them")
    asked = "tight" if args.tight_boxes else asked
    if not capabilities(segmenter_class(cfg)).takes_prompts:
        if asked is not None:
            raise InputError(
                f"--box-prompts {asked}: {cfg.MODEL.SEGMENTER.META_ARCHITECTURE} takes no prompts; "
                "leave it out, or give a config with SamSegmenter"
            )
        return None
    if asked == "tight" and not prompted_from_outside(cfg):
        raise InputError(
            '--box-prompts tight: a detector gives the boxes (MODEL.SAM.PROMPTS "detector"), which '
            "knows no others; give hull or refined"
        )
    if asked in ("hull", "refined"):
        cfg.MODEL.SAM.REFINE_BOXES = asked == "refined"
    return asked or ("refined" if cfg.MODEL.SAM.REFINE_BOXES else "hull")


def evaluate(args, cfg, views, modes, name, whole, images_dir):
    """Evaluate in each process; the main one reports."""
    output = Path(args.output)
    dataset = first_images(whole, args.limit)
    reading = ReadingOptions.from_config(cfg)
    prompts = None
    if prompted_from_outside(cfg):
        prompts = load_box_prompts(
            cfg.MODEL.SAM.PROMPTS, dataset, {image["id"] for image in whole["images"]}
        )
    torch.manual_seed(max(0, cfg.SEED))  # random weights are the same in all processes
    with said(LOADING):
        models = build_models(cfg, modes)
    records = Records(output / "sweep.partial")
    if comm.is_main_process():
        line = check_images(dataset, images_dir, options=reading, cache=cfg.DATASETS.CHECK_CACHE)
        if line:
            print(line, file=sys.stderr)
        if args.resume and not records.folder.is_dir():
            print(f"nothing to go on from in {output}: starting anew", file=sys.stderr)
        header = describe_sweep(cfg, models, dataset, images_dir, prompts, views)
        records.begin(header, args.resume)
    result = run_sweep(
        models,
        dataset,
        images_dir,
        views=views,
        image_format=cfg.INPUT.FORMAT,
        prompts=prompts,
        records=records,
        paper_order=_order(whole, dataset) if args.protocol == "paper" else None,
        reading=reading,
    )
    if not comm.is_main_process():
        return
    written = write_report(result, output, describe(args, cfg), name)
    if args.keep_predictions:
        written.append(output / "predictions.jsonl")
        records.write(records.finished(), written[-1])
    records.remove()
    print(format_table(result), format_realigned(result), format_summary(result), sep="\n\n")
    print("written:", *written)


def _order(whole, dataset):
    """Return the ids of a data set's images in the order of the file that it is a part of."""
    kept = {image["id"] for image in dataset["images"]}
    return [image["id"] for image in whole["images"] if image["id"] in kept]


def find_dataset(args, cfg, output):
    """Return (name, annotation file, image folder) of the data set that the arguments ask for."""
    if args.dataset and (args.annotations or args.images):
        raise InputError("give either --dataset or --annotations with --images, not both")
    if bool(args.annotations) != bool(args.images):
        raise InputError("--annotations and --images belong together: give both, or none")
    if args.annotations:
        return args.annotations, args.annotations, args.images
    if args.dataset:
        return args.dataset, *coco_files(args.dataset, cfg)
    files = make_scenes(output / "scenes", NUM_SCENES, DEMO_SEED, progress=True)
    return f"procedural scenes, seed {DEMO_SEED}", *files


def describe(args, cfg):
    """Describe what it takes to run the same again, paths as they were given."""
    keys = cfg.MODEL
    described = {
        "config_file": args.config_file,
        "options": args.options,
        "annotations": args.annotations,
        "images": args.images,
        "angles": [View(angle).label for angle in parse_angles(args.angles)],
        "canvas": args.canvas,
        "tight_boxes": args.box_prompts == "tight",
        "mirrors": args.mirrors,
        "modes": args.modes,
        "limit": args.limit,
        "protocol": args.protocol,
        "segmenter": keys.SEGMENTER.META_ARCHITECTURE,
        "segmenter_weights": keys.SEGMENTER.WEIGHTS,
        "canonicalizer": keys.CANONICALIZER.NAME,
        "canonicalizer_weights": keys.CANONICALIZER.WEIGHTS,
        "device": keys.DEVICE,
        "num_processes": comm.get_world_size(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    segmenter = segmenter_class(cfg)
    if describe_segmenter := hook(segmenter, "describe"):
        described.update(describe_segmenter(cfg))
    if capabilities(segmenter).takes_prompts:
        described["prompts"] = keys.SAM.PROMPTS
        described["box_prompts"] = args.box_prompts
    return described
