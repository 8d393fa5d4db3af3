"""Show a data set to a model in different ways: by which angle, on what canvas.

What rotates, and how, is in :mod:`canon_seg.coco.rotation`.
"""

import math
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import numpy as np
import torch

from canon_seg.coco.annotations import turn_annotation, turn_coco
from canon_seg.coco.rotation import rotate_annotation, rotate_coco
from canon_seg.core.turn import Turn, normalise_angle, split_angle
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.images.coordinates import turn_boxes_xywh
from canon_seg.images.tilt import (
    CANVASES,
    clip_boxes,
    rotate_boxes,
    rotate_image,
    rotate_points,
    rotated_size,
)

MAX_ANGLES = 720
MIRRORED = "mirrored "
"""What the labels of mirrored views begin with."""


def split_label(label):
    """Return (degrees, whether it is mirrored) of a view's label, or None of another text.

    >>> split_label("mirrored 22.5"), split_label("C4-avg")
    ((22.5, True), None)
    """
    mirrored = label.startswith(MIRRORED)
    try:
        return float(label.removeprefix(MIRRORED)), mirrored
    except ValueError:
        return None


@dataclass(frozen=True)
class View:
    """Show all images of a data set rotated by the same angle, maybe mirrored before that.

    Attributes:
        angle: degrees counterclockwise; any finite number is brought into [0, 360).
        canvas: "expand", large enough to hold the whole picture, "crop", cut to its size, or
            "inscribed", the largest frame inside of it.
        tight_boxes: whether box prompts of the ground truth know how the objects lie: they have
            the corners of the objects' own boxes, rotated, beside the boxes that a user would draw.
        mirrored: whether left and right are exchanged first, by index.
    """

    angle: float
    canvas: str = "expand"
    tight_boxes: bool = False
    mirrored: bool = False

    def __post_init__(self):
        object.__setattr__(self, "angle", normalise_angle(self.angle))
        if self.canvas not in CANVASES:
            raise InputError(
                f"--canvas: {self.canvas!r} is not a canvas; known: {', '.join(CANVASES)}"
            )

    @property
    def label(self):
        """Return the angle as text, the key of results: "0", "22.5", "mirrored 90"."""
        angle = np.format_float_positional(self.angle, trim="-")
        return f"{MIRRORED}{angle}" if self.mirrored else angle

    @property
    def turn(self):
        """Return the true pose of the view, a :class:`canon_seg.core.turn.Turn`."""
        return Turn.by(self.angle, self.mirrored)

    @property
    def pose(self):
        """Return the quarter turn (0..3) nearest to the angle: what a C4 canonicalizer should find.

        Halfway between two, the one before counts: 45 degrees have the pose 0. It follows the
        mirror.
        """
        return split_angle(self.angle)[0]

    @property
    def remainder(self):
        """Return the degrees in (-45, 45] left when the pose is undone; 0 at quarter turns."""
        return split_angle(self.angle)[1]

    def size(self, height, width):
        """Return (height, width) of the view of a ``height`` x ``width`` image."""
        return rotated_size(height, width, self.angle, self.canvas)

    def image(self, pixels):
        """Return the view of an H x W x 3 uint8 image; it may share memory with the image."""
        return rotate_image(turn_image(pixels, self._mirror), self.angle, self.canvas)

    @property
    def _mirror(self):
        return Turn(mirrored=self.mirrored)

    def dataset(self, dataset, progress=False):
        """Return the ground truth of the view.

        Args:
            dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`, its annotations
                with the keys that COCO's evaluation reads; not changed.
            progress: whether to show a progress bar.

        Returns:
            (a new dict of the same form, the number of annotations that were cut away wholly).
        """
        if not self.mirrored:
            return rotate_coco(dataset, self.angle, self.canvas, progress)
        if self.remainder == 0:  # as at quarter turns, in one step
            return turn_coco(dataset, self.turn), 0
        return rotate_coco(turn_coco(dataset, self._mirror), self.angle, self.canvas, progress)

    def prompts(self, boxes, height, width, snapped, annotations=None):
        """Return the prompts of the view of one image.

        At quarter turns they are the turned boxes, exactly. At other angles the box around a
        rotated box is larger than what was in it, so that boxes of the ground truth are drawn anew
        around the rotated masks, as a user would draw them; a detector's are what they are. Boxes
        that are cut away wholly are dropped. With ``tight_boxes`` the corners of the objects' own
        upright boxes, rotated, go with them.

        Args:
            boxes: :class:`canon_seg.d2.dataset_prompts.BoxPrompts` of the upright image.
            height, width: of the upright image.
            snapped: see :meth:`canon_seg.d2.dataset_prompts.BoxPrompts.turned`.
            annotations: the annotations of the upright image that ``boxes`` belong to, in the
                same order (crowds, which have no box, are passed over); None for a detector's.

        Returns:
            :class:`canon_seg.sam.prompts.Prompts`.
        """
        if self.remainder == 0:
            return boxes.turned(self.turn, height, width, snapped)
        if self.mirrored:
            mirrored = turn_boxes_xywh(boxes.boxes, self._mirror, height, width)
            boxes = replace(boxes, boxes=mirrored)
            annotations = annotations and [
                turn_annotation(
                    {key: entry[key] for key in ("id", "bbox", "segmentation", "iscrowd")},
                    self._mirror,
                    height,
                    width,
                )
                for entry in annotations
            ]
        if annotations is None:
            rotated, kept = self._rotated_boxes(boxes.boxes, height, width)
        else:
            rotated, kept = self._boxes_of_masks(annotations, height, width)
        rotated = replace(
            boxes,
            boxes=rotated,
            classes=boxes.classes[kept],
            scores=None if boxes.scores is None else boxes.scores[kept],
        )
        prompts = rotated.turned(0, *self.size(height, width), snapped)
        if not self.tight_boxes or annotations is None:
            return prompts
        edges = np.concatenate([boxes.boxes[:, :2], boxes.boxes[:, :2] + boxes.boxes[:, 2:]], 1)
        corners = edges[kept][..., [[0, 1], [2, 1], [2, 3], [0, 3]]]
        corners = rotate_points(corners, self.angle, height, width, self.canvas)
        return replace(prompts, corners=torch.from_numpy(corners.astype(np.float32)))

    def _rotated_boxes(self, boxes, height, width):
        edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        edges = rotate_boxes(edges, self.angle, height, width, self.canvas)
        edges, kept = clip_boxes(edges, *self.size(height, width))
        return np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1), kept

    def _boxes_of_masks(self, annotations, height, width):
        rotated = [
            rotate_annotation(
                {key: annotation[key] for key in ("id", "bbox", "segmentation")},
                self.angle,
                height,
                width,
                self.canvas,
            )
            for annotation in annotations
            if not annotation["iscrowd"]
        ]
        boxes = [annotation["bbox"] for annotation in rotated if annotation is not None]
        kept = np.array([annotation is not None for annotation in rotated], bool)
        return np.array(boxes, np.float64).reshape(-1, 4), kept


