"""Measure a SAM by boxes and clicks on the objects of a data set, alone and canonicalized."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pycocotools.mask import decode
from segment_anything import SamPredictor
from tabulate import tabulate
from tqdm import tqdm

from canon_seg.coco.dataset import describe_empty, without_empty_masks
from canon_seg.coco.masks import annotation_to_rle
from canon_seg.errors import InputError
from canon_seg.images.arrays import contiguous, turn_image, turn_maps
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.sam.clicks import Mask
from canon_seg.sam.interaction import CLICKS, MaskQuality, mean_qualities, measure_prompts
from canon_seg.sam.prompted import boxes_around

MIN_AREA = 32**2  # pixels of a mask; COCO calls smaller objects small
TURNED = "vanilla_turned"
"""The mode of the means over the four turns of each image."""

_STYLES = {
    "vanilla": ("#E69F00", "s"),
    TURNED: ("#D55E00", "v"),
    "canonical": ("#0072B2", "o"),
}

TURNS = range(4)  # quarter turns counterclockwise
Qualities: TypeAlias = dict[str, list[MaskQuality]]


def objects_by_image(dataset: Mapping[str, Any], min_area: int) -> dict[int, list[dict[str, Any]]]:
    """Find the annotations that are measured: no crowds, and larger than ``min_area``.

    Args:
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`.
        min_area: pixels, by the annotations' ``area``; only what is larger counts.

    Returns:
        dict from the ids of the images that have any to their annotations.

    Raises:
        InputError: if nothing is left.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in dataset["annotations"]:
        if not entry["iscrowd"] and entry["area"] > min_area:
            found.setdefault(entry["image_id"], []).append(entry)
    if not found:
        raise InputError(
            f"--annotations: holds no object larger than {min_area} pixels (--min-area)"
        )
    return found


def object_masks(
    annotations: Sequence[Mapping[str, Any]], height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Decode the masks of annotations: (N, height, width)."""
    masks = [
        decode(annotation_to_rle(entry["segmentation"], height, width)) for entry in annotations
    ]
    return np.array(masks, bool).reshape(-1, height, width)


def measure_dataset(
    predictors: Mapping[str, Callable[[], SamPredictor]],
    dataset: Mapping[str, Any],
    images_dir: str | Path,
    *,
    min_area: int = MIN_AREA,
    clicks: Sequence[int] = CLICKS,
    progress: bool = True,
    reading: ReadingOptions = ReadingOptions(),
) -> dict[str, Any]:
    """Prompt for all objects of a data set by boxes and clicks.

    Args:
        predictors: makes a predictor for "vanilla", for "canonical", or for both. The first one is
            also shown all four turns of each image; the results of the other one turn along.
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`.
        images_dir: folder that ``file_name`` is relative to.
        min_area: see :func:`objects_by_image`.
        clicks: see :func:`canon_seg.sam.interaction.measure_prompts`.
        progress: whether to show a progress bar.
        reading: how images are read.

    Returns:
        dict that JSON can hold: ``num_objects``; ``instances_empty``: ids of the annotations whose
        mask has no pixel, which are left out; ``modes``: mode ("vanilla", ``TURNED``,
        "canonical") -> prompt ("clicks_1", "box", ...) -> ``iou_best_scored`` and ``iou_best``,
        means over the objects, 0..1; ``vanilla_by_angle``: the same by degrees counterclockwise.

    Raises:
        InputError: naming what cannot be used.
    """
    dataset, empty = without_empty_masks(dataset)
    objects = objects_by_image(dataset, min_area)
    entries = [entry for entry in dataset["images"] if entry["id"] in objects]
    by_mode: dict[str, list[Qualities]] = {mode: [] for mode in predictors}
    by_angle: dict[str, list[Qualities]] = {str(90 * turn): [] for turn in TURNS}
    runs = len(predictors) + ("vanilla" in predictors) * (len(by_angle) - 1)
    with tqdm(total=runs * len(entries), unit="image", disable=not progress) as bar:
        for entry in entries:
            image = read_image(Path(images_dir) / entry["file_name"], "RGB", reading)
            masks = object_masks(objects[entry["id"]], *image.shape[:2])
            for mode, make in predictors.items():
                for turn in TURNS if mode == "vanilla" else TURNS[:1]:
                    turned = contiguous(turn_image(image, turn)), contiguous(turn_maps(masks, turn))
                    qualities = _measure(make(), *turned, clicks)
                    if turn == 0:
                        by_mode[mode].append(qualities)
                    if mode == "vanilla":
                        by_angle[str(90 * turn)].append(qualities)
                    bar.update()
    modes = {mode: mean_qualities(parts) for mode, parts in by_mode.items()}
    result: dict[str, Any] = {
        "num_objects": _count(by_mode),
        "instances_empty": empty,
        "modes": modes,
    }
    if "vanilla" in modes:
        modes[TURNED] = mean_qualities(part for parts in by_angle.values() for part in parts)
        result["vanilla_by_angle"] = {a: mean_qualities(parts) for a, parts in by_angle.items()}
    return result


def _measure(
    predictor: SamPredictor,
    image: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    clicks: Sequence[int],
) -> Qualities:
    predictor.set_image(image)
    boxes = boxes_around(torch.from_numpy(masks)).numpy()
    wanted: list[Mask] = list(masks)
    return measure_prompts(predictor, wanted, boxes, clicks)


def _count(by_mode: Mapping[str, Sequence[Qualities]]) -> int:
    parts = next(iter(by_mode.values()))
    return sum(len(part["box"]) for part in parts)


def format_prompts(result: Mapping[str, Any]) -> str:
    """Format what :func:`measure_dataset` found as a table, mean IoU in percent."""
    rows = [
        [mode, prompt, 100 * values["iou_best_scored"], 100 * values["iou_best"]]
        for mode, prompts in result["modes"].items()
        for prompt, values in prompts.items()
    ]
    headers = ["mode", "prompt", "IoU of the best-scored (%)", "IoU of the best (%)"]
    table = tabulate(rows, headers=headers, floatfmt=".1f")
    return "\n\n".join([table, *describe_empty(result["instances_empty"])])


def plot_prompts(result: Mapping[str, Any], title: str) -> Figure:
    """Plot mean IoU against the number of clicks, and of boxes as level lines."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for mode, prompts in result["modes"].items():
        colour, marker = _STYLES[mode]
        counts = sorted(int(name.removeprefix("clicks_")) for name in prompts if "clicks_" in name)
        for kind, line, label in (
            ("iou_best_scored", "-", "best-scored"),
            ("iou_best", "--", "best of three"),
        ):
            values = [100 * prompts[f"clicks_{count}"][kind] for count in counts]
            name = f"{mode.replace('_', ', ')}: {label}"
            axes.plot(counts, values, line, color=colour, marker=marker, label=name)
        box = 100 * prompts["box"]["iou_best_scored"]
        axes.axhline(box, color=colour, linestyle=":", linewidth=1)
        axes.annotate("box", (1, box), color=colour, fontsize="small", va="bottom")
    axes.set(xlabel="clicks", ylabel="mean IoU (%)", ylim=(0, 100), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
