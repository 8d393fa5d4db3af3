"""Find the device that a config asks for, before any work is done for it."""

import sys

import torch

from canon_seg.config.load import given_keys
from canon_seg.errors import InputError


def resolve_device(cfg, config_file, options=()):
    """Make ``cfg.MODEL.DEVICE`` a device that is there, in place.

    detectron2's default is "cuda". Where nobody asked for it and there is none, the CPU is taken
    instead, which is said on stderr; a device that was asked for must be there.

    Args:
        cfg: config made of ``config_file`` and ``options``, not frozen.
        config_file, options: as given to :func:`canon_seg.config.load.load_config`.

    Raises:
        InputError: if the device that was asked for is not there.
    """
    name = cfg.MODEL.DEVICE
    problem = device_problem(name)
    if problem is None:
        return
    is_given = "DEVICE" in given_keys(config_file, type(cfg)).get("MODEL", {})
    if is_given or "MODEL.DEVICE" in list(options)[::2]:
        raise InputError(
            f"MODEL.DEVICE is {name!r}, which cannot be used here ({problem}); give MODEL.DEVICE "
            "cpu to run without it"
        )
    print("no GPU found: running on the CPU", file=sys.stderr)
    cfg.MODEL.DEVICE = "cpu"


def check_device(name, option):
    """Raise InputError that names the option, where there is no device of the name given to it."""
    if problem := device_problem(name):
        raise InputError(
            f"{option} {name} cannot be used here ({problem}); give cpu, or leave it out"
        )


def device_problem(name):
    """Describe why there is no device of a name, or return None if there is one."""
    try:
        torch.empty(0, device=name)
    # torch says it in many ways: no such type, not compiled in, no driver, not so many devices.
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None
