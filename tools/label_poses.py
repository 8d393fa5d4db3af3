#!/usr/bin/env python
"""Label photographs of unknown orientation; the console command canon-seg-label-poses.

python tools/label_poses.py --photos DIR --output poses.json
python tools/label_poses.py --help
"""

from canon_seg.cli.commands import label_poses

if __name__ == "__main__":
    label_poses()
