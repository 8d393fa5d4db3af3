#!/usr/bin/env python
"""Classify point clouds under unseen rotations; the command canon-seg-eval-points.

python tools/eval_points.py --output DIR
python tools/eval_points.py --help
"""

from canon_seg.cli.commands import eval_points

if __name__ == "__main__":
    eval_points()
