"""Put SAM 2's video predictor behind a canonicalizer: one pose for a whole clip."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from canon_seg.core.canonicalizer import Canonicalizer, KnownPoseCanonicalizer
from canon_seg.core.clip import clip_pose
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.images.representative import representative_turns
from canon_seg.predictors.checks import boxes_problem, points_problem
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import (
    PredictorPrompts,
    as_canonicalizer_takes_it,
    prompts_in,
    to_numpy,
)

FRAME_SUFFIXES = (".jpg", ".jpeg")
"""Files of a folder that are frames, as SAM 2 has it."""


@dataclass(frozen=True)
class ClipState:
    """Hold one clip: its pose, and what the predictor keeps of it.

    Attributes:
        frame: :class:`canon_seg.core.frame.CanonicalFrame` of its first frame, in the clip's pose.
        inner: the predictor's own state.
    """

    frame: CanonicalFrame
    inner: Any

    @property
    def pose(self) -> Pose:
        """Return the pose of the clip."""
        return self.frame.pose


class CanonicalVideoPredictor:
    """Track objects through a clip in its canonical pose, by SAM 2's `SAM2VideoPredictor`.

        predictor = CanonicalVideoPredictor(build_sam2_video_predictor(config, checkpoint))
        state = predictor.init_state(frames)
        predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, box=[30, 60, 90, 100])
        for frame_idx, obj_ids, logits in predictor.propagate_in_video(state):
            masks = logits > 0

    One pose is found for the whole clip, see :func:`canon_seg.core.clip.clip_pose`: all frames are
    turned by it, and masks turned back. For a clip by quarter turns, results are turns of each
    other to the last bit. The predictor reads frames from a folder only; the turned ones are
    written to a temporary one, without loss.

    Attributes:
        predictor, canonicalizer: as given.

    Args:
        predictor: a `SAM2VideoPredictor` in eval mode, or what has its methods.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode; None for the
            embedded one, on the device of the predictor.
    """

    def __init__(self, predictor: Any, canonicalizer: "Canonicalizer | None" = None) -> None:
        self.predictor = predictor
        self.canonicalizer = canonicalizer_or_default(
            canonicalizer, getattr(predictor, "device", "cpu")
        )

    def init_state(
        self, frames: "str | os.PathLike[str] | Iterable[Any]", **options: Any
    ) -> ClipState:
        """Find the pose of a clip, and compute what the predictor needs of it.

        Args:
            frames: a folder of JPEG files whose names are numbers; or images of one size in order:
                arrays (H, W, 3) uint8 RGB, Pillow images or paths, see
                :func:`canon_seg.predictors.inputs.as_image`.
            **options: the predictor's own, such as ``offload_video_to_cpu``.

        Returns:
            the state, which the other methods take.

        Raises:
            InputError: if there are no frames, or frames of several sizes.
        """
        images = _frames(frames)

        def find_pose(image: Any) -> "Pose | None":
            pixels = as_image(image)
            if len(representative_turns(pixels)) > 1:
                return None  # equals a turn of itself, as a black frame does
            return self.canonicalizer.pose(as_canonicalizer_takes_it(pixels, self.canonicalizer))

        pose = clip_pose(find_pose, images, self.canonicalizer.uncertain, self.canonicalizer.group)
        known = KnownPoseCanonicalizer(pose, self.canonicalizer)
        first = as_image(images[0])
        frame = CanonicalFrame(known, as_canonicalizer_takes_it(first, known), votes=False)
        with tempfile.TemporaryDirectory() as folder:
            for number, image in enumerate(images):
                pixels = as_image(image)
                if pixels.shape != first.shape:
                    raise InputError(
                        f"frame {number} has the shape {pixels.shape}, the first {first.shape}; "
                        "give frames of one size"
                    )
                turned = Image.fromarray(contiguous(frame.there(pixels, "image")))
                # Named as the predictor wants it; Pillow, which reads it, looks at the content.
                turned.save(Path(folder, f"{number:06d}.jpg"), format="PNG", compress_level=1)
            inner = self.predictor.init_state(folder, **{**options, "async_loading_frames": False})
        return ClipState(frame, inner)

    def add_new_points_or_box(
        self,
        state: ClipState,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        box: Any = None,
    ) -> tuple[int, Any, torch.Tensor]:
        """Prompt for an object on a frame.

        Args:
            state: of :meth:`init_state`.
            frame_idx, obj_id, clear_old_points: the predictor's.
            points: (N, 2) x, y clicks as pixel indices, or None.
            labels: (N,) of 1 (the object) and 0 (background).
            box: (4,) x0, y0, x1, y1 edges in pixels, or None.

        Returns:
            (frame_idx, obj_ids, logits): logits (N, 1, H, W) of all objects in the frame of the
            clip; a mask is where they are above 0.

        Raises:
            InputError: for prompts that are no good.
        """
        clicks = None if points is None else np.asarray(to_numpy(points), dtype=float)
        edges = None if box is None else np.asarray(to_numpy(box), dtype=float)
        problem = None
        if clicks is not None:
            if labels is None:
                raise InputError("labels must be given with points")
            problem = points_problem(clicks, to_numpy(labels), state.frame.size)
        if edges is not None:
            problem = problem or boxes_problem(edges, state.frame.size)
        if problem:
            raise InputError(problem)
        given = PredictorPrompts(clicks, edges)
        prompts = state.frame.with_prompts(prompts_in(state.frame, given)).prompts
        found = self.predictor.add_new_points_or_box(
            state.inner,
            frame_idx=frame_idx,
            obj_id=obj_id,
            points=None if clicks is None else prompts.points.astype(np.float32),
            labels=None if labels is None else to_numpy(labels).astype(np.int32),
            clear_old_points=clear_old_points,
            box=None if edges is None else prompts.boxes.astype(np.float32),
        )
        return _back(state, found)

    def add_new_mask(
        self, state: ClipState, frame_idx: int, obj_id: int, mask: Any
    ) -> tuple[int, Any, torch.Tensor]:
        """Give the mask of an object on a frame, (H, W) bool; see :meth:`add_new_points_or_box`."""
        mask = np.asarray(to_numpy(mask), dtype=bool)
        if mask.shape != state.frame.size:
            raise InputError(f"mask has the shape {mask.shape}; give {state.frame.size}")
        turned = torch.from_numpy(contiguous(state.frame.there(mask, "masks")))
        return _back(state, self.predictor.add_new_mask(state.inner, frame_idx, obj_id, turned))

    def propagate_in_video(
        self, state: ClipState, **options: Any
    ) -> Iterator[tuple[int, Any, torch.Tensor]]:
        """Yield the objects of one frame after the other, see :meth:`add_new_points_or_box`.

        Args:
            state: of :meth:`init_state`.
            **options: the predictor's, such as ``reverse``.
        """
        for found in self.predictor.propagate_in_video(state.inner, **options):
            yield _back(state, found)

    def reset_state(self, state: ClipState) -> None:
        """Forget all objects, and keep the clip."""
        self.predictor.reset_state(state.inner)


def _back(state: ClipState, found: "tuple[int, Any, torch.Tensor]") -> Any:
    frame_idx, obj_ids, logits = found
    # A copy: turning may overwrite, and the predictor keeps its own.
    return frame_idx, obj_ids, state.frame.back(logits.clone(), "masks")


def _frames(frames: Any) -> "Sequence[Any]":
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
