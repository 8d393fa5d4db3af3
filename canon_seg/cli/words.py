"""Read what a command line says before the command itself, whose imports take seconds, does."""

from collections.abc import Sequence

_FLAG = "--config-file"


def config_file_in(words: Sequence[str]) -> str:
    """Return the value of --config-file among the words of a command line, "" if there is none."""
    for place, word in enumerate(words):
        if word == _FLAG:
            return "".join(words[place + 1 : place + 2])
        if word.startswith(f"{_FLAG}="):
            return word.removeprefix(f"{_FLAG}=")
    return ""
