"""Build what finds the poses of images alone, without prompts, from a config."""

from typing import Any

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.errors import InputError
from canon_seg.networks.build import build_canonicalizer


def build_pose_finder(cfg: Any) -> Canonicalizer:
    """Build the canonicalizer of a config, to find poses alone.

    Args:
        cfg: config of :func:`canon_seg.config.load.load_config`; not changed.

    Returns:
        the canonicalizer in eval mode, on ``cfg.MODEL.DEVICE``.

    Raises:
        InputError: naming the key that cannot be used.
    """
    cfg = cfg.clone()
    cfg.defrost()
    keys = cfg.MODEL
    keys.CANONICALIZER.TRAINABLE = False
    canonicalizer: Canonicalizer = build_canonicalizer(cfg).to(keys.DEVICE).eval()
    if not canonicalizer.finds_poses:
        raise InputError(
            f"MODEL.CANONICALIZER.NAME is {keys.CANONICALIZER.NAME!r}, which looks for no pose; "
            "set GroupCanonicalizer"
        )
    return canonicalizer
