"""Put any detector that the library supervision speaks behind a canonicalizer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from canon_seg.core.canonicalizer import Canonicalizer, check_image_format
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.images.coordinates import PIXEL_STEP, snap
from canon_seg.predictors.clips import canonical_clip, clip_frames, turned_clip
from canon_seg.predictors.conversions import import_supervision, pose_data
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import as_canonicalizer_takes_it
from canon_seg.sam.prompted import boxes_around

ORIENTED = "xyxyxyxy"
"""Where supervision keeps the four corners of oriented boxes in ``Detections.data``."""


class CanonicalDetector:
    """Detect in the canonical pose: whatever gives supervision's `Detections` or `KeyPoints`.

        detect = CanonicalDetector(lambda image: sv.Detections.from_ultralytics(yolo(image)[0]),
                                   image_format="BGR")
        detections = detect("photo.jpg")

    The image is turned to its canonical pose, ``predict`` works there, and what it found is turned
    back: boxes, masks, oriented boxes and keypoints. By a pose between quarter turns, boxes become
    those around the masks, or the hulls of the turned boxes where there are none. For quarter turns
    of an image, results are turns of each other to the last bit; for that, predicted coordinates
    are rounded to 1/256 px (not by the identity canonicalizer). There are no votes of several
    poses. Calls keep no state, so that threads may share an object whose ``predict`` they may
    share.

    What rf-detr says of the image that it has seen, ``data["source_shape"]`` (height, width) and
    ``metadata["source_image"]``, becomes that of the image that was given.

    Attributes:
        predict, canonicalizer, image_format, data_kinds: as given.

    Args:
        predict: function from an (H, W, 3) uint8 array to `supervision.Detections` or
            `supervision.KeyPoints` in the frame of that array; coordinates are continuous (pixel
            edges at integers), see :mod:`canon_seg.images`.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode; None for the
            embedded one.
        image_format: "RGB" or "BGR": channel order of the arrays that are given, and that
            ``predict`` takes.
        data_kinds: what further entries of ``data`` hold that turn with the image: dict from their
            name to "points" (N, ..., 2), "boxes" (N, 4) or "masks" (N, H, W). Oriented boxes are
            known; all other entries are taken for values that do not turn.

    Raises:
        ValueError: for another channel order or kind of data.
        TypeError: if ``predict`` cannot be called, or the canonicalizer is none.
    """

    def __init__(
        self,
        predict: Callable[[Any], Any],
        canonicalizer: "Canonicalizer | None" = None,
        *,
        image_format: str = "RGB",
        data_kinds: "Mapping[str, str] | None" = None,
    ) -> None:
        if not callable(predict):
            raise TypeError(
                f"predict is {predict!r}; give a function from an image to supervision.Detections"
            )
        self.predict = predict
        self.canonicalizer = canonicalizer_or_default(canonicalizer, "cpu")
        self.image_format = check_image_format(image_format)
        self.data_kinds = {ORIENTED: "points", **(data_kinds or {})}
        unknown = sorted(set(self.data_kinds.values()) - set(_FIELDS))
        if unknown:
            raise ValueError(f"data_kinds has {unknown[0]!r}; known: {', '.join(_FIELDS)}")

    def __call__(self, image: Any) -> Any:
        """Find objects as ``predict`` does: :meth:`detect_with_pose`, without the pose."""
        return self.detect_with_pose(image)[1]

    def detect_with_pose(self, image: Any) -> tuple[Pose, Any]:
        """Find the pose of an image, and the objects in it.

        Args:
            image: (H, W, 3) uint8 array in the channel order ``image_format``; or a Pillow image,
                or the path of a file, see :func:`canon_seg.predictors.inputs.as_image`.

        Returns:
            (pose, found): the image's :class:`canon_seg.core.pose.Pose`, and `Detections` or
            `KeyPoints` in the frame of the image. ``data`` has also ``pose`` (degrees
            counterclockwise) and ``pose_probability``, the same for each object.

        Raises:
            InputError: for an image that is no good, or a result of another kind.
        """
        image = as_image(image, self.image_format)
        frame = CanonicalFrame(
            self.canonicalizer,
            as_canonicalizer_takes_it(image, self.canonicalizer, self.image_format),
            votes=False,
        )
        found = self.predict(contiguous(frame.there(image, "image")))
        return frame.pose, self._back(frame, found, image)

    def _back(self, frame: CanonicalFrame, found: Any, image: np.ndarray) -> Any:
        """Turn back what was found in the image given, and say that it was found there."""
        found = self._turned_back(frame, found)
        if _SHAPE in found.data:
            shapes = np.asarray(found.data[_SHAPE])
            found.data[_SHAPE] = np.broadcast_to(frame.size, shapes.shape).astype(shapes.dtype)
        if _IMAGE in (getattr(found, "metadata", None) or {}):
            found.metadata = {**found.metadata, _IMAGE: image}
        return found

    def _turned_back(self, frame: CanonicalFrame, found: Any) -> Any:
        supervision = import_supervision("CanonicalDetector")
        if isinstance(found, supervision.Detections):
            fields: dict[str, Any] = {
                "xyxy": self._turn(frame, "boxes", found.xyxy),
                "mask": self._masks(frame, found.mask),
            }
            if frame.tilts and fields["mask"] is not None:  # tighter than the hulls of boxes
                around = boxes_around(torch.from_numpy(fields["mask"]) > 0)
                fields["xyxy"] = around.numpy().astype(fields["xyxy"].dtype)
        elif isinstance(found, supervision.KeyPoints):
            fields = {"xy": self._turn(frame, "points", found.xy)}
        else:
            raise InputError(
                f"predict gave a {type(found).__name__}; it has to give supervision.Detections or "
                "supervision.KeyPoints, such as Detections.from_ultralytics(result)"
            )
        data = {
            name: self._turn(frame, self.data_kinds[name], value)
            if name in self.data_kinds
            else value
            for name, value in found.data.items()
        }
        data.update(pose_data(frame.pose, len(found)))
        if isinstance(found, supervision.Detections):
            return replace(found, **fields, data=data)
        others = ("class_id", "keypoint_confidence", "detection_confidence", "visible")
        kept = {name: getattr(found, name) for name in others if hasattr(found, name)}
        return supervision.KeyPoints(**fields, **kept, data=data)

    def _masks(self, frame: CanonicalFrame, masks: Any) -> "np.ndarray | None":
        # supervision's compact masks become dense ones.
        return None if masks is None else self._turn(frame, "masks", np.asarray(masks))

    def _turn(self, frame: CanonicalFrame, kind: str, value: Any) -> np.ndarray:
        """Turn an array of a kind back; coordinates keep their type, if it is float or int."""
        array = np.asarray(value)
        if kind != "masks":
            if array.dtype not in (np.float32, np.float64, np.int32, np.int64):
                array = array.astype(np.float32)
            if self.canonicalizer.snaps and np.issubdtype(array.dtype, np.floating):
                array = snap(array, PIXEL_STEP)
        height, width = frame.canonical_size
        if kind == "masks" and array.shape[-2:] != (height, width):
            raise InputError(
                f"predict gave masks of {array.shape[-1]} x {array.shape[-2]} px for an image of "
                f"{width} x {height} px; they have to have its size"
            )
        return np.ascontiguousarray(frame.back(array, _FIELDS[kind]))


class CanonicalVideoDetector(CanonicalDetector):
    """Detect or track in a clip in its one canonical pose: :class:`CanonicalDetector` of clips.

        for detections in CanonicalVideoDetector(track)(frames):
            ...

    All frames are turned by the pose of the clip, see :func:`canon_seg.core.clip.clip_pose`, and
    what is found in each is turned back. So transformers' `Sam3VideoModel` tracks what a text
    names. For a clip by quarter turns, results are turns of each other to the last bit.

    Args:
        predict: function from the list of the frames, (H, W, 3) uint8 arrays of one size, to
            `supervision.Detections` or `supervision.KeyPoints` of each in order: an iterable. It
            may end before the clip does.
        canonicalizer, image_format, data_kinds: see :class:`CanonicalDetector`.
    """

    def __call__(self, frames: Any) -> Iterator[Any]:
        """Find objects in each frame: :meth:`detect_with_pose`, without the pose."""
        return self.detect_with_pose(frames)[1]

    def detect_with_pose(self, frames: Any) -> tuple[Pose, Iterator[Any]]:
        """Find the pose of a clip, and the objects in each of its frames.

        Args:
            frames: a folder of JPEG files whose names are numbers; or images of one size in order,
                each as :meth:`CanonicalDetector.detect_with_pose` takes it.

        Returns:
            (pose, found): the pose of the clip, and an iterator of what is found in its frames, in
            the frame of the clip. ``predict`` works while it is read.

        Raises:
            InputError: if there are no frames or frames of several sizes, or, while reading, for
                results of another kind, or of more frames than there are.
        """
        images = clip_frames(frames)
        frame = canonical_clip(self.canonicalizer, images, self.image_format)
        canonical = list(turned_clip(frame, images, self.image_format))

        def found_in_each() -> Iterator[Any]:
            for number, found in enumerate(self.predict(canonical)):
                if number == len(images):
                    raise InputError(f"predict gave more than one result for {number} frames")
                yield self._back(frame, found, as_image(images[number], self.image_format))

        return frame.pose, found_in_each()


_SHAPE, _IMAGE = "source_shape", "source_image"  # rf-detr's names
_FIELDS = {"points": "corners", "boxes": "boxes", "masks": "masks"}
"""Fields of :mod:`canon_seg.images.actions` by the kinds of ``data_kinds``."""
