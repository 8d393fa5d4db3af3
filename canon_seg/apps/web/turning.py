"""Turn one photograph with its prompts, and measure how far masks move when it turns.

Prompts belong to the photograph as it was given ("upright" here, whatever it shows) and turn along
with it, by :mod:`canon_seg.coco.rotation`.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from canon_seg.coco.masks import decode_rle, encode_mask
from canon_seg.coco.rotation import rotate_rle
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.core.turn import normalise_angle
from canon_seg.errors import InputError
from canon_seg.images.tilt import rotate_boxes, rotate_image, rotate_points
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor

OBJECT, BACKGROUND, BOX = "Object", "Background", "Box: two corners"
TOOLS = (OBJECT, BACKGROUND, BOX)
MAX_POINTS = 32


@dataclass(frozen=True)
class ObjectPrompt:
    """Hold what is asked of SAM: one object, in the frame of the upright photograph.

    Attributes:
        points: (x, y, label) clicks; pixel indices, label 1 for the object, 0 for the background.
        box: x0, y0, x1, y1 edges in pixels, or None.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __bool__(self):
        return bool(self.points) or self.box is not None

    def turned(self, degrees, height, width):
        """Return the prompt on the turned canvas of a ``height`` x ``width`` photograph.

        At other angles than quarter turns a box becomes the upright box around the turned one.
        """
        points, box = self.points, self.box
        if points:
            xy = np.array([point[:2] for point in points], dtype=float) + 0.5
            xy = rotate_points(xy, degrees, height, width) - 0.5
            points = tuple(
                (*pair, label) for pair, (*_, label) in zip(xy.tolist(), points, strict=True)
            )
        if box is not None:
            edges = rotate_boxes(np.array([box], dtype=float), degrees, height, width)
            box = tuple(edges[0].tolist())
        return ObjectPrompt(points, box)


@dataclass(frozen=True)
class EncodedPhoto:
    """Hold the photograph at one angle, with a predictor of either way that has encoded it."""

    degrees: float
    image: np.ndarray
    plain: CanonicalSamPredictor
    canonical: CanonicalSamPredictor


