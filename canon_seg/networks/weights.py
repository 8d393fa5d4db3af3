"""Write the file that a trained canonicalizer lives in, and read it back into a network.

One small file serves both uses, in half precision: ``exported`` holds the ordinary convolutions
for inference, ``trainable`` escnn's free parameters for further training. Of filters that are
exact turns of each other one is stored; what is loaded is the same to the bit.

Version 1 of the format, which has no ``version`` entry, stored all of them, and the free parameters
in single precision. It can still be read.
"""

import os
from typing import Any

import torch
from torch import nn

from canon_seg.core.group import elements_of
from canon_seg.errors import InputError
from canon_seg.io.checkpoint import load_state, load_torch_file
from canon_seg.io.files import save_torch
from canon_seg.networks.equivariant import (
    NetworkSpec,
    PoseNetwork,
    build_plain_network,
    build_trainable_network,
    export_network,
)
from canon_seg.networks.filters import (
    all_orientations,
    first_orientations,
    orientations_kept,
)

FORMAT = "canon_seg.canonicalizer"
VERSION = 2
_KEY = "MODEL.CANONICALIZER.WEIGHTS"
_BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def save_canonicalizer(
    path: "str | os.PathLike[str]", network: PoseNetwork, input_size: int
) -> None:
    """Write a trained network to a weights file.

    Args:
        path: the file; replaced at once when it is complete.
        network: trainable network (escnn), in any mode.
        input_size: shorter side in pixels that it was trained for.

    Raises:
        InputError: naming the file, if it cannot be written.
    """
    spec = network.spec
    exported = export_network(network).state_dict()
    for name, value in exported.items():
        kept = first_orientations(value, spec.orientations) if _is_filter(name, spec) else value
        exported[name] = kept.half()
    free = _free_state(network)
    for name, value in free.items():
        # Variances may leave the range of half precision, and their bytes are few.
        free[name] = (value if name.endswith(_BATCH_STATISTICS) else value.half()).cpu()
    save_torch(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "network": network.spec.to_dict(),
            "input_size": int(input_size),
            "exported": exported,
            "trainable": free,
        },
    )


def load_canonicalizer(path: str, trainable: bool = False) -> tuple[PoseNetwork, int]:
    """Build a network from a weights file.

    Args:
        path: file written by :func:`save_canonicalizer`, of this version or an earlier one.
        trainable: whether to build the escnn network instead of the plain one.

    Returns:
        (network, input_size): the network in eval mode, on the CPU, float32.

    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind.
    """
    version, spec, input_size, exported, free = _read(path)
    if trainable:
        network = build_trainable_network(spec)
        # What escnn makes from the parameters is not in the file.
        derived = {k: v for k, v in network.state_dict().items() if k not in _free_state(network)}
        state = {**derived, **free}
    else:
        network = build_plain_network(spec)
        state = exported if version == 1 else _with_all_turns(exported, network)
    load_state(network, state, path, _KEY)
    return network.eval(), input_size


def count_free_parameters(path: str) -> int:
    """Count the parameters of the network in a weights file that can be trained.

    Raises:
        InputError: as :func:`load_canonicalizer`.
    """
    free = _read(path)[-1]
    return sum(
        value.numel()
        for name, value in free.items()
        if isinstance(value, torch.Tensor) and not name.endswith(_BATCH_STATISTICS)
    )


def _read(path: str) -> tuple[int, NetworkSpec, int, dict[str, Any], dict[str, Any]]:
    """Return (version, spec, input size, exported, trainable) of a file, the last two as stored."""
    contents = load_torch_file(path, _KEY)
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InputError(
            f"{path} is no canonicalizer's weights file: {_KEY} takes files that "
            "tools/train_net.py writes as canonicalizer.pth"
        )
    try:
        version = int(contents.get("version", 1))
        spec, input_size = NetworkSpec.from_dict(contents["network"]), int(contents["input_size"])
        elements_of(spec.orientations)  # raises for an order that is none
        exported, free = dict(contents["exported"]), dict(contents["trainable"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} ({_KEY}) is incomplete or damaged ({error!r}); get the file again from its "
            "source, or train again"
        ) from error
    if version not in (1, VERSION):
        raise InputError(
            f"{path} ({_KEY}) has version {version} of the format, and versions up to {VERSION} "
            "are known here; update canon_seg, or train again"
        )
    return version, spec, input_size, exported, free


def _is_filter(name: str, spec: NetworkSpec) -> bool:
    """Return whether an entry of a plain network's state holds filters in all orientations."""
    return name.endswith("conv.weight") and not (spec.vector and name.startswith("head."))


def _with_all_turns(stored: dict[str, Any], plain: PoseNetwork) -> dict[str, Any]:
    """Return the state of a plain network from what is stored of it.

    What does not have the shape that it should is left for :func:`load_state` to complain of.
    """
    group, state = plain.spec.orientations, dict(stored)
    for name, whole in plain.state_dict().items():
        value = stored.get(name)
        if not _is_filter(name, plain.spec) or not isinstance(value, torch.Tensor):
            continue
        count = len(whole) // len(elements_of(group)) * orientations_kept(group)
        if value.shape == (count, *whole.shape[1:]):
            state[name] = all_orientations(value, group, from_image=name.startswith("stem."))
    return state


def _free_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and batch statistics, without the buffers that escnn makes from them."""
    wanted = {name for name, _ in network.named_parameters()}
    return {
        name: value
        for name, value in network.state_dict().items()
        if name in wanted or name.endswith(_BATCH_STATISTICS)
    }
