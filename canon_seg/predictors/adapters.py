"""Put other libraries' promptable predictors behind a canonicalizer: SAM 2, transformers' SAM."""

import numpy as np
import torch

from canon_seg.core.frame import CanonicalFrame
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous
from canon_seg.predictors.checks import boxes_problem, mask_problem, points_problem
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import PredictorPrompts, as_canonicalizer_takes_it, prompts_in


class CanonicalImagePredictor:
    """Canonicalize for any predictor with `SamPredictor`'s pair ``set_image`` and ``predict``.

        predictor = CanonicalImagePredictor(SAM2ImagePredictor(model))      # PyPI: sam2
        predictor = CanonicalImagePredictor(TransformersSam(model, processor))  # SAM, SAM 2, SAM 3

    The image is turned to its canonical pose, the predictor works there, and masks and
    low-resolution logits are turned back; see
    :class:`canon_seg.predictors.sam_predictor.CanonicalSamPredictor`, which is the one to take for
    segment_anything's own. Other ways into the predictor, such as SAM 2's ``predict_batch``, are
    not there.

    Attributes:
        predictor, canonicalizer: as given.
        pose: :class:`canon_seg.images.canonicalizer.Pose` of the current image, or None.

    Args:
        predictor: its ``set_image(image)`` takes an (H, W, 3) uint8 RGB array. Its
            ``predict(point_coords, point_labels, box, mask_input, multimask_output,
            return_logits)`` takes numpy arrays in pixels, clicks as pixel indices, and returns
            masks, scores and low-resolution logits as numpy arrays, height and width last.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`, in eval mode; None for the
            embedded one, on the device of the predictor.
    """

    def __init__(self, predictor, canonicalizer=None):
        self.predictor = predictor
        self.canonicalizer = canonicalizer_or_default(
            canonicalizer, getattr(predictor, "device", "cpu")
        )
        self._frame = self.pose = None
        self._logits_side = None  # known once there was a prediction

    def set_image(self, image):
        """Find the pose of an image and hand it to the predictor.

        Args:
            image: (H, W, 3) uint8 array, RGB, as read, before any resizing; or a Pillow image, or
                the path of a file, see :func:`canon_seg.predictors.inputs.as_image`.

        Raises:
            InputError: if it is something else.
        """
        image = as_image(image)
        self._frame = self.pose = None
        frame = CanonicalFrame(
            self.canonicalizer, as_canonicalizer_takes_it(image, self.canonicalizer), votes=False
        )
        self.predictor.set_image(contiguous(frame.there(image, "image")))
        self._frame, self.pose = frame, frame.pose

    def predict(
        self,
        point_coords=None,
        point_labels=None,
        box=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        """Predict masks for prompts on the current image.

        Args:
            point_coords: (N, 2) array of x, y clicks as pixel indices, or (B, N, 2) if the
                predictor takes several prompts at once.
            point_labels: (N,) or (B, N) array of 1 (foreground), 0 (background) or -1 (padding).
            box: (4,) array of x0, y0, x1, y1 edges in pixels, or (B, 4).
            mask_input: (1, S, S) array of low-resolution logits, one of those returned earlier, or
                (B, 1, S, S).
            multimask_output, return_logits: the predictor's.

        Returns:
            what the predictor does: (masks, scores, low_res_logits).

        Raises:
            InputError: for prompts that are no good.
            RuntimeError: if no image is set.
        """
        if self._frame is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        points = None if point_coords is None else _numbers(point_coords)
        edges = None if box is None else _numbers(box)
        problem = None
        if points is not None:
            if point_labels is None:
                raise InputError("point_labels must be given with point_coords")
            problem = points_problem(points, np.asarray(point_labels), self._frame.size)
        if edges is not None:
            problem = problem or boxes_problem(edges, self._frame.size)
        if problem:
            raise InputError(problem)
        logits = None if mask_input is None else np.asarray(mask_input)
        if logits is not None and (problem := self._mask_problem(logits.shape)):
            raise InputError(problem)
        given = PredictorPrompts(points, edges, logits)
        frame = self._frame.with_prompts(prompts_in(self._frame, given))
        masks, scores, logits = self.predictor.predict(
            point_coords=frame.prompts.points,
            point_labels=point_labels,
            box=frame.prompts.boxes,
            mask_input=frame.prompts.logits,
            multimask_output=multimask_output,
            return_logits=return_logits,
        )
        self._logits_side = logits.shape[-1]
        return frame.back(masks, "masks"), scores, frame.back(logits, "logits")

    def _mask_problem(self, shape):
        """Say why logits of a shape cannot be started from; the predictor's side S is constant."""
        side = self._logits_side or (shape[-1] if shape else 0)
        return mask_problem(shape, (*shape[:-3], 1, side, side))


class TransformersSam:
    """Provide ``set_image`` and ``predict`` for transformers' SAM models and their processors.

    These are `SamModel`, `Sam2Model`, and `Sam3TrackerModel`, which is SAM 3 for clicks and boxes.
    (`Sam3Model`, which finds what a text names, takes no prompts on the image: see
    :class:`canon_seg.predictors.detector.CanonicalDetector`.) The processor's preprocessing
    is repeated for each call; the image encoder is not.

    Attributes:
        model, processor: as given.

    Args:
        model: one of these, in eval mode.
        processor: its `SamProcessor`, `Sam2Processor` or `Sam3TrackerProcessor`.
    """

    def __init__(self, model, processor):
        self.model = model
        self.processor = processor
        self._image = self._embedding = None

    @property
    def device(self):
        """Return the device of the model."""
        return self.model.device

    @torch.no_grad()
    def set_image(self, image):
        """Compute the embedding of an (H, W, 3) uint8 RGB array."""
        self._image = np.array(image)
        pixels = self._process()["pixel_values"]
        self._embedding = self.model.get_image_embeddings(pixels.to(self.device))

    @torch.no_grad()
    def predict(
        self,
        point_coords=None,
        point_labels=None,
        box=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        """Predict as segment_anything's `SamPredictor.predict`; arguments and results too.

        As in SAM 2, ``box`` may be (N, 4), and ``point_coords`` (N, P, 2) with (N, P) labels: for
        several prompts the results are (N, C, H, W), (N, C) and (N, C, S, S).

        Raises:
            InputError: for ``mask_input`` with several prompts, or as many boxes as there are not
                prompts of points.
        """
        if self._embedding is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        prompts, counts = {}, set()
        if point_coords is not None:
            points, labels = np.asarray(point_coords), np.asarray(point_labels)
            if points.ndim == 2:
                points, labels = points[None], labels[None]
            prompts |= {"input_points": [points.tolist()], "input_labels": [labels.tolist()]}
            counts.add(len(points))
        if box is not None:
            boxes = np.asarray(box).reshape(-1, 4)
            prompts["input_boxes"] = [boxes.tolist()]
            counts.add(len(boxes))
        if len(counts) > 1:
            raise InputError(f"box and point_coords are of {sorted(counts)} prompts; give as many")
        is_one = counts <= {1}
        if mask_input is not None and not is_one:
            raise InputError("mask_input goes with one prompt; give one box, or its points")
        inputs = self._process(**prompts)
        tensors = {name: inputs[name].to(self.device) for name in prompts}
        if mask_input is not None:
            tensors["input_masks"] = torch.as_tensor(mask_input, device=self.device)[None]
        outputs = self.model(
            image_embeddings=self._embedding, multimask_output=multimask_output, **tensors
        )
        logits = outputs.pred_masks.float().cpu()
        # SAM pads images, of which its masks are cut free; the later ones squash them to a square.
        sizes = [
            inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs
        ]
        (masks,) = self.processor.image_processor.post_process_masks(
            logits, *sizes, binarize=not return_logits
        )
        scores = outputs.iou_scores.float().cpu()
        found = masks.numpy(), scores[0].numpy(), logits[0].numpy()
        return tuple(part[0] for part in found) if is_one else found

    def _process(self, **prompts):
        return self.processor(
            images=self._image, input_data_format="channels_last", return_tensors="pt", **prompts
        )


def _numbers(coords):
    coords = np.asarray(coords)
    return coords.astype(float) if np.issubdtype(coords.dtype, np.number) else coords
