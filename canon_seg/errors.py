"""Report bad input to the user: one exception, one way for scripts to end on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Say that something that the user gave cannot be used.

    The message names the file or the config key, what was wrong with it, and what to do.
    """


@contextmanager
def of_key(name: str) -> Iterator[None]:
    """Turn a ValueError of the block into an InputError that names a config key or a flag.

    Args:
        name: the key or flag; the message follows it, after a colon unless ``name`` ends with a
            dot.

    Raises:
        InputError: for a ValueError of the block; one that is an InputError already stays.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{name}{'' if name.endswith('.') else ': '}{error}") from error


@contextmanager
def interrupted_with(advice: str) -> Iterator[None]:
    """Have an interrupt of the block end with words on how to go on.

    Args:
        advice: follows "interrupted; ".
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice) from None


def without_detectron2(what):
    """Return the message for something that needs detectron2 where there is none."""
    return (
        f"{what} needs detectron2, which is not on PyPI under its own name: build the official one "
        "from its repository, or run canon-seg-install-detectron2"
    )


def run_main(main):
    """Run a script's ``main`` and end the process as a command-line user expects.

    Args:
        main: function without arguments; its return value becomes the exit status.

    An :class:`InputError` is printed to stderr as one line and ends with status 2. An interrupt
    ends with status 130, and says the advice of :func:`interrupted_with` where there is one. Any
    other exception is a defect and keeps its traceback.
    """
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)
