"""The set-up: requirements, the installer of detectron2, the Makefile. Nothing is downloaded."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import optional
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from canon_seg.cli import install_detectron2 as installer

TOP = Path(__file__).resolve().parent.parent


TABLES = tomllib.loads((TOP / "pyproject.toml").read_text())
PROJECT = TABLES["project"]


def read_requirements(name):
    lines = (TOP / "requirements" / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def read_pins(name):
    """Return a dict of package names to versions from a file of exact requirements."""
    requirements = read_requirements(name)
    for requirement in requirements:
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
    pins = {
        canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements
    }
    assert len(pins) == len(requirements), f"{name} names a package twice"
    return pins


def needs(*tables):
    """Return the requirements in lists of them, such as the dependencies and each extra."""
    return [Requirement(need) for table in tables for need in table]


@pytest.fixture
def no_detectron2(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)


def write_tar(path, contents):
    """Write a tar archive from a dict of names to bytes."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


class TestRequirements:
    def test_every_need_has_an_exact_version(self):
        pins = read_pins("constraints.txt")
        extras, groups = PROJECT["optional-dependencies"], TABLES["dependency-groups"]
        for need in needs(PROJECT["dependencies"], *extras.values(), *groups.values()):
            assert canonicalize_name(need.name) in pins, f"{need.name} has no pin"
            assert pins[canonicalize_name(need.name)] in need.specifier, need
        assert read_pins("escnn.txt").keys() == {"escnn"}

    def test_lowest_versions_are_those_of_the_minimum_environment(self):
        pins = read_pins("minimum.txt")
        for need in needs(PROJECT["dependencies"]):
            assert [s.operator for s in need.specifier] == [">="], need
            lowest = Version(next(iter(need.specifier)).version)
            assert pins[canonicalize_name(need.name)] == lowest, need

    def test_environment_has_numpy_2_and_the_minimum_numpy_1(self):
        assert read_pins("constraints.txt")["numpy"].major == 2
        assert read_pins("minimum.txt")["numpy"].release[:2] == (1, 26)

    def test_pinned_pip_downloads_detectron2(self):
        version = read_pins("constraints.txt")["pip"]
        assert (version.major, version.minor) <= installer.LAST_PIP_TRIED

    def test_commands_are_there(self):
        for name, target in PROJECT["scripts"].items():
            module, _, function = target.partition(":")
            assert getattr(importlib.import_module(module), function).__doc__ == f"Run {name}."


