#!/usr/bin/env python
"""Measure how well poses of upright photographs are found; the command canon-seg-eval-pose.

python tools/eval_pose.py --images DIR --output pose.json
python tools/eval_pose.py --help
"""

from canon_seg.cli.commands import eval_pose

if __name__ == "__main__":
    eval_pose()
