#!/usr/bin/env python
"""Measure how far the vector of a steerable network turns along with photographs, untrained.

    python tools/measure_turning.py --images DIR --output turning.json

An equivariant network says of a photograph turned by an angle what it says of the photograph,
turned by that angle. Off the quarter turns that is so but nearly: filters are sampled on a grid of
pixels, strides leave some of them out, and corners come and go. What is measured is the angle
between the two answers, by networks of random weights, each with one thing changed: no training,
no labels. Photographs are turned at their full size, about their middle, and then shrunk.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from canon_seg.core.scorer import VonMisesDistribution
from canon_seg.core.turn import Turn, compose, distance
from canon_seg.errors import InputError, run_main
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import read_image
from canon_seg.images.resize import normalize, resize_for_network
from canon_seg.images.tensors import to_chw
from canon_seg.images.tilt import rotate_image
from canon_seg.io.files import check_output_dir, write_json, write_text
from canon_seg.networks.equivariant import NetworkSpec, build_trainable_network, export_network

ANGLES = (10.0, 22.5, 30.0, 45.0, 60.0, 100.0)
SIDE = 65
BASE = {"disc": True, "blur": True, "kernel": 5, "group_order": 8, "fields": (4, 6, 8)}
VARIANTS = {
    "as in the config": {},
    "square in place of the disc": {"disc": False},
    "no blur before strides": {"blur": False},
    "filters of 3 x 3": {"kernel": 3},
    "4 orientations": {"group_order": 4, "fields": (8, 12, 16)},
    "square, no blur, 3 x 3": {"disc": False, "blur": False, "kernel": 3},
}


@torch.no_grad()
def random_network(seed, **changes):
    """Build the exported form of a network with random weights and statistics of some noise."""
    torch.manual_seed(seed)
    spec = NetworkSpec(name="GCNN", depth=1, vector=True, **{**BASE, **changes})
    network = build_trainable_network(spec)
    for _ in range(3):
        network(torch.randn(8, 3, SIDE, SIDE))
    return export_network(network.eval())


def inputs_of(files):
    """Prepare each photograph as it is, then turned by each angle: (1 + A, 3, SIDE, SIDE) each."""
    for file in files:
        image = read_image(file, "RGB")
        side = min(image.shape[:2])
        top, left = ((whole - side) // 2 for whole in image.shape[:2])
        square = np.ascontiguousarray(image[top : top + side, left : left + side])
        views = [square, *(rotate_image(square, angle, "crop") for angle in ANGLES)]
        yield normalize(torch.stack([resize_for_network(to_chw(v), SIDE) for v in views]))


@torch.no_grad()
def turning_errors(network, inputs):
    """Return the angle in degrees between the answer to each turned view and the turned answer."""
    first, *others = VonMisesDistribution(network(inputs)).mode()
    return [
        distance(found, compose(first, Turn.by(angle)))
        for found, angle in zip(others, ANGLES, strict=True)
    ]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--limit", type=int, default=16, metavar="N", help="how many; default: 16")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="networks; default: 2")
    parser.add_argument("--output", required=True, metavar="FILE", help="a .json file to write")
    args = parser.parse_args()
    if not args.output.endswith(".json"):
        raise InputError(f"--output: {args.output} is no name for a .json file; give one")
    if min(args.limit, args.seeds) < 1:
        raise InputError("--limit and --seeds: give numbers of at least 1")
    output = Path(args.output)
    check_output_dir(output.parent)
    files = list_photos(args.images, "--images")
    chosen = files[:: -(-len(files) // args.limit)]
    inputs = list(tqdm(inputs_of(chosen), total=len(chosen), unit="photo"))
    rows = {}
    for name, changes in tqdm(VARIANTS.items(), unit="network"):
        errors = np.array(
            [
                [turning_errors(network, views) for views in inputs]
                for network in (random_network(seed, **changes) for seed in range(args.seeds))
            ]
        )
        rows[name] = {
            "median": float(np.median(errors)),
            "by_angle": {
                f"{angle:g}": float(np.median(errors[..., index]))
                for index, angle in enumerate(ANGLES)
            },
        }
    table = tabulate(
        [[name, row["median"], *row["by_angle"].values()] for name, row in rows.items()],
        ["network", "all angles", *(f"{angle:g}°" for angle in ANGLES)],
        tablefmt="pipe",
        floatfmt=".1f",
    )
    write_json(output, {"photos": len(chosen), "seeds": args.seeds, "networks": rows})
    write_text(output.with_suffix(".md"), f"{table}\n")
    print(table)
    print("written:", output, output.with_suffix(".md"))


if __name__ == "__main__":
    run_main(main)
