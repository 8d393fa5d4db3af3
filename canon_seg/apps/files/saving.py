"""Save what was found in a photograph, beside the picture of it."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from canon_seg.apps.drawing import save_picture
from canon_seg.apps.files.segment import Segmentation
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_levelling import level_array

KINDS = ("mask", "cutout", "upright", "json")
"""What --save takes: a mask for each object, white on black; each object on a transparent ground,
cut to its box; the photograph in its canonical pose; and a COCO file of all photographs."""


def save_parts(
    target: Path, image: np.ndarray, found: Segmentation, kinds: Collection[str]
) -> list[Path]:
    """Save parts of what was found in a photograph, in its own size and pixels.

    Args:
        target: path of the picture; the parts lie beside it, those of objects in the folder
            ``NAME_objects``.
        image: (H, W, 3) uint8 array, RGB.
        found: what was found in it.
        kinds: of :data:`KINDS`; "json" is not saved here.

    Returns:
        paths of the files. Empty masks have no cutout.

    Raises:
        InputError: if one can't be written.
    """
    written = []
    if "upright" in kinds:
        written.append(target.with_name(f"{target.stem}_upright.png"))
        turn = found.pose.to_canonical
        upright = turn_image(image, turn) if turn.exact else level_array(image, turn, "expand")
        save_picture(written[-1], np.ascontiguousarray(upright))
    if found.objects.masks is None:
        return written
    folder = target.with_name(f"{target.stem}_objects")
    for number, mask in enumerate(found.objects.masks.numpy(), start=1):
        alpha = mask.astype(np.uint8) * 255
        if "mask" in kinds:
            written.append(folder / f"mask_{number}.png")
            save_picture(written[-1], alpha)
        if "cutout" in kinds and mask.any():
            written.append(folder / f"cutout_{number}.png")
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            save_picture(written[-1], np.dstack([image, alpha])[inside])
    return written
