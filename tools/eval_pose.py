#!/usr/bin/env python
"""How well the canonicalizer finds the pose of upright photographs; canon-seg-eval-pose.

python tools/eval_pose.py --images DIR --output pose.json
python tools/eval_pose.py --help
"""

from canon_seg.cli.eval_pose import main
from canon_seg.errors import run_main

if __name__ == "__main__":
    run_main(main)
