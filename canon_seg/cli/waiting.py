"""Say on a terminal what a command is doing while nothing else shows that it works."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

IMPORTING = "loading ..."
LOADING = "loading the models ..."
READING = "reading the annotations ..."
DRAWING = "drawing the figures ..."
STARTING = "preparing the training ..."


@contextmanager
def said(words: str) -> Iterator[None]:
    """Show words on a terminal while a block runs of which nobody knows how long it takes.

    They are gone afterwards; where stderr is no terminal, nothing is written.

    Args:
        words: such as "loading ...".
    """
    if not sys.stderr.isatty():
        yield
        return
    print(words, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r" + " " * len(words) + "\r", end="", file=sys.stderr, flush=True)
