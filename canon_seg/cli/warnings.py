"""Keep warnings of other libraries, of which users can change nothing, out of the commands."""

import os
import sys
import warnings
from collections.abc import MutableMapping

FROM_LIBRARIES = (
    ("TypedStorage is deprecated", UserWarning),
    ("`py3nj` package not found", UserWarning),
    ("pkg_resources is deprecated", UserWarning),
    ("torch.meshgrid", UserWarning),
    ("`torch.jit", FutureWarning),
    ("`torch.jit", DeprecationWarning),
    ("__array__ implementation doesn't accept a copy keyword", DeprecationWarning),
)
"""How their messages begin, and their categories."""


def silence_libraries(environment: MutableMapping[str, str] = os.environ) -> None:
    """Silence the warnings of :data:`FROM_LIBRARIES` here and in processes that are started.

    Only commands call this, and not where the user says by -W or PYTHONWARNINGS what is to be
    shown. Pillow's warning of large images goes too: the commands refuse what is too large.

    Args:
        environment: variables of the process, changed in place.
    """
    if sys.warnoptions or environment.get("PYTHONWARNINGS"):
        return
    for message, category in FROM_LIBRARIES:
        warnings.filterwarnings("ignore", message, category)
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
    environment["PYTHONWARNINGS"] = ",".join(
        f"ignore:{message}:{category.__name__}" for message, category in FROM_LIBRARIES
    )
