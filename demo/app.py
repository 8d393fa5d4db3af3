#!/usr/bin/env python
"""Serve a web page to turn photos and see the masks stay; the console command canon-seg-app.

python demo/app.py [--sam-checkpoint sam_vit_b_01ec64.pth --sam-size vit_b]
python demo/app.py --help
"""

from canon_seg.cli.commands import app

if __name__ == "__main__":
    app()
