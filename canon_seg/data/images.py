"""Keep the old name of :mod:`canon_seg.images.reading`."""

from canon_seg.images.reading import count_pixels, image_size, read_image

__all__ = ["count_pixels", "image_size", "read_image"]
