#!/usr/bin/env python
"""Draw the figures of the README from the embedded models: docs/images/*.jpg.

    python tools/draw_figures.py [--output DIR]

turns.jpg: one object in the four turns of a photograph, by the small SAM alone and behind the
canonicalizer. how_it_works.jpg: the way of one image. Needs scikit-image, whose photograph it is.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

from canon_seg import CanonicalSamPredictor, load_default_canonicalizer, load_default_sam
from canon_seg.apps.drawing import draw_masks
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.errors import run_main
from canon_seg.geometry import C4, turn_boxes, turn_image, turn_maps
from canon_seg.io.files import write_atomically

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
BOX = np.array([332.0, 0.0, 462.0, 290.0])  # the model of a space shuttle
PLAIN, CANONICAL = (214, 93, 14), (9, 132, 150)
TURNS = 1  # of the photograph whose way is drawn


def segment(predictor, image, box):
    """Return (pose, mask) of what is in a box of an image."""
    predictor.set_image(image)
    masks, _, _ = predictor.predict(box=box, multimask_output=False)
    return predictor.pose, masks[0]


def overlap(mask, other):
    """Return the intersection over union of two masks."""
    return np.count_nonzero(mask & other) / max(1, np.count_nonzero(mask | other))


def show(axes, image, title="", mask=None, box=None, color=CANONICAL):
    """Show an image in the axes, with mask and box where given."""
    if mask is not None:
        image = draw_masks(image, [mask], np.array([color], np.uint8))
    axes.imshow(image)
    if box is not None:
        x0, y0, x1, y1 = box
        axes.add_patch(
            plt.Rectangle(
                (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color="white", linewidth=1.5
            )
        )
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def draw_turns(image, predictors):
    """Draw the masks of two predictors in the four turns of an image."""
    figure, rows = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
    height, width = image.shape[:2]
    for (name, predictor, color), row in zip(predictors, rows, strict=True):
        upright = None
        for turns, axes in zip(C4.elements, row, strict=True):
            turned = np.ascontiguousarray(turn_image(image, turns))
            box = turn_boxes(BOX, turns, height, width)
            _, mask = segment(predictor, turned, box)
            upright = mask if upright is None else upright
            back = turn_maps(mask, C4.inverse(turns))
            title = (
                "upright"
                if turns == 0
                else (f"{C4.degrees(turns):.0f}°: IoU with upright {overlap(back, upright):.3f}")
            )
            show(axes, turned, title, mask, box, color)
        row[0].set_title(f"{name}, upright", fontsize=10, fontweight="bold")
    return figure


def draw_way(image, predictor):
    """Draw what happens to an image on its way."""
    figure = plt.figure(figsize=(11, 2.9), layout="constrained")
    columns = figure.subplots(1, 5, width_ratios=(3, 1.9, 2.45, 2.45, 3))
    turned = np.ascontiguousarray(turn_image(image, TURNS))
    box = turn_boxes(BOX, TURNS, *image.shape[:2])
    pose, mask = segment(predictor, turned, box)
    back = pose.turns_to_canonical
    canonical = np.ascontiguousarray(turn_image(turned, back))
    canonical_box = turn_boxes(box, back, *turned.shape[:2])
    show(columns[0], turned, "1. image and prompt", box=box)
    bars = columns[1].barh(
        [f"{C4.degrees(turns):.0f}°" for turns in C4.elements], pose.probabilities, color="0.7"
    )
    bars[pose.turns].set_color(np.array(CANONICAL) / 255)
    columns[1].invert_yaxis()
    columns[1].set_title("2. pose, by a small\nequivariant network", fontsize=10)
    columns[1].set_xticks([])
    columns[1].set_box_aspect(1)
    for side in ("top", "right", "bottom"):
        columns[1].spines[side].set_visible(False)
    show(columns[2], canonical, "3. turned upright, by index", box=canonical_box)
    show(columns[3], canonical, "4. frozen segmenter", np.ascontiguousarray(turn_maps(mask, back)))
    show(columns[4], turned, "5. mask turned back", mask)
    return figure


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    args = parser.parse_args()
    from skimage.data import astronaut

    sam, image = load_default_sam(), astronaut()[:, 20:490]
    behind = CanonicalSamPredictor(sam, load_default_canonicalizer())
    figures = {
        "turns.jpg": draw_turns(
            image,
            [
                ("small SAM", CanonicalSamPredictor(sam, IdentityCanonicalizer()), PLAIN),
                ("small SAM, canonicalized", behind, CANONICAL),
            ],
        ),
        "how_it_works.jpg": draw_way(image, behind),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with write_atomically(args.output / name) as temporary:
            figure.savefig(temporary, format="jpg", dpi=100, pil_kwargs={"quality": 90})
        print("written:", args.output / name)


if __name__ == "__main__":
    run_main(main)
