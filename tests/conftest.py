"""What all tests share."""

from hypothesis import settings

import canon_seg.d2  # noqa: F401 - before any test imports detectron2

# Slow machines must not fail a property; the same examples every time make a failure repeatable.
settings.register_profile("canon_seg", deadline=None, derandomize=True)
settings.load_profile("canon_seg")
