"""Find files that come with the package: weights of the embedded defaults, and configs."""

import os

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(PACKAGE, "assets")
PREFIX = "canon_seg://"


def resolve_asset(path):
    """Find the path of a file on this machine: "canon_seg://NAME" lies in the package."""
    if path.startswith(PREFIX):
        return os.path.join(FOLDER, path[len(PREFIX) :])
    return path


def configs_folder():
    """Find the folder of the configs: in the package when installed, beside it in a checkout."""
    installed = os.path.join(PACKAGE, "configs")
    beside = os.path.join(os.path.dirname(PACKAGE), "configs")
    return installed if os.path.isdir(installed) else beside


def resolve_config(name):
    """Find the path of a config file.

    Args:
        name: a path, or, where there is no such file, the name of a config that comes with the
            package: "sam_tiny_c4.yaml", or "configs/sam_tiny_c4.yaml" as in a checkout.

    Returns:
        path; ``name`` itself where it is neither.
    """
    if os.path.isfile(name):
        return name
    inside = os.path.join(configs_folder(), name.removeprefix("configs/"))
    return inside if os.path.isfile(inside) else name


def embedded_configs():
    """List the names that :func:`resolve_config` knows, sorted."""
    folder = configs_folder()
    return sorted(
        os.path.relpath(os.path.join(root, file), folder).replace(os.sep, "/")
        for root, _, files in os.walk(folder)
        for file in files
        if file.endswith(".yaml")
    )
