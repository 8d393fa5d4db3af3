"""Read the words of a command line without the imports of its command, which take seconds."""

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
