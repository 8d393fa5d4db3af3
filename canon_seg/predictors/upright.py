"""Set images upright in one call."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.turn import IDENTITY
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_turning import transposed
from canon_seg.predictors.defaults import load_default_canonicalizer
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import as_canonicalizer_takes_it

MIN_PROBABILITY = 0.95
"""Images whose likeliest pose has less are left as given: chosen so that, of photographs held out
of the training, more than 99 % are right above it (docs/upright.md)."""


def upright(
    image: Any,
    canonicalizer: "Canonicalizer | None" = None,
    *,
    min_probability: float = MIN_PROBABILITY,
) -> tuple[Any, Pose]:
    """Set an image upright, or leave it as it is where its pose is not clear.

    Args:
        image: (H, W, 3) uint8 array, RGB; Pillow image, its pixels as they are stored; or path of a
            file, whose EXIF tag is applied.
        canonicalizer: that finds poses; None for the embedded one, which is loaded anew by each
            call (:func:`canon_seg.load_default_canonicalizer` loads it once for many).
        min_probability: of the pose, 0 to 1; images with less are left as given.

    Returns:
        (image, pose): a Pillow image for a Pillow image, without an orientation tag, else an RGB
        array; and the pose that the given image has, quarter turns counterclockwise, whose
        ``policy`` is "keep" where the image was left as given.

    Raises:
        InputError: for what is no image.
    """
    if canonicalizer is None:
        canonicalizer = load_default_canonicalizer()
    array = as_image(image)
    pose = clear_pose(canonicalizer, array, min_probability)
    if isinstance(image, Image.Image):
        turned = transposed(image, pose.to_canonical)
        turned.info.pop("exif", None)
        return turned, pose
    return np.array(turn_image(array, pose.to_canonical), order="C"), pose


def clear_pose(canonicalizer: Canonicalizer, image: np.ndarray, min_probability: float) -> Pose:
    """Find the pose of an image, which is that of an upright one where it is not clear.

    That of an image that equals a turn of itself never is.

    Args:
        canonicalizer: that finds poses.
        image: (H, W, 3) uint8 array, RGB.
        min_probability: 0 to 1.

    Returns:
        the pose; its ``policy`` is "keep" where it was not clear.
    """
    pose = canonicalizer.pose(as_canonicalizer_takes_it(image, canonicalizer)).alone()
    if pose.policy == "keep":
        return pose
    if pose.probability >= min_probability and not pose.is_symmetric:
        return pose
    return replace(pose, turn=IDENTITY, policy="keep", probability=pose.probabilities[0])
