"""Weights files of any kind: the weights of the whole file, or a message that names the file."""

import io
import pickle

import numpy as np
import pytest
import torch
from fuzzing import attempt, fuzz
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.core.group import C4
from canon_seg.io.checkpoint import load_pickle_file, load_torch_file
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.filters import first_orientations
from canon_seg.networks.weights import FORMAT, load_canonicalizer

KEY = "MODEL.CANONICALIZER.WEIGHTS"
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.sampled_from([torch.zeros(2, 3), torch.ones(0), torch.tensor(1j), np.float64(1)]),
        st.sampled_from([np.zeros(3), np.array("a"), torch.zeros(1, dtype=torch.bool)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "weights.pth"


@pytest.fixture(scope="module")
def contents(path):
    """Return what is in a whole weights file of a small canonicalizer, which loads."""
    spec = NetworkSpec("GCNN", 4, (4, 8), 1)
    torch.manual_seed(0)
    state = build_plain_network(spec).state_dict()
    whole = {
        "format": FORMAT,
        "version": 2,
        "network": spec.to_dict(),
        "input_size": 33,
        "exported": {
            name: (first_orientations(value, C4) if name.endswith("conv.weight") else value).half()
            for name, value in state.items()
        },
        "trainable": {},
    }
    path.write_bytes(saved(whole))
    assert load(path)(torch.zeros(1, 3, 33, 33)).shape == (1, 4)
    return whole


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def load(path):
    """Return a network, or None where a message names the file; anything else is a failure."""
    loaded, message = attempt(load_canonicalizer, str(path))
    if message is not None:
        assert str(path) in message and KEY in message
        assert "\x1b" not in message and len(message) < 4000
        return None
    network, input_size = loaded
    assert input_size > 0
    return network


@fuzz
@given(st.floats(0, 1, exclude_max=True))
def test_cut_files_are_refused(path, contents, part):
    whole = saved(contents)
    path.write_bytes(whole[: int(part * len(whole))])
    assert load(path) is None


@fuzz
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1))
def test_broken_files_give_a_network_or_a_message(path, contents, changes):
    broken = bytearray(saved(contents))
    for place, byte in changes:
        broken[int(place * len(broken))] = byte
    path.write_bytes(broken)
    load(path)


@fuzz
@given(st.data(), VALUES)
def test_spoilt_contents_give_a_network_or_a_message(path, contents, data, value):
    spoilt = {
        key: dict(value) if isinstance(value, dict) else value for key, value in contents.items()
    }
    section = data.draw(st.sampled_from(["", "network", "exported", "trainable"]), label="section")
    node = spoilt[section] if section else spoilt
    keys = st.sampled_from([*sorted(node), "more"])
    key = data.draw(keys, label="key")
    if data.draw(st.booleans(), label="removed"):
        node.pop(key, None)
    else:
        node[key] = value
    path.write_bytes(saved(spoilt))
    load(path)


@fuzz
@given(VALUES, st.sampled_from(["torch", "pickle", "bytes"]), st.binary(max_size=40))
def test_files_of_anything_give_a_message(path, value, kind, contents):
    written = {"torch": saved, "pickle": pickle.dumps, "bytes": lambda _: contents}[kind](value)
    path.write_bytes(written)
    assert load(path) is None
    for read in (load_torch_file, load_pickle_file):
        _, message = attempt(read, path, KEY)
        assert message is None or str(path) in message
