"""What all tests share."""

import json

from hypothesis import settings

import canon_seg.d2  # noqa: F401 - before any test imports detectron2

# Slow machines must not fail a property; the same examples every time make a failure repeatable.
settings.register_profile("canon_seg", deadline=None, derandomize=True)
settings.load_profile("canon_seg")

TINY_SAM = {
    "SIZE": "tiny",
    # 64 channels at last: two heads of attention, as torch's fused layers want them.
    "TINY": {
        "IMAGE_SIZE": 64,
        "BACKBONE": "",
        "CHANNELS": [8, 8, 16, 64],
        "BLOCKS": [1, 1, 1, 1],
        "EMBED_DIM": 32,
    },
}
"""MODEL.SAM of a SAM that runs in no time, as `tiny_models.tiny_segmenter("sam")` is."""

TINY_SAM_YAML = json.dumps(TINY_SAM)
"""The same as a line of YAML."""


def tiny_sam_options():
    """The same as options KEY VALUE of a command line."""
    options = ["MODEL.SAM.SIZE", TINY_SAM["SIZE"]]
    for key, value in TINY_SAM["TINY"].items():
        options += [f"MODEL.SAM.TINY.{key}", str(value)]
    return options
