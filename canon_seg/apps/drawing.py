"""Draw images with their masks, prompts and captions; all arrays are RGB uint8."""

import colorsys
from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canon_seg.errors import InputError
from canon_seg.io.files import write_atomically
from canon_seg.io.names import printable

SMALL = 480  # px; an image whose longer side is less is enlarged so far by whole factors
MASK_OPACITY = 0.4
WHITE = (255, 255, 255)
BLACK = np.zeros(3, np.uint8)
BACKGROUND = (24, 24, 24)


def colors(count):
    """Return (count, 3) uint8 RGB colours; each differs clearly from those before and after it."""
    golden = 0.618034  # hues at multiples of the golden ratio never come close to a recent one
    values = [
        colorsys.hsv_to_rgb((0.58 + golden * i) % 1, (0.9, 0.65, 0.8)[i % 3], (1, 0.95, 0.8)[i % 3])
        for i in range(count)
    ]
    return np.round(np.array(values).reshape(-1, 3) * 255).astype(np.uint8)


def numbered_colors(numbers):
    """Return (N, 3) uint8 RGB: of :func:`colors` those of N numbers, in any order."""
    numbers = np.asarray(numbers, np.int64)
    return colors(int(numbers.max(initial=-1)) + 1)[numbers]


def zoom_factor(height, width):
    """Return the whole factor that enlarges a small image so that lines and text don't cover it."""
    return max(1, SMALL // max(height, width))


def draw_segmentation(image, masks, boxes=(), clicks=(), owners=None, background=(), numbers=None):
    """Draw masks and the prompts that led to them.

    Args:
        image: (H, W, 3) array.
        masks: N (H, W) bool arrays, drawn with the smallest on top.
        boxes: up to N x0, y0, x1, y1 in pixel edges. Boxes, then clicks, have the colours of the
            masks in order.
        clicks: x, y as pixel indices.
        owners: number of the mask that each click belongs to; None for one mask each, after those
            of the boxes.
        background: x, y of clicks beside the object, drawn in black.
        numbers: of the masks' colours, see :func:`canon_seg.apps.following.follow`; None for those
            in order.

    Returns:
        new array, enlarged by :func:`zoom_factor`.
    """
    factor = zoom_factor(*image.shape[:2])
    if owners is None:
        owners = range(len(boxes), len(boxes) + len(clicks))
    palette = colors(max(len(masks), len(boxes), *(owner + 1 for owner in owners), 0))
    if numbers is not None:
        palette = numbered_colors(numbers)
    picture = draw_masks(
        _enlarged(image, factor), [_enlarged(mask, factor) for mask in masks], palette
    )
    line = _line_width(picture)
    for box, color in zip(boxes, palette, strict=False):
        x0, y0, x1, y1 = (round(float(edge) * factor) for edge in box)
        corners = (x0, y0), (max(x1 - 1, x0), max(y1 - 1, y0))
        cv2.rectangle(picture, *corners, WHITE, 2 * line + 1)
        cv2.rectangle(picture, *corners, color.tolist(), line)
    marks = [(click, palette[owner]) for click, owner in zip(clicks, owners, strict=True)]
    for click, color in [*marks, *((click, BLACK) for click in background)]:
        centre = tuple(round((float(index) + 0.5) * factor - 0.5) for index in click)
        cv2.circle(picture, centre, 4 * line + 2, WHITE, -1, cv2.LINE_AA)
        cv2.circle(picture, centre, 3 * line + 1, color.tolist(), -1, cv2.LINE_AA)
    return picture


def draw_masks(image, masks, palette):
    """Draw masks as tinted areas with contours, each in its colour, the smallest on top.

    Args:
        image: (H, W, 3) array.
        masks: N (H, W) bool arrays.
        palette: (N or more, 3) uint8 colours.

    Returns:
        new (H, W, 3) array.
    """
    order = sorted(range(len(masks)), key=lambda i: -np.count_nonzero(masks[i]))
    top = np.full(image.shape[:2], -1)
    for i in order:
        top[masks[i]] = i
    picture = np.array(image, order="C")
    inside = top >= 0
    picture[inside] = np.round(
        (1 - MASK_OPACITY) * picture[inside] + MASK_OPACITY * palette[top[inside]]
    )
    for i in order:
        outline = np.ascontiguousarray(masks[i], dtype=np.uint8)
        contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, contours, -1, palette[i].tolist(), _line_width(picture))
    return picture


def add_caption(picture, lines):
    """Put lines of text above a picture, which is widened if they don't fit.

    Args:
        picture: (H, W, 3) array.
        lines: strings.

    Returns:
        new (H', W', 3) array.
    """
    lines = [printable(line) for line in lines]  # fonts refuse what is no Unicode
    size = max(14, round(max(picture.shape[:2]) / 40))
    font, pad = _font(size), size // 2
    text = max(font.getbbox(line)[2] for line in lines)
    height, width = picture.shape[:2]
    top = pad + len(lines) * (size + pad)
    canvas = Image.new("RGB", (max(width, text + 2 * pad), top + height), BACKGROUND)
    canvas.paste(Image.fromarray(picture), ((canvas.width - width) // 2, top))
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((pad, pad // 2 + i * (size + pad)), line, font=font, fill=WHITE)
    return np.asarray(canvas)


def fit(picture, side):
    """Return the picture, shrunk if its longer side is more than ``side`` pixels."""
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.BOX))


def side_by_side(pictures, gap=12):
    """Join pictures of any sizes in one row, aligned at the top, ``gap`` pixels between them."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] + gap for picture in pictures) - gap
    row, x = np.full((height, width, 3), BACKGROUND, dtype=np.uint8), 0
    for picture in pictures:
        row[: picture.shape[0], x : x + picture.shape[1]] = picture
        x += picture.shape[1] + gap
    return row


def save_picture(path, picture):
    """Write a picture, in the format of the path's suffix; the file is complete or absent.

    Raises:
        InputError: if it can't be written.
    """
    with write_atomically(path) as temporary:
        try:
            Image.fromarray(picture).save(temporary)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error}); is there space left?"
            ) from error


def _enlarged(array, factor):
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _line_width(picture):
    return max(1, round(max(picture.shape[:2]) / 450))


@cache
def _font(size):
    # matplotlib brings a font, so that pictures look the same everywhere.
    return ImageFont.truetype(
        str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size
    )
