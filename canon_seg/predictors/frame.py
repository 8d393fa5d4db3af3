"""One image's canonical frame: how the image and its prompts get there, and the results back."""

import numpy as np
import torch

from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.coordinates import PIXEL_STEP, snap, turn_boxes, turn_pixels
from canon_seg.images.representative import representative_turns


class CanonicalFrame:
    """The pose of one image, and what turns between its frame and the canonical one.

    An image that equals a turn of itself has two or four poses, all with the same canonical image.
    Which one is meant shows only in the prompts: the one that brings their coordinates first in
    order is taken, so that turned prompts get turned results on such images too. Only where the
    prompts are as symmetric as the image (or there are none) the result is defined up to a turn.

    Attributes:
        pose: :class:`canon_seg.images.canonicalizer.Pose` that the image has by itself; the
            likeliest where a canonicalizer would have several vote.
        size: (height, width) in pixels, of the frame that prompts are given in.

    Args:
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`; in eval mode.
        image: (3, H, W) tensor, values 0..255, in the channel order that the canonicalizer takes;
            see :func:`as_canonicalizer_takes_it`.
        size: where prompts are given in the frame of another size than the image's.
    """

    def __init__(self, canonicalizer, image, size=None):
        self.pose = canonicalizer.pose(image).alone()
        self.size = tuple(image.shape[-2:] if size is None else size)
        self._canonicalizer = canonicalizer
        is_symmetric = len(representative_turns(image.permute(1, 2, 0))) > 1
        self._symmetric_image = image if is_symmetric else None

    def canonical_image(self, image):
        """An (H, W, 3) array turned to its canonical pose, contiguous."""
        return np.ascontiguousarray(turn_image(image, self.pose.turns_to_canonical))

    def to_canonical(self, points=None, boxes=None, mask=None):
        """Turn prompts to the canonical frame, on the grid of 1/256 px if the canonicalizer snaps.

        Args:
            points: (..., 2) float x, y clicks as pixel indices, or None.
            boxes: (..., 4) float x0, y0, x1, y1 edges, or None.
            mask: (..., S, S) mask logits as an earlier prediction gave them, or None.
                Each is a numpy array or a torch tensor.
        Returns:
            (pose, points, boxes, mask): the pose that these prompts' results are turned back by.
        """
        if self._canonicalizer.snaps:
            points, boxes = (
                None if coords is None else snap(coords, PIXEL_STEP) for coords in (points, boxes)
            )

        def turned(turns):
            return (
                None if points is None else turn_pixels(points, turns, *self.size),
                None if boxes is None else turn_boxes(boxes, turns, *self.size),
                None if mask is None else turn_maps(mask, turns),
            )

        pose = self.pose
        if self._symmetric_image is not None:
            pose = self._canonicalizer.pose(
                self._symmetric_image, lambda turns: _order(*turned(turns))
            )
        return pose, *(contiguous(part) for part in turned(pose.turns_to_canonical))


def _order(points, boxes, mask):
    """Something ordered that describes prompts; that of ``Prompts.key``, and then the mask."""
    coords = [tuple(part.reshape(-1).tolist()) for part in (boxes, points) if part is not None]
    return (*coords, b"" if mask is None else np.ascontiguousarray(to_numpy(mask)).tobytes())


def turn_back(maps, pose):
    """Maps (..., H, W) of the canonical frame, array or tensor, in the frame of the image."""
    return contiguous(turn_maps(maps, pose.turns))


def as_canonicalizer_takes_it(image, canonicalizer, image_format="RGB"):
    """An (H, W, 3) array in ``image_format`` as the (3, H, W) tensor that a canonicalizer takes."""
    if getattr(canonicalizer, "image_format", image_format) != image_format:
        image = image[..., ::-1]
    # A copy: a turned image of one row counts as contiguous, with strides that torch refuses.
    return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)


def contiguous(array):
    """The same values in row-major order, for kernels whose rounding may depend on strides."""
    if array is None or isinstance(array, torch.Tensor):
        return None if array is None else array.contiguous()
    return np.ascontiguousarray(array)


def to_numpy(array):
    """A tensor on any device, an array, or nested lists as an array."""
    if isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    return np.asarray(array)
