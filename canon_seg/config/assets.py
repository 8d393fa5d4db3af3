"""Find files that come with the package: weights of the embedded defaults, and configs."""

from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[1]
FOLDER = PACKAGE / "assets"
PREFIX = "canon_seg://"


def resolve_asset(path: str) -> str:
    """Find the path of a file on this machine: "canon_seg://NAME" lies in the package."""
    if path.startswith(PREFIX):
        return str(FOLDER / path[len(PREFIX) :])
    return path


def configs_folder() -> str:
    """Find the folder of the configs: in the package when installed, beside it in a checkout."""
    installed, beside = PACKAGE / "configs", PACKAGE.parent / "configs"
    return str(installed if installed.is_dir() else beside)


def resolve_config(name: str) -> str:
    """Find the path of a config file.

    Args:
        name: a path, or, where there is no such file, the name of a config that comes with the
            package: "sam_tiny_c4.yaml", or "configs/sam_tiny_c4.yaml" as in a checkout.

    Returns:
        path; ``name`` itself where it is neither.
    """
    return name if Path(name).is_file() else packaged_config(name) or name


def packaged_config(name: str) -> "str | None":
    """Find the path of a config that comes with the package by its name, or None."""
    inside = Path(configs_folder(), name.removeprefix("configs/"))
    return str(inside) if inside.is_file() else None


def embedded_configs() -> list[str]:
    """List the names that :func:`resolve_config` knows, sorted."""
    folder = Path(configs_folder())
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
