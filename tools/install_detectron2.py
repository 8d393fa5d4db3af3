#!/usr/bin/env python
"""Install detectron2 0.6 without compiled operators; the command canon-seg-install-detectron2.

python tools/install_detectron2.py
"""

from canon_seg.cli.commands import install_detectron2

if __name__ == "__main__":
    install_detectron2()
