"""Load configs with detectron2's own keys and defaults beside the project's."""

from canon_seg.config import load
from canon_seg.config.keys import add_canon_seg_config

from detectron2.config import get_cfg


def load_config(config_file, options=()):
    """Load a complete config from a file and command-line options, with detectron2's defaults.

    Args and raises: as :func:`canon_seg.config.load.load_config`.

    Returns:
        detectron2 ``CfgNode``, not frozen.
    """
    cfg = get_cfg()
    add_canon_seg_config(cfg)
    return load.load_config(config_file, options, cfg)
