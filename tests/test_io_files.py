import errno
import json
import os
import subprocess
import sys

import pytest
import torch

from canon_seg.errors import InputError
from canon_seg.io.files import (
    check_output_dir,
    save_torch,
    write_atomically,
    write_json,
    write_text,
)


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "table.txt"
    write_text(path, "old")
    with write_atomically(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.txt"]


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "table.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.txt"]


def test_json_round_trip_and_no_nan(tmp_path):
    path = tmp_path / "sweep.json"
    write_json(path, {"AP": 12.5, "AR": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 12.5, "AR": None}


def test_output_dir_is_created_and_left_empty(tmp_path):
    path = check_output_dir(tmp_path / "a" / "b")
    assert path.is_dir() and not os.listdir(path)
    assert check_output_dir(str(path)) == path


def test_an_output_dir_that_stays_empty_goes_with_the_program(tmp_path):
    program = (
        "import os, sys\n"
        "from canon_seg.io.files import check_output_dir, write_text\n"
        "for name in ('there/empty', 'new/empty/too', 'new/full'):\n"
        "    check_output_dir(name)\n"
        "write_text('new/full/table.txt', '')\n"
        "os.chdir('/')\n"
        "sys.exit('an error')\n"
    )
    (tmp_path / "there").mkdir()
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE)
    assert done.stderr == b"an error\n" and done.returncode == 1
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["new", "new/full", "new/full/table.txt", "there"]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_output_dir_that_is_or_lies_in_a_file(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{name}: cannot be used as an output folder"):
        check_output_dir(tmp_path / name)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux' /proc")
@pytest.mark.parametrize("path", ["/proc/self", "/proc/self/new"])
def test_output_dir_on_a_file_system_without_writing(path):
    # Not even root may create files here.
    with pytest.raises(InputError, match=f"{path}: cannot be written"):
        check_output_dir(path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken: cannot be written"):
        write_text(tmp_path / "taken", "text")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    save_torch(path, {"weight": torch.zeros(3)})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    for write in (lambda: save_torch(path, {}), lambda: write_text(path, "text")):
        with pytest.raises(InputError, match=r"model.pth: cannot be written \(No space left"):
            write()
    assert os.listdir(tmp_path) == ["model.pth"]
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.zeros(3))


def test_an_error_about_another_file_is_not_blamed_on_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="other.txt"):
        with write_atomically(tmp_path / "table.txt"):
            (tmp_path / "other.txt").read_text()


def test_torch_files_that_really_do_not_fit(tmp_path):
    # PyTorch's writer hides the system's error behind one of its own.
    resource = pytest.importorskip("resource", reason="needs limits of the file size")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"model.pth: cannot be written \(File too large"):
            save_torch(tmp_path / "model.pth", {"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.listdir(tmp_path)
