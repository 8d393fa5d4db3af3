#!/usr/bin/env python
r"""Evaluate on rotated COCO: AP by angle; the console command canon-seg-eval.

python tools/eval_rotated.py --config-file configs/sam_c4.yaml \
    --annotations FILE --images DIR --output DIR
python tools/eval_rotated.py --help
"""

from canon_seg.cli.commands import eval_rotated

if __name__ == "__main__":
    eval_rotated()
