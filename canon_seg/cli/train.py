"""Choose what canon-seg-train does by the config: train a classifier, or what detectron2 trains."""

import sys
from importlib.util import find_spec

from canon_seg.classification.build import META_ARCHITECTURE
from canon_seg.cli.waiting import IMPORTING, said
from canon_seg.cli.words import config_file_in
from canon_seg.config.load import given_keys
from canon_seg.errors import InputError, without_detectron2


def main() -> None:
    """Run the command."""
    if _architecture(sys.argv[1:]) == META_ARCHITECTURE:
        with said(IMPORTING):
            from canon_seg.cli import train_classifier

        train_classifier.main()
        return
    if find_spec("detectron2") is None:
        raise InputError(without_detectron2("canon-seg-train"))
    with said(IMPORTING):
        from canon_seg.cli import train_net

    train_net.main()


def _architecture(words: "list[str]") -> str:
    """Return MODEL.META_ARCHITECTURE as the words of a command line say it, "" if they do not."""
    key = "MODEL.META_ARCHITECTURE"
    for place, word in enumerate(words[:-1]):
        if word == key:
            return words[place + 1]
    try:
        keys = given_keys(config_file_in(words))
    except Exception:  # whatever it is, the command itself says it
        return ""
    return str(keys.get("MODEL", {}).get("META_ARCHITECTURE", ""))
