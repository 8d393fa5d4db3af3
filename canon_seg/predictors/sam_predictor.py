"""Put segment_anything's `SamPredictor` behind a canonicalizer."""

import numpy as np
import torch
from segment_anything import SamPredictor

from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.turn import IDENTITY, turned_size
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.images.energy import JudgedCall
from canon_seg.predictors.checks import boxes_problem, mask_problem, points_problem
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import (
    PredictorPrompts,
    as_canonicalizer_takes_it,
    prompts_in,
    to_numpy,
)
from canon_seg.sam.confidence import asks, bound_to_sam, embedded_grid_energy
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompted import PromptedSam


class CanonicalSamPredictor(SamPredictor):
    """Predict masks that turn with the image: `SamPredictor`'s calls, shapes, types and errors.

        predictor = CanonicalSamPredictor(sam)      # instead of SamPredictor(sam)
        predictor.set_image(image)
        masks, scores, logits = predictor.predict(point_coords, point_labels)

    The image is turned to its canonical pose, an official `SamPredictor` works there, and masks are
    turned back. Prompts are given, and masks and scores returned, in the frame of the user's image.
    For quarter turns of an image, with prompts that were turned along, results are turns of each
    other to the last bit (points, which are pixel indices, go from x to W - 1 - x, box edges to
    W - x). With ``IdentityCanonicalizer`` all outputs are `SamPredictor`'s own, to the last bit.

    What is different:

    - Coordinates are rounded to 1/256 px, so that turning is exact, and boxes end where the image
      ends (not by the identity).
    - Low-resolution logits are turned as the whole array, padding included, and are so taken again
      as ``mask_input``, exactly. For a turned image the padding is not at SAM's place, right and
      below: a ``mask_input`` that was made otherwise has to follow.
    - By a pose between quarter turns, masks are those of the interpolated logits, and boxes are
      given to SAM as the hulls of the turned boxes. Low-resolution logits are turned by the quarter
      turns alone.
    - The image embedding (``features``, ``get_image_embedding``) is that of the canonical image.
    - ``set_torch_image`` gets pixels that were resized already, which does not commute with
      turning to the bit: its results are equivariant to a tolerance only.
    - ``predict_torch`` takes the scaling of its prompts back before it turns them. Prompts off the
      grid of 1/256 px that lie at a tie of rounding may end on either side.
    - An uncertain pose is not voted on: the likeliest is taken, or the image left as it is (see
      ``MODEL.CANONICALIZER.UNCERTAIN``).
    - ``features`` hold no pose, so that they cannot be kept and set again: keep a predictor for
      each image.
    - For images that equal a turn of themselves see
      :class:`canon_seg.core.frame.CanonicalFrame`.
    - Where segment_anything computes something from bad prompts (points or boxes outside the image,
      empty ones, boxes without area, labels other than 1, 0 and -1 for padding, masks of another
      size) there is an :class:`canon_seg.errors.InputError`.

    Use one object for each image at a time; objects may share their models, between threads too.

    Attributes:
        canonicalizer: as given; one that asks its segmenter, and knows none, asks this one.
        pose: :class:`canon_seg.images.canonicalizer.Pose` of the current image, or None.
        model, transform, is_image_set, features, original_size, input_size: `SamPredictor`'s; sizes
            are those of the user's frame.

    Args:
        sam_model: a `Sam` in eval mode.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode; None for the
            embedded one, on the device of the model. With
            :func:`canon_seg.sam.confidence.sam_judge` the `Sam` itself finds the pose, on a grid of
            clicks, in four runs of its image encoder.
    """

    def __init__(self, sam_model, canonicalizer=None):
        canonicalizer = canonicalizer_or_default(canonicalizer, sam_model.device)
        prompted = PromptedSam(sam_model, canonicalizer.image_format)
        self.canonicalizer = bound_to_sam(canonicalizer, prompted)
        self._official = SamPredictor(sam_model)
        super().__init__(sam_model)
        self.transform = self._official.transform = LongestSide(self.transform.target_length)

    def set_image(self, image, image_format="RGB"):
        """Find the pose of an image and compute its embedding.

        Args:
            image: (H, W, 3) uint8 array, as read, before any resizing; or a Pillow image, or the
                path of a file, see :func:`canon_seg.predictors.inputs.as_image`.
            image_format: "RGB" or "BGR", the channel order of an array.

        Raises:
            InputError: for an image that is no good, with what to do about it.
            AssertionError: segment_anything's own, for another channel order.
        """
        if image_format not in ("RGB", "BGR"):
            self._official.set_image(image, image_format)
        image = as_image(image, image_format)
        canonicalizer, judges = self.canonicalizer, asks(self.canonicalizer, self.model)
        if judges:
            canonicalizer = JudgedCall(canonicalizer, self._judged)
        frame = CanonicalFrame(
            canonicalizer,
            as_canonicalizer_takes_it(image, self.canonicalizer, image_format),
            votes=False,
        )
        self.reset_image()
        if judges:  # the embedding is there already
            self._official = canonicalizer.results[frame.pose.to_canonical]
        else:
            self._official.set_image(contiguous(frame.there(image, "image")), image_format)
        self._set(frame)

    def _judged(self, image, turn):
        """Return an official predictor of an image that was turned, and the energy of the image."""
        official = SamPredictor(self.model)
        official.transform = self.transform
        pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
        official.set_image(pixels, self.canonicalizer.image_format)
        size = tuple(image.shape[-2:])
        prompted = self.canonicalizer.scorer.prompted
        return official, embedded_grid_energy(prompted, official.features, size)

    def set_torch_image(self, transformed_image, original_image_size):
        """Find the pose of an image that was resized already, and compute its embedding.

        Args:
            transformed_image: (1, 3, h, w) tensor, values 0..255 in the model's channel order,
                resized by ``transform``.
            original_image_size: (H, W) before.
        """
        if (
            transformed_image.ndim != 4
            or len(transformed_image) != 1
            or (
                max(transformed_image.shape[2:]) != self.model.image_encoder.img_size
                or transformed_image.shape[1] != 3
            )
        ):
            self._official.set_torch_image(transformed_image, original_image_size)
            self._refuse(
                f"transformed_image has shape {tuple(transformed_image.shape)}; give one image"
            )
        image = transformed_image[0]
        if self.canonicalizer.image_format != self.model.image_format:
            image = image.flip(0)
        frame = CanonicalFrame(self.canonicalizer, image, size=original_image_size, votes=False)
        if frame.tilts:
            self.reset_image()
            raise InputError(
                "set_torch_image gets pixels that were resized already, in which a pose between "
                f"quarter turns ({frame.pose.turn.degrees:g} degrees) cannot be undone; call "
                "set_image with the image as read"
            )
        if not self._is_plain(frame):
            transformed_image = frame.there(transformed_image, "masks")
        self.reset_image()
        self._official.set_torch_image(transformed_image, frame.canonical_size)
        self._set(frame)

    def predict(
        self,
        point_coords=None,
        point_labels=None,
        box=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        """Predict masks for one prompt on the current image.

        Args:
            point_coords: (N, 2) array of x, y clicks as pixel indices, or None.
            point_labels: (N,) array of 1 (foreground), 0 (background) or -1 (padding).
            box: (4,) or (1, 4) array of x0, y0, x1, y1 edges in pixels, or None.
            mask_input: (1, S, S) array of low-resolution logits, as returned earlier, or None.
            multimask_output: three masks instead of one.
            return_logits: masks as float32 logits instead of booleans.

        Returns:
            (masks, scores, low_res_logits): arrays (C, H, W), (C,) and (C, S, S).
        """
        options = {"multimask_output": multimask_output, "return_logits": return_logits}
        if problem := self._problem(point_coords, point_labels, box, mask_input, batched=False):
            self._official.predict(point_coords, point_labels, box, mask_input, **options)
            raise InputError(problem)
        given = PredictorPrompts(
            None if point_coords is None else point_coords.astype(float),
            None if box is None else box.astype(float),
            None if mask_input is None else to_numpy(mask_input),
        )
        frame = self._frame.with_prompts(prompts_in(self._frame, given))
        # Between quarter turns it is logits that are interpolated, and cut in the user's frame.
        options["return_logits"] = return_logits or frame.tilts
        masks, scores, logits = self._official.predict(
            frame.prompts.points, point_labels, frame.prompts.boxes, frame.prompts.logits, **options
        )
        masks = self._cut(frame.back(masks, "masks"), options["return_logits"], return_logits)
        return masks, scores, frame.back(logits, "logits")

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords,
        point_labels,
        boxes=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        """Predict masks for B prompts on the current image, as tensors.

        Args:
            point_coords: (B, N, 2) tensor of clicks, brought to SAM's input frame by
                ``transform.apply_coords_torch``, or None.
            point_labels: (B, N) tensor of 1 (foreground), 0 (background) or -1 (padding).
            boxes: (B, 4) tensor, brought there by ``transform.apply_boxes_torch``, or None.
            mask_input: (B, 1, S, S) tensor of low-resolution logits, as returned earlier, or None.
            multimask_output, return_logits: see :meth:`predict`.

        Returns:
            (masks, scores, low_res_logits): tensors (B, C, H, W), (B, C) and (B, C, S, S).
        """
        options = {"multimask_output": multimask_output, "return_logits": return_logits}
        points, edges = (
            self._unscaled(coords) if self._frame is not None else None
            for coords in (point_coords, boxes)
        )
        if problem := self._problem(points, point_labels, edges, mask_input, batched=True):
            self._official.predict_torch(point_coords, point_labels, boxes, mask_input, **options)
            raise InputError(problem)
        given = PredictorPrompts(points, edges, mask_input)
        frame = self._frame.with_prompts(prompts_in(self._frame, given))
        points, edges, mask = frame.prompts.points, frame.prompts.boxes, frame.prompts.logits
        if not self._is_plain(frame):
            size = self._official.original_size
            if points is not None:
                point_coords = self.transform.apply_coords_torch(points, size)
            if edges is not None:
                boxes = self.transform.apply_boxes_torch(edges, size).reshape(boxes.shape)
        options["return_logits"] = return_logits or frame.tilts
        masks, scores, logits = self._official.predict_torch(
            point_coords, point_labels, boxes, mask, **options
        )
        masks = self._cut(frame.back(masks, "masks"), options["return_logits"], return_logits)
        return masks, scores, frame.back(logits, "logits")

    def reset_image(self):
        """Forget the current image."""
        super().reset_image()
        self._official.reset_image()
        self._frame = self.pose = None

    def _set(self, frame):
        self._frame, self.pose = frame, frame.pose
        self.features = self._official.features
        self.original_size = frame.size
        self.input_size = (
            self.transform.get_preprocess_shape(*frame.size, self.transform.target_length)
            if frame.tilts
            else turned_size(*self._official.input_size, frame.pose.turn)
        )
        self.is_image_set = True

    def _cut(self, masks, are_logits, as_logits):
        return masks > self.model.mask_threshold if are_logits and not as_logits else masks

    def _is_plain(self, frame):
        """Return whether the official predictor gets just what was given, to the last bit."""
        return frame.pose.turn == IDENTITY and not self.canonicalizer.snaps

    def _refuse(self, problem):
        """Refuse what is not an image after segment_anything has passed it without an error."""
        self.reset_image()
        raise InputError(problem)

    def _problem(self, points, labels, box, mask, batched):
        """Say why prompts of :meth:`predict` or :meth:`predict_torch`, in pixels, are no good."""
        if not self.is_image_set:
            return "no image is set"
        if self._frame is None or self.features is not self._official.features:
            return (
                "features were set from outside, but an embedding does not say the pose of its "
                "image; keep one predictor for each image, or call set_image again"
            )
        kind = torch.Tensor if batched else np.ndarray
        if points is not None:
            if labels is None or not isinstance(points, kind) or points.ndim != 2 + batched:
                return "point_coords need point_labels, and another type or number of axes"
            problem = points_problem(to_numpy(points), to_numpy(labels), self.original_size)
            if problem:
                return problem
        if box is not None:
            if not isinstance(box, kind) or (not batched and box.size != 4):
                return "box needs to be an array of the shape (4,)"
            problem = boxes_problem(to_numpy(box), self.original_size)
            if problem:
                return problem
        if mask is not None:
            wanted = 1, *self.model.prompt_encoder.mask_input_size
            return mask_problem(tuple(np.shape(mask)), (len(mask), *wanted) if batched else wanted)
        return None

    def _unscaled(self, coords):
        """Return points or boxes of SAM's input frame in pixels of the image, double precision."""
        if not isinstance(coords, torch.Tensor) or coords.ndim == 0 or coords.shape[-1] % 2:
            return coords
        height, width = self.original_size
        new_height, new_width = self.transform.get_preprocess_shape(
            height, width, self.transform.target_length
        )
        factors = coords.new_tensor([new_width / width, new_height / height], dtype=torch.float64)
        pairs = coords.double().unflatten(-1, (coords.shape[-1] // 2, 2))
        return (pairs / factors).reshape(coords.shape)
