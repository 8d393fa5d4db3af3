"""Reading weights files without running anything that they contain.

Three formats: PyTorch files (loaded as weights only), detectron2's model-zoo ``.pkl`` (through an
unpickler that knows arrays and containers and nothing else), and what this project writes itself.
"""

import os
import pickle

import numpy as np
import torch

from canon_seg.errors import InputError

# All that a pickle of dicts, lists, strings, numbers and numpy arrays has to find by name.
_SAFE_GLOBALS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): lambda text, encoding: _encode_latin1(text, encoding),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _SAFE_GLOBALS[_module, "_reconstruct"] = np.empty(0).__reduce__()[0]
    _SAFE_GLOBALS[_module, "scalar"] = np.float64(0).__reduce__()[0]


def _encode_latin1(text, encoding):
    # Python 2 byte strings arrive in pickles as latin1 text that is encoded again.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


class _WeightsUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _SAFE_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_pickle_file(path, key):
    """Read a ``.pkl`` of arrays, as detectron2's model zoo has them.

    Args:
        path: the file.
        key: config key that the path came from, for messages.
    Returns:
        the object: containers, strings, numbers and numpy arrays.
    Raises:
        InputError: if the file is missing, damaged, or would run code.
    """
    _check_is_file(path, key)
    try:
        with open(path, "rb") as file:
            return _WeightsUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} ({key}) was not loaded: it is damaged or holds more than weights ({error}); "
            "get the file again from its source"
        ) from error


def load_torch_file(path, key):
    """Read a PyTorch file as weights only, onto the CPU.

    Args, returns and raises: as :func:`load_pickle_file`, with tensors in place of arrays.
    """
    _check_is_file(path, key)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path} ({key}) was not loaded: it is damaged or holds more than weights ({reason}); "
            "get the file again from its source"
        ) from error


def load_state(module, state, path, key):
    """Load a state dict that has to fit exactly.

    Raises:
        InputError: naming the file, the config key and the first entries that do not fit.
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, the model {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise InputError(
            f"{path} ({key}) is a checkpoint of another architecture: {'; '.join(problems[:3])}"
            f"{f'; and {len(problems) - 3} more' if len(problems) > 3 else ''}. Give the file that "
            "belongs to this config, or change the config's model"
        )
    module.load_state_dict(state)


def _check_is_file(path, key):
    if not os.path.isfile(path):
        raise InputError(f"{key}: there is no file {path}")
