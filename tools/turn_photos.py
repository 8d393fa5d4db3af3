#!/usr/bin/env python
"""Turn upright photographs at random, to try out what labels them, with a part held out.

    python tools/turn_photos.py --photos DIR [DIR ...] --output DIR

Writes to --output:

    held_out/    one group of near duplicates in --every, upright, to measure on
    upright/     the others, as they are
    turned/      the same, turned by a random number of quarter turns, as PNG
    truth.json   which way these lie, in the form of tools/label_poses.py

The same photographs are always held out and turned in the same way.
"""

import argparse
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from canon_seg.errors import InputError, run_main
from canon_seg.images.arrays import turn_image
from canon_seg.images.folders import list_photos
from canon_seg.images.near_duplicates import split_by_content
from canon_seg.images.pose_files import DEGREES
from canon_seg.images.reading import read_image
from canon_seg.io.files import check_output_dir, write_json


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True, nargs="+", metavar="DIR")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parser.parse_args()
    if args.every < 2:
        raise InputError(f"--every is {args.every}; give at least 2")
    output = Path(check_output_dir(args.output))
    if any(output.iterdir()):
        raise InputError(f"--output: {output} is not empty; give a new folder")
    names = {}
    for folder in args.photos:
        for file in list_photos(folder, "--photos"):
            names[file] = Path(Path(folder).name, Path(file).relative_to(folder))
    if len(set(names.values())) < len(names):
        raise InputError("--photos: two folders have the same name; rename one")
    training, held_out = split_by_content(list(names), args.every)
    for file in held_out:
        copy(file, output / "held_out" / names[file])
    truth = []
    for file in tqdm(training, unit="photo"):
        copy(file, output / "upright" / names[file])
        turns = zlib.crc32(names[file].as_posix().encode()) % len(DEGREES)
        turned = names[file].with_suffix(".png")
        path = output / "turned" / turned
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = turn_image(read_image(file, "RGB"), turns)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        truth.append({"file": turned.as_posix(), "degrees": DEGREES[turns]})
    write_json(output / "truth.json", truth)
    print(f"{len(held_out)} photographs held out, {len(training)} turned: {output}")


def copy(file, path):
    """Copy a photograph, into a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, path)


if __name__ == "__main__":
    run_main(main)
