"""Write file names, which may be any bytes, as characters that screens and JSON readers take."""

import os
from typing import Any

AnyPath = str | os.PathLike[str]


def printable(name: AnyPath) -> str:
    r"""Return a file name with escape codes for all that is no printable character of Unicode.

    >>> printable(os.fsdecode(b"caf\xe9\n.jpg"))
    'caf\\xe9\\n.jpg'

    Args:
        name: as Python has it: bytes that are not UTF-8 are surrogates in it.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in as_unicode(os.fspath(name))
    )


def figure_text(name: AnyPath) -> str:
    r"""Return a file name as text for matplotlib: printable, and its dollars begin no formula.

    ``parse_math=False`` is not enough, as matplotlib reads formulas when it wraps lines.

    >>> figure_text("$a_{$.jpg")
    '\\$a_{\\$.jpg'
    """
    return printable(name).replace("$", r"\$")


def as_unicode(text: str) -> str:
    """Return a string with escape codes for bytes that are not UTF-8, and surrogates."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


def without_surrogates(value: Any) -> Any:
    """Return what JSON can hold with :func:`as_unicode` of all strings in it."""
    if isinstance(value, str):
        return as_unicode(value)
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_surrogates(own) for own in value]
    return value
