#!/usr/bin/env python
r"""Evaluate a SAM by boxes and clicks; the console command canon-seg-eval-prompts.

python tools/eval_prompts.py --config-file configs/sam_tiny_c4.yaml \
    --annotations FILE --images DIR --output DIR
python tools/eval_prompts.py --help
"""

from canon_seg.cli.commands import eval_prompts

if __name__ == "__main__":
    eval_prompts()
