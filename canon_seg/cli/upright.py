"""Set photographs upright: find the turn of each, and write them turned to a folder.

    canon-seg-upright PHOTOS [more, folders, globs] --output DIR [KEY VALUE ...]

DIR gets every photograph at its place below the folder that was given: turned ones set upright,
upright ones as copies of the same bytes, and those whose turn is not clear as they are. JPEG files
are turned without loss: their pixels by jpegtran where it is installed and their size allows it,
else by the EXIF orientation tag. Other formats (PNG, WebP, BMP, TIFF) stay what they are. Metadata
are kept. Nothing is overwritten; the same command again goes on where it was interrupted.

--level also straightens tilts, by one interpolation, where they are clear; all others are turned as
without it.
"""

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from canon_seg.apps.files.upright import (
    FAILED,
    HEADER,
    LEVEL_HEADER,
    UNCERTAIN,
    Journal,
    Row,
    check_csv,
    decide,
    find_photos,
    format_row,
    set_upright,
    summarize,
    write_csv,
)
from canon_seg.cli.options import add_device, all_options, parse_with_options
from canon_seg.cli.waiting import said
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.group import C4, SO2
from canon_seg.errors import InputError, interrupted_with
from canon_seg.images.file_levelling import LEVEL_CANVASES
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.files import check_output_dir
from canon_seg.io.names import printable
from canon_seg.networks.build import build_canonicalizer
from canon_seg.predictors.defaults import ANY_ANGLE
from canon_seg.predictors.upright import (
    MAX_TILT,
    MIN_PROBABILITY,
    MIN_TILT_PROBABILITY,
    clear_pose,
    level_pose,
)

CONFIG_FILE = "canonicalizer.yaml"


def parse_arguments(words: "list[str] | None" = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s PHOTOS --output DIR [options] [KEY VALUE ...]",
    )
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="folders with all below them, files, or globs in quotes",
    )
    parser.add_argument("--output", metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would be done; needs no --output"
    )
    parser.add_argument(
        "--min-probability",
        type=float,
        default=MIN_PROBABILITY,
        metavar="P",
        help="photographs whose likeliest turn has less are left as they are; default: "
        f"{MIN_PROBABILITY:g}",
    )
    parser.add_argument(
        "--level",
        action="store_true",
        help="also straighten tilts, from MODEL.CANONICALIZER.MIN_TILT to --max-tilt degrees, by a "
        f"canonicalizer of any angle; default: {ANY_ANGLE}",
    )
    parser.add_argument(
        "--canvas",
        choices=LEVEL_CANVASES,
        help="of levelled photographs: inscribed (the default) cuts them to the largest frame "
        "inside of them, expand keeps all, with white around",
    )
    parser.add_argument(
        "--max-tilt",
        type=float,
        metavar="DEGREES",
        help=f"larger tilts are left alone; default: {MAX_TILT:g}",
    )
    parser.add_argument(
        "--min-tilt-probability",
        type=float,
        metavar="P",
        help="tilts are left alone of which the angles within 10 degrees are less likely; default: "
        f"{MIN_TILT_PROBABILITY:g}",
    )
    parser.add_argument("--uncertain", metavar="FOLDER", help="copies of these are put there, too")
    parser.add_argument("--csv", metavar="FILE", help="also write the table there")
    add_device(parser)
    parser.add_argument(
        "--config-file",
        default=CONFIG_FILE,
        metavar="FILE",
        help=f"of the canonicalizer; default: {CONFIG_FILE}",
    )
    return parse_with_options(parser, words)


def check_levelling(args: argparse.Namespace) -> None:
    """Raise InputError where options of --level can't be used; fill in what is not given."""
    given = [
        name
        for name in ("canvas", "max_tilt", "min_tilt_probability")
        if getattr(args, name) is not None
    ]
    if given and not args.level:
        raise InputError(f"--{given[0].replace('_', '-')} is for --level; give that too")
    args.canvas = args.canvas or LEVEL_CANVASES[0]
    args.max_tilt = MAX_TILT if args.max_tilt is None else args.max_tilt
    if args.min_tilt_probability is None:
        args.min_tilt_probability = MIN_TILT_PROBABILITY
    if not 0 <= args.max_tilt <= 45:
        raise InputError(f"--max-tilt is {args.max_tilt:g}; give 0 to 45 degrees")
    if not 0 <= args.min_tilt_probability <= 1:
        raise InputError(f"--min-tilt-probability is {args.min_tilt_probability:g}; give 0 to 1")