def parse_angles(words):
    """Parse the angles that a user asked for.

    Args:
        words: list of str, each an angle in degrees ("15", "-22.5") or a range
            "START:STOP:STEP", without STOP ("0:360:15").

    Returns:
        list of floats in [0, 360), in the order given, each once.

    Raises:
        InputError: naming ``--angles`` and the word that cannot be used.
    """
    angles = []
    for word in words:
        numbers = [_number(part, word) for part in word.split(":")]
        if len(numbers) == 1:
            angles += numbers
        elif len(numbers) == 3:
            angles += _range(*numbers, word)
        else:
            raise InputError(
                f"--angles: {word!r} is neither an angle nor START:STOP:STEP, such as 0:360:15"
            )
    angles = list(dict.fromkeys(normalise_angle(float(angle % 360)) for angle in angles))
    if not angles:
        raise InputError("--angles: none given; give degrees, such as 0 90, or a range 0:360:15")
    if len(angles) > MAX_ANGLES:
        raise InputError(f"--angles: {len(angles)} angles; {MAX_ANGLES} are the most, take fewer")
    return angles


def _number(text, word):
    """Return degrees as a Decimal, in which the steps of a range add up exactly."""
    try:
        number = Decimal(text)
        number % 360  # raises for what is too large to have an angle
    except InvalidOperation as error:
        raise InputError(
            f"--angles: {word!r}: {text!r} is not a number of degrees; give numbers such as 0 90 "
            "22.5, or a range 0:360:15"
        ) from error
    if not number.is_finite():
        raise InputError(f"--angles: {word!r}: {text!r} is not finite; give degrees")
    return number


def _range(start, stop, step, word):
    if step == 0:
        raise InputError(f"--angles: {word!r}: the step is 0; give START:STOP:STEP")
    span = stop - start
    if span == 0 or (span > 0) != (step > 0):
        raise InputError(
            f"--angles: {word!r} is empty: steps of {step} do not lead from {start} to {stop}"
        )
    if abs(span) > MAX_ANGLES * abs(step):
        raise InputError(
            f"--angles: {word!r} has more than {MAX_ANGLES} angles; take a larger step"
        )
    return [start + index * step for index in range(math.ceil(span / step))]
