"""Supply what detectron2 v0.6 misses on current libraries; import before detectron2.

    from canon_seg.d2 import compat  # noqa: F401
    import detectron2

Importing this module is all there is to do. Each gap is filled only where there is one, so that a
detectron2 with compiled operators, or a later one, works as it would without:

- ``PIL.Image.LINEAR``, which Pillow 10 removed (a default argument of ``ExtentTransform``);
- ``np.bool``, ``np.int``, ``np.float`` and ``np.str``, which numpy 1.24 removed;
- ``pkg_resources``, which setuptools 82 removed (``model_zoo`` finds its files with it);
- ``detectron2._C``, absent from an installation without compiled operators. ``layers`` imports it
  but needs it only for deformable convolutions and rotated boxes. The stand-in raises an error
  where one of these is called, and lets pycocotools stand in for the compiled COCO evaluation.

Deprecations that only a change of v0.6 could answer are not shown. Neither torch nor detectron2 is
imported here.
"""

import importlib.abc
import importlib.machinery
import sys
import warnings
from importlib.resources import files
from types import ModuleType
from typing import ClassVar

import numpy as np
from PIL import Image

_COMPILED = "detectron2._C"
_COMPILED_COCOEVAL = "detectron2.evaluation.fast_eval_api"


def _fill_pillow():
    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR  # two names of one filter


def _fill_numpy():
    # numpy 2 calls np.bool_ np.bool again; the other three were the builtin types.
    for name, value in {"bool": np.bool_, "int": int, "float": float, "str": str}.items():
        if name not in vars(np):  # hasattr would warn
            setattr(np, name, value)


def _hush():
    for category, message in (
        (UserWarning, "pkg_resources is deprecated"),
        (FutureWarning, "`torch.jit.script"),
        (UserWarning, "torch.meshgrid"),
    ):
        # Appended: the filters that the user set come first.
        warnings.filterwarnings("ignore", message, category, append=True)


class _CompiledOperatorsAbsent(ModuleType):
    """Stand in for ``detectron2._C``."""

    # detectron2.utils.collect_env calls these three, and so does every default_setup().
    @staticmethod
    def get_compiler_version():
        return "none: detectron2 is installed without compiled operators"

    get_cuda_version = get_compiler_version

    @staticmethod
    def has_cuda():
        return False

    def __getattr__(self, name):
        raise AttributeError(
            f"{_COMPILED}.{name}: this detectron2 is installed without compiled operators "
            f"(deformable convolutions, rotated boxes); build the official detectron2 from its "
            f"repository, or install conda-forge's package, to have them"
        )


def _fill_compiled(module):
    # COCOEvaluator takes the compiled evaluation by default; pycocotools' is the original of it.
    from pycocotools.cocoeval import COCOeval

    evaluation = ModuleType(_COMPILED_COCOEVAL)
    evaluation.COCOeval_opt = COCOeval
    sys.modules.setdefault(_COMPILED_COCOEVAL, evaluation)


def _fill_pkg_resources(module):
    module.resource_filename = lambda package, name: str(files(package).joinpath(name))


class _LastResort(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find the stand-ins, once all other finders have found nothing under their names."""

    STAND_INS: ClassVar = {
        _COMPILED: (_CompiledOperatorsAbsent, _fill_compiled),
        "pkg_resources": (ModuleType, _fill_pkg_resources),
    }

    def find_spec(self, fullname, path=None, target=None):
        if fullname in self.STAND_INS:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec):
        module_type, _ = self.STAND_INS[spec.name]
        return module_type(spec.name)

    def exec_module(self, module):
        _, fill = self.STAND_INS[module.__name__]
        fill(module)


_fill_pillow()
_fill_numpy()
_hush()
sys.meta_path.append(_LastResort())
