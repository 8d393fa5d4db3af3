"""Draw what the web page shows: pictures as (H, W, 3) uint8 RGB arrays, figures as HTML."""

import html
import math

import cv2
import numpy as np

from canon_seg.apps.drawing import WHITE, colors, draw_masks, numbered_colors, zoom_factor
from canon_seg.apps.web.turning import RIGHT, UNCERTAIN, UNKNOWN, WRONG, agreement
from canon_seg.core.group import C4
from canon_seg.core.scorer import NEAR

# Green says right, and nothing else on the page does.
COLORS = {
    "plain": (194, 84, 24),
    RIGHT: (14, 122, 84),
    WRONG: (185, 28, 28),
    UNCERTAIN: (146, 94, 0),
    UNKNOWN: (71, 85, 105),
}
_OBJECT, _BACKGROUND, _BOX = (40, 190, 90), (220, 50, 50), (255, 200, 40)
_BLACK = (0, 0, 0)


def draw_stage(image, objects, masks):
    """Draw the photograph to click on, enlarged by ``zoom_factor``.

    Args:
        image: (H, W, 3) uint8 RGB.
        objects: :class:`canon_seg.apps.web.objects.Objects`.
        masks: dict from the index of an object to its (H, W) bool mask.
    """
    factor = zoom_factor(*image.shape[:2])
    palette = colors(len(objects.items))
    picture = draw_masks(
        _enlarged(image, factor),
        [_enlarged(mask, factor) for mask in masks.values()],
        palette[list(masks)],
    )
    for index, item in enumerate(objects.items):
        corner = objects.corner if index == objects.active else None
        _with_prompt(picture, item.prompt, corner, factor, palette[index].tolist())
    return picture


def draw_answers(image, session, answers):
    """Draw the turned photograph with masks, outlines of the expected ones, and prompts.

    Args:
        image: the turned photograph, (H, W, 3) uint8 RGB.
        session: :class:`canon_seg.apps.web.turning.Session`.
        answers: of one way, by ``Turner.compare``.
    """
    factor = zoom_factor(*image.shape[:2])
    palette = colors(len(session.objects.items))
    picture = draw_masks(
        _enlarged(image, factor),
        [_enlarged(answer.mask, factor) for answer in answers],
        palette[[answer.index for answer in answers]],
    )
    for answer in answers:
        outline = np.ascontiguousarray(_enlarged(answer.expected, factor), dtype=np.uint8)
        contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            if len(contour) > max(picture.shape) / 20:  # specks would be all outline
                _draw_dashes(picture, contour[:, 0])
    size = session.upright.image.shape[:2]
    for index in session.objects.asked:
        prompt = session.objects.items[index].prompt.turned(session.turned.degrees, *size)
        _with_prompt(picture, prompt, None, factor, palette[index].tolist())
    return picture


def draw_level(picture, pose):
    """Draw the angle that was found: a line that is level in the canonical photo, a tick for up.

    Args:
        picture: (H, W, 3) uint8 RGB of the turned photograph, of any size.
        pose: :class:`canon_seg.core.pose.Pose` of it.

    Returns:
        new array.
    """
    picture = np.array(picture, order="C")
    height, width = picture.shape[:2]
    cos, sin = (f(math.radians(pose.turn.degrees)) for f in (math.cos, math.sin))
    centre, half = np.array([width / 2, height / 2]), 0.4 * min(height, width)
    along, up = np.array([cos, -sin]), np.array([-sin, -cos])  # y downwards
    ends = (centre - half * along, centre + half * along), (centre, centre + half / 4 * up)
    line = max(2, round(max(height, width) / 250))
    for color, thick in ((_BLACK, line + 2), (_BOX, line)):
        for start, end in ends:
            points = (tuple(map(int, np.round(point))) for point in (start, end))
            cv2.line(picture, *points, color, thick, cv2.LINE_AA)
    return picture


def draw_everything(image, found):
    """Draw a photograph with everything in it, each mask in the colour of its number.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: of :class:`canon_seg.apps.web.turning.Found`.
    """
    factor = zoom_factor(*image.shape[:2])
    enlarged = [_enlarged(one.mask, factor) for one in found]
    palette = numbered_colors([one.number for one in found])
    return draw_masks(_enlarged(image, factor), enlarged, palette)


def chips(objects):
    """Format the objects as buttons, each with its colour; ``data-index`` says which."""
    palette = colors(len(objects.items))
    parts = []
    for index, (item, color) in enumerate(zip(objects.items, palette.tolist(), strict=True)):
        pressed = str(index == objects.active).lower()
        parts.append(
            f'<button type="button" class="chip" data-index="{index}" aria-pressed="{pressed}">'
            f'<span class="dot" style="background:rgb({color[0]},{color[1]},{color[2]})"></span>'
            f"{html.escape(item.name)}</button>"
        )
    return f'<div class="chips">{"".join(parts)}</div>'


def pose_chart(pose):
    """Format the probabilities of a :class:`canon_seg.core.pose.Pose`: bars, or a ring of arcs."""
    is_of_quarters = len(pose.probabilities) == len(C4.elements)
    return pose_bars(pose) if is_of_quarters else pose_ring(pose)


def pose_bars(pose):
    """Format the probabilities of the quarter turns as bars."""
    rows = []
    for turn, probability in zip(C4.elements, pose.probabilities, strict=True):
        percent = 100 * probability
        chosen = " chosen" if turn == pose.turn else ""
        rows.append(
            f'<div class="bar{chosen}"><span class="name">{turn.described()}</span>'
            f'<span class="track"><span class="fill" style="width:{percent:.2f}%"></span></span>'
            f'<span class="value">{percent:.1f} %</span></div>'
        )
    return "".join(rows)


