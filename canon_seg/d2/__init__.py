"""Hold all that knows detectron2; importing this package fills what detectron2 v0.6 misses."""

from canon_seg.d2 import compat  # noqa: F401
