"""Read weights files without running anything that they contain.

Two formats: PyTorch files, loaded as weights only, and detectron2's model-zoo ``.pkl``, whose
pickle is taken down as plain values before any array is made of it.
"""

import pickle
import re
import zipfile
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from iopath.common.file_io import HTTPURLHandler, PathManager

from canon_seg.errors import InputError
from canon_seg.io.files import AnyPath
from canon_seg.io.kinds import describe_contents
from canon_seg.io.packing import unpack

DOWNLOAD_ERRORS = (OSError, ValueError, AssertionError, HTTPException)
"""What opening an address can end with: no network, no such file, no such kind of address."""


class _PickledArray:
    """Hold what a pickle says of an array.

    numpy's own unpickling would believe it: an object array made from raw bytes is a set of
    pointers of the file's choice.
    """

    def __init__(self, state=None, is_scalar=False):
        self.state = state
        self.is_scalar = is_scalar

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        self.state = shape, dtype, "F" if is_fortran else "C", data

    def to_numpy(self):
        shape, dtype, order, data = self.state
        if isinstance(data, str):
            data = data.encode("latin1")  # a byte string of Python 2
        # Unlike ndarray's constructor, reshape insists on just as many bytes as the shape needs.
        array = np.frombuffer(data, dtype.to_numpy()).reshape(shape, order=order).copy(order="C")
        return array[()] if self.is_scalar else array


class _PickledDtype:
    """Hold what a pickle says of a dtype; only numbers and booleans are made from it."""

    def __init__(self, code, *flags):
        self.code, self.byte_order = code, "="

    def __setstate__(self, state):
        self.byte_order = state[1]

    def to_numpy(self):
        if not re.fullmatch("[biufc][0-9]{1,2}", self.code):
            raise pickle.UnpicklingError(f"an array of dtype {self.code!r} is not allowed")
        return np.dtype(self.code).newbyteorder(self.byte_order)


class _DictWithAttributes(dict):
    """Take the attribute, ``_metadata``, with which a state dict is pickled."""


def _encode(text, encoding):
    # How Python 3 writes bytes in protocol 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


# All that a pickle of containers, strings, numbers and numpy arrays has to find by name. Functions
# only: they give new objects, so that a file can't change what the next file meets.
_SAFE_GLOBALS = {
    "numpy.ndarray": "ndarray",  # only ever an argument, which is not looked at
    "numpy.dtype": lambda code, *flags: _PickledDtype(code),
    "collections.OrderedDict": lambda *items: _DictWithAttributes(*items),  # noqa: PLW0108
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # protocol 2 writes empty bytes as a call
}
for _core in ("numpy.core", "numpy._core"):
    _SAFE_GLOBALS.update(
        {
            f"{_core}.multiarray._reconstruct": lambda *prototype: _PickledArray(),
            f"{_core}.multiarray.scalar": (
                lambda dtype, data: _PickledArray(((), dtype, "C", data), is_scalar=True)
            ),
            f"{_core}.numeric._frombuffer": (  # protocol 5
                lambda data, dtype, shape, order: _PickledArray((shape, dtype, order, data))
            ),
        }
    )


def _reconstructed(*prototype):
    return _PickledArray()


def _scalar(dtype, data):
    return _PickledArray(((), dtype, "C", data), is_scalar=True)


def _ndarray():
    """Stand for numpy's class in PyTorch files: only ever an argument, which is not looked at."""


# What PyTorch's own unpickler of weights may find by name beside tensors, in place of numpy's own.
_TORCH_GLOBALS = [
    (_PickledArray, f"{__name__}._PickledArray"),  # may be given its state
    (_PickledDtype, "numpy.dtype"),
    (_ndarray, "numpy.ndarray"),
    *(
        (stand_in, f"{core}.multiarray.{name}")
        for core in ("numpy.core", "numpy._core")
        for stand_in, name in ((_reconstructed, "_reconstruct"), (_scalar, "scalar"))
    ),
]


def _load_weights(path):
    """Load a PyTorch file as weights only, with numpy's arrays and scalars of numbers."""
    load = partial(torch.load, path, map_location="cpu", weights_only=True)
    try:
        return load()
    except pickle.UnpicklingError as error:
        if "numpy" not in str(error) or not hasattr(torch.serialization, "safe_globals"):
            raise
        try:
            with torch.serialization.safe_globals(_TORCH_GLOBALS):
                return _with_arrays(load())
        except (AttributeError, TypeError):  # PyTorch before 2.6 takes no stand-ins
            raise error from None


def _with_arrays(value):
    """Put numpy's arrays and scalars in place of what stands for them, in dicts and lists."""
    if isinstance(value, _PickledArray):
        return value.to_numpy()
    if isinstance(value, dict):
        for key, own in value.items():
            value[key] = _with_arrays(own)
    elif isinstance(value, list):
        value[:] = [_with_arrays(own) for own in value]
    elif type(value) is tuple:
        return tuple(_with_arrays(own) for own in value)
    return value


