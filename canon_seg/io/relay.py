"""Carry bad input from the workers of a data loader to the process that asked for the data.

Raised in a worker, an error arrives as the text of a traceback. So a worker hands it on in place of
an example, and the loader raises it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from canon_seg.errors import InputError

_KEY = "input_error"


def bad_example(error: InputError, **keys: Any) -> dict[str, Any]:
    """Make the example that stands for bad input.

    Args:
        error: what is wrong.
        keys: what else those who batch the examples read of each.
    """
    return {**keys, _KEY: error}


class RaisingLoader:
    """Give the batches of a loader, and raise what a worker handed on.

    Args:
        loader: gives batches, which are lists of dicts.
    """

    def __init__(self, loader: Iterable[list[dict[str, Any]]]):
        self.loader = loader

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.loader:
            for example in batch:
                if _KEY in example:
                    raise example[_KEY]
            yield batch
