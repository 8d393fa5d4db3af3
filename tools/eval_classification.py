#!/usr/bin/env python
r"""Evaluate image classification behind a canonicalizer; canon-seg-eval-classification.

python tools/eval_classification.py --config-file configs/cifar10_c8.yaml \
    --data DIR --group C8 --output DIR
python tools/eval_classification.py --help
"""

from canon_seg.cli.commands import eval_classification

if __name__ == "__main__":
    eval_classification()