class _WeightsUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _SAFE_GLOBALS[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _plain(value, done):
    """Return containers, strings, numbers and arrays from what was unpickled.

    All else raises UnpicklingError.

    Args:
        value: what was unpickled.
        done: dict from id to result. What occurs many times is converted once: a small file of
            lists in lists could unfold to any size.
    """
    if isinstance(value, (str, bytes, bytearray, int, float, type(None))):
        return value
    if id(value) not in done:
        if isinstance(value, _PickledArray):
            result = value.to_numpy()
        elif isinstance(value, dict):
            result = {_plain(k, done): _plain(v, done) for k, v in value.items()}
        elif isinstance(value, (list, tuple)):
            result = type(value)([_plain(v, done) for v in value])
        else:
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
        done[id(value)] = result
    return done[id(value)]


def load_pickle_file(path, key):
    """Read a ``.pkl`` of arrays, as detectron2's model zoo has them.

    Args:
        path: the file.
        key: config key that the path came from, for messages.

    Returns:
        the object: dicts, lists, tuples, strings, numbers and numpy arrays of numbers.

    Raises:
        InputError: if the file is missing, damaged, or would run code.
    """
    check_is_file(path, key)
    try:
        with Path(path).open("rb") as file:
            return _plain(_WeightsUnpickler(file, encoding="latin1").load(), {})
    except Exception as error:  # a damaged pickle can raise anything
        raise _not_loaded(path, key, error) from error


def load_torch_file(path: AnyPath, key: str) -> Any:
    """Read a PyTorch file as weights only, onto the CPU.

    Args, returns and raises: as :func:`load_pickle_file`, with tensors beside the arrays. Weights
    that :func:`canon_seg.io.packing.save_packed` wrote come as float32.
    """
    check_is_file(path, key)
    try:
        return unpack(_load_weights(path))
    # RuntimeError, UnpicklingError, EOFError, KeyError...: a damaged file can raise anything.
    except Exception as error:
        raise _not_loaded(path, key, error) from error


def weights_in(contents, path, key):
    """Take the weights out of what a file holds, whatever wraps them.

    Args:
        contents: of the file: names to tensors or arrays; or a dict that holds these as ``model``
            (detectron2's checkpoints) or ``state_dict`` (many trainers'). Where all names begin
            with "module." (a model wrapped for several GPUs), that is left out.
        path, key: see :func:`load_pickle_file`.

    Returns:
        dict from names to tensors or arrays.

    Raises:
        InputError: naming the file, the config key and the first entry that is no weight.
    """
    weights = contents
    for wrapper in ("model", "state_dict"):
        if isinstance(weights, dict) and wrapper in weights:
            weights = weights[wrapper]
    if not isinstance(weights, dict) or not weights:
        wrong = f"a {type(weights).__name__}" if weights else "nothing"
        raise InputError(f"{path} ({key}) holds no weights but {wrong}; give a weights file")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, (torch.Tensor, np.ndarray)):
            raise InputError(
                f"{path} ({key}) holds no weights: entry {name!r} is a {type(value).__name__}; "
                "give a weights file"
            )
    prefix = "module."
    if all(name.startswith(prefix) for name in weights):
        return {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def fetch(path, key):
    """Find a weights file on this machine, and download it first if it has an http address.

    Args:
        path: path or address.
        key: config key that it came from, for messages.

    Returns:
        path, of which nothing is known yet.

    Raises:
        InputError: if it can't be downloaded.
    """
    if "://" not in path:
        return path
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    try:
        return manager.get_local_path(path)
    except DOWNLOAD_ERRORS as error:
        raise not_fetched(path, key, error) from error


def not_fetched(path, key, error):
    """Make the :class:`InputError` of an address that could not be downloaded."""
    return InputError(f"{key}: {path} could not be fetched ({error}); give the path of a file")


def load_state(module: torch.nn.Module, state: dict[str, Any], path: AnyPath, key: str) -> None:
    """Load a state dict that has to fit exactly.

    Args:
        module: nn.Module, in training mode if it is built on escnn (which keeps filters that are
            made from the weights otherwise).
        state: dict from names to tensors; anything else in it counts as missing.
        path, key: see :func:`load_pickle_file`.

    Raises:
        InputError: naming the file, the config key and the first entries that do not fit.
    """
    own = module.state_dict()
    state = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    check_fit(
        path,
        key,
        missing=[name for name in own if name not in state],
        unknown=[name for name in state if name not in own],
        shapes=[
            (name, state[name].shape, value.shape)
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    )
    module.load_state_dict(state)


def check_fit(path, key, *, missing, unknown, shapes):
    """Raise the :class:`InputError` of a checkpoint that does not fit its model, if it does not.

    Args:
        path, key: see :func:`load_pickle_file`.
        missing, unknown: names that only the model, only the file has.
        shapes: (name, shape in the file, shape in the model) where these differ.
    """
    problems = [
        f"{name} has shape {tuple(theirs)}, the model {tuple(ours)}"
        for name, theirs, ours in shapes
    ]
    problems += [f"{name} is missing" for name in missing]
    problems += [f"{name} is unknown" for name in unknown]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{path} ({key}) is a checkpoint of another architecture: {'; '.join(problems[:3])}"
            f"{more}. Give the file that belongs to this config, or change the config's model"
        )


def check_is_file(path: AnyPath, key: str) -> None:
    """Raise an :class:`InputError` that names both, if there is no such file."""
    if not Path(path).is_file():
        raise InputError(f"{key}: there is no file {path}; give the path of a weights file")


def _not_loaded(path, key, error):
    if isinstance(error, PermissionError):
        return InputError(f"{path} ({key}) may not be read; change its permissions")
    found = describe_contents(path)
    if found and found[0] == "a ZIP archive":  # so are PyTorch's files
        found = None if zipfile.is_zipfile(path) else ("cut short", "get the file again")
    if found:
        return InputError(f"{path} ({key}) was not loaded: it is {found[0]}; {found[1]}")
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    # PyTorch's messages advise to load code; what it met comes at the end of the advice.
    foreign = re.search(r"(?:GLOBAL|asks for|Unsupported class) (?!__builtin__)([\w.]+)", text)
    if foreign:
        return InputError(
            f"{path} ({key}) was not loaded: it holds more than weights, {foreign[1]}, which could "
            "run code; have its source save the weights alone (state_dict)"
        )
    text = text.rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return InputError(
        f"{path} ({key}) was not loaded: it is damaged or holds more than weights "
        f"({text.splitlines()[0]}); get the file again from its source"
    )
