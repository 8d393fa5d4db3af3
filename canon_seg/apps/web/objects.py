"""Hold what a visitor asks for: several objects with prompts, of which one is being worked on.

All is in the frame of the photograph as it was given. Nothing changes in place: every step makes a
new :class:`Objects`, which remembers the one before.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from canon_seg.errors import InputError
from canon_seg.images.tilt import rotate_boxes, rotate_points

OBJECT, BACKGROUND, BOX = "Object", "Background", "Box"
TOOLS = (OBJECT, BACKGROUND, BOX)
MAX_POINTS, MAX_OBJECTS, MAX_STEPS, MAX_NAME = 32, 16, 100, 40
CHOICES = ("Automatic", "1", "2", "3")
"""What mask of an object to take: as SAM is made for, or one of its three."""


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

    def arrays(self):
        """Return (points, labels, box) as a predictor takes them, each None where there is none."""
        points = np.array([point[:2] for point in self.points], dtype=float)
        labels = np.array([label for *_, label in self.points], dtype=int)
        box = None if self.box is None else np.array(self.box, dtype=float)
        return (points, labels, box) if len(points) else (None, None, box)

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
class NamedObject:
    """Hold one object.

    Attributes:
        name: that the visitor gave, or "Object N".
        prompt: see :class:`ObjectPrompt`.
        choice: one of ``CHOICES``.
    """

    name: str
    prompt: ObjectPrompt = ObjectPrompt()
    choice: str = CHOICES[0]


@dataclass(frozen=True)
class Objects:
    """Hold the objects of one photograph.

    Attributes:
        items: all objects, at least one.
        active: index of the one that prompts go to.
        corner: x, y pixel index of the first corner of a box whose second is missing, or None.
        before: what was there one step earlier, or None.
    """

    items: tuple[NamedObject, ...] = (NamedObject("Object 1"),)
    active: int = 0
    corner: tuple[int, int] | None = None
    before: "Objects | None" = None

    @property
    def current(self):
        """Return the object that prompts go to."""
        return self.items[self.active]

    @property
    def asked(self):
        """Return the indices of objects that have a prompt."""
        return tuple(index for index, item in enumerate(self.items) if item.prompt)

    def changed(self, **changes):
        """Return the objects after a step that :meth:`undone` takes back."""
        steps, oldest = 1, self
        while oldest.before is not None:
            steps, oldest = steps + 1, oldest.before
        before = _without_oldest(self) if steps >= MAX_STEPS else self
        return replace(self, **{"corner": None, **changes}, before=before)

    def undone(self):
        """Return the objects one step earlier.

        Raises:
            InputError: if there is no step to take back.
        """
        if self.before is None:
            raise InputError("there is nothing to undo")
        return self.before

    def clicked(self, tool, x, y, size):
        """Return the objects after a click.

        Args:
            tool: one of ``TOOLS``; a box takes two clicks, on opposite corners.
            x, y: pixel index.
            size: (height, width) of the photograph.

        Raises:
            InputError: if the click is outside, the tool unknown, or there are too many clicks.
        """
        x, y = _pixel(x, y, size)
        if tool == BOX:
            if self.corner is None:
                return self.changed(corner=(x, y))
            return self.boxed(*self.corner, x, y, size)
        if tool not in TOOLS:
            raise InputError(f"tool {tool!r} is not known; take one of {', '.join(TOOLS)}")
        prompt = self.current.prompt
        if len(prompt.points) == MAX_POINTS:
            raise InputError(f"there are {MAX_POINTS} clicks already; clear them to go on")
        points = (*prompt.points, (x, y, int(tool == OBJECT)))
        return self._with_current(prompt=replace(prompt, points=points))

    def boxed(self, x0, y0, x1, y1, size):
        """Return the objects with a box around the two pixels, which it holds, for the current one.

        Raises:
            InputError: if one is outside.
        """
        corners = _pixel(x0, y0, size), _pixel(x1, y1, size)
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(*corners, strict=True))
        box = left, top, right + 1, bottom + 1
        return self._with_current(prompt=replace(self.current.prompt, box=box))

    def chosen(self, choice):
        """Return the objects with another of SAM's masks for the current one.

        Raises:
            InputError: if it is not one of ``CHOICES``.
        """
        if choice not in CHOICES:
            raise InputError(f"mask {choice!r} is not known; take one of {', '.join(CHOICES)}")
        return self if choice == self.current.choice else self._with_current(choice=choice)

    def named(self, name):
        """Return the objects with another name for the current one.

        Raises:
            InputError: if it is empty or long.
        """
        name = " ".join(str(name).split())
        if not 0 < len(name) <= MAX_NAME:
            raise InputError(f"a name has 1 to {MAX_NAME} characters")
        return self if name == self.current.name else self._with_current(name=name)

    def added(self):
        """Return the objects with a new one, which becomes the current.

        Raises:
            InputError: if there are too many.
        """
        if len(self.items) == MAX_OBJECTS:
            raise InputError(f"there are {MAX_OBJECTS} objects already")
        taken, number = {item.name for item in self.items}, len(self.items) + 1
        while f"Object {number}" in taken:
            number += 1
        items = (*self.items, NamedObject(f"Object {number}"))
        return self.changed(items=items, active=len(items) - 1)

    def switched(self, index):
        """Return the objects with another one as the current; not a step to undo.

        Raises:
            InputError: if there is no such object.
        """
        if not isinstance(index, int) or not 0 <= index < len(self.items):
            raise InputError(f"there is no object {index!r}")
        return replace(self, active=index, corner=None)

    def cleared(self):
        """Return the objects without any prompt, but one empty one."""
        return self.changed(items=Objects().items, active=0)

    def _with_current(self, **changes):
        items = list(self.items)
        items[self.active] = replace(self.current, **changes)
        return self.changed(items=tuple(items))


def _without_oldest(objects):
    """Return a chain of steps without its first."""
    steps = []
    while objects is not None:
        steps.append(objects)
        objects = objects.before
    kept = replace(steps[-2], before=None)
    for step in reversed(steps[:-2]):
        kept = replace(step, before=kept)
    return kept


def _pixel(x, y, size):
    height, width = size
    try:
        x, y = math.floor(x), math.floor(y)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"click {x!r}, {y!r}: give two numbers") from error
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"click {x}, {y} is outside the photo, {width} wide and {height} high")
    return x, y
