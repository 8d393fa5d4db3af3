"""Files that come with the package: weights of the embedded defaults."""

import os

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
PREFIX = "canon_seg://"


def resolve_asset(path):
    """The path of a file on this machine: "canon_seg://NAME" lies in the package."""
    if path.startswith(PREFIX):
        return os.path.join(FOLDER, path[len(PREFIX) :])
    return path
