"""What the tests of optional features need: without it they are skipped, and fail in CI."""

import importlib
import os

import pytest

REQUIRED = "CANON_SEG_REQUIRE_EXTRAS"
"""Environment variable: set where nothing may be missing; .ci/run does."""


def missing(reason):
    """Skip the test, or fail it where nothing may be missing."""
    (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)


def need(module):
    """The imported module; without it the test ends here."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing(f"{error}; `make extras` installs it")
