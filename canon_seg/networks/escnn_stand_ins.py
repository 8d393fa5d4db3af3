"""Let escnn be imported where packages that it needs only for volumes are absent.

    from canon_seg.networks import escnn_stand_ins  # noqa: F401
    import escnn

Importing this module is all there is to do. escnn 1.0.11 requires two packages for the group SO(3),
which planar networks never build:

- ``lie_learn`` asks for numpy below 2. Where it is absent, a stand-in is imported in its place,
  whose one function raises an error that names what is missing.
- ``py3nj`` asks for a Fortran compiler. escnn does without it, by a slower method of its own, so
  that there is no stand-in for it, which would take that away; only escnn's warning is not shown.

escnn is not imported here.
"""

import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

# The module that escnn imports, and the packages above it.
_WIGNER_D = "lie_learn.representations.SO3.wigner_d"
_STAND_INS = {
    "lie_learn",
    "lie_learn.representations",
    "lie_learn.representations.SO3",
    _WIGNER_D,
}


def _wigner_d_matrix(*_args: object, **_kwargs: object) -> NoReturn:
    raise NotImplementedError(
        "lie_learn is not installed, which escnn needs for groups that act on volumes; canon_seg "
        "needs planar groups only. Install lie_learn beside numpy below 2 to use them."
    )


class _LastResort(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find the stand-ins, once all other finders have found nothing under their names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how to import a stand-in, or None for any other name."""
        if fullname not in _STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname != _WIGNER_D)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a new stand-in."""
        if module.__name__ == _WIGNER_D:
            module.wigner_D_matrix = _wigner_d_matrix  # type: ignore[attr-defined]


# Appended: the filters that the user set come first, and so do packages that are installed.
warnings.filterwarnings("ignore", "`py3nj` package not found", append=True)
sys.meta_path.append(_LastResort())
