#!/usr/bin/env python
"""Draw a data set of procedural upright scenes with instance masks, in COCO format."""

import argparse

from canon_seg.errors import run_main
from canon_seg.scenes.dataset import DEMO_SEED, TRAIN_SEED, make_scenes


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", required=True, help="folder for images/ and annotations/instances.json"
    )
    parser.add_argument("--num-images", type=int, default=40, help="default: %(default)s")
    parser.add_argument(
        "--seed",
        type=int,
        default=DEMO_SEED,
        help=f"default: %(default)s, kept for evaluation; train on another, such as {TRAIN_SEED}",
    )
    return parser.parse_args()


def main():
    """Run the command."""
    arguments = parse_arguments()
    annotations, images = make_scenes(
        arguments.output, arguments.num_images, arguments.seed, progress=True
    )
    print(f"{arguments.num_images} scenes: {images}, {annotations}")


if __name__ == "__main__":
    run_main(main)
