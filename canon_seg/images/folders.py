"""Find the photographs in folders."""

import os

from canon_seg.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""The ends of file names, in lower case, by which photographs are known."""


def list_photos(folder: str, key: str) -> list[str]:
    """List all photographs below a folder, sorted by path; hidden files are left out.

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
    files = sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )
    if not files:
        raise InputError(f"{key}: {folder} holds no photograph ({', '.join(EXTENSIONS)})")
    return files
