"""Write output files that are complete or absent, and make output folders that can be written."""

import atexit
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from canon_seg.errors import InputError, is_no_room
from canon_seg.io.names import as_unicode, without_surrogates

AnyPath = str | os.PathLike[str]


@contextmanager
def write_atomically(path: AnyPath) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to ``path`` when the block has ended well.

    The temporary file lies in the folder of ``path``, which is created if needed, and has the
    same suffix, so that libraries that choose a format by the suffix choose the right one. If the
    block raises, the temporary file is removed and what was at ``path`` before stays.
    An OSError of the block that is about no other file is taken for one of writing this one.

    Args:
        path: str or path of the file to write.

    Yields:
        pathlib.Path of the temporary file, which doesn't exist yet.

    Raises:
        InputError: the folder can't be created, ``path`` can't be replaced, or writing failed, as
            on a full disk.
    """
    path = Path(path)
    _create_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise _not_writable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: AnyPath, text: str) -> None:
    """Write a string to a UTF-8 file atomically; :class:`InputError` where that is impossible.

    Bytes that are not UTF-8, as names of files may have, become escape codes.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(as_unicode(text), encoding="utf-8")


def write_json(path: AnyPath, value: Any, indent: int | None = 2) -> None:
    """Write ``value`` as JSON atomically.

    NaN and infinity, which JSON doesn't have, raise ValueError before anything is written. Strings
    with bytes that are not UTF-8, as names of files may have, get escape codes in their place.
    """
    text = json.dumps(value, indent=indent, allow_nan=False)
    if "\\ud" in text:  # a surrogate, or one of a pair, which stays as it is
        text = json.dumps(without_surrogates(value), indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def save_torch(path: AnyPath, contents: Any) -> None:
    """Write tensors and plain containers of them as a PyTorch file, atomically.

    Raises:
        InputError: naming the file, where it can't be written.
    """
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(contents, file)
        except RuntimeError as error:
            # PyTorch complains of the size of what a failed write has left; the reason lies below.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def check_output_dir(path: AnyPath) -> Path:
    """Create an output folder if needed and prove that files can be written there.

    A file is really created and removed: permission bits say nothing about read-only file systems,
    and mean nothing to root. A folder that is created and still empty when the program ends, as
    after an error, is removed then.

    Returns:
        pathlib.Path of the folder.

    Raises:
        InputError: it is a file, can't be created, or can't be written.
    """
    path = Path(path)
    _create_folder(path)
    probe = path / f".probe.{secrets.token_hex(4)}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error) from error
    return path


def _create_folder(path: Path) -> None:
    whole = path.absolute()  # the program may change its folder
    try:
        missing = [level for level in (whole, *whole.parents) if not level.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{path}: cannot be used as an output folder, since it or a part of its path is "
            "a file; give another folder"
        ) from error
    except OSError as error:
        raise _not_writable(path, error) from error
    if missing:
        atexit.register(_remove_empty, missing)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, each of which holds the one before it, as long as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _not_writable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); give a place that you may write "
        "to and that has space left"
    )


@contextmanager
def said_where_full(folder: AnyPath, advice: str = "go on with --resume") -> Iterator[None]:
    """Turn what a full disk ends the block in into an InputError that names a folder.

    What fails while an exception of the block is handled, as a library's own tidying up does on a
    full disk, does not hide it.

    Args:
        folder: where the block writes.
        advice: what to do once there is room.

    Raises:
        InputError: naming ``folder``; one of the block stays as it is.
    """
    try:
        yield
    except Exception as error:
        chain = list(_with_contexts(error))
        for reason in chain:
            if isinstance(reason, InputError):
                raise reason from None
        for reason in chain:
            if is_no_room(reason):
                raise InputError(
                    f"{folder}: cannot be written ({getattr(reason, 'strerror', reason)}); make "
                    f"room, then {advice}"
                ) from reason
        raise


def _with_contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, the one while which it was raised, and so on."""
    while error is not None:
        yield error
        error = error.__context__
