"""Keep results of a segmenter by the content of what it was given.

All turns of an image have one canonical image, byte for byte, so one run of the segmenter serves
them all.
"""

import hashlib
import io
import math
import pickle
import threading
from collections import OrderedDict

import numpy as np
import torch


class ResultCache:
    """Store a bounded number of results; the least recently used go first.

    Results are kept as bytes of their own, masks as one bit per pixel: nothing that a caller does
    to a result changes what is kept. May be used by several threads. A copy of it is empty.

    Attributes:
        hits, misses: how often :meth:`get` found something, and how often it did not.
        num_bytes: what is kept now, at most ``max_bytes``.

    Args:
        max_bytes: how much to keep. A result that is larger by itself is not kept.
    """

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self.hits = self.misses = self.num_bytes = 0
        self._entries = OrderedDict()
        self._weights = []
        self._lock = threading.Lock()

    def __reduce__(self):
        return type(self), (self.max_bytes,)

    def __len__(self):
        return len(self._entries)

    def get(self, key):
        """Return a new copy of the result put under ``key``, on the same device, or None."""
        with self._lock:
            data = self._entries.get(key)
            if data is None:
                self.misses += 1
                return None
            self._entries.move_to_end(key)
            self.hits += 1
        return pickle.loads(data)  # noqa: S301 - what put() has written

    def put(self, key, result):
        """Keep a copy of a result: tensors and detectron2's structures, in any containers."""
        file = io.BytesIO()
        _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(result)
        data = file.getvalue()
        if len(data) > self.max_bytes:
            return
        with self._lock:
            self._drop(key)
            self._entries[key] = data
            self.num_bytes += len(data)
            while self.num_bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self):
        """Forget all results; the counts stay."""
        with self._lock:
            self._clear()

    def follow(self, module):
        """Forget all results if a parameter or buffer was replaced or written to.

        What counts is what changed since the last call.

        It costs no more than a walk over the module, for the values are not read: it sees what
        torch counts as a change. Writing through ``.data`` or in ``torch.inference_mode`` is none.
        """
        # Aliases keep their memory alive, so that a new tensor cannot take its place unnoticed.
        now = [
            (tensor.detach(), 0 if tensor.is_inference() else tensor._version)
            for tensor in (*module.parameters(), *module.buffers())
        ]
        with self._lock:
            known = [(tensor.data_ptr(), version) for tensor, version in self._weights]
            if known != [(tensor.data_ptr(), version) for tensor, version in now]:
                self._clear()
                self._weights = now

    def _clear(self):
        self._entries.clear()
        self.num_bytes = 0

    def _drop(self, key):
        self.num_bytes -= len(self._entries.pop(key, b""))


def content_key(batched_inputs):
    """Return 32 bytes that tell one batch of a segmenter's inputs from another.

    The key is that of the batch as a whole: an image is padded to its neighbours' size, so that
    its result depends on them.

    Args:
        batched_inputs: list of dicts, of which ``image`` (tensor), ``prompts``
            (:class:`canon_seg.sam.prompts.Prompts`), ``height``, ``width`` and ``soft_masks``
            count; the last four are optional. Other keys are taken to have no influence.
    """
    digest = hashlib.blake2b(digest_size=32)
    for inputs in batched_inputs:
        asked = [inputs.get(name) for name in ("height", "width")]
        digest.update(repr((*asked, bool(inputs.get("soft_masks")))).encode())
        _update(digest, inputs["image"])
        prompts = inputs.get("prompts")
        for name, value in vars(prompts).items() if prompts is not None else ():
            if isinstance(value, torch.Tensor):
                digest.update(name.encode())
                _update(digest, value)
        digest.update(b"end")
    return digest.digest()


def _update(digest, tensor):
    digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(_as_bytes(tensor))


def _as_bytes(tensor):
    """Return values in row-major order as a flat uint8 array; of a new tensor its own memory."""
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()


class _Pickler(pickle.Pickler):
    """Write tensors as their plain values, booleans as bits."""

    def reducer_override(self, value):
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        data = _as_bytes(value)
        if value.dtype == torch.bool:
            data = np.packbits(data)
        return _tensor, (data.tobytes(), value.dtype, tuple(value.shape), str(value.device))


def _tensor(data, dtype, shape, device):
    """Return the tensor that :class:`_Pickler` wrote."""
    values = np.frombuffer(data, np.uint8)
    if dtype == torch.bool:
        bits = np.unpackbits(values, count=math.prod(shape)).view(bool)
        return torch.from_numpy(bits).reshape(shape).to(device)
    tensor = torch.empty(shape, dtype=dtype)
    _as_bytes(tensor)[:] = values
    return tensor.to(device)
