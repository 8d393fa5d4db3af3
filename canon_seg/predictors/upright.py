"""Set images upright in one call, and level those that lie tilted."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.scorer import CircularDistribution
from canon_seg.core.turn import IDENTITY, Turn
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_levelling import LEVEL_CANVASES, level_array, level_pillow
from canon_seg.images.file_turning import transposed
from canon_seg.predictors.defaults import ANY_ANGLE, load_default_canonicalizer
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import as_canonicalizer_takes_it

MIN_PROBABILITY = 0.95
"""Images whose likeliest pose has less are left as given: chosen so that, of photographs held out
of the training, more than 99 % are right above it (docs/upright.md)."""


MAX_TILT = 20.0
"""Degrees: larger tilts are left alone, since they are rarely an accident."""

MIN_TILT_PROBABILITY = 0.8
"""Tilts are left alone of which the angles within 10 degrees have less mass: chosen on photographs
held out of the training (docs/upright.md)."""


def upright(
    image: Any,
    canonicalizer: "Canonicalizer | None" = None,
    *,
    min_probability: float = MIN_PROBABILITY,
    level: bool = False,
    canvas: str = "inscribed",
) -> tuple[Any, Pose]:
    """Set an image upright, or leave it as it is where its pose is not clear.

    Args:
        image: (H, W, 3) uint8 array, RGB; Pillow image, its pixels as they are stored; or path of a
            file, whose EXIF tag is applied.
        canonicalizer: that finds poses, of any angle if ``level``, else quarter turns; None for the
            embedded one, which is loaded anew by each call
            (:func:`canon_seg.load_default_canonicalizer` loads it once for many).
        min_probability: of the quarter turn, 0 to 1; images with less are left as given.
        level: whether a tilt is straightened too, see :func:`level_pose`.
        canvas: of what is levelled: "inscribed" cuts it to the largest frame inside the image,
            "expand" keeps all of it, on white.

    Returns:
        (image, pose): a Pillow image for a Pillow image, without an orientation tag, else an RGB
        array; and the pose that the given image has, counterclockwise, whose ``policy`` is "keep"
        where the image was left as given.

    Raises:
        InputError: for what is no image, another canvas, or a canonicalizer that finds tilts
            without ``level``, or none with it.
    """
    if canvas not in LEVEL_CANVASES:
        raise InputError(f"canvas is {canvas!r}; give {' or '.join(LEVEL_CANVASES)}")
    if canonicalizer is None:
        canonicalizer = load_default_canonicalizer(
            **({"weights": ANY_ANGLE, "group": "SO2"} if level else {})
        )
    array = as_image(image)
    find = level_pose if level else clear_pose
    pose = find(canonicalizer, array, min_probability)
    if isinstance(image, Image.Image):
        turn = pose.to_canonical
        turned = transposed(image, turn) if turn.exact else level_pillow(image, turn, canvas)
        turned.info.pop("exif", None)
        return turned, pose
    if pose.turn.exact:
        return np.array(turn_image(array, pose.to_canonical), order="C"), pose
    return level_array(array, pose.to_canonical, canvas), pose


def clear_pose(canonicalizer: Canonicalizer, image: np.ndarray, min_probability: float) -> Pose:
    """Find the pose of an image, which is that of an upright one where it is not clear.

    That of an image that equals a turn of itself never is.

    Args:
        canonicalizer: that finds quarter turns.
        image: (H, W, 3) uint8 array, RGB.
        min_probability: 0 to 1.

    Returns:
        the pose; its ``policy`` is "keep" where it was not clear.

    Raises:
        InputError: if the canonicalizer finds tilts too.
    """
    if not canonicalizer.group.is_exact:
        raise InputError(
            f"the canonicalizer finds poses of {canonicalizer.group.name}, which have tilts: level "
            "them (level=True; --level), or take one of quarter turns (group='C4' of "
            "load_default_canonicalizer; MODEL.CANONICALIZER.GROUP C4)"
        )
    pose = canonicalizer.pose(as_canonicalizer_takes_it(image, canonicalizer)).alone()
    if pose.policy == "keep":
        return pose
    if pose.probability >= min_probability and not pose.is_symmetric:
        return pose
    return replace(pose, turn=IDENTITY, policy="keep", probability=pose.probabilities[0])


def level_pose(
    canonicalizer: Canonicalizer,
    image: np.ndarray,
    min_probability: float = MIN_PROBABILITY,
    min_tilt_probability: float = MIN_TILT_PROBABILITY,
    max_tilt: float = MAX_TILT,
) -> Pose:
    """Find the quarter turn of an image, and its tilt where that is clear and of a usual size.

    The tilt is left out if it is below the canonicalizer's ``min_tilt`` or above ``max_tilt``, if
    the likeliest angle lies beyond 45 degrees of the likeliest quarter turn, and if its probability
    is below ``min_tilt_probability``.

    Args:
        canonicalizer: for SO2.
        image: (H, W, 3) uint8 array, RGB.
        min_probability: of all angles within 45 degrees of the quarter turn, 0 to 1; with less, the
            image is left as it is.
        min_tilt_probability: of all angles within 10 degrees of the likeliest, 0 to 1.
        max_tilt: degrees, 0 to 45.

    Returns:
        the pose; its ``policy`` is "keep" where the quarter turn was not clear, or the image equals
        a turn of itself.

    Raises:
        InputError: if the canonicalizer finds no tilts.
    """
    group = canonicalizer.group
    if group.elements is not None or group.mirrors:
        raise InputError(
            f"the canonicalizer finds poses of {group.name}: photographs are levelled by one for "
            "SO2 (load_default_canonicalizer with weights for SO2 and group='SO2'; "
            "MODEL.CANONICALIZER.GROUP SO2 with such WEIGHTS)"
        )
    pose = canonicalizer.pose(as_canonicalizer_takes_it(image, canonicalizer)).alone()
    shares = quarter_probabilities(pose)
    quarter = Turn(int(np.argmax(shares)))
    near_upright = _angles(pose).near(IDENTITY).item()
    if pose.policy == "keep" or max(shares) < min_probability or pose.is_symmetric:
        return replace(pose, turn=IDENTITY, policy="keep", probability=near_upright)
    is_clear = pose.probability >= min_tilt_probability and abs(pose.turn.tilt) <= max_tilt
    if pose.turn.quarters != quarter.quarters or not is_clear:
        return replace(pose, turn=quarter, probability=_angles(pose).near(quarter).item())
    return pose


def quarter_probabilities(pose: Pose) -> tuple[float, ...]:
    """Return how likely each of the four quarter turns is, with the angles within 45 degrees of it.

    Args:
        pose: of the quarter turns, or of all angles.
    """
    if len(pose.probabilities) == 4:
        return pose.probabilities
    return tuple(_angles(pose).near(Turn(quarters), 45.0).item() for quarters in range(4))


def _angles(pose: Pose) -> CircularDistribution:
    shares = torch.tensor([pose.probabilities], dtype=torch.float64)
    return CircularDistribution(shares.log())
