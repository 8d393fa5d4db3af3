"""Put video predictors of SAM 2 and SAM 3 behind a canonicalizer: one pose for a whole clip."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.predictors.checks import boxes_problem, points_problem
from canon_seg.predictors.clips import canonical_clip, clip_frames, turned_clip
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import PredictorPrompts, prompts_in, to_numpy


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

    transformers' `Sam2VideoModel` and `Sam3TrackerVideoModel` are taken by
    :class:`TransformersSamVideo`.

    One pose is found for the whole clip, see :func:`canon_seg.core.clip.clip_pose`: all frames are
    turned by it, and masks turned back. For a clip by quarter turns, results are turns of each
    other to the last bit. The predictor reads frames from a folder only; the turned ones are
    written to a temporary one, without loss.

    Attributes:
        predictor, canonicalizer: as given.

    Args:
        predictor: a `SAM2VideoPredictor` in eval mode, or what has its methods, as
            :class:`TransformersSamVideo`.
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
        images = clip_frames(frames)
        frame = canonical_clip(self.canonicalizer, images)
        with tempfile.TemporaryDirectory() as folder:
            for number, turned in enumerate(turned_clip(frame, images)):
                path = Path(folder, f"{number:06d}.jpg")
                # Named as the predictor wants it; Pillow, which reads it, looks at the content.
                Image.fromarray(turned).save(path, format="PNG", compress_level=1)
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
    # A copy: turning may overwrite, and the predictor keeps its own, or forbids it.
    return frame_idx, obj_ids, state.frame.back(logits.clone(), "masks")


class TransformersSamVideo:
    """Provide the methods of `SAM2VideoPredictor` for transformers' video models of SAM.

        pair = TransformersSamVideo(Sam2VideoModel.from_pretrained(name).eval(),
                                    Sam2VideoProcessor.from_pretrained(name))
        predictor = CanonicalVideoPredictor(pair)

    These are `Sam2VideoModel`, and `Sam3TrackerVideoModel`, which is SAM 3 for clicks, boxes and
    masks. (`Sam3VideoModel`, which tracks what a text names, takes no prompts on a frame: see
    :class:`canon_seg.predictors.detector.CanonicalVideoDetector`.)

    Attributes:
        model, processor: as given.

    Args:
        model: one of these, in eval mode.
        processor: its `Sam2VideoProcessor` or `Sam3TrackerVideoProcessor`.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.model.device

    def init_state(
        self,
        video_path: "str | os.PathLike[str] | Iterable[Any]",
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> Any:
        """Read a clip into a session of transformers.

        Args:
            video_path: a folder or images of one size, see
                :func:`canon_seg.predictors.clips.clip_frames`.
            offload_video_to_cpu, offload_state_to_cpu: where to keep frames, and what was found.
            async_loading_frames: not used; frames are all read at once.

        Returns:
            the session, which the other methods take.
        """
        del async_loading_frames
        # Channels first, which is the one layout that transformers knows of any size.
        frames = np.stack([as_image(frame) for frame in clip_frames(video_path)])
        return self.processor.init_video_session(
            video=torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
            inference_device=self.device,
            video_storage_device="cpu" if offload_video_to_cpu else None,
            inference_state_device="cpu" if offload_state_to_cpu else None,
            dtype=self.model.dtype,
        )

    def add_new_points_or_box(
        self,
        inference_state: Any,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        box: Any = None,
    ) -> tuple[int, Any, torch.Tensor]:
        """Prompt for an object on a frame, as `SAM2VideoPredictor` does."""
        self.processor.add_inputs_to_inference_session(
            inference_state,
            frame_idx,
            obj_id,
            input_points=None if points is None else [[np.asarray(points).tolist()]],
            input_labels=None if labels is None else [[np.asarray(labels).tolist()]],
            input_boxes=None if box is None else [[np.asarray(box).tolist()]],
            clear_old_inputs=clear_old_points,
        )
        return self._frame(inference_state, frame_idx)

    def add_new_mask(
        self, inference_state: Any, frame_idx: int, obj_id: int, mask: torch.Tensor
    ) -> tuple[int, Any, torch.Tensor]:
        """Give the (H, W) mask of an object on a frame."""
        self.processor.add_inputs_to_inference_session(
            inference_state, frame_idx, obj_id, input_masks=mask
        )
        return self._frame(inference_state, frame_idx)

    def propagate_in_video(
        self, inference_state: Any, **options: Any
    ) -> Iterator[tuple[int, Any, torch.Tensor]]:
        """Yield (frame_idx, obj_ids, (N, 1, H, W) logits) of one frame after the other."""
        for output in self.model.propagate_in_video_iterator(inference_state, **options):
            yield self._of_clip(inference_state, output)

    def reset_state(self, inference_state: Any) -> None:
        """Forget all objects, and keep the clip."""
        inference_state.reset_tracking_data()

    def _frame(self, session: Any, frame_idx: int) -> tuple[int, Any, torch.Tensor]:
        return self._of_clip(session, self.model(session, frame_idx=frame_idx))

    @torch.inference_mode()
    def _of_clip(self, session: Any, output: Any) -> tuple[int, Any, torch.Tensor]:
        """Bring what the model found to the size of the frames."""
        size = [[session.video_height, session.video_width]]
        (logits,) = self.processor.post_process_masks(
            [output.pred_masks.float()], original_sizes=size, binarize=False
        )
        return output.frame_idx, output.object_ids, logits
