"""Read and write the weights file of a trained :class:`~canon_seg.networks.backbone.PoseNetwork`.

The file holds the weights in half precision, and all that the network's scorer needs: the group,
the backbone, the size of its input, and one temperature for each number of passes. Of a network for
all angles, with or without mirrors, it holds how many arcs the circle has, and temperatures for
each group that reads them.
"""

import os
from collections.abc import Mapping
from typing import Any

from canon_seg.core.group import C4, O2, SO2, elements_of
from canon_seg.errors import InputError
from canon_seg.io.checkpoint import load_state, load_torch_file
from canon_seg.io.files import save_torch
from canon_seg.networks.backbone import KEY, BackboneSpec, PoseNetwork

FORMAT = "canon_seg.pose_network"
VERSION = 1
QUARTERS = len(elements_of(C4))
_WEIGHTS = "MODEL.CANONICALIZER.WEIGHTS"
_BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def save_pose_network(
    path: str | os.PathLike[str],
    network: PoseNetwork,
    input_size: int,
    temperatures: Mapping[Any, Any] | None = None,
) -> None:
    """Write a trained network to a weights file.

    Args:
        path: the file; replaced at once when it is complete.
        network: :class:`PoseNetwork`, in any mode.
        input_size: side in pixels of the square that it was trained for.
        temperatures: dict from the number of passes, 1 and 0 (all), to what the logits are divided
            by; of a network for all angles, a dict from the name of a group to such a dict. None
            before they are fitted.

    Raises:
        InputError: naming the file, if it cannot be written.
    """
    state = {
        # Variances may leave the range of half precision, and their bytes are few.
        name: (value if name.endswith(_BATCH_STATISTICS) else value.half()).cpu()
        for name, value in network.state_dict().items()
    }
    contents: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "group": C4.name,
        "backbone": network.spec.backbone,
        "input_size": int(input_size),
        "temperatures": _plain(temperatures or {}),
        "state": state,
    }
    if network.spec.num_poses != QUARTERS:
        spec = network.spec
        contents.update(group=spec.circle.name, arcs=spec.num_poses // (1 + spec.mirrors))
    save_torch(path, contents)


def _plain(temperatures: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: _plain(value) if isinstance(value, Mapping) else float(value)
        for name, value in temperatures.items()
    }


def load_pose_network(
    path: str | os.PathLike[str], backbone: str = ""
) -> tuple[PoseNetwork, int, dict[Any, Any]]:
    """Build a network from a weights file.

    Args:
        path: file written by :func:`save_pose_network`.
        backbone: the backbone that the config names; "" takes the file's.

    Returns:
        (network, input_size, temperatures): the network in eval mode, on the CPU, float32; the
        others as they were saved.

    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind, of another
            backbone than the config's, or for another group.
    """
    contents = _read(path)
    if backbone and backbone != contents["backbone"]:
        raise InputError(
            f"{path} ({_WEIGHTS}) holds weights of the backbone {contents['backbone']!r}, but "
            f"{KEY}.BACKBONE is {backbone!r}; make them one, or set it to '' to take the file's"
        )
    if contents["group"] not in (C4.name, SO2.name, O2.name):
        raise InputError(
            f"{path} ({_WEIGHTS}) was trained for the group {contents['group']}; only {C4.name}, "
            f"{SO2.name} and {O2.name} are supported"
        )
    poses = QUARTERS if contents["group"] == C4.name else contents.get("arcs")
    if not isinstance(poses, int) or poses < 1 or (poses != QUARTERS and poses % 8):
        raise InputError(f"{path} ({_WEIGHTS}) is damaged: its arcs are {poses!r}")
    mirrors = contents["group"] == O2.name
    network = PoseNetwork(BackboneSpec(contents["backbone"], poses * (1 + mirrors), mirrors))
    load_state(network, contents["state"], path, _WEIGHTS)
    return network.eval(), contents["input_size"], contents["temperatures"]


def is_pose_network(path: str | os.PathLike[str]) -> bool:
    """Tell whether a weights file is one of :func:`save_pose_network`.

    Raises:
        InputError: naming the file, if it is missing or damaged.
    """
    contents = load_torch_file(path, _WEIGHTS)
    return isinstance(contents, dict) and contents.get("format") == FORMAT


_TYPES = {"group": str, "backbone": str, "input_size": int, "temperatures": dict, "state": dict}


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    contents = load_torch_file(path, _WEIGHTS)
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InputError(
            f"{path} is no pose network's weights file ({_WEIGHTS}); give one that "
            "tools/train_net.py wrote with MODEL.CANONICALIZER.SCORER.BACKBONE set"
        )
    if contents.get("version") != VERSION:
        raise InputError(
            f"{path} ({_WEIGHTS}) has version {contents.get('version')} of its format, this "
            f"program reads {VERSION}; get a newer canon_seg"
        )
    for name, kind in _TYPES.items():
        if not isinstance(contents.get(name), kind):
            raise InputError(f"{path} ({_WEIGHTS}) is damaged: its {name} is not what it should be")
    return contents
