"""Label photographs of unknown orientation with the poses that a canonicalizer finds.

    canon-seg-label-poses --photos DIR --output poses.json [--config-file FILE] [KEY VALUE ...]

Every photograph below DIR gets an entry: the degrees counterclockwise by which it seems to be
turned, and the probability of each quarter turn. Whatever the config names as scorer finds them:
the default, weights of your own, or your detector as judge. DATASETS.POSES trains from such a file,
and degrees that are wrong can be put right in it by hand (then leave their probabilities out).
"""

import argparse
import os
from pathlib import Path

from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import LOADING, said
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError
from canon_seg.evaluation.intervals import wilson
from canon_seg.evaluation.pose_finder import build_pose_finder
from canon_seg.evaluation.poses import find_poses
from canon_seg.images.folders import list_photos
from canon_seg.images.pose_files import DEGREES, pose_entry, read_poses
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.files import check_output_dir, write_json

CONFIG_FILE = "configs/sam_c4.yaml"
SURE = (0.5, 0.9, 0.99)


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default=CONFIG_FILE, metavar="FILE", help=f"default: {CONFIG_FILE}"
    )
    parser.add_argument("--photos", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--output", required=True, metavar="FILE", help="a .json file to write")
    parser.add_argument(
        "--truth", metavar="FILE", help="a pose file of some of the photographs, to compare with"
    )
    return parse_with_options(parser)


def main():
    """Run the command."""
    args = parse_arguments()
    output = Path(args.output)
    if output.suffix != ".json" or output.is_dir():
        raise InputError(f"--output: {output} is no name for a .json file; give one")
    if args.truth and Path(args.truth).resolve() == output.resolve():
        raise InputError(f"--truth: {args.truth} is also --output; give another file")
    check_output_dir(output.parent)
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    files = list_photos(args.photos, "--photos")
    truth = read_poses(args.truth, args.photos, "--truth") if args.truth else []
    with said(LOADING):
        canonicalizer = build_pose_finder(cfg, args.config_file, args.options)
    reading = ReadingOptions.from_config(cfg)
    probabilities, _ = find_poses(canonicalizer, files, cfg.INPUT.FORMAT, reading=reading)
    if probabilities.shape[1] != len(DEGREES):
        raise InputError(
            f"the scorer knows {probabilities.shape[1]} poses; photographs are labelled with "
            f"quarter turns alone, give one for {len(DEGREES)}"
        )
    entries = [
        pose_entry(Path(os.path.relpath(file, args.photos)).as_posix(), row.tolist())
        for file, row in zip(files, probabilities, strict=True)
    ]
    write_json(output, entries)
    print(format_labels(entries))
    if truth:
        print(format_agreement(entries, args.photos, truth))
    print("written:", output)


def format_labels(entries):
    """Format how many photographs lie which way, and how sure that is, in two lines."""
    counts = dict.fromkeys(DEGREES, 0)
    for entry in entries:
        counts[entry["degrees"]] += 1
    surest = [max(entry["probabilities"]) for entry in entries]
    sure = [f"{sum(p >= least for p in surest)} by {least:g} or more" for least in SURE]
    return "\n".join(
        [
            f"{len(entries)} photographs: "
            + ", ".join(f"{count} at {degrees}°" for degrees, count in counts.items()),
            f"sure: {', '.join(sure)}",
        ]
    )


def format_agreement(entries, folder, truth):
    """Format how many labels are right, of all and of the surer ones, with 95 % intervals.

    Args:
        entries: of the pose file.
        folder: of the photographs.
        truth: list of :class:`canon_seg.images.pose_files.PosedPhoto`, of some of them.
    """
    known = {photo.file: DEGREES[photo.turns] for photo in truth}
    pairs = [
        (max(entry["probabilities"]), entry["degrees"] == known[file])
        for entry in entries
        for file in [str(Path(folder, entry["file"]))]
        if file in known
    ]
    lines = []
    for least in (0.0, *SURE):
        right = [is_right for probability, is_right in pairs if probability >= least]
        if not right:
            continue
        share = sum(right) / len(right)
        low, high = wilson(share, len(right))
        whose = f"sure by {least:g} or more" if least else "all"
        lines.append(
            f"right, {whose}: {sum(right)} of {len(right)} ({100 * share:.1f} %, 95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f} %)"
        )
    return "\n".join(lines)
