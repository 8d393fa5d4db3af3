"""Serve a web page: turn a photo, and see what plain SAM and canonicalized SAM make of it.

    canon-seg-app [--sam-checkpoint sam_vit_b_01ec64.pth --sam-size vit_b]

Serves http://127.0.0.1:7860 until it is interrupted; needs Gradio (pip install gradio), and nothing
from the network. Pick or upload a photo, click an object or drag a box, and turn it; take masks, a
cut-out, COCO's JSON, the upright photo, or the same as Python.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch

from canon_seg.apps.web.samples import Limits, load_samples
from canon_seg.apps.web.turning import Turner
from canon_seg.cli.waiting import LOADING, said
from canon_seg.config.assets import resolve_asset
from canon_seg.config.device import check_device
from canon_seg.errors import InputError
from canon_seg.predictors.defaults import ANY_ANGLE, CANONICALIZER, load_default_canonicalizer
from canon_seg.sam.loading import load_sam
from canon_seg.sam.models import OFFICIAL_SIZES


def parse_arguments(arguments=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sam-checkpoint", metavar="FILE", help="official SAM weights; default: the embedded SAM"
    )
    parser.add_argument(
        "--sam-size", choices=OFFICIAL_SIZES, help="of --sam-checkpoint; must be given with it"
    )
    parser.add_argument(
        "--canonicalizer",
        metavar="FILE",
        help="a canonicalizer.pth that tools/train_net.py wrote, or the embedded fast one, "
        "canon_seg://canonicalizer_gcnn.pth; default: the embedded one that finds most poses",
    )
    parser.add_argument(
        "--any-angle",
        metavar="FILE",
        help="weights of a canonicalizer of any angle, which a switch on the page takes; default: "
        "the embedded one, where it is there",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU where there is one",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in. Default: 127.0.0.1",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--max-upload",
        type=int,
        default=20,
        metavar="MB",
        help="larger files are refused; default: 20",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=Limits.megapixels,
        metavar="MP",
        help=f"larger images are refused; default: {Limits.megapixels:g}",
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=Limits.max_side,
        metavar="PX",
        help=f"images are shrunk to this longer side; default: {Limits.max_side}",
    )
    return parser.parse_args(arguments)


def main():
    """Run the command."""
    args = parse_arguments()
    check_arguments(args)
    if find_spec("gradio") is None:
        raise InputError("Gradio is not installed, which serves the page: pip install gradio")
    with said(LOADING):
        turner = build_turner(args)
    limits = Limits(args.max_megapixels, args.max_side)

    with said("building the page ..."):
        from canon_seg.apps.web.page import build_page, launch

        page = build_page(turner, load_samples(args.max_side), limits)
    try:
        launch(page, args.host, args.port, args.max_upload)
    except OSError as error:
        raise InputError(
            f"--host {args.host} --port {args.port} can't be listened on; give another port if "
            "this one is taken"
        ) from error


def check_arguments(args):
    """Raise InputError where arguments can't be used."""
    if bool(args.sam_checkpoint) != bool(args.sam_size):
        raise InputError("--sam-checkpoint and --sam-size belong together; give both or none")
    for name, least in (("max_upload", 1), ("max_megapixels", 0.01), ("max_side", 64)):
        if not getattr(args, name) >= least:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is {getattr(args, name)}; give at least {least}")
    if not 0 < args.port < 65536:
        raise InputError(f"--port is {args.port}; give 1 to 65535")
    check_device(args.device, "--device")


def build_turner(args):
    """Build the :class:`Turner` with the models that the arguments name.

    Raises:
        InputError: naming the file that can't be used.
    """
    sam = (
        load_sam(args.sam_checkpoint, args.sam_size, key="--sam-checkpoint")
        if args.sam_checkpoint
        else load_sam()
    )
    canonicalizer = load_default_canonicalizer(weights=args.canonicalizer or CANONICALIZER)
    any_angle = None
    if args.any_angle or Path(resolve_asset(ANY_ANGLE)).is_file():
        any_angle = load_default_canonicalizer(weights=args.any_angle or ANY_ANGLE, group="SO2")
        any_angle = any_angle.to(args.device)
    return Turner(
        sam.to(args.device),
        canonicalizer.to(args.device),
        multimask=bool(args.sam_checkpoint),
        any_angle=any_angle,
    )
