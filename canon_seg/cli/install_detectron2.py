"""Install detectron2 0.6 from PyPI without compiled operators, unless a detectron2 is there.

    canon-seg-install-detectron2

detectron2 is not on PyPI under its own name, and its official wheels end at torch 1.10. The source
distribution ``pb1-detectron2`` 0.6 holds the Python files of the official v0.6 tag, but not the
C++ and CUDA sources that its ``setup.py`` compiles. This command checks the file's SHA-256, gives
it a ``setup.py`` without extension modules, and installs the wheel that results, named
``detectron2``, into the interpreter that runs it. ``canon_seg.d2.compat`` supplies what v0.6 misses
on current libraries; ROIAlign and NMS come from torchvision.

A detectron2 that can be imported is kept, whatever its version and origin.
"""

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from canon_seg.errors import InputError

SDIST = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
# pip 26.3 refuses the file: one of its extras names a URL.
LAST_PIP_TRIED = (26, 0)

# The needs of detectron2 are those of canon_seg (pyproject.toml), so that its old pins stay out.
# `projects` are the packages that the original setup.py installs below `detectron2.projects`.
SETUP_PY = """\
from setuptools import find_packages, setup

projects = {
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}
setup(
    name="detectron2",
    version="0.6",
    description="detectron2 v0.6 without compiled operators",
    url="https://github.com/facebookresearch/detectron2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(projects),
    package_dir=projects,
    package_data={"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]},
    python_requires=">=3.8",
)
"""


class InstallError(InputError):
    """Say why the installation cannot go on, and what to do."""


def present_detectron2():
    """Return the detectron2 module that this interpreter imports, or None."""
    try:
        module = importlib.import_module("detectron2")
    except ImportError:
        return None
    # A stray folder named detectron2 imports as an empty namespace package.
    return module if hasattr(module, "__version__") else None


def require_build_tools():
    """Raise InstallError unless torch, setuptools, wheel and pip are in this interpreter."""
    for name in ("torch", "setuptools", "wheel", "pip"):
        if importlib.util.find_spec(name) is None:
            raise InstallError(
                f"{name} is not installed in {sys.executable}, and the source distribution's own "
                f"setup.py asks for it: run `{sys.executable} -m pip install {name}` first"
            )


def run_pip(*arguments):
    """Run pip of this interpreter; return its exit status and its whole output."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(  # noqa: S603 - this interpreter's own pip
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def explain_download_failure(output, pip_version):
    """Say in one message why pip did not download the source distribution.

    Args:
        output: what pip wrote.
        pip_version: pip's version, such as "26.3.1".
    """
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"{SDIST}: the file that the package index gave is not the one with SHA-256 {SHA256}; "
            f"nothing was installed. Try again, with another index if it stays so.\n{output}"
        )
    release = tuple(int(part) for part in re.findall(r"\d+", pip_version)[:2])
    if release > LAST_PIP_TRIED:
        return (
            f"{SDIST}: pip {pip_version} did not download it, and pip after 26.0 is known to "
            f"refuse this file: run `{sys.executable} -m pip install 'pip<=26.0'` and try "
            f"again.\n{output}"
        )
    return f"{SDIST}: pip could not download it; is the package index reachable?\n{output}"


def download(folder):
    """Download the source distribution into ``folder`` and return its path; pip checks the hash."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{SDIST} --hash=sha256:{SHA256}\n")
    # Without isolation pip reads the file's metadata with the torch that is there.
    status, output = run_pip(
        "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
        "--require-hashes", "--dest", folder, "--requirement", requirement,
    )  # fmt: skip
    if status:
        pip_version = importlib.import_module("pip").__version__
        raise InstallError(explain_download_failure(output, pip_version))
    return next(folder.glob("*.tar.gz"))


def unpack(archive, folder):
    """Unpack the regular files of a tar archive below ``folder``; return the one top folder.

    Raises:
        InstallError: a member's path leads out of ``folder``.
    """
    root = folder.resolve()
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():  # folders come with their files; links are not wanted
                continue
            target = (root / member.name).resolve()
            if root not in target.parents:
                raise InstallError(f"{archive}: {member.name} leads out of the archive's folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())
    return next(path for path in root.iterdir() if path.is_dir())


def build_wheel(source, folder):
    """Build the pure-Python wheel from the unpacked ``source`` into ``folder``; return its path."""
    (source / "setup.py").write_text(SETUP_PY)
    # setup.cfg would be read beside our setup.py; it only configures the upstream linters.
    (source / "setup.cfg").unlink(missing_ok=True)
    status, output = run_pip(
        "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source
    )
    if status:
        raise InstallError(f"building the wheel of detectron2 failed:\n{output}")
    return next(folder.glob("detectron2-*.whl"))


def main():
    """Parse the command line, which knows --help alone, and install."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    install()


def install():
    """Install detectron2 0.6 into the interpreter that runs this, unless it has a detectron2.

    Raises:
        InstallError: a tool is missing, or pip could not do it.
    """
    module = present_detectron2()
    if module is not None:
        print(f"detectron2 {module.__version__} is there and is kept: {module.__path__[0]}")
        return
    require_build_tools()
    with tempfile.TemporaryDirectory() as temporary:
        download_dir, source_dir, wheel_dir = (
            Path(temporary) / name for name in ("download", "source", "wheel")
        )
        for folder in (download_dir, source_dir, wheel_dir):
            folder.mkdir()
        wheel = build_wheel(unpack(download(download_dir), source_dir), wheel_dir)
        status, output = run_pip("install", "--no-deps", "--no-index", wheel)
        if status:
            raise InstallError(f"installing {wheel.name} failed:\n{output}")
    print("detectron2 0.6 (without compiled operators) is installed")
