"""Draw views of photographs turned by any angle, to train networks that find the angle.

A view keeps the proportions of what it shows: squashing a turned photograph would change its angle.
Its own shape says nothing about the angle, being drawn apart from it. Stretching comes before the
turn, while what is vertical is vertical still.

Views are of three kinds, as networks meet them: the inside of a turned photograph, where no edge
tells the angle; a turned photograph on a plain canvas; and photographs in a quarter turn, of which
there are most by far. What else photographs meet on their way is imitated as in
:mod:`canon_seg.networks.pose_views`.
"""

import math
from typing import Any

import cv2
import numpy as np
import torch

from canon_seg.core.tilting import FILL
from canon_seg.images.shapes import shape_of_area
from canon_seg.networks.photo_stream import PhotoStream
from canon_seg.networks.pose_views import FEW_PIXELS, FEWEST_PIXELS, crop, spoil, trimmed

# Probabilities: of a quarter turn; of a canvas around any other angle; of a border.
QUARTER, CANVAS, BORDERED = 0.35, 0.25, 0.1
WHOLE = 0.5  # of all of the photograph being there before it is turned by any angle
LEAST_CROP = 0.7  # of each side otherwise
LEAST_ZOOM = 0.7  # of what fits inside the turned photograph
MAX_STRETCH = 1.5
STRETCHED = 0.6
# Width over height of views; each also stands upright, as turns of an image are looked at.
ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9)


def view_shapes(sides: "list[int]") -> list[tuple[int, int]]:
    """Return the shapes (height, width) of views of about ``side`` ** 2 pixels.

    Wide ones are listed three times: a network is shown the representative of an image, which
    always lies.
    """
    lying = [shape_of_area(side, aspect) for side in sides for aspect in ASPECTS]
    return 3 * lying + [(width, height) for height, width in lying]


