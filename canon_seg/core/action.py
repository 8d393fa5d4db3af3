"""Keep how a turn acts on each kind of thing that belongs to an image.

Things with a type of their own are known by it. Plain arrays, tensors and lists say nothing about
their meaning, so these are known by the name of the field that holds them and their type. Whoever
adds a type or a field registers its action; nothing in the library has to change.

>>> class Arrow:
...     def __init__(self, degrees): self.degrees = degrees
>>> @register(Arrow)
... def turn_arrow(arrow, turn, height, width):
...     return Arrow(arrow.degrees + turn.degrees)
>>> act(Arrow(10), Turn(1), 480, 640).degrees
100.0
"""

from collections.abc import Callable
from typing import Any

from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import IDENTITY, Turn

Action = Callable[[Any, Turn, int, int], Any]
"""Function of (value, turn, height, width): the size is that of the frame before the turn."""

TiltAction = Callable[[Any, Tilting], Any]
"""Function of (value, tilting)."""

_ACTIONS: dict[tuple[str | None, type], Action] = {}
_TILTS: dict[tuple[str | None, type], TiltAction] = {}
_INVARIANT: set[str] = set()


def register(kind: type, field: "str | None" = None) -> Callable[[Action], Action]:
    """Return a decorator that makes a function the action on a type, or on a field of that type.

    Args:
        kind: the type; subclasses without an action of their own take the same one.
        field: name of the field that holds the value; None for any name. A named field goes first.

    Raises:
        ValueError: if there is another action already.
    """

    def decorate(action: Action) -> Action:
        if _ACTIONS.setdefault((field, kind), action) is not action:
            raise ValueError(f"there is an action on {_described(field, kind)} already")
        return action

    return decorate


def register_tilt(kind: type, field: "str | None" = None) -> Callable[[TiltAction], TiltAction]:
    """Return a decorator that makes a function the way to tilt a type, or a field of that type.

    A tilt interpolates, or takes what is nearest: it is not undone to the bit. What has no such
    action cannot be brought to a canonical frame between the quarter turns, or back from there.

    Args:
        kind, field: see :func:`register`.

    Raises:
        ValueError: if there is another one already.
    """

    def decorate(tilting: TiltAction) -> TiltAction:
        if _TILTS.setdefault((field, kind), tilting) is not tilting:
            raise ValueError(f"it is known already how {_described(field, kind)} tilts")
        return tilting

    return decorate


def register_invariant(*fields: str) -> None:
    """Name fields that turns leave alone, such as one score for each instance."""
    _INVARIANT.update(fields)


def act(value: Any, turn: Turn, height: int, width: int, field: str = "") -> Any:
    """Turn a value that belongs to an image.

    The identity acts on nothing, so that it needs no action.

    Args:
        value: of a registered type, or in a registered field.
        turn: what to turn by.
        height, width: of the frame of ``value`` before the turn, in pixels.
        field: name of the field that holds the value.

    Returns:
        the turned value; it may share memory with ``value``.

    Raises:
        TypeError: if it is not known how a turn acts on such a value.
        ValueError: if the value does not fit its frame, or the turn has a tilt and the action is
            by index.
    """
    if turn == IDENTITY:
        return value
    action = _found(_ACTIONS, value, field)
    if action is not None:
        return action(value, turn, height, width)
    if field in _INVARIANT:
        return value
    raise TypeError(
        f"it is not known how {_described(field, type(value))} turns; remove it, or register its "
        "action with canon_seg.core.action.register"
    )


def tilt(value: Any, tilting: Tilting, field: str = "") -> Any:
    """Tilt a value that belongs to an image into another frame.

    Args:
        value: of a type, or in a field, that has a registered way to tilt.
        tilting: from the frame of ``value``.
        field: name of the field that holds the value.

    Returns:
        the tilted value; it may share what does not depend on the frame.

    Raises:
        TypeError: if it is not known how such a value tilts.
        ValueError: if the value does not fit its frame.
    """
    action = _found(_TILTS, value, field)
    if action is not None:
        return action(value, tilting)
    if field in _INVARIANT:
        return value
    raise TypeError(
        f"it is not known how {_described(field, type(value))} turns by an angle between quarter "
        "turns; remove it, or register how with canon_seg.core.action.register_tilt"
    )


def _found(actions: "dict[tuple[str | None, type], Any]", value: Any, field: str) -> Any:
    for name in (field, None):
        for kind in type(value).__mro__:
            if (name, kind) in actions:
                return actions[name, kind]
    return None


def _described(field: "str | None", kind: type) -> str:
    return f"{repr(field) + ' of type ' if field else ''}{kind.__name__}"
