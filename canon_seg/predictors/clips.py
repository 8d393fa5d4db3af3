"""Read clips, and turn all their frames by one pose."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canon_seg.core.canonicalizer import Canonicalizer, KnownPoseCanonicalizer
from canon_seg.core.clip import clip_pose
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.images.representative import representative_turns
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import as_canonicalizer_takes_it

FRAME_SUFFIXES = (".jpg", ".jpeg")
"""Files of a folder that are frames, as SAM 2 has it."""


def clip_frames(frames: Any) -> "Sequence[Any]":
    """List the frames of a clip, in order.

    Args:
        frames: a folder of JPEG files whose names are numbers; or images in order, see
            :func:`canon_seg.predictors.inputs.as_image`.

    Returns:
        images or paths of files.

    Raises:
        InputError: if there are no frames, or a file of the folder has another name.
    """
    if isinstance(frames, (str, os.PathLike)):
        folder = Path(frames)
        if not folder.is_dir():
            raise InputError(
                f"{folder}: is no folder of frames; give one of JPEG files, or the frames "
                "themselves as a list of images"
            )
        paths = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
        unnumbered = [path for path in paths if not path.stem.isdigit()]
        if unnumbered:
            raise InputError(f"{unnumbered[0]}: names of frames are numbers, such as 00001.jpg")
        frames = sorted(paths, key=lambda path: int(path.stem))
    images = list(frames)
    if not images:
        raise InputError("there are no frames; give at least one")
    return images


def canonical_clip(
    canonicalizer: Canonicalizer, images: "Sequence[Any]", image_format: str = "RGB"
) -> CanonicalFrame:
    """Find the one pose of a clip, see :func:`canon_seg.core.clip.clip_pose`.

    Args:
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`.
        images: of :func:`clip_frames`.
        image_format: "RGB" or "BGR": channel order of arrays among them.

    Returns:
        the frame of the first image in that pose.
    """

    def find_pose(image: Any) -> "Pose | None":
        pixels = as_image(image, image_format)
        if len(representative_turns(pixels)) > 1:
            return None  # equals a turn of itself, as a black frame does
        return canonicalizer.pose(as_canonicalizer_takes_it(pixels, canonicalizer, image_format))

    pose = clip_pose(find_pose, images, canonicalizer.uncertain, canonicalizer.group)
    known = KnownPoseCanonicalizer(pose, canonicalizer)
    first = as_canonicalizer_takes_it(as_image(images[0], image_format), known, image_format)
    return CanonicalFrame(known, first, votes=False)


def turned_clip(
    frame: CanonicalFrame, images: "Sequence[Any]", image_format: str = "RGB"
) -> Iterator[np.ndarray]:
    """Yield the frames of a clip in its pose, (H, W, 3) uint8.

    Raises:
        InputError: if a frame has another size than the first.
    """
    for number, image in enumerate(images):
        pixels = as_image(image, image_format)
        if pixels.shape[:2] != frame.size:
            raise InputError(
                f"frame {number} has the shape {pixels.shape}, the first {(*frame.size, 3)}; "
                "give frames of one size"
            )
        yield contiguous(frame.there(pixels, "image"))
