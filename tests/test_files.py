import json
import os

import pytest

from canon_seg.errors import InputError
from canon_seg.files import check_output_dir, write_atomically, write_json, write_text


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
    with pytest.raises(ValueError):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 12.5, "AR": None}


def test_output_dir_is_created_and_left_empty(tmp_path):
    path = check_output_dir(tmp_path / "a" / "b")
    assert path.is_dir() and not os.listdir(path)
    assert check_output_dir(str(path)) == path


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
