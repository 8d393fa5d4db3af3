#!/usr/bin/env python
"""How well the canonicalizer finds the pose of upright photographs; canon-seg-eval-pose.

python tools/eval_pose.py --images DIR --output pose.json
python tools/eval_pose.py --help
"""

from canon_seg.cli.commands import eval_pose

if __name__ == "__main__":
    eval_pose()
