#!/usr/bin/env python
"""Hold some images of a COCO instances file out of training: every N-th by id.

    python tools/split_coco.py --annotations instances.json --images DIR --every 5 --output DIR

Writes train.json and held_out.json, with image files as they were, relative to --images.
"""

import argparse
from pathlib import Path

import canon_seg.d2.compat  # noqa: F401
from canon_seg.coco.dataset import load_coco
from canon_seg.errors import InputError, run_main
from canon_seg.io.files import check_output_dir, write_json


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of its images")
    parser.add_argument(
        "--every", type=int, default=5, metavar="N", help="hold out one image in N; default: 5"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parser.parse_args()
    dataset = load_coco(args.annotations, args.images)
    if not 2 <= args.every <= len(dataset["images"]):
        raise InputError(
            f"--every is {args.every}; the {len(dataset['images'])} images of {args.annotations} "
            f"can be split by 2 to {len(dataset['images'])}"
        )
    output = check_output_dir(args.output)
    for name, part in zip(("held_out", "train"), split(dataset, args.every), strict=True):
        path = Path(output) / f"{name}.json"
        write_json(path, part)
        print(f"{path}: {len(part['images'])} images, {len(part['annotations'])} annotations")


def split(dataset, every):
    """Return (held out, rest) of a COCO dict: the first by id and every ``every``-th after."""
    ids = sorted(image["id"] for image in dataset["images"])
    chosen = set(ids[::every])
    return [
        {
            **dataset,
            "images": [i for i in dataset["images"] if (i["id"] in chosen) == held_out],
            "annotations": [
                a for a in dataset["annotations"] if (a["image_id"] in chosen) == held_out
            ],
        }
        for held_out in (True, False)
    ]


if __name__ == "__main__":
    run_main(main)
