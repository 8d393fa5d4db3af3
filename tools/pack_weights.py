#!/usr/bin/env python
r"""Write a weights file anew with a byte for each weight, half the size of half precision.

    python tools/pack_weights.py weights.pth packed.pth [--levels 63]

Filters and matrices become whole multiples of a scale for each output channel; all else stays as it
is. All commands read the packed file as any other. How far the results move is for the evaluations
to say: run them with the packed file.
"""

import argparse
from pathlib import Path

from canon_seg.errors import InputError, run_main
from canon_seg.io.checkpoint import load_torch_file
from canon_seg.io.packing import save_packed


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="file to read")
    parser.add_argument("output", help="file to write; an existing one is replaced")
    parser.add_argument(
        "--levels",
        type=int,
        default=127,
        help="largest multiple of the scale, 1 to 127; fewer make a smaller file (default: 127)",
    )
    args = parser.parse_args()
    if not 1 <= args.levels <= 127:
        raise InputError(f"--levels is {args.levels}; give 1 to 127")
    contents = load_torch_file(args.weights, "weights")
    save_packed(args.output, contents, args.levels)
    before, after = (Path(path).stat().st_size / 1e6 for path in (args.weights, args.output))
    print(f"{args.output}: {after:.2f} MB, {args.weights} has {before:.2f} MB")


if __name__ == "__main__":
    run_main(main)
