"""Measure classifiers on images turned by each element of a group, with and without canonicalizer.

All modes see the same turned images, made as :mod:`canon_seg.classification.turning` says.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from canon_seg.classification.classifier import CanonicalizedClassifier
from canon_seg.classification.data import LabelledImages
from canon_seg.classification.turning import turn_squares
from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.group import PlanarGroup, elements_of
from canon_seg.core.pose import Pose
from canon_seg.core.prior import alignment
from canon_seg.core.scorer import pointwise
from canon_seg.core.turn import Turn, distance
from canon_seg.evaluation.intervals import draw_shares, percentiles, wilson
from canon_seg.images.representative import representative_turns

ORACLE = "oracle"
BATCH = 32
"""Images that are turned and classified at once, each by all elements."""


def element_name(turn: Turn) -> str:
    """Return the degrees of a turn as the key of results, such as "45"; "m45" after a mirror."""
    return f"{'m' if turn.mirrored else ''}{turn.degrees:g}"


def evaluate(
    models: Mapping[str, CanonicalizedClassifier],
    data: LabelledImages,
    group: PlanarGroup,
    *,
    oracle: "CanonicalizedClassifier | None" = None,
) -> dict[str, Any]:
    """Measure classifiers by images turned by all elements of a finite group.

    Args:
        models: by the names of their modes, in eval mode.
        data: upright images.
        group: of the turns, finite.
        oracle: whose classifier is told how each image was turned, as one more mode; None for none.

    Returns:
        dict that JSON can hold:

        - ``num_images``, ``group``, ``source``, ``classes``;
        - ``modes``: by mode ``accuracy`` of the upright images, ``group_accuracy``, the mean over
          all turned copies, ``by_element`` by degrees, all 0..100, and ``intervals`` of the first
          two (95 %; that of the mean by drawing images anew);
        - ``pose``: by mode of a model that finds poses ``accuracy`` (0..1), ``by_element``,
          ``mean_distance`` in degrees, and ``alignment`` of the upright images, see
          :func:`canon_seg.core.prior.alignment`.
    """
    turns = elements_of(group)
    right: dict[str, list[np.ndarray]] = {name: [] for name in models}
    if oracle is not None:
        right[ORACLE] = []
    found: dict[str, list[Pose]] = {
        name: [] for name, model in models.items() if model.canonicalizer.finds_poses
    }
    for start in tqdm(range(0, len(data), BATCH), desc="classifying", delay=2):
        images, labels = data.images[start : start + BATCH], data.labels[start : start + BATCH]
        # All turned copies of an image together, so that equal canonical images run once.
        given = torch.stack([turn_squares(images, turn) for turn in turns], dim=1).flatten(0, 1)
        truth = labels.repeat_interleave(len(turns))
        for name, model in models.items():
            poses = model.poses(given)
            right[name].append(_right(model, given, poses, truth, len(turns)))
            if name in found:
                found[name] += poses
        if oracle is not None:
            known = [_known(image, turns[k % len(turns)], group) for k, image in enumerate(given)]
            right[ORACLE].append(_right(oracle, given, known, truth, len(turns)))
    shares = draw_shares(len(data))
    return {
        "num_images": len(data),
        "group": group.name,
        "source": data.source,
        "classes": list(data.classes),
        "modes": {name: _mode(np.concatenate(rows), turns, shares) for name, rows in right.items()},
        "pose": {
            name: _pose(poses, turns, models[name].canonicalizer) for name, poses in found.items()
        },
    }


def measure_overhead(
    model: CanonicalizedClassifier, images: torch.Tensor, repeats: int = 5
) -> dict[str, Any]:
    """Measure what the canonicalizer costs beside the classifier, one image at a time.

    Args:
        model: in eval mode.
        images: (B, 3, S, S) uint8; as many as are run, each by itself.
        repeats: runs, of which the median is taken.

    Returns:
        dict: ``canonicalizer_ms`` (poses and turning), ``classifier_ms``, for one image;
        ``overhead``, the first in percent of the second; ``canonicalizer_parameters`` and
        ``classifier_parameters``, ``threads``.
    """
    finder, predictor = model.canonicalizer, model.predictor
    times: dict[str, list[float]] = {"canonicalizer": [], "classifier": []}
    with torch.no_grad():
        for image in [
            images[:1],
            *images[None].expand(repeats, -1, -1, -1, -1).flatten(0, 1)[:, None],
        ]:
            start = time.perf_counter()
            canonical = model.canonical(image, model.poses(image))
            middle = time.perf_counter()
            predictor(canonical)
            times["canonicalizer"].append(middle - start)
            times["classifier"].append(time.perf_counter() - middle)
    # The first run of each warms up.
    median = {name: 1000 * float(np.median(values[1:])) for name, values in times.items()}
    return {
        "canonicalizer_ms": median["canonicalizer"],
        "classifier_ms": median["classifier"],
        "overhead": 100 * median["canonicalizer"] / median["classifier"],
        "canonicalizer_parameters": count_parameters(finder),
        "classifier_parameters": count_parameters(predictor),
        "threads": torch.get_num_threads(),
    }


def count_parameters(module: Any) -> int:
    """Count the parameters of a module, or of the scorer that a canonicalizer holds."""
    if not isinstance(module, torch.nn.Module):
        return 0
    return sum(parameter.numel() for parameter in module.parameters())


def _right(
    model: CanonicalizedClassifier,
    given: torch.Tensor,
    poses: Sequence[Pose],
    truth: torch.Tensor,
    count: int,
) -> np.ndarray:
    """Return (images, elements) bool of which are classified right."""
    found = model.classify(given, poses).argmax(dim=1).cpu()
    rows: np.ndarray = (found == truth).view(-1, count).numpy()
    return rows


def _known(image: torch.Tensor, turn: Turn, group: PlanarGroup) -> Pose:
    shared = representative_turns(image.permute(1, 2, 0), group)
    return Pose(turn, pointwise(group, turn), to_representative=shared, probability=1.0)


def _mode(right: np.ndarray, turns: Sequence[Turn], shares: np.ndarray) -> dict[str, Any]:
    by_element = 100 * right.mean(axis=0)
    upright, average = right[:, 0].mean(), right.mean(axis=1)
    drawn = percentiles(shares @ average) or [0.0, 1.0]
    return {
        "accuracy": 100 * float(upright),
        "group_accuracy": 100 * float(average.mean()),
        "by_element": {
            element_name(turn): float(value) for turn, value in zip(turns, by_element, strict=True)
        },
        "intervals": {
            "accuracy": [100 * end for end in wilson(float(upright), len(right))],
            "group_accuracy": [100 * end for end in drawn],
        },
    }


def _pose(poses: list[Pose], turns: Sequence[Turn], finder: Canonicalizer) -> dict[str, Any]:
    count = len(turns)
    truth = [turns[k % count] for k in range(len(poses))]
    away = np.array([distance(p.turn, t) for p, t in zip(poses, truth, strict=True)])
    right = (away < 1e-3).reshape(-1, count)
    result: dict[str, Any] = {
        "accuracy": float(right.mean()),
        "by_element": {
            element_name(turn): float(value)
            for turn, value in zip(turns, right.mean(axis=0), strict=True)
        },
        "mean_distance": float(away.mean()),
    }
    if finder.group.elements is not None:
        likely = torch.tensor([pose.probabilities for pose in poses[::count]], dtype=torch.float64)
        measured = alignment(likely, torch.eye(likely.shape[1])[0])
        result["alignment"] = {
            name: value if np.isfinite(value) else None for name, value in measured.items()
        }
    return result
