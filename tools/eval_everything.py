#!/usr/bin/env python
r"""Evaluate what a SAM finds unasked; the console command canon-seg-eval-everything.

python tools/eval_everything.py --config-file configs/sam_tiny_c4.yaml \
    --annotations FILE --images DIR --output DIR
python tools/eval_everything.py --help
"""

from canon_seg.cli.commands import eval_everything

if __name__ == "__main__":
    eval_everything()
