"""Name the versions of what a result depends on."""

import torch

import canon_seg
from canon_seg.d2 import compat  # noqa: F401 - before detectron2

import detectron2


def versions() -> dict[str, str]:
    """Return the versions of canon_seg, detectron2 and torch, in this order."""
    return {
        "canon_seg": canon_seg.__version__,
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
    }
