"""Ask the segmenter behind a canonicalizer how sure it is of its results."""

from typing import Any

import torch

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.errors import InputError
from canon_seg.images.energy import KEY, bound_to
from canon_seg.sam import confidence as sam


def energy_of(result: "dict[str, Any]", prompted: bool) -> float:
    """Return the energy of a segmenter's result: minus how sure it is.

    Args:
        result: what the segmenter gave for one image.
        prompted: whether its instances answer prompts, by predicted IoU and stability, or are what
            a detector found, by its scores.

    Returns:
        float, about -1..0.

    Raises:
        InputError: if the result says nothing of how sure the segmenter is.
    """
    instances = result.get("instances")
    if prompted and instances is not None and instances.has("pred_ious"):
        ious = instances.pred_ious
        stable = instances.get("pred_stabilities") if instances.has("pred_stabilities") else ious
        return -sam.confidence(ious, stable)
    if instances is None or not instances.has("scores"):
        raise InputError(
            f"{KEY}.NAME is SegmenterScorer, but the segmenter gives {', '.join(sorted(result))} "
            "without scores; name another scorer"
        )
    return -detector_confidence(instances.scores)


def detector_confidence(scores: torch.Tensor) -> float:
    """Return how sure a detector is of an image: its best score, 0 where it finds nothing.

    Turned images make a detector find parts of things in place of the whole, so that sums and means
    over detections are often larger there (docs/evaluation.md); its best score is not.
    """
    return float(scores.double().max()) if len(scores) else 0.0


def bound_to_model(model: Any) -> Canonicalizer:
    """Return the canonicalizer of a model for images of which no prompts are known.

    One that asks the segmenter asks a SAM on a grid, and a detector for what it finds.

    Args:
        model: :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`, in eval mode.
    """
    return bound_to(model.canonicalizer, model.energy)