class TestInstaller:
    def test_importable_detectron2_is_kept(self, monkeypatch, capsys):
        own = ModuleType("detectron2")
        own.__version__, own.__path__ = "0.7+own", ["/its/folder"]
        monkeypatch.setitem(sys.modules, "detectron2", own)
        monkeypatch.setattr(installer, "run_pip", lambda *_: pytest.fail("pip was called"))
        installer.install()
        assert "detectron2 0.7+own is there and is kept: /its/folder" in capsys.readouterr().out

    def test_stray_folder_is_no_detectron2(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "detectron2", ModuleType("detectron2"))
        assert installer.present_detectron2() is None

    @pytest.mark.parametrize("missing", ["torch", "wheel"])
    def test_build_tool_missing(self, no_detectron2, monkeypatch, missing):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
        )
        with pytest.raises(
            installer.InstallError, match=f"^{missing} is not installed .*install {missing}"
        ):
            installer.install()

    def test_other_file_under_the_same_name_is_refused(self, no_detectron2, tmp_path, monkeypatch):
        ran = tmp_path / "ran"
        write_tar(
            tmp_path / "pb1-detectron2-0.6.tar.gz",
            {"pb1-detectron2-0.6/setup.py": f"open({str(ran)!r}, 'w')".encode()},
        )
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(installer.InstallError, match=f"is not .* SHA-256 {installer.SHA256}"):
            installer.install()
        assert not ran.exists()

    def test_index_out_of_reach(self, no_detectron2, tmp_path, monkeypatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(installer.InstallError, match="package index reachable"):
            installer.install()

    @pytest.mark.parametrize("version", ["26.1", "26.3.1", "27.0"])
    def test_pip_too_new(self, version):
        message = installer.explain_download_failure("invalid metadata", version)
        assert f"pip {version}" in message and "'pip<=26.0'" in message

    def test_unpack(self, tmp_path):
        write_tar(tmp_path / "a.tar.gz", {"top/package/a.py": b"1", "top/b": b"2"})
        (tmp_path / "out").mkdir()
        top = installer.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
        assert top.name == "top" and (top / "package" / "a.py").read_bytes() == b"1"

    @pytest.mark.parametrize("name", ["../escaped", "top/../../escaped", "/{}/escaped"])
    def test_unpack_stays_in_its_folder(self, tmp_path, name):
        write_tar(tmp_path / "a.tar.gz", {name.format(tmp_path): b""})
        (tmp_path / "out").mkdir()
        with pytest.raises(installer.InstallError, match="escaped leads out"):
            installer.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
        assert not (tmp_path / "escaped").exists()

    def test_wheel_has_modules_projects_and_zoo_configs(self, tmp_path):
        source = tmp_path / "source"
        for name in (
            "detectron2/__init__.py",
            "detectron2/layers/__init__.py",
            "detectron2/projects/__init__.py",
            "detectron2/model_zoo/__init__.py",
            "detectron2/model_zoo/configs/Base.yaml",
            "detectron2/model_zoo/configs/Zoo/deep/config.py",
            "projects/PointRend/point_rend/__init__.py",
            "projects/DeepLab/deeplab/__init__.py",
            "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py",
            "tools/__init__.py",
            "LICENSE",
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text("")
        (source / "setup.py").write_text("raise SystemExit('the original setup.py was run')")
        wheel = installer.build_wheel(source, tmp_path)
        assert wheel.name == "detectron2-0.6-py3-none-any.whl"
        names = set(zipfile.ZipFile(wheel).namelist())
        assert names >= {
            "detectron2/layers/__init__.py",
            "detectron2/model_zoo/configs/Base.yaml",
            "detectron2/model_zoo/configs/Zoo/deep/config.py",
            "detectron2/projects/point_rend/__init__.py",
            "detectron2/projects/deeplab/__init__.py",
            "detectron2/projects/panoptic_deeplab/__init__.py",
        }
        assert not any(name.startswith("tools/") for name in names)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMakefile:
    def make(self, *arguments):
        command = ["make", "--no-print-directory", "-C", TOP, *arguments]
        # The make that runs the tests hands its own variables on.
        ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTEST", "PYTHON", "VENV"}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        return subprocess.run(command, env=environment, text=True, capture_output=True)

    def test_unfinished_environment_is_made_anew(self, tmp_path):
        # Its Python would pass every step, were it taken for a good one.
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(shutil.which("true"))
        (venv / ".canon_seg-unfinished").touch()
        done = self.make("env", f"VENV={venv}", "PYTHON=false")
        assert done.returncode != 0
        assert "never finished" in done.stdout
        assert "apt-get install python3-venv" in done.stderr
        assert not (venv / "bin").exists() and not (venv / ".canon_seg-ready").exists()

    @pytest.mark.parametrize("target", ["env", "extras"])
    def test_finished_environment_is_not_touched_again(self, tmp_path, target):
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(shutil.which("true"))
        assert self.make(target, f"VENV={venv}").returncode == 0
        again = self.make(target, f"VENV={venv}", "PYTHON=false")
        assert again.returncode == 0 and "==>" not in again.stdout

    def test_own_environment_is_used_as_it_is(self):
        done = self.make("--dry-run", "test", "VENV=", "PYTHON=/own/python")
        assert " /own/python -m pytest " in done.stdout and len(done.stdout.splitlines()) == 1
        done = self.make("extras", "VENV=", "PYTHON=false")
        assert done.returncode == 0 and "==>" not in done.stdout


class TestOptionalFeatures:
    def test_what_is_missing_is_skipped(self, monkeypatch):
        monkeypatch.delenv(optional.REQUIRED, raising=False)
        with pytest.raises(pytest.skip.Exception, match="'nothing'; `make extras`"):
            optional.need("nothing")
        assert optional.need("sys") is sys

    def test_what_is_missing_fails_in_ci(self, monkeypatch):
        assert f"\n{optional.REQUIRED}=1 make test\n" in (TOP / ".ci" / "run").read_text()
        monkeypatch.setenv(optional.REQUIRED, "1")
        with pytest.raises(pytest.fail.Exception, match="'nothing'"):
            optional.need("nothing")
