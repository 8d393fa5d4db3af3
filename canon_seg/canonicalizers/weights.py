"""The file that a trained canonicalizer lives in, and its way back into a network.

One small file serves both uses: ``exported`` holds the ordinary convolutions for inference (half
precision), ``trainable`` escnn's free parameters for further training.
"""

import torch

from canon_seg.canonicalizers.networks import (
    NetworkSpec,
    build_plain_network,
    build_trainable_network,
    export_network,
)
from canon_seg.checkpoint import load_state, load_torch_file
from canon_seg.errors import InputError
from canon_seg.files import write_atomically

FORMAT = "canon_seg.canonicalizer"


def save_canonicalizer(path, network, input_size):
    """Write a trained network to a weights file.

    Args:
        path: the file; replaced at once when it is complete.
        network: trainable network (escnn), in any mode.
        input_size: shorter side in pixels that it was trained for.
    """
    exported = export_network(network).state_dict()
    contents = {
        "format": FORMAT,
        "network": network.spec.to_dict(),
        "input_size": int(input_size),
        "exported": {key: value.half() for key, value in exported.items()},
        "trainable": {key: value.cpu() for key, value in _free_state(network).items()},
    }
    with write_atomically(path) as temporary:
        torch.save(contents, temporary)


def load_canonicalizer(path, trainable=False):
    """Build a network from a weights file.

    Args:
        path: file written by :func:`save_canonicalizer`.
        trainable: whether to build the escnn network instead of the plain one.
    Returns:
        (network, input_size): the network in eval mode, on the CPU, float32.
    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind.
    """
    contents = load_torch_file(path, "MODEL.CANONICALIZER.WEIGHTS")
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InputError(
            f"{path} is no canonicalizer's weights file: MODEL.CANONICALIZER.WEIGHTS takes files "
            "that tools/train_net.py writes as canonicalizer.pth"
        )
    try:
        spec, input_size = NetworkSpec.from_dict(contents["network"]), int(contents["input_size"])
        exported, free = dict(contents["exported"]), dict(contents["trainable"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} (MODEL.CANONICALIZER.WEIGHTS) is incomplete or damaged ({error!r}); get the "
            "file again from its source, or train again"
        ) from error
    if trainable:
        network = build_trainable_network(spec)
        # What escnn makes from the parameters is not in the file.
        derived = {k: v for k, v in network.state_dict().items() if k not in _free_state(network)}
        state = {**derived, **free}
    else:
        network = build_plain_network(spec)
        state = exported
    load_state(network, state, path, "MODEL.CANONICALIZER.WEIGHTS")
    return network.eval(), input_size


def _free_state(network):
    """Parameters and batch statistics, without the buffers that escnn makes from them."""
    wanted = {name for name, _ in network.named_parameters()}
    return {
        key: value
        for key, value in network.state_dict().items()
        if key in wanted or "running_" in key or key.endswith("num_batches_tracked")
    }