class AngleStream(PhotoStream):
    """Stream batches of views turned by any angle without end, one shape for each batch.

    Args:
        See :class:`~canon_seg.networks.photo_stream.PhotoStream`; ``turns`` is not for this. Of a
        group with mirrors a mirror is a part of what is to be found, in place of an augmentation.
    """

    def _load(self, index: int, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        photo = self.upright(index)
        mirrored = self.group.mirrors and bool(rng.random() < 0.5)
        if mirrored:
            photo = photo[:, ::-1]
        view, degrees = draw_angle_view(
            photo, shape, rng, self.min_scale, flips=not self.group.mirrors
        )
        return {
            "file_name": self.files[index],
            "image": torch.from_numpy(view.transpose(2, 0, 1).copy()),
            "degrees": degrees,
            "mirrored": mirrored,
        }


def draw_angle_view(
    image: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
    min_scale: float,
    *,
    flips: bool = True,
) -> tuple[np.ndarray, float]:
    """Draw a random view of an upright photograph, turned by a random angle.

    Args:
        image: H x W x 3 uint8, upright.
        shape: (height, width) of the result in pixels.
        rng: numpy Generator.
        min_scale: smallest side of a crop as a fraction of the photograph's, for quarter turns;
            views at other angles lose enough at their edges.
        flips: whether left and right are exchanged at random, before all else.

    Returns:
        (view, degrees): height x width x 3 uint8, and the angle counterclockwise that it was turned
        by, 0 <= degrees < 360.
    """
    photo = trimmed(image)
    quarter = rng.random() < QUARTER
    if quarter:
        degrees = 90.0 * float(rng.integers(4))
        photo = crop(photo, rng, min_scale)
    else:
        degrees = float(rng.uniform(0, 360))
        if rng.random() >= WHOLE:
            photo = _crop_freely(photo, rng)
    if flips and rng.random() < 0.5:
        photo = photo[:, ::-1]
    border = _draw_border(shape, rng) if rng.random() < BORDERED else None
    inner = shape
    if border is not None:
        inner = (shape[0] - border[0] - border[1], shape[1] - border[2] - border[3])
    stretch = _draw_stretch(photo.shape, inner, degrees if quarter else None, rng)
    canvas = not quarter and rng.random() < CANVAS
    view = _turned_view(photo, inner, degrees, stretch, canvas, rng)
    if rng.random() < FEW_PIXELS:
        few = int(rng.integers(FEWEST_PIXELS, max(FEWEST_PIXELS, min(inner) // 2) + 1))
        small = (
            max(1, round(inner[1] * few / min(inner))),
            max(1, round(inner[0] * few / min(inner))),
        )
        view = cv2.resize(view, small, interpolation=cv2.INTER_AREA)
        view = cv2.resize(view, inner[::-1], interpolation=cv2.INTER_LINEAR)
    return spoil(view, border, rng), degrees


def _crop_freely(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    high, wide = (max(1, round(side * rng.uniform(LEAST_CROP, 1))) for side in (height, width))
    top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    return photo[top : top + high, left : left + wide]


def _draw_border(shape: tuple[int, int], rng: np.random.Generator) -> list[int]:
    """Draw widths in pixels of a border: bars on two sides, equally wide or not, or a frame."""
    kind = rng.integers(3)
    widths = [0, 0, 0, 0]
    if kind == 2:
        return [int(min(shape) * rng.uniform(0.02, 0.2))] * 4
    first = rng.uniform(0.03, 0.3)
    second = first if rng.random() < 0.6 else rng.uniform(0.0, 0.3)
    widths[2 * kind : 2 * kind + 2] = [int(shape[kind] * first), int(shape[kind] * second)]
    return widths


def _draw_stretch(
    have: tuple[int, ...], want: tuple[int, int], degrees: "float | None", rng: np.random.Generator
) -> float:
    """Draw a factor by which a photograph is widened before it is turned.

    Args:
        have: (height, width, ...) of the photograph.
        want: (height, width) of the view.
        degrees: of the quarter turn between them: the stretch then also fits the one to the other,
            in part, so that quarter turns do not show in how much of a photograph is seen. None
            for other angles.
        rng: numpy Generator.
    """
    limit = math.log(MAX_STRETCH)
    stretch = rng.uniform(-limit, limit) * 0.7 if rng.random() < STRETCHED else 0.0
    if degrees is not None:
        height, width = want[::-1] if degrees in (90.0, 270.0) else want
        needed = math.log(width / height * have[0] / have[1])
        stretch = rng.uniform(0, 1) * needed + 0.3 * stretch
    return math.exp(min(max(stretch, -limit), limit))


def _turned_view(
    photo: np.ndarray,
    shape: tuple[int, int],
    degrees: float,
    stretch: float,
    canvas: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Turn a photograph and cut a view out of its inside, or lay it on a canvas, in one warp."""
    height, width = shape
    high, wide = photo.shape[0] / math.sqrt(stretch), photo.shape[1] * math.sqrt(stretch)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Of the view's bounding box in the photograph's frame, and the other way round.
    reach_x, reach_y = width * abs(cos) + height * abs(sin), width * abs(sin) + height * abs(cos)
    inside = max(reach_x / wide, reach_y / high)  # least pixels of the view for one of the photo
    if canvas:
        whole = min(
            width / (wide * abs(cos) + high * abs(sin)),
            height / (wide * abs(sin) + high * abs(cos)),
        )
        scale = whole * (inside / whole) ** rng.uniform(0.0, 0.6)
        slack_x = slack_y = 0.0
    else:
        scale = inside / rng.uniform(LEAST_ZOOM, 1.0)
        slack_x, slack_y = wide - reach_x / scale, high - reach_y / scale
    x, y = rng.uniform(-0.5, 0.5) * slack_x, rng.uniform(-0.5, 0.5) * slack_y
    if scale < 0.8:  # with anti-aliasing, to the resolution of the view
        size = max(1, round(wide * scale)), max(1, round(high * scale))
        photo = cv2.resize(np.ascontiguousarray(photo), size, interpolation=cv2.INTER_AREA)
    # From pixels of the view to the stretched photograph, to the pixels that there are.
    per_x, per_y = photo.shape[1] / wide, photo.shape[0] / high
    rotate = np.array([[cos, -sin], [sin, cos]]) / scale
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    to_photo = np.empty((2, 3))
    to_photo[:, :2] = rotate * np.array([[per_x], [per_y]])
    middle = np.array([(wide / 2 + x) * per_x - 0.5, (high / 2 + y) * per_y - 0.5])
    to_photo[:, 2] = middle - to_photo[:, :2] @ centre
    border: dict[str, Any] = {"borderMode": cv2.BORDER_REPLICATE}
    if canvas:
        border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": _draw_fill(rng)}
    return cv2.warpAffine(
        np.ascontiguousarray(photo),
        to_photo,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        **border,
    )


def _draw_fill(rng: np.random.Generator) -> tuple[float, ...]:
    kind = rng.random()
    if kind < 0.4:
        return (float(FILL),) * 3
    if kind < 0.6:
        return (0.0,) * 3
    if kind < 0.75:
        return (255.0,) * 3
    return tuple(rng.uniform(0, 255, 3).tolist())
