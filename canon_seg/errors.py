"""Report bad input to the user: one exception, one way for scripts to end on it."""

import errno
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class InputError(ValueError):
    """Say that something that the user gave cannot be used.

    The message names the file or the config key, what was wrong with it, and what to do.
    """


class InputWarning(UserWarning):
    """Say that something that the user gave is used, but may not mean what it seems to mean."""


def warn(message: str) -> None:
    """Warn of something that the user gave; the same message is shown once in a process.

    Commands print it as one line on stderr. In Python it is an :class:`InputWarning`, which
    ``warnings.filterwarnings`` can make an error of.
    """
    warnings.warn(message, InputWarning, stacklevel=2)


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


def is_no_room(error: BaseException | None) -> bool:
    """Return whether an exception is of a disk that is full or cannot be written."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


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
    other exception is a defect and keeps its traceback. An :class:`InputWarning` is printed to
    stderr as one line. Characters of names that the terminal does not have are printed as their
    escape codes.
    """
    prepare_terminal()
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)


def prepare_terminal() -> None:
    """Print warnings as lines, and what the terminal cannot show as escape codes, from now on.

    A log file that cannot be written, as on a full disk, costs the log, and prints no traceback.
    A thread that ends for want of room on the disk, as TensorBoard's does, prints one line.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in notebooks and tests
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    logging.raiseExceptions = False
    threading.excepthook = _show_thread_error


def _show_thread_error(of_thread: threading.ExceptHookArgs) -> None:
    """Print what ended a thread as Python does, a full disk as one line without a traceback."""
    if is_no_room(of_thread.exc_value):
        print(f"warning: a file cannot be written: {of_thread.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(of_thread)


def _show_warning(
    message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None
) -> None:
    """Print a warning as Python does, an :class:`InputWarning` without the place in the code."""
    text = (
        f"warning: {message}\n"
        if issubclass(category, InputWarning)
        else warnings.formatwarning(message, category, filename, lineno, line)
    )
    print(text, end="", file=file or sys.stderr, flush=True)