@dataclass(frozen=True)
class Session:
    """Hold what one visitor has before them; it never changes, and every step makes a new one.

    Attributes:
        upright, turned: the photograph as given, and at the angle chosen.
        prompt: see :class:`ObjectPrompt`.
        corner: x, y pixel index of the first corner of a box whose second is missing, or None.
        visited: for these prompts, angle -> (IoU of the plain way, of the canonical way).
    """

    upright: EncodedPhoto
    turned: EncodedPhoto
    prompt: ObjectPrompt = ObjectPrompt()
    corner: tuple[int, int] | None = None
    visited: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Hold what one way, plain or canonical, says of the turned photograph.

    Attributes:
        mask: (H, W) bool, of the turned photograph.
        expected: (H, W) bool, the mask of the upright photograph turned along.
        iou: of these two, 0..1.
    """

    mask: np.ndarray
    expected: np.ndarray
    iou: float


class Turner:
    """Hold the models, which all sessions share; they keep nothing of any session.

    Args:
        sam: a `Sam` in eval mode.
        canonicalizer: in eval mode, on the same device; None for the embedded one.
        multimask: whether a single click is answered by the likeliest of SAM's three masks, as
            official checkpoints want it. The embedded SAM has one mask.
    """

    def __init__(self, sam, canonicalizer=None, multimask=False):
        self.sam = sam
        self.canonicalizer = canonicalizer_or_default(canonicalizer, sam.device)
        self.multimask = multimask

    def encode(self, image, degrees=0.0):
        """Turn an (H, W, 3) uint8 RGB image and encode it: an :class:`EncodedPhoto`."""
        turned = np.ascontiguousarray(rotate_image(image, degrees))
        predictors = (
            CanonicalSamPredictor(self.sam, canonicalizer)
            for canonicalizer in (IdentityCanonicalizer(), self.canonicalizer)
        )
        photo = EncodedPhoto(degrees, turned, *predictors)
        photo.plain.set_image(turned)
        photo.canonical.set_image(turned)
        return photo

    def open(self, image, degrees, prompt=ObjectPrompt()):
        """Return the :class:`Session` of a new (H, W, 3) uint8 RGB photograph."""
        upright = self.encode(image)
        return self.turn(Session(upright, upright, prompt), degrees)

    def turn(self, session, degrees):
        """Return the session at another angle.

        Raises:
            InputError: if the angle is no finite number.
        """
        try:
            degrees = normalise_angle(float(degrees))
        except (TypeError, ValueError) as error:
            raise InputError(f"the angle is {degrees!r}; give a number of degrees") from error
        if degrees == session.turned.degrees:
            return session
        upright = session.upright
        return replace(
            session, turned=upright if degrees == 0 else self.encode(upright.image, degrees)
        )

    def compare(self, session):
        """Segment the turned photograph both ways, plain and canonical.

        Returns:
            (session, plain, canonical): the session with this angle among those visited, and an
            :class:`Answer` of either way; answers are None where nothing is asked yet.
        """
        if not session.prompt:
            return session, None, None
        plain, canonical = (self._answer(session, way) for way in ("plain", "canonical"))
        visited = {**session.visited, session.turned.degrees: (plain.iou, canonical.iou)}
        return replace(session, visited=visited), plain, canonical

    def _answer(self, session, way):
        upright, turned = session.upright, session.turned
        degrees, prompt = turned.degrees, session.prompt
        expected = turn_mask(self._mask(getattr(upright, way), prompt), degrees)
        mask = self._mask(getattr(turned, way), prompt.turned(degrees, *upright.image.shape[:2]))
        return Answer(mask, expected, iou(mask, expected))

    def _mask(self, predictor, prompt):
        points = np.array([point[:2] for point in prompt.points], dtype=float)
        labels = np.array([label for *_, label in prompt.points], dtype=int)
        is_ambiguous = len(points) == 1 and prompt.box is None
        masks, scores, _ = predictor.predict(
            points if len(points) else None,
            labels if len(points) else None,
            None if prompt.box is None else np.array(prompt.box, dtype=float),
            multimask_output=self.multimask and is_ambiguous,
        )
        return masks[int(np.argmax(scores))]


def pose_of(session):
    """Return the :class:`canon_seg.images.canonicalizer.Pose` found in the turned photograph."""
    return session.turned.canonical.pose


def click(session, tool, x, y):
    """Return the session after a click on the upright photograph.

    Args:
        session: :class:`Session`; not changed.
        tool: one of ``TOOLS``.
        x, y: pixel index.

    Raises:
        InputError: if the click is outside, the tool unknown, or there are too many clicks.
    """
    height, width = session.upright.image.shape[:2]
    try:
        x, y = math.floor(x), math.floor(y)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"click {x!r}, {y!r}: give two numbers") from error
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"click {x}, {y} is outside the photo, {width} wide and {height} high")
    prompt = session.prompt
    if tool == BOX:
        if session.corner is None:
            return replace(session, corner=(x, y))
        (left, right), (top, bottom) = (
            sorted(pair) for pair in zip(session.corner, (x, y), strict=True)
        )
        # The box holds both pixels that were clicked.
        prompt = replace(prompt, box=(left, top, right + 1, bottom + 1))
    elif tool in (OBJECT, BACKGROUND):
        if len(prompt.points) == MAX_POINTS:
            raise InputError(f"there are {MAX_POINTS} clicks already; clear them to go on")
        prompt = replace(prompt, points=(*prompt.points, (x, y, int(tool == OBJECT))))
    else:
        raise InputError(f"tool {tool!r} is not known; take one of {', '.join(TOOLS)}")
    return replace(session, prompt=prompt, corner=None, visited={})


def clear(session):
    """Return the session without prompts."""
    return replace(session, prompt=ObjectPrompt(), corner=None, visited={})


def turn_mask(mask, degrees):
    """Turn an (H, W) bool mask onto its turned photograph's canvas; exact at quarter turns."""
    return decode_rle(rotate_rle(encode_mask(mask), degrees)).astype(bool)


def iou(mask, other):
    """Return the intersection over union of two bool masks, 0..1; two empty ones are the same."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0
