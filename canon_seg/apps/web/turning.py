"""Turn one photograph with its prompts, and measure how far masks move when it turns.

Prompts belong to the photograph as it was given ("upright" here, whatever it shows) and turn along
with it, by :mod:`canon_seg.coco.rotation`; how objects are prompted for is in ``objects.py``.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from canon_seg.apps.following import Followed, follow
from canon_seg.apps.web.objects import CHOICES, ObjectPrompt, Objects
from canon_seg.coco.masks import decode_rle, encode_mask
from canon_seg.coco.rotation import rotate_rle
from canon_seg.core.canonicalizer import IdentityCanonicalizer, KnownPoseCanonicalizer
from canon_seg.core.scorer import NEAR
from canon_seg.core.turn import normalise_angle
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_levelling import level_array
from canon_seg.images.tilt import rotate_image
from canon_seg.predictors.defaults import canonicalizer_or_default
from canon_seg.predictors.everything import SMALL_SAM
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor

POINTS_PER_SIDE = 16  # of everything, by an official SAM
QUARTERS, ANY_ANGLE = "Quarter turns", "Any angle"
"""What the switch of canonicalizers offers."""
RIGHT, WRONG, UNCERTAIN, UNKNOWN = "right", "wrong", "uncertain", "unknown"


@dataclass(frozen=True)
class EncodedPhoto:
    """Hold the photograph at one angle, with a predictor of either way that has encoded it."""

    degrees: float
    image: np.ndarray
    plain: CanonicalSamPredictor
    canonical: CanonicalSamPredictor


@dataclass(frozen=True)
class Found:
    """Hold one mask of everything in the turned photograph.

    Attributes:
        mask: (H, W) bool.
        predicted_iou: SAM's own estimate of its quality.
        number: of its colour, see :func:`canon_seg.apps.following.follow`.
    """

    mask: np.ndarray
    predicted_iou: float
    number: int = 0


@dataclass(frozen=True)
class Session:
    """Hold what one visitor has before them; it never changes, and every step makes a new one.

    Attributes:
        upright, turned: the photograph as given, and at the angle chosen.
        is_upright: whether the photograph as given is known to be upright, as samples are; None
            where nobody knows, of uploads and of what has no up.
        objects: see :class:`canon_seg.apps.web.objects.Objects`.
        visited: for these prompts, angle -> (agreement of the plain way, of the canonical way),
            means over the objects.
        everything: :class:`Found` where everything was asked for, else None.
        followed: the masks of everything at the angles before, in the upright photograph.
        way: which canonicalizer is behind the canonical way, one of ``Turner.canonicalizers``.
    """

    upright: EncodedPhoto
    turned: EncodedPhoto
    is_upright: bool | None = None
    objects: Objects = field(default_factory=Objects)
    visited: dict = field(default_factory=dict)
    everything: tuple[Found, ...] | None = None
    followed: tuple[Followed, ...] = ()
    way: str = QUARTERS

    def with_objects(self, objects):
        """Return the session with other objects; what was measured for others is forgotten."""
        same = [item.prompt for item in objects.items] == [
            item.prompt for item in self.objects.items
        ] and [item.choice for item in objects.items] == [
            item.choice for item in self.objects.items
        ]
        visited = self.visited if same else {}
        return replace(self, objects=objects, visited=visited, everything=None)


@dataclass(frozen=True)
class Answer:
    """Hold what one way, plain or canonical, says of one object in the turned photograph.

    Attributes:
        index: of the object.
        mask: (H, W) bool, of the turned photograph.
        expected: (H, W) bool, the mask of the upright photograph turned along.
        agreement: intersection over union of these two, 0..1. It says that the answer is the same,
            not that it is right.
        predicted_iou: SAM's own estimate of the quality of ``mask``.
        upright: (H, W) bool, the mask of the upright photograph.
    """

    index: int
    mask: np.ndarray
    expected: np.ndarray
    agreement: float
    predicted_iou: float
    upright: np.ndarray


class Turner:
    """Hold the models, which all sessions share; they keep nothing of any session.

    Args:
        sam: a `Sam` in eval mode.
        canonicalizer: in eval mode, on the same device; None for the embedded one.
        multimask: whether a single click is answered by the likeliest of SAM's three masks, as
            official checkpoints want it. The embedded SAM has one mask.
        any_angle: another canonicalizer likewise, for any angle, or None where there is none.

    Attributes:
        canonicalizers: by the names that the page's switch has for them; the first is taken first.
    """

    def __init__(self, sam, canonicalizer=None, multimask=False, any_angle=None):
        self.sam = sam
        self.canonicalizers = {QUARTERS: canonicalizer_or_default(canonicalizer, sam.device)}
        if any_angle is not None:
            self.canonicalizers[ANY_ANGLE] = any_angle
        self.multimask = multimask

    def encode(self, image, degrees=0.0, way=QUARTERS):
        """Turn an (H, W, 3) uint8 RGB image and encode it: an :class:`EncodedPhoto`."""
        turned = np.ascontiguousarray(rotate_image(image, degrees))
        plain = CanonicalSamPredictor(self.sam, IdentityCanonicalizer())
        plain.set_image(turned)
        return EncodedPhoto(degrees, turned, plain, self._canonical(turned, way))

    def _canonical(self, turned, way):
        predictor = CanonicalSamPredictor(self.sam, self.canonicalizers[way])
        predictor.set_image(turned)
        return predictor

    def switch(self, session, way):
        """Return the session behind another canonicalizer; what was measured is forgotten.

        Args:
            session: :class:`Session`.
            way: one of ``canonicalizers``.

        Raises:
            InputError: if there is none of that name.
        """
        if way not in self.canonicalizers:
            known = ", ".join(self.canonicalizers)
            raise InputError(f"canonicalizer {way!r} is not there; take one of {known}")
        if way == session.way:
            return session
        upright, turned = (
            replace(photo, canonical=self._canonical(photo.image, way))
            for photo in (session.upright, session.turned)
        )
        if session.turned is session.upright:
            turned = upright
        return replace(
            session, upright=upright, turned=turned, way=way, visited={}, everything=None
        )

    def open(self, image, degrees, prompt=None, is_upright=None, way=QUARTERS):
        """Return the :class:`Session` of a new (H, W, 3) uint8 RGB photograph."""
        upright = self.encode(image, way=way)
        first = replace(Objects().current, prompt=prompt or ObjectPrompt())
        session = Session(upright, upright, is_upright, Objects((first,)), way=way)
        return self.turn(session, degrees)

    def turn(self, session, degrees):
        """Return the session at another angle.

        Args:
            session: :class:`Session`.
            degrees: counterclockwise; a number, or text that says one, with or without "°".

        Raises:
            InputError: if the angle is no finite number.
        """
        text = str(degrees).strip().removesuffix("°").replace(",", ".")
        try:
            degrees = normalise_angle(float(text))
        except (TypeError, ValueError) as error:
            raise InputError(f"the angle is {degrees!r}; give a number of degrees") from error
        if degrees == session.turned.degrees:
            return session
        upright = session.upright
        turned = upright if degrees == 0 else self.encode(upright.image, degrees, session.way)
        return replace(session, turned=turned, everything=None)

    def compare(self, session):
        """Segment the turned photograph both ways, plain and canonical.

        Returns:
            (session, plain, canonical): the session with this angle among those visited, and for
            either way a tuple of the :class:`Answer` to each object that has a prompt.
        """
        plain, canonical = (
            tuple(self._answer(session, way, index) for index in session.objects.asked)
            for way in ("plain", "canonical")
        )
        if not plain:
            return session, (), ()
        means = tuple(agreement(answers) for answers in (plain, canonical))
        visited = {**session.visited, session.turned.degrees: means}
        return replace(session, visited=visited), plain, canonical

    def find_everything(self, session):
        """Return the session with everything that is found in the turned photograph."""
        image, pose = session.turned.image, session.turned.canonical.pose
        known = KnownPoseCanonicalizer(pose, self.canonicalizers[session.way])
        options = {"points_per_side": POINTS_PER_SIDE} if self.multimask else SMALL_SAM
        generator = CanonicalSamAutomaticMaskGenerator(self.sam, known, **options)
        records = generator.generate(image)
        size = session.upright.image.shape[:2]
        masks = [
            turned_back(record["segmentation"], session.turned.degrees, size) for record in records
        ]
        numbers, followed = follow(session.followed, masks)
        found = [
            Found(record["segmentation"], record["predicted_iou"], number)
            for record, number in zip(records, numbers, strict=True)
        ]
        return replace(session, everything=tuple(found), followed=followed)

    def judge(self, session):
        """Say what is known of the pose that was found in the turned photograph.

        Returns:
            RIGHT or WRONG where the photograph is known to be upright as given (of quarter turns
            the nearest are right at an angle between them, of all angles those within 10 degrees);
            UNCERTAIN where its probability is below the canonicalizer's bound; else UNKNOWN.
        """
        pose = pose_of(session)
        canonicalizer = self.canonicalizers[session.way]
        if pose.probability < canonicalizer.uncertain.below:
            return UNCERTAIN
        if session.is_upright is None:
            return UNKNOWN
        off = abs((pose.turn.degrees - session.turned.degrees + 180) % 360 - 180)
        reach = NEAR if canonicalizer.group.elements is None else 45
        return RIGHT if (off <= reach) == session.is_upright else WRONG

    def _answer(self, session, way, index):
        upright, turned = session.upright, session.turned
        degrees, item = turned.degrees, session.objects.items[index]
        before, _ = self._mask(getattr(upright, way), item.prompt, item.choice)
        expected = turn_mask(before, degrees)
        prompt = item.prompt.turned(degrees, *upright.image.shape[:2])
        mask, predicted = self._mask(getattr(turned, way), prompt, item.choice)
        return Answer(index, mask, expected, iou(mask, expected), predicted, before)

    def _mask(self, predictor, prompt, choice):
        points, labels, box = prompt.arrays()
        masks, scores, _ = predictor.predict(
            points, labels, box, multimask_output=self.uses_three(prompt, choice)
        )
        automatic = choice == CHOICES[0]
        best = int(np.argmax(scores)) if automatic else CHOICES.index(choice) - 1
        return masks[best], float(scores[best])

    def uses_three(self, prompt, choice):
        """Return whether SAM is asked for its three masks."""
        is_ambiguous = len(prompt.points) == 1 and prompt.box is None
        return choice != CHOICES[0] or (self.multimask and is_ambiguous)


def pose_of(session):
    """Return the :class:`canon_seg.images.canonicalizer.Pose` found in the turned photograph."""
    return session.turned.canonical.pose


def canonical_photo(session):
    """Return the turned photograph in the pose that was found for it, (H, W, 3) uint8 RGB."""
    image, turn = session.turned.image, pose_of(session).to_canonical
    if turn.exact:
        return np.ascontiguousarray(turn_image(image, turn))
    return level_array(image, turn, "expand")


def agreement(answers):
    """Return the mean agreement of :class:`Answer`; 1 only if all of them are the same."""
    return float(np.mean([answer.agreement for answer in answers]))


def turn_mask(mask, degrees):
    """Turn an (H, W) bool mask onto its turned photograph's canvas; exact at quarter turns."""
    return decode_rle(rotate_rle(encode_mask(mask), degrees)).astype(bool)


def turned_back(mask, degrees, size):
    """Turn an (H, W) bool mask of the turned photograph back onto the upright one.

    Args:
        mask: see above.
        degrees: by which the photograph was turned, counterclockwise.
        size: (height, width) of the upright one.
    """
    whole = turn_mask(mask, -degrees)  # on a canvas at least as large, with the same middle
    top, left = ((whole.shape[axis] - size[axis]) // 2 for axis in (0, 1))
    return whole[top : top + size[0], left : left + size[1]]


def iou(mask, other):
    """Return the intersection over union of two bool masks, 0..1; two empty ones are the same."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0
