"""The device that a config asks for, looked for before any work is done for it."""

import sys

import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.assets import resolve_config
from canon_seg.errors import InputError

from detectron2.config import CfgNode


def resolve_device(cfg, config_file, options=()):
    """Make ``cfg.MODEL.DEVICE`` a device that is there, in place.

    detectron2's default is "cuda". Where nobody asked for it and there is none, the CPU is taken
    instead, which is said on stderr; a device that was asked for must be there.

    Args:
        cfg: config made of ``config_file`` and ``options``, not frozen.
        config_file, options: as given to :func:`canon_seg.d2.config.load_config`.
    Raises:
        InputError: if the device that was asked for is not there.
    """
    name = cfg.MODEL.DEVICE
    problem = _problem(name)
    if problem is None:
        return
    if _is_given(config_file, options):
        raise InputError(
            f"MODEL.DEVICE is {name!r}, which cannot be used here ({problem}); give MODEL.DEVICE "
            "cpu to run without it"
        )
    print("no GPU found: running on the CPU", file=sys.stderr)
    cfg.MODEL.DEVICE = "cpu"


def _problem(name):
    """Why there is no device of that name, or None if there is one."""
    try:
        torch.empty(0, device=name)
    # torch says it with RuntimeError, AssertionError or NotImplementedError, each in its own way.
    except Exception as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _is_given(config_file, options):
    if "MODEL.DEVICE" in list(options)[::2]:
        return True
    if not config_file:
        return False
    return "DEVICE" in CfgNode.load_yaml_with_base(resolve_config(config_file)).get("MODEL", {})
