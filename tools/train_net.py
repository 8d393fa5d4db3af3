#!/usr/bin/env python
"""Train a canonicalizer or a segmenter; the console command canon-seg-train.

python tools/train_net.py --config-file configs/sam_c4.yaml OUTPUT_DIR output/mine [KEY VALUE ...]
python tools/train_net.py --help
"""

from canon_seg.cli.commands import train_net

if __name__ == "__main__":
    train_net()
