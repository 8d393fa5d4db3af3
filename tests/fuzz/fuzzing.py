"""How many cases the fuzz tests draw: 300 each in the suite, more by ``make fuzz CASES=10000``."""

import os

from hypothesis import HealthCheck, settings

from canon_seg.errors import InputError

CASES = int(os.environ.get("CANON_SEG_FUZZ_CASES", "300"))

# The suite draws the same cases every time; a longer run draws others every time, and prints how
# to draw a failing one again.
fuzz = settings(
    max_examples=CASES,
    derandomize="CANON_SEG_FUZZ_CASES" not in os.environ,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def attempt(function, *arguments):
    """Return (what a function returns, None), or (None, the message) of an InputError alone."""
    try:
        return function(*arguments), None
    except InputError as error:
        return None, str(error)
