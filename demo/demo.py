#!/usr/bin/env python
"""Segment photographs and videos in their canonical pose; the console command canon-seg-demo.

python demo/demo.py photo.jpg --output DIR
python demo/demo.py --help
"""

from canon_seg.cli.commands import demo

if __name__ == "__main__":
    demo()