def main() -> int:
    """Run the command."""
    args = parse_arguments()
    if not 0 <= args.min_probability <= 1:
        raise InputError(f"--min-probability is {args.min_probability:g}; give 0 to 1")
    check_levelling(args)
    if args.output is None and not args.dry_run:
        raise InputError("--output DIR is missing, the folder to write to (or give --dry-run)")
    if args.uncertain and args.dry_run:
        raise InputError("--uncertain collects files, and --dry-run writes none; leave one out")
    folders = [Path(folder) for folder in (args.output, args.uncertain) if folder]
    if len(folders) == 2 and folders[0].resolve() == folders[1].resolve():
        raise InputError(f"--uncertain: {args.uncertain} is also --output; give another folder")
    if args.csv:
        check_csv(Path(args.csv))
    photos = find_photos(args.photos, folders)
    options = all_options(args)
    if args.level and args.config_file == CONFIG_FILE:
        any_angle = ["MODEL.CANONICALIZER.GROUP", "SO2", "MODEL.CANONICALIZER.WEIGHTS", ANY_ANGLE]
        options = [*any_angle, *options]  # those of the user come last, and win
    cfg = load_config(args.config_file, options)
    resolve_device(cfg, args.config_file, options)
    reading = ReadingOptions.from_config(cfg)
    if not reading.exif:
        raise InputError(
            "INPUT.EXIF is False, but upright is what viewers show, with the EXIF orientation; "
            "leave it at True"
        )
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    with said("loading the canonicalizer ..."):
        canonicalizer = build_canonicalizer(cfg).to(cfg.MODEL.DEVICE).eval()
    if not canonicalizer.finds_poses:
        raise InputError(
            f"MODEL.CANONICALIZER.NAME is {cfg.MODEL.CANONICALIZER.NAME!r}, which looks for no "
            "pose; set GroupCanonicalizer"
        )
    needed = SO2 if args.level else C4
    if canonicalizer.group != needed:
        raise InputError(
            f"MODEL.CANONICALIZER.GROUP is {canonicalizer.group.name}; "
            + (
                "photographs are levelled by any angle, set it to SO2, with WEIGHTS for it"
                if args.level
                else "files are set upright by quarter turns, set it to C4; or level them: --level"
            )
        )
    header = LEVEL_HEADER if args.level else HEADER
    levelling = {
        "min_tilt_probability": args.min_tilt_probability,
        "max_tilt": args.max_tilt,
    }
    find_pose = partial(
        partial(level_pose, **levelling) if args.level else clear_pose,
        canonicalizer,
        min_probability=args.min_probability,
    )
    if args.dry_run:
        rows = show(photos, lambda photo: decide(photo, find_pose, reading)[0], header)
    else:
        for folder in folders:
            check_output_dir(folder)
        settings = {
            "--min-probability": args.min_probability,
            "--config-file": args.config_file,
            "MODEL.CANONICALIZER.WEIGHTS": cfg.MODEL.CANONICALIZER.WEIGHTS,
        }
        if args.level:
            settings |= {"--level": True, "--canvas": args.canvas}
            settings |= {f"--{name.replace('_', '-')}": value for name, value in levelling.items()}
            settings |= {"MODEL.CANONICALIZER.MIN_TILT": cfg.MODEL.CANONICALIZER.MIN_TILT}
        journal = Journal(folders[0], settings)

        def work(photo):
            row = journal.find(photo, folders)
            if row is None:
                row = set_upright(photo, find_pose, *folders, reading=reading, canvas=args.canvas)
                journal.add(photo, row)
            return row

        if shutil.which("jpegtran") is None:
            print(
                "jpegtran is not installed: JPEG files are turned by their EXIF tag, which some "
                "programs do not look at (on Debian: apt-get install libjpeg-turbo-progs)",
                file=sys.stderr,
            )
        with interrupted_with("the same command goes on from here"):
            rows = show(photos, work, header)
    if args.csv:
        write_csv(Path(args.csv), rows)
    print(summarize(rows))
    for name, result in (("uncertain", UNCERTAIN), ("failed", FAILED)):
        for row in rows:
            if row.result == result:
                print(f"{name}: {row.reason or printable(row.file)}")
    return 2 if any(row.result == FAILED for row in rows) else 0


def show(photos, work, header) -> list[Row]:
    """Work on each photograph, and print the table as it grows."""
    print(header)
    rows = []
    for photo in tqdm(photos, unit="photo", disable=None):
        rows.append(work(photo))
        tqdm.write(format_row(rows[-1]))
    return rows
