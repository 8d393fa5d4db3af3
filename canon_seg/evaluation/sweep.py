"""The rotated COCO evaluation: every image, at every angle, in every mode."""

import contextlib
import io
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from canon_seg import compat  # noqa: F401
from canon_seg.data.images import read_image
from canon_seg.errors import InputError
from canon_seg.evaluation.rotated_coco import METRICS, RotatedCOCOEvaluator
from canon_seg.geometry.arrays import turn_image
from canon_seg.geometry.group import C4
from detectron2.evaluation import COCOEvaluator

TASKS = ("segm", "bbox")
AVERAGE = "C4-avg"


def check_angles(angles):
    """Quarter turns of angles in degrees, counterclockwise, without repetition.

    Raises:
        InputError: if an angle is no multiple of 90 degrees.
    """
    try:
        turns = [C4.element_at(angle) for angle in angles]
    except ValueError as error:
        raise InputError(f"--angles: {error}; other angles are not supported yet") from error
    return list(dict.fromkeys(turns))


def first_images(dataset, limit):
    """The data set with its images in order of id, of which the first ``limit`` are kept.

    Args:
        dataset: dict as returned by :func:`canon_seg.data.coco.load_coco`; not changed.
        limit: number of images, or None for all.
    Returns:
        dict of the same form.
    Raises:
        InputError: if ``limit`` is below 1, or leaves no annotations.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}; give the number of images, at least 1")
    images = sorted(dataset["images"], key=lambda image: image["id"])[:limit]
    kept = {image["id"] for image in images}
    annotations = [entry for entry in dataset["annotations"] if entry["image_id"] in kept]
    if not annotations:
        raise InputError(
            f"--limit {limit}: the first {limit} images have no annotations; raise the limit"
        )
    return {**dataset, "images": images, "annotations": annotations}


def run_sweep(models, dataset, images_dir, *, turns, image_format, prompts=None, progress=True):
    """Evaluate models on a data set whose images are turned in memory.

    Args:
        models: dict from mode to a function from the true pose to the model, see
            :func:`canon_seg.evaluation.modes.build_models`.
        dataset: dict as returned by :func:`canon_seg.data.coco.load_coco`, images as checked by
            :func:`canon_seg.data.coco.check_images`.
        images_dir: folder that ``file_name`` is relative to.
        turns: quarter turns at which to evaluate, each once.
        image_format: "RGB" or "BGR", what the models take.
        prompts: dict from image id to :class:`canon_seg.evaluation.box_prompts.BoxPrompts`, or
            None for a segmenter that takes none.
        progress: whether to show progress bars.
    Returns:
        dict that JSON can hold:

        - ``num_images``: int;
        - ``modes``: mode -> degrees ("0", "90", ...) -> "segm" and "bbox" -> ``METRICS`` -> value
          in 0..100, or None where undefined (nothing of that size to be found, or a model without
          masks). Beside the degrees ``AVERAGE``, the mean over the angles, where all four ran;
        - ``pose``: of the mode "canonical", else None. ``confusion``: 4 x 4 counts, by true pose,
          then by the pose found; ``accuracy``: fraction of images whose pose was found, 0..1;
        - ``seconds``: mode -> ``total`` and ``per_image`` (one turned image) of running the model.
    """
    evaluators = {}
    for angle in tqdm(turns, desc="turning annotations", disable=not progress):
        evaluator = RotatedCOCOEvaluator(dataset, angle)
        evaluators.update({(mode, angle): evaluator.sibling() for mode in models})
    seconds = dict.fromkeys(models, 0.0)
    confusion = np.zeros((C4.order, C4.order), np.int64)
    with tqdm(
        total=len(dataset["images"]) * len(evaluators),
        desc="segmenting", unit="image", smoothing=0, disable=not progress,
    ) as bar:
        for entry in dataset["images"]:
            pixels = read_image(Path(images_dir) / entry["file_name"], image_format)
            for angle in turns:
                inputs = _turned_inputs(entry, pixels, angle)
                for mode, model_for in models.items():
                    model = model_for(angle)
                    if prompts is not None:
                        inputs["prompts"] = prompts[entry["id"]].turned(
                            angle, *pixels.shape[:2], snapped=model.canonicalizer.snaps
                        )
                    start = _now(model.device)
                    outputs = model([inputs])
                    seconds[mode] += _now(model.device) - start
                    evaluators[mode, angle].process([inputs], outputs)
                    if mode == "canonical":
                        confusion[angle, outputs[0]["pose"].turns] += 1
                    bar.update()
    scores = {mode: {} for mode in models}
    for (mode, angle), evaluator in tqdm(
        evaluators.items(), desc="scoring", disable=not progress
    ):
        scores[mode][f"{C4.degrees(angle):.0f}"] = _evaluate(evaluator)
    runs = len(dataset["images"]) * len(turns)
    return {
        "num_images": len(dataset["images"]),
        "modes": {mode: with_average(by_angle) for mode, by_angle in scores.items()},
        "pose": {
            "accuracy": float(np.trace(confusion) / runs),
            "confusion": confusion.tolist(),
        }
        if "canonical" in models
        else None,
        "seconds": {
            mode: {"total": total, "per_image": total / runs} for mode, total in seconds.items()
        },
    }


def with_average(by_angle):
    """The scores of one mode with ``AVERAGE`` added, if all four angles are there.

    A metric that is undefined at one angle is undefined on the average.
    """
    if len(by_angle) < C4.order:
        return by_angle
    return {
        **by_angle,
        AVERAGE: {
            task: {
                metric: _mean([scores[task][metric] for scores in by_angle.values()])
                for metric in METRICS
            }
            for task in TASKS
        },
    }


def _mean(values):
    if None in values:
        return None
    return math.fsum(values) / len(values)  # of equal values exactly that value


def _turned_inputs(entry, pixels, turns):
    """detectron2's input dict for one turned image."""
    turned = np.ascontiguousarray(turn_image(pixels, turns).transpose(2, 0, 1))
    return {
        "image": torch.from_numpy(turned),
        "height": turned.shape[1],
        "width": turned.shape[2],
        "image_id": entry["id"],
        "file_name": entry["file_name"],
    }


def _now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _evaluate(evaluator):
    with _quiet():
        results = evaluator.evaluate()
    return {
        task: {metric: _defined(results.get(task, {}).get(metric)) for metric in METRICS}
        for task in TASKS
    }


def _defined(value):
    return None if value is None or not math.isfinite(value) else float(value)


@contextlib.contextmanager
def _quiet():
    """Without what COCO's evaluation prints and logs each time."""
    logger = logging.getLogger(COCOEvaluator.__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
