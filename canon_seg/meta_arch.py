"""Keep the old name of :mod:`canon_seg.d2.meta_arch`."""

from canon_seg.d2.meta_arch import CanonicalizedSegmenter

__all__ = ["CanonicalizedSegmenter"]
