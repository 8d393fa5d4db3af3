"""Find the photographs in folders."""

import os
from collections import Counter
from collections.abc import Sequence

from canon_seg.errors import InputError, warn
from canon_seg.io.names import printable

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".gif", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
"""The ends of file names, in lower case, by which photographs are known."""

_NAMED = 3


def list_photos(folder: str, key: str) -> list[str]:
    """List all photographs below a folder, sorted by path; hidden files are left out.

    Other files are skipped, which is an :class:`canon_seg.errors.InputWarning` that counts them.

    Args:
        folder: path.
        key: config key or option that the path came from, for messages.

    Returns:
        Paths that begin with ``folder``, at least one.

    Raises:
        InputError: if there is no such folder or no photograph in it.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{key}: there is no folder {folder}; give one with photographs")
    found = sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    files = [file for file in found if file.lower().endswith(EXTENSIONS)]
    if not files:
        raise InputError(f"{key}: {folder} holds no photograph ({', '.join(EXTENSIONS)})")
    others = [
        os.path.relpath(file, folder) for file in found if not file.lower().endswith(EXTENSIONS)
    ]
    warn_of_skipped(f"{key}: {folder}", others)
    return files


def warn_of_skipped(where: str, names: Sequence[str]) -> None:
    """Warn of files that are skipped, if there are any: how many of which kind, and the first.

    Args:
        where: start of the message.
        names: of the files.
    """
    if not names:
        return
    kinds = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in names)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    first = ", ".join(printable(name) for name in names[:_NAMED])
    what = "files are skipped, which are no images"
    if len(names) == 1:
        what = "file is skipped, which is no image"
    warn(
        f"{where}: {len(names)} {what} by name: {listed} ({first}"
        f"{', ...' if len(names) > _NAMED else ''})"
    )
