"""What a wheel holds, and what works from it outside the checkout, without some of the rest."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("canon_seg", "configs", "pyproject.toml", "setup.py", "LICENSE", "README.md")

# Takes modules away from a process, and the checkout where an editable installation points to it.
SITECUSTOMIZE = f"""
import os, sys

sys.modules.update(dict.fromkeys(os.environ.get("HIDDEN", "").split()))
sys.path[:] = [path for path in sys.path if os.path.realpath(path or ".") != {str(ROOT)!r}]
"""


def pip(*arguments):
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        check=True,
        capture_output=True,
        text=True,
    )


def copy_sources(folder):
    """Copy what a wheel is built from into a new folder, so that the checkout stays clean."""
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_sources(folder / "source")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def call(wheel, tmp_path_factory):
    """Run a command of the installed wheel: (arguments, hidden modules) to the finished process."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", folder, wheel)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments, hidden=""):
        command = [
            folder / "bin" / word if word.startswith("canon-seg") else word for word in arguments
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "HIDDEN": hidden,
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )

    return run


def test_configs_and_weights_are_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"canon_seg/{path.relative_to(ROOT)}" for path in ROOT.glob("configs/**/*.yaml")}
    weights = {str(path.relative_to(ROOT)) for path in ROOT.glob("canon_seg/assets/*")}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("canon_seg/**/*.py")}
    assert len(configs) > 4 and len(weights) >= 2
    assert configs | weights | modules | {"canon_seg/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} <= {"canon_seg"} | {
        name.partition("/")[0] for name in names if ".dist-info/" in name
    }


def test_requirements_do_not_depend_on_the_machine(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [need for need in needs if "extra ==" not in need] == dependencies
    assert any(need.startswith("opencv-python-headless>=") for need in dependencies)


def test_an_editable_clone_is_imported_from_the_folder_that_holds_it(tmp_path):
    # `git clone URL canon_seg`: in its parent, the folder itself looks like a namespace package.
    clone = copy_sources(tmp_path / "canon_seg")
    site = tmp_path / "site"
    code = f"from setuptools.build_meta import build_editable; build_editable({str(site)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)
    (wheel,) = site.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = f"""
import os, site, sys
sys.path[:] = [path for path in sys.path if os.path.realpath(path or ".") != {str(ROOT)!r}]
site.addsitedir({str(site)!r})
import canon_seg
from canon_seg.config.assets import resolve_config
print(canon_seg.__version__, canon_seg.__file__, resolve_config("sam_tiny_c4.yaml"), sep="\\n")
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    version, *files = done.stdout.splitlines()
    assert re.fullmatch(r"[0-9.]+", version)
    assert files == [
        str(clone / "canon_seg" / "__init__.py"), str(clone / "configs" / "sam_tiny_c4.yaml")
    ]  # fmt: skip


def test_the_sam_predictor_works_without_detectron2_and_escnn(call):
    done = call(
        sys.executable,
        "-c",
        """
import sys
import numpy as np
import canon_seg
from canon_seg import CanonicalSamPredictor, load_default_sam

print(canon_seg.__file__)
image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
predictor = CanonicalSamPredictor(load_default_sam())
predictor.set_image(image)
masks, scores, _ = predictor.predict(box=np.array([5, 5, 40, 30]), multimask_output=False)
print(masks.shape)
canon_seg.CanonicalPredictor
""",
        hidden="detectron2 escnn",
    )
    file, shape = done.stdout.splitlines()
    assert shape == "(1, 40, 60)" and not file.startswith(str(ROOT))
    # What needs detectron2 says so, and how to get it.
    assert re.search(
        r"ModuleNotFoundError: canon_seg.CanonicalPredictor needs detectron2, .*build the official",
        done.stderr,
    )


def test_commands_say_how_to_install_detectron2(call):
    for command in ("canon-seg-eval", "canon-seg-train"):
        done = call(command, "--help", hidden="detectron2")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {command} needs detectron2, ")
        assert "run canon-seg-install-detectron2" in done.stderr and "Traceback" not in done.stderr


def test_the_other_commands_start_without_detectron2(call):
    for command in ("canon-seg-eval-pose", "canon-seg-app"):
        done = call(command, "--help", hidden="detectron2 escnn")
        assert done.returncode == 0 and "usage: " in done.stdout, done.stderr


def test_the_demo_works_from_a_wheel_without_detectron2_and_escnn(call, tmp_path):
    from PIL import Image

    Image.effect_noise((60, 40), 90).save(tmp_path / "photo.png")
    done = call(
        "canon-seg-demo",
        "--input",
        str(tmp_path / "photo.png"),
        "--box",
        "5",
        "5",
        "40",
        "30",
        "--output",
        str(tmp_path / "out"),
        "MODEL.DEVICE",
        "cpu",
        hidden="detectron2 escnn",
    )
    assert done.returncode == 0, done.stderr
    assert "photo.png: 60 x 40, pose " in done.stdout
    assert (tmp_path / "out" / "photo.png").is_file()
