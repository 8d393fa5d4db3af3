"""Keep weights files small: a byte for each weight, and a scale for each output channel."""

import zipfile
from typing import Any

import torch

from canon_seg.errors import InputError
from canon_seg.io.files import AnyPath, save_torch, write_atomically

MIN_PACKED = 1024
"""Number of weights from which on a tensor is packed; smaller ones cost few bytes as they are."""
_CODES, _SCALES = "packed_codes", "packed_scales"


def pack_tensor(weights: torch.Tensor, levels: int = 127) -> dict[str, torch.Tensor]:
    """Round a tensor to whole multiples of a scale for each of its first indices.

    Args:
        weights: (N, ...) float tensor.
        levels: largest multiple, 1..127. Fewer levels make a smaller file, once it is compressed.

    Returns:
        dict of the multiples, int8 of the same shape, and the scales, (N,) float32, as
        :func:`unpack` takes them. Each weight is off by half a scale at most.
    """
    rows = weights.detach().float().cpu().flatten(1)
    scales = rows.abs().amax(dim=1) / levels
    codes = (rows / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return {_CODES: codes.to(torch.int8).view(weights.shape), _SCALES: scales}


def pack(contents: Any, levels: int = 127) -> Any:
    """Pack the large matrices and filters in a weights file's contents, see :func:`pack_tensor`.

    Args:
        contents: tensors in dicts and lists; all else in them stays as it is, as do vectors,
            whole numbers and tensors of fewer than :data:`MIN_PACKED` elements.
        levels: largest multiple, 1..127.
    """
    if isinstance(contents, dict):
        return {name: pack(value, levels) for name, value in contents.items()}
    if isinstance(contents, (list, tuple)):
        return type(contents)(pack(value, levels) for value in contents)
    if (
        isinstance(contents, torch.Tensor)
        and contents.is_floating_point()
        and contents.dim() > 1
        and contents.numel() >= MIN_PACKED
    ):
        return pack_tensor(contents, levels)
    return contents


def unpack(contents: Any) -> Any:
    """Put float32 tensors in place of packed ones, in the dicts and lists of a file's contents.

    Raises:
        InputError: if the codes and the scales of a tensor do not fit each other.
    """
    return _unpack(contents, {})


def _unpack(contents: Any, done: dict[int, Any]) -> Any:
    # What occurs many times is unpacked once: a small file of lists in lists could unfold to any
    # size otherwise.
    if not isinstance(contents, (dict, list, tuple)):
        return contents
    if id(contents) not in done:
        done[id(contents)] = contents
        if isinstance(contents, dict) and contents.keys() == {_CODES, _SCALES}:
            done[id(contents)] = _unpack_tensor(contents[_CODES], contents[_SCALES])
        elif isinstance(contents, dict):
            for name, value in contents.items():
                contents[name] = _unpack(value, done)
        elif isinstance(contents, list):
            contents[:] = [_unpack(value, done) for value in contents]
        elif type(contents) is tuple:
            done[id(contents)] = tuple(_unpack(value, done) for value in contents)
    return done[id(contents)]


def _unpack_tensor(codes: Any, scales: Any) -> torch.Tensor:
    if not (
        isinstance(codes, torch.Tensor)
        and isinstance(scales, torch.Tensor)
        and codes.dtype == torch.int8
        and codes.dim() > 0
        and scales.shape == codes.shape[:1]
    ):
        raise InputError("packed weights and their scales do not fit each other")
    return codes * scales.float().view(-1, *[1] * (codes.dim() - 1))


def save_packed(path: AnyPath, contents: Any, levels: int = 127) -> None:
    """Write contents packed and compressed, as a file that ``load_torch_file`` reads.

    Args:
        path: the file; replaced at once when it is complete.
        contents, levels: see :func:`pack`.

    Raises:
        InputError: naming the file, where it can't be written.
    """
    with write_atomically(path) as temporary:
        plain = temporary.with_suffix(".plain.pth")
        try:
            save_torch(plain, pack(contents, levels))
            with (
                zipfile.ZipFile(plain) as source,
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
            ):
                for entry in source.infolist():
                    target.writestr(entry.filename, source.read(entry))
        finally:
            plain.unlink(missing_ok=True)
