"""Keep things under names, so that a user adds one without a change to the library."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Hold things under their names.

    >>> shapes = Registry("shape")
    >>> @shapes.register()
    ... class Square: pass
    >>> shapes.get("Square") is Square, list(shapes)
    (True, ['Square'])

    Args:
        kind: what the things are, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: "str | None" = None) -> Callable[[T], T]:
        """Return a decorator that registers a class or function, under its own name by default.

        Raises:
            ValueError: if the name is taken by something else.
        """

        def decorate(thing: T) -> T:
            key = name or thing.__name__  # type: ignore[attr-defined]
            if self._things.setdefault(key, thing) is not thing:
                raise ValueError(f"the {self.kind} {key!r} is registered already")
            return thing

        return decorate

    def get(self, name: str) -> T:
        """Return what is registered under a name.

        Raises:
            ValueError: if nothing is; the message lists the names that are known.
        """
        if name not in self._things:
            raise ValueError(
                f"{name!r} is not a registered {self.kind}; known: {', '.join(sorted(self))}"
            )
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)
