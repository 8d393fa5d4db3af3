"""Tell config options KEY VALUE from the other words of a command line, wherever they stand."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from canon_seg.apps.files.video import VIDEO_SUFFIXES
from canon_seg.config.device import check_device
from canon_seg.errors import InputError
from canon_seg.images.folders import EXTENSIONS

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+")
_SINGLE_KEYS = ("CUDNN_BENCHMARK", "OUTPUT_DIR", "SEED", "VERSION", "VIS_PERIOD")
_FILE_ENDS = tuple(end.upper() for end in (*EXTENSIONS, ".TIF", ".TIFF", *VIDEO_SUFFIXES))


def parse_with_options(
    parser: argparse.ArgumentParser,
    words: "Sequence[str] | None" = None,
    *,
    lists: "Mapping[str, Callable[[str], bool]] | None" = None,
    name: str = "options",
) -> argparse.Namespace:
    """Parse a command line whose config options KEY VALUE may stand anywhere.

    Args:
        parser: of all other words.
        words: of the command line; None for the process's.
        lists: flags that take lists, with a function that says which words belong to them; others
            that follow, such as photographs, are left to the parser's positional arguments.
        name: of the attribute that holds the options.

    Returns:
        what the parser made of the words, with the options as a flat list KEY VALUE ...

    Raises:
        InputError: for a key without a value.
    """
    rest, options = split_options(sys.argv[1:] if words is None else words)
    if lists:
        rest = _positional_first(rest, lists)
    parser.set_defaults(**{name: options})
    # --points would pass for --points-per-side.
    parser.allow_abbrev = False
    return parser.parse_intermixed_args(rest)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, the short way to set MODEL.DEVICE, see :func:`all_options`."""
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda; default: a GPU where there is one"
    )


def all_options(args: argparse.Namespace) -> list[str]:
    """Return the config options of a command line, with that of --device.

    Raises:
        InputError: if there is no such device.
    """
    if not args.device:
        return list(args.options)
    check_device(args.device, "--device")
    return [*args.options, "MODEL.DEVICE", args.device]


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into others and config options.

    A key has parts in upper case that are joined by points, as MODEL.DEVICE, or is one of
    detectron2's keys of a single part, as SEED. The word after it is its value.

    >>> split_options(["a.jpg", "MODEL.DEVICE", "cpu", "--turns"])
    (['a.jpg', '--turns'], ['MODEL.DEVICE', 'cpu'])

    Returns:
        (rest, options).

    Raises:
        InputError: for a key without a value.
    """
    rest: list[str] = []
    options: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if not is_key(word):
            rest.append(word)
            continue
        value = next(remaining, None)
        if value is None or value.startswith("--") or is_key(value):
            raise InputError(f"config options are pairs KEY VALUE, and {word} has no value")
        options += [word, value]
    return rest, options


def is_key(word: str) -> bool:
    """Tell whether a word is a config key by its form; a file of that name is none."""
    if word in _SINGLE_KEYS:
        return True
    return (
        _KEY.fullmatch(word) is not None
        and not word.endswith(_FILE_ENDS)
        and not Path(word).exists()
    )


def is_number(word: str) -> bool:
    """Tell whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def may_name_files(word: str) -> bool:
    """Tell whether a word is a file that is there, or looks like a file or a glob."""
    return (
        Path(word).exists()
        or word.upper().endswith(_FILE_ENDS)
        or any(character in word for character in "*?[/\\")
    )


def _positional_first(
    words: Sequence[str], lists: Mapping[str, Callable[[str], bool]]
) -> list[str]:
    """Move words that do not belong to the flag with a list before them to the front."""
    first: list[str] = []
    rest: list[str] = []
    belongs = None
    for word in words:
        if word.startswith("--"):
            belongs = lists.get(word)
        elif belongs is not None and not belongs(word):
            first.append(word)
            continue
        rest.append(word)
    return first + rest
