import builtins
import io
import os
import pickle
import zipfile
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from canon_seg.errors import InputError
from canon_seg.io.checkpoint import check_fit, load_pickle_file, load_state, load_torch_file

KEY = "MODEL.SEGMENTER.WEIGHTS"
LOADERS = {"weights.pkl": load_pickle_file, "weights.pth": load_torch_file}


class Calls:
    """Unpickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class CallsWithState(Calls):
    """... whose result then gets a state: attributes, or what its __setstate__ takes."""

    def __init__(self, function, *arguments, state):
        self.call = function, arguments, state


def exploits(marker):
    """Objects that create the file ``marker`` if their pickle is believed."""
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    nested = Calls(os.system, command)
    return {
        "os.system": nested,
        "builtins.eval": Calls(builtins.eval, code),
        "builtins.exec": Calls(builtins.exec, code),
        "getattr of a module": Calls(Calls(getattr, os, "system"), command),
        "in a dict": {"model": {"weight": np.zeros(2), "bias": nested}, "__author__": "x"},
        "as a key": {nested: 1},
        "in an object array": np.array([nested, None], dtype=object),
        "in a state of an array": CallsWithState(
            np.core.multiarray._reconstruct,
            np.ndarray,
            (0,),
            b"b",
            state=(1, (1,), np.dtype("O"), False, [nested]),
        ),
        "as the type to reconstruct": Calls(np.core.multiarray._reconstruct, nested, (0,), b"b"),
        "by numpy's own": Calls(np.load, io.BytesIO(b"")),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("file", LOADERS)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_malicious_files_run_nothing(tmp_path, file, protocol):
    marker = tmp_path / "marker"
    for name, exploit in exploits(marker).items():
        path = tmp_path / file
        try:
            data = pickle.dumps(exploit, protocol)
        except (TypeError, pickle.PicklingError):
            continue  # this one can't be written in this protocol
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            LOADERS[file](path, KEY)
        assert str(path) in str(caught.value) and KEY in str(caught.value), name
        assert not marker.exists(), name


def test_the_exploits_work(tmp_path):
    # Else the test above would say nothing.
    marker = tmp_path / "marker"
    for name in ("os.system", "builtins.eval", "builtins.exec", "in an object array"):
        pickle.loads(pickle.dumps(exploits(marker)[name]))
        assert marker.exists(), name
        marker.unlink()


def test_malicious_code_in_torchs_own_format(tmp_path):
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    torch.save({"model": Calls(os.system, f"touch {marker}")}, path)
    with pytest.raises(InputError, match="more than weights"):
        load_torch_file(path, KEY)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def state_of(shape, dtype, data):
    return CallsWithState(
        np.core.multiarray._reconstruct,
        np.ndarray,
        (0,),
        b"b",
        state=(1, shape, dtype, False, data),
    )


RECORD = np.dtype([("a", "O")])

POINTERS = {
    # numpy would follow the raw bytes of an object array as pointers.
    "object dtype from bytes": state_of((1,), np.dtype("O"), b"\x01" * 8),
    "object dtype from a list": state_of((1,), np.dtype("O"), ["text"]),
    "record with an object": state_of((1,), RECORD, b"\x01" * 8),
    "number with fields": state_of(
        (1,),
        CallsWithState(
            np.dtype,
            "V8",
            False,
            True,
            state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0),
        ),
        b"\x01" * 8,
    ),
    "scalar object": Calls(np.core.multiarray.scalar, np.dtype("O"), "text"),
    "ndarray by its constructor": Calls(np.ndarray, (1,), np.dtype("i8")),
    "more than the bytes": state_of((1000,), np.dtype("f8"), b"\x00" * 8),
    "fewer than the bytes": state_of((1,), np.dtype("f8"), b"\x00" * 16),
    "overflowing size": state_of((2**62, 4), np.dtype("f8"), b""),
    "array without a state": Calls(np.core.multiarray._reconstruct, np.ndarray, (0,), b"b"),
    "a bare dtype": np.dtype("f4"),
    "a function": np.core.multiarray._reconstruct,
    "strings": np.array(["text"]),
    "a set": {"text"},
}


@pytest.mark.parametrize("name", POINTERS)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, name):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"weight": POINTERS[name]}}, 2))
    with pytest.raises(InputError, match="weights.pkl"):
        load_pickle_file(path, KEY)


def test_one_file_cannot_change_what_the_next_one_meets(tmp_path):
    good, bad = tmp_path / "good.pkl", tmp_path / "bad.pkl"
    good.write_bytes(pickle.dumps(ZOO, 2))
    for function in (np.core.multiarray._reconstruct, np.dtype, dict):
        for attribute in ("__defaults__", "__code__", "__setstate__", "__class__", "__call__"):
            # BUILD sets attributes on whatever is there, found globals too.
            module = {"dict": "collections", "dtype": "numpy"}.get(
                function.__name__, "numpy.core.multiarray"
            )
            name = "OrderedDict" if function is dict else function.__name__
            bad.write_bytes(
                f"c{module}\n{name}\n(N}}(V{attribute}\n".encode() + b"c_codecs\nencode\nutb."
            )
            with pytest.raises(InputError):
                load_pickle_file(bad, KEY)
    assert_zoo(load_pickle_file(good, KEY))


def test_deep_and_wide_nesting(tmp_path):
    path = tmp_path / "weights.pkl"
    wide = []
    for _ in range(60):
        wide = [wide, wide]  # 2 ** 60 lists if unfolded
    path.write_bytes(pickle.dumps(wide, 2))
    assert len(load_pickle_file(path, KEY)) == 2
    path.write_bytes(b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(InputError, match="recursion"):
        load_pickle_file(path, KEY)
    cyclic = []
    cyclic.append(cyclic)
    path.write_bytes(pickle.dumps(cyclic, 2))
    with pytest.raises(InputError, match="recursion"):
        load_pickle_file(path, KEY)


@pytest.mark.parametrize("file", LOADERS)
@pytest.mark.parametrize("damage", [b"", b"\x80", b"not a pickle", b"\x00" * 100, b".", b"h\x05."])
def test_damaged_files_are_named(tmp_path, file, damage):
    path = tmp_path / file
    path.write_bytes(damage)
    with pytest.raises(InputError) as caught:
        LOADERS[file](path, KEY)
    assert str(path) in str(caught.value) and KEY in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", LOADERS)
def test_truncated_files_are_named(tmp_path, file):
    path = tmp_path / file
    weights = {f"layer{i}": np.arange(100.0) for i in range(5)}
    if file == "weights.pkl":
        path.write_bytes(pickle.dumps(weights))
    else:
        torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="was not loaded"):
            LOADERS[file](path, KEY)


@pytest.mark.parametrize("file", LOADERS)
def test_missing_file_and_folder(tmp_path, file):
    for path in (tmp_path / file, tmp_path):
        with pytest.raises(InputError, match=KEY) as caught:
            LOADERS[file](path, KEY)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["script", "zip"])
def test_other_archives_are_no_weights(tmp_path, kind):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/constants.pkl" if kind == "script" else "a.txt", "text")
    with pytest.raises(InputError):
        load_torch_file(path, KEY)


ZOO = {
    "model": {
        "backbone.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "backbone.fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "count": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "half": np.array([1.5, -2.0], np.float16),
        "big endian": np.array([1, 2], ">i4"),
        "transposed": np.arange(6).reshape(2, 3).T,
    },
    "__author__": "Detectron2 Model Zoo",
    "iteration": np.int64(89999),
    "lr": np.float64(0.5),
    "notes": ["text", b"bytes", 1, 2.5, True, None, (1, 2)],
}


def assert_zoo(loaded, expected=ZOO):
    assert list(loaded) == list(expected)
    assert list(loaded["model"]) == list(expected["model"])
    for name, array in expected["model"].items():
        ours = loaded["model"][name]
        assert type(ours) is np.ndarray and ours.dtype == array.dtype, name
        assert ours.flags.writeable and ours.flags.c_contiguous, name
        np.testing.assert_array_equal(ours, array)
        if ours.dtype.isnative:
            torch.from_numpy(ours)
    assert loaded["iteration"] == 89999 and loaded["lr"] == 0.5
    assert loaded["notes"] == expected["notes"]
    assert loaded["__author__"] == "Detectron2 Model Zoo"


@pytest.mark.parametrize("protocol", range(6))
def test_zoo_files(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(ZOO, protocol))
    assert_zoo(load_pickle_file(path, KEY))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_names_of_numpy_1_and_2(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    data = pickle.dumps(ZOO, protocol)
    ours, other = (b"numpy.core", b"numpy._core")
    if ours not in data:
        ours, other = other, ours
    assert ours in data

    class Renaming(pickle._Pickler):
        def save_global(self, obj, name=None):
            module = getattr(obj, "__module__", "") or ""
            if module.startswith(ours.decode()):
                renamed = module.replace(ours.decode(), other.decode())
                if self.proto >= 4:
                    self.save(renamed)
                    self.save(obj.__name__)
                    self.write(pickle.STACK_GLOBAL)
                else:
                    self.write(b"c" + f"{renamed}\n{obj.__name__}\n".encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch: ClassVar = dict(pickle._Pickler.dispatch)
        for kind in (type(len), type(lambda: 0)):
            dispatch[kind] = save_global

    buffer = io.BytesIO()
    Renaming(buffer, protocol).dump(ZOO)
    assert other in buffer.getvalue() and ours + b"." not in buffer.getvalue()
    path.write_bytes(buffer.getvalue())
    assert_zoo(load_pickle_file(path, KEY))


def test_python_2_byte_strings(tmp_path):
    # {"blobs": {"w": array([1., 2.])}} as cPickle of Python 2 writes it: data as a byte string.
    data = np.array([1.0, 200.5], "<f4").tobytes()
    pickled = (
        b"\x80\x02}U\x05blobs}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(data)]) + data + b"tbss."
    )
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickled)
    np.testing.assert_array_equal(load_pickle_file(path, KEY)["blobs"]["w"], [1.0, 200.5])


def test_state_dict_with_metadata(tmp_path):
    state = nn.Conv2d(1, 1, 1).state_dict()
    for name in state:
        state[name] = state[name].numpy()
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(state))
    loaded = load_pickle_file(path, KEY)
    assert type(loaded) is dict and list(loaded) == ["weight", "bias"]


def test_torch_files(tmp_path):
    path = tmp_path / "weights.pth"
    state = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}
    torch.save({"model": state, "iteration": 5}, path)
    loaded = load_torch_file(path, KEY)
    assert loaded["iteration"] == 5
    assert all(torch.equal(loaded["model"][name], value) for name, value in state.items())


def test_load_state():
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    load_state(module, other.state_dict(), "file.pth", KEY)
    assert torch.equal(module.weight, other.weight)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("bias"), "bias is missing"),
        (lambda s: s.update(scale=torch.zeros(1)), "scale is unknown"),
        (lambda s: s.update(bias=torch.zeros(5)), r"bias has shape \(5,\), the model \(3,\)"),
        (lambda s: s.update(bias="text"), "bias is missing"),
    ],
)
def test_load_state_of_another_architecture(change, named):
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    state = nn.Linear(2, 3).state_dict()
    change(state)
    with pytest.raises(InputError, match=named) as caught:
        load_state(module, state, "file.pth", KEY)
    assert "file.pth" in str(caught.value) and KEY in str(caught.value)
    assert torch.equal(module.weight, before)


def test_only_the_first_problems_are_listed():
    with pytest.raises(InputError, match="a is missing; b is missing; c is missing; and 1 more"):
        check_fit("file.pth", KEY, missing=["a", "b", "c"], unknown=["d"], shapes=[])


# Numbers beside the weights, and what is not loaded -----------------------------------------------

needs_stand_ins = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="PyTorch before 2.6"
)


@needs_stand_ins
def test_numpys_numbers_beside_the_weights(tmp_path):
    contents = {
        "model": {"weight": torch.arange(3.0)},
        "best": np.float64(0.1),
        "step": np.int64(7),
        "done": np.bool_(True),
        "history": [np.float32(0.5), (np.arange(6, dtype=np.int16).reshape(2, 3),)],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    torch.save(contents, tmp_path / "weights.pth")
    loaded = load_torch_file(tmp_path / "weights.pth", KEY)
    assert torch.equal(loaded["model"]["weight"], contents["model"]["weight"])
    for name in ("best", "step", "done"):
        assert loaded[name] == contents[name] and type(loaded[name]) is type(contents[name])
    np.testing.assert_array_equal(loaded["fortran"], contents["fortran"])
    assert loaded["history"][0] == 0.5
    np.testing.assert_array_equal(loaded["history"][1][0], contents["history"][1][0])
    assert loaded["history"][1][0].dtype == np.int16


@needs_stand_ins
def test_objects_in_arrays_stay_refused(tmp_path):
    torch.save({"a": np.array([None, "x"], dtype=object)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="weights.pth"):
        load_torch_file(tmp_path / "weights.pth", KEY)


class Config:
    pass


@pytest.mark.parametrize("file", LOADERS)
def test_what_is_more_than_weights_is_named_in_a_line(tmp_path, file):
    contents = {"model": {"a": torch.ones(1)} if file.endswith("pth") else {}, "config": Config()}
    if file.endswith("pth"):
        torch.save(contents, tmp_path / file)
    else:
        (tmp_path / file).write_bytes(pickle.dumps(contents))
    with pytest.raises(InputError) as caught:
        LOADERS[file](tmp_path / file, KEY)
    message = str(caught.value)
    assert "more than weights, test_io_checkpoint.Config" in message and KEY in message
    assert "\x1b" not in message and "\n" not in message and "weights_only" not in message


def test_a_cut_checkpoint_is_said_to_be_cut(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "weights.pth")
    whole = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="weights.pth .*it is cut short; get the file again"):
        load_torch_file(tmp_path / "weights.pth", KEY)
