"""Another name of :mod:`canon_seg.predictors.mask_generator`."""

from canon_seg.predictors.mask_generator import (  # noqa: F401
    CanonicalSamAutomaticMaskGenerator,
    turn_record,
)
