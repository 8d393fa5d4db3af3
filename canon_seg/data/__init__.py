"""Keep old names: reading images lives in :mod:`canon_seg.images.reading`."""
