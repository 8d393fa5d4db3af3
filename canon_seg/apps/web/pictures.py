"""Draw what the web page shows: pictures as (H, W, 3) uint8 RGB arrays, figures as HTML."""

import cv2
import numpy as np

from canon_seg.apps.drawing import WHITE, draw_masks, zoom_factor
from canon_seg.core.group import C4

PLAIN, CANONICAL = (224, 92, 36), (18, 148, 110)
_OBJECT, _BACKGROUND, _BOX = (40, 190, 90), (220, 50, 50), (255, 200, 40)
_BLACK = (0, 0, 0)


def draw_prompt(image, prompt, corner=None):
    """Draw a photograph, enlarged by ``zoom_factor``, with clicks, box and a box's first corner."""
    factor = zoom_factor(*image.shape[:2])
    return _with_prompt(_enlarged(image, factor), prompt, corner, factor)


def draw_answer(image, prompt, answer, color):
    """Draw the turned photograph with the mask found and the outline of the expected one.

    Args:
        image: the turned photograph, (H, W, 3) uint8 RGB.
        prompt: :class:`canon_seg.apps.web.turning.ObjectPrompt` in the frame of ``image``.
        answer: :class:`canon_seg.apps.web.turning.Answer`, or None for the photograph alone.
        color: RGB of the mask.
    """
    factor = zoom_factor(*image.shape[:2])
    picture = _enlarged(image, factor)
    if answer is None:
        return picture
    picture = draw_masks(picture, [_enlarged(answer.mask, factor)], np.array([color], np.uint8))
    outline = np.ascontiguousarray(_enlarged(answer.expected, factor), dtype=np.uint8)
    contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        if len(contour) > max(picture.shape) / 20:  # specks would be all outline
            _draw_dashes(picture, contour[:, 0])
    return _with_prompt(picture, prompt, None, factor)


def pose_bars(pose):
    """Format the probabilities of a :class:`canon_seg.core.pose.Pose` as bars."""
    rows = []
    for turn, probability in zip(C4.elements, pose.probabilities, strict=True):
        percent = 100 * probability
        chosen = " chosen" if turn == pose.turn else ""
        rows.append(
            f'<div class="bar{chosen}"><span class="name">{turn.degrees:.0f}°</span>'
            f'<span class="track"><span class="fill" style="width:{percent:.2f}%"></span></span>'
            f'<span class="value">{percent:.1f} %</span></div>'
        )
    return "".join(rows)


def score(title, answer):
    """Format the heading of one way: its title and the IoU."""
    value = (
        ""
        if answer is None
        else (
            f'<span class="iou" title="IoU with the mask of the unturned photo, turned along">'
            f"IoU {_short(answer.iou)}</span>"
        )
    )
    return f'<div class="score"><span>{title}</span>{value}</div>'


def table(visited):
    """Format the angles visited with these prompts, and the IoU of either way there."""
    if not visited:
        return "<p>Click the photo, or draw a box: nothing is asked yet.</p>"
    angles = sorted(visited)
    head = "".join(f"<th>{angle:g}°</th>" for angle in angles)
    rows = "".join(
        f'<tr class="{name.lower()}"><th>{name}</th>'
        + "".join(f"<td>{_short(visited[angle][i])}</td>" for angle in angles)
        + "</tr>"
        for i, name in enumerate(("Plain", "Canonicalized"))
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _short(iou):
    """Format three digits that say 1.000 only of masks that are equal in every pixel."""
    return "1.000" if iou == 1 else f"{min(iou, 0.999):.3f}"


def _draw_dashes(picture, outline):
    """Draw a closed line of pixels (N, 2), white dashes on black so that it shows on any ground."""
    width = max(1, round(max(picture.shape[:2]) / 600))
    dash = 8 * width
    closed = np.concatenate([outline, outline[:1]])
    cv2.polylines(picture, [closed], False, _BLACK, width + 1)
    for start in range(0, len(outline), 2 * dash):
        cv2.polylines(picture, [closed[start : start + dash]], False, WHITE, width + 1)


def _with_prompt(picture, prompt, corner, factor):
    """Draw into ``picture``, which is enlarged by ``factor``, and return it."""
    line = max(2, round(max(picture.shape[:2]) / 250))
    if prompt.box is not None:
        x0, y0, x1, y1 = (round(edge * factor) for edge in prompt.box)
        corners = (x0, y0), (max(x1 - 1, x0), max(y1 - 1, y0))
        cv2.rectangle(picture, *corners, _BLACK, line + 2)
        cv2.rectangle(picture, *corners, _BOX, line)
    dots = [(x, y, _OBJECT if label else _BACKGROUND) for x, y, label in prompt.points]
    if corner is not None:
        dots.append((*corner, _BOX))
    for x, y, color in dots:
        centre = tuple(round((index + 0.5) * factor - 0.5) for index in (x, y))
        cv2.circle(picture, centre, 3 * line + 1, WHITE, -1, cv2.LINE_AA)
        cv2.circle(picture, centre, 2 * line + 1, color, -1, cv2.LINE_AA)
    return picture


def _enlarged(array, factor):
    return array.repeat(factor, axis=0).repeat(factor, axis=1)
