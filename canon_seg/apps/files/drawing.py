"""Pictures of what was found: instances and segments by detectron2's Visualizer, and captions."""

import numpy as np

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.apps.drawing import add_caption, colors, fit, side_by_side, zoom_factor
from canon_seg.geometry.group import C4

from detectron2.utils.visualizer import Visualizer

COLUMN = 512  # px, longer side of each image in the picture of four turns


def draw_instances(image, instances, classes):
    """Masks, boxes and keypoints with the names of their classes, and with scores if they have any.

    Args:
        image: (H, W, 3) uint8 array, RGB.
        instances: detectron2 `Instances` on the CPU; boxes of those without ``scores``, the
            segments of an image, are not drawn.
        classes: :class:`canon_seg.apps.files.classes.Classes`.
    Returns:
        new array, enlarged by :func:`canon_seg.apps.drawing.zoom_factor`.
    """
    labels = [classes.name(label) for label in instances.pred_classes.tolist()]
    drawn = {}
    if instances.has("scores"):
        scores = instances.scores.tolist()
        labels = [f"{label} {score:.0%}" for label, score in zip(labels, scores)]
        drawn["boxes"] = instances.pred_boxes
    if instances.has("pred_masks"):
        drawn["masks"] = list(instances.pred_masks.numpy())
    if instances.has("pred_keypoints"):
        drawn["keypoints"] = instances.pred_keypoints
    palette = [
        np.array(classes.color(label) or other) / 255
        for label, other in zip(instances.pred_classes.tolist(), colors(len(instances)).tolist())
    ]
    visualizer = Visualizer(image, scale=zoom_factor(*image.shape[:2]))
    return visualizer.overlay_instances(
        labels=labels, assigned_colors=[tuple(color) for color in palette], **drawn
    ).get_image()


def captioned(found):
    """The picture of a :class:`canon_seg.apps.files.segment.Segmentation` below its pose."""
    return add_caption(found.picture, [f"{describe(found.pose)}, {found}"])


def draw_turns(turned):
    """The pictures of the four turns of one image in a row, each with what was found."""
    columns = []
    for turns, found in zip(C4.elements, turned):
        lines = [f"turned by {C4.degrees(turns):.0f}°", describe(found.pose), str(found)]
        columns.append(add_caption(fit(found.picture, COLUMN), lines))
    return side_by_side(columns)


def describe(pose, degrees="°"):
    """The pose in words; a terminal may not have the degree sign."""
    uncertain = {
        "keep": ", uncertain: left as given",
        "vote": f", uncertain: {1 + len(pose.others)} poses vote",
    }
    return (
        f"pose {C4.degrees(pose.turns):.0f}{degrees}, probability {pose.probability:.3f}"
        + uncertain.get(pose.policy, "")
    )