def pose_ring(pose):
    """Format the probabilities of all angles as a ring, 0° at the top, counterclockwise.

    Each arc is as long, outwards, as it is likely, and the likeliest reaches the edge.
    """
    count, most = len(pose.probabilities), max(pose.probabilities)
    arcs = []
    for arc, probability in enumerate(pose.probabilities):
        middle, half = 360 * arc / count, 180 / count
        inner, outer = _RING, _RING + (_EDGE - _RING) * probability / most
        corners = [
            _on_ring(middle + side * half, radius)
            for side, radius in ((-1, inner), (-1, outer), (1, outer), (1, inner))
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        near = abs((middle - pose.turn.degrees + 180) % 360 - 180) <= NEAR
        arcs.append(f'<polygon class="arc{" chosen" if near else ""}" points="{points}"/>')
    labels = "".join(
        '<text x="{:.0f}" y="{:.0f}">{}°</text>'.format(*_on_ring(degrees, _EDGE + 14), degrees)
        for degrees in (0, 90, 180, 270)
    )
    x, y = _on_ring(pose.turn.degrees, _RING)
    words = f"{pose.turn.degrees:.1f}°"
    return (
        '<svg class="ring" viewBox="-130 -130 260 260" role="img" aria-label="Angle found: '
        f'{words}, probability {100 * pose.probability:.0f} %"><circle r="{_RING}"/>'
        f"{''.join(arcs)}{labels}"
        f'<line x1="0" y1="0" x2="{x:.1f}" y2="{y:.1f}"/>'
        f'<text class="found" y="26">{words}</text></svg>'
        f'<p class="near">{100 * pose.probability:.1f} % within {NEAR:.0f}°</p>'
    )


_RING, _EDGE = 55, 105  # radii of the ring, in the units of its picture


def _on_ring(degrees, radius):
    """Return x, y, downwards, of a point: 0 degrees at the top, counterclockwise."""
    return -radius * math.sin(math.radians(degrees)), -radius * math.cos(math.radians(degrees))


def score(title, kind, answers):
    """Format the heading of one way: its title, the agreement, and the predicted IoU beside it.

    Args:
        title: of the way.
        kind: key of ``COLORS``.
        answers: of that way.
    """
    return f'<div class="score"><span>{title}</span>{_figures(kind, answers)}</div>'


def _figures(kind, answers):
    if not answers:
        return ""
    empty = [not answer.mask.any() for answer in answers]
    predicted = np.mean([answer.predicted_iou for answer in answers])
    words = f"agreement {_short(agreement(answers))}"
    if all(empty):
        words = "empty mask" if len(empty) == 1 else "all masks are empty"
    elif any(empty):
        words += f", {sum(empty)} of {len(empty)} masks empty"
    return (
        f'<span class="figure {kind}" title="Overlap with the mask of the unturned photo, turned '
        f'along: 1.000 is the same in every pixel">{words}</span>'
        f'<span class="predicted" title="The model\'s own estimate of its mask">predicted IoU '
        f"{predicted:.2f}</span>"
    )


def verdict(kind, pose, degrees):
    """Say in a sentence what is known of a pose.

    Args:
        kind: what ``Turner.judge`` says.
        pose: :class:`canon_seg.core.pose.Pose`.
        degrees: angle of the turned photograph.
    """
    found = f"{pose.turn.described()} ({100 * pose.probability:.0f} %)"
    words = {
        RIGHT: f"Pose found: {found}. It is right: the photo was turned by {degrees:g}°.",
        WRONG: f"Pose found: {found}. <b>It is wrong</b>: the photo was turned by {degrees:g}°, so "
        "that the segmenter sees it turned, and agreement says only that it always sees it so.",
        UNCERTAIN: f"Pose found: {found}. <b>It is uncertain.</b> In a config, "
        "<code>MODEL.CANONICALIZER.UNCERTAIN vote</code> asks in several poses.",
        UNKNOWN: f"Pose found: {found}. Is the photo below upright?",
    }[kind]
    return f'<p class="verdict {kind}">{words}</p>'


def table(visited):
    """Format the angles visited with these prompts, and the agreement of either way there."""
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


def _with_prompt(picture, prompt, corner, factor, color):
    """Draw a prompt, its box in the object's colour, into a picture enlarged by ``factor``."""
    line = max(2, round(max(picture.shape[:2]) / 250))
    if prompt.box is not None:
        x0, y0, x1, y1 = (round(edge * factor) for edge in prompt.box)
        corners = (x0, y0), (max(x1 - 1, x0), max(y1 - 1, y0))
        cv2.rectangle(picture, *corners, _BLACK, line + 2)
        cv2.rectangle(picture, *corners, color, line)
    dots = [(x, y, _OBJECT if label else _BACKGROUND) for x, y, label in prompt.points]
    if corner is not None:
        dots.append((*corner, _BOX))
    for x, y, fill in dots:
        centre = tuple(round((index + 0.5) * factor - 0.5) for index in (x, y))
        cv2.circle(picture, centre, 3 * line + 1, WHITE, -1, cv2.LINE_AA)
        cv2.circle(picture, centre, 2 * line + 1, fill, -1, cv2.LINE_AA)


def _enlarged(array, factor):
    return array.repeat(factor, axis=0).repeat(factor, axis=1)
