import errno
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.core.group import C4, D4, C, D
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.build import build_canonicalizer
from canon_seg.networks.equivariant import (
    NetworkSpec,
    build_plain_network,
    build_trainable_network,
    export_network,
)
from canon_seg.networks.filters import all_orientations, first_orientations
from canon_seg.networks.weights import (
    count_free_parameters,
    load_canonicalizer,
    save_canonicalizer,
)

SPEC = NetworkSpec("GWRN", 4, (2, 4, 4), 1)
KEY = "MODEL.CANONICALIZER.WEIGHTS"


@pytest.fixture(scope="module", autouse=True)
def escnn():
    if find_spec("escnn") is None:
        pytest.skip("weights files are written with escnn")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_trainable_network(SPEC).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 33, 33))
    return network


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "canonicalizer.pth"
    save_canonicalizer(path, network, 65)
    return path


@pytest.fixture(scope="module")
def logits(network):
    torch.manual_seed(1)
    images = torch.randn(4, 3, 40, 33)
    with torch.no_grad():
        return images, export_network(network)(images)


@torch.no_grad()
def test_exported_round_trip_costs_half_precision_only(file, logits):
    network, input_size = load_canonicalizer(file)
    assert input_size == 65 and network.spec == SPEC and not network.training
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    images, expected = logits
    difference = (network(images) - expected).abs().max()
    assert 0 < difference < 3e-3 * expected.abs().max()


@torch.no_grad()
def test_trainable_round_trip_costs_half_precision_only(file, network, logits):
    loaded, input_size = load_canonicalizer(file, trainable=True)
    assert input_size == 65 and not loaded.training
    theirs = dict(loaded.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(theirs[name], parameter.half().float())
    theirs = dict(loaded.named_buffers())
    for name, value in network.named_buffers():
        if "running_" in name:
            assert torch.equal(theirs[name], value)
    images, expected = logits
    scale = 3e-3 * float(expected.abs().max())
    torch.testing.assert_close(loaded(images), expected, rtol=0, atol=scale)
    training = loaded.train()(images)
    torch.testing.assert_close(training, network.train()(images), rtol=0, atol=3 * scale)


def first_version(network):
    """The contents of a file that the first version of the format wrote."""
    wanted = {name for name, _ in network.named_parameters()}
    exported = export_network(network).state_dict()
    return {
        "format": "canon_seg.canonicalizer",
        "network": network.spec.to_dict(),
        "input_size": 65,
        "exported": {name: value.half() for name, value in exported.items()},
        "trainable": {
            name: value
            for name, value in network.state_dict().items()
            if name in wanted or "running_" in name or name.endswith("num_batches_tracked")
        },
    }


def test_both_versions_load_as_the_same_network(network, tmp_path):
    torch.save(first_version(network), tmp_path / "first.pth")
    save_canonicalizer(tmp_path / "second.pth", network, 65)
    old, new = (
        load_canonicalizer(tmp_path / name)[0].state_dict() for name in ("first.pth", "second.pth")
    )
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    loaded, _ = load_canonicalizer(tmp_path / "first.pth", trainable=True)
    theirs = dict(loaded.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.equal(theirs[name], parameter)


def test_files_are_small(network, file):
    def size(state):
        return sum(value.numel() * value.element_size() for value in state.values())

    contents, whole = torch.load(file, weights_only=True), first_version(network)
    assert size(contents["exported"]) < 0.3 * size(whole["exported"])
    assert size(contents["trainable"]) < 0.6 * size(whole["trainable"])
    # Nor is more written than what is seen of the tensors.
    tensors = [v for kind in ("exported", "trainable") for v in contents[kind].values()]
    assert all(v.untyped_storage().nbytes() == v.numel() * v.element_size() for v in tensors)


def test_free_parameters_are_counted(file, network):
    assert count_free_parameters(file) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("group", "kept"),
    [(C(1), 1), (C(2), 1), (C(3), 3), (C4, 1), (C(6), 3), (C(8), 2), (D(1), 1), (D4, 1)],
    ids=str,
)
def test_orientations_that_are_not_stored(group, kept):
    torch.manual_seed(0)
    network = build_trainable_network(NetworkSpec("GCNN", group.order, (2, 3), 1, group.mirrors))
    state = export_network(network).state_dict()
    for name, fields, from_image in (("stem", 2, True), ("stages.0", 3, False)):
        weight = state[f"{name}.conv.weight"]
        first = first_orientations(weight, group)
        assert first.shape == (fields * kept, *weight.shape[1:])
        assert torch.equal(all_orientations(first, group, from_image), weight)
        # And what escnn's own filters are, to rounding: the others are made of the first.
        conv = dict(network.named_modules())[name].eval().conv.export().weight
        conv = conv.detach()
        ratio = weight.flatten(1).norm(dim=1) / conv.flatten(1).norm(dim=1)
        torch.testing.assert_close(
            weight / ratio.view(-1, 1, 1, 1), conv, atol=1e-5 * float(conv.abs().max()), rtol=0
        )


def test_saving_keeps_the_mode(network, tmp_path):
    for mode in (True, False):
        network.train(mode)
        save_canonicalizer(tmp_path / "file.pth", network, 65)
        assert all(module.training == mode for module in network.modules())
    network.train()
    assert os.listdir(tmp_path) == ["file.pth"]


def test_a_failing_write_leaves_the_old_file(network, file, monkeypatch, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(file.read_bytes())

    def fail(contents, half):
        half.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match="file.pth: cannot be written .disk full"):
        save_canonicalizer(path, network, 65)
    assert path.read_bytes() == file.read_bytes() and os.listdir(tmp_path) == ["file.pth"]


def changed(file, tmp_path, change):
    contents = torch.load(file, weights_only=True)
    change(contents)
    path = tmp_path / "changed.pth"
    torch.save(contents, path)
    return path


CHANGES = {
    "other format": lambda c: c.update(format="other"),
    "a version to come": lambda c: c.update(version=3),
    "version is text": lambda c: c.update(version="new"),
    "version of whole filters": lambda c: c.update(version=1, trainable={}),
    "group of order 0": lambda c: c["network"].update(group_order=0),
    "group of another order": lambda c: c["network"].update(group_order=8),
    "no network": lambda c: c.pop("network"),
    "network is text": lambda c: c.update(network="GCNN"),
    "unknown network": lambda c: c["network"].update(name="CNN"),
    "no input size": lambda c: c.pop("input_size"),
    "input size is text": lambda c: c.update(input_size="large"),
    "no exported weights": lambda c: c.pop("exported"),
    "no free weights": lambda c: c.pop("trainable"),
    "weights are a number": lambda c: c.update(exported=1),
    "another spec": lambda c: c["network"].update(fields=[2, 4, 6]),
    "a weight is missing": lambda c: [c[kind].popitem() for kind in ("exported", "trainable")],
    "a weight is text": lambda c: [
        c[kind].update({next(iter(c[kind])): "text"}) for kind in ("exported", "trainable")
    ],
}


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_damaged_files_are_named(file, tmp_path, change, trainable):
    path = changed(file, tmp_path, CHANGES[change])
    with pytest.raises(InputError) as caught:
        load_canonicalizer(path, trainable)
    assert str(path) in str(caught.value)
    assert KEY in str(caught.value)


@pytest.mark.parametrize("contents", [[1, 2], {"model": {}}, {"stem.weight": torch.zeros(1)}])
def test_other_kinds_of_files_are_named(tmp_path, contents):
    path = tmp_path / "model.pth"
    torch.save(contents, path)
    with pytest.raises(InputError, match="canonicalizer") as caught:
        load_canonicalizer(path)
    assert str(path) in str(caught.value) and KEY in str(caught.value)


def test_missing_file():
    with pytest.raises(InputError, match=f"{KEY}.*nowhere.pth"):
        load_canonicalizer("nowhere.pth")


def network_keys(fields):
    return SimpleNamespace(
        NAME="GCNN", FIELDS=fields, DEPTH=1, KERNEL=3, ORIENTATIONS=8, BLUR=False, DISC=True
    )


def config(**changes):
    keys = dict(
        NAME="GroupCanonicalizer",
        WEIGHTS="",
        TRAINABLE=False,
        GROUP="C4",
        GROUP_ORDER=4,
        MIN_TILT=0.0,
        INPUT_SIZE=97,
        NETWORK=network_keys([2, 2]),
        UNCERTAIN="argmax",
        UNCERTAIN_BELOW=0.5,
        VOTE_POSES=2,
        GATE=0.0,
        SCORER=SimpleNamespace(NAME="NetworkScorer", BACKBONE="", PASSES=0),
    )
    return SimpleNamespace(
        MODEL=SimpleNamespace(CANONICALIZER=SimpleNamespace(**{**keys, **changes})),
        INPUT=SimpleNamespace(FORMAT="BGR"),
    )


def test_build_from_a_file(file):
    canonicalizer = build_canonicalizer(config(WEIGHTS=str(file)))
    assert isinstance(canonicalizer, GroupCanonicalizer)
    assert canonicalizer.scorer.input_size == 65 and canonicalizer.image_format == "BGR"
    assert canonicalizer.scorer.network.spec == SPEC


def test_build_from_scratch():
    canonicalizer = build_canonicalizer(config(TRAINABLE=True))
    assert canonicalizer.scorer.input_size == 97
    assert canonicalizer.scorer.network.spec == NetworkSpec("GCNN", 4, (2, 2), 1)


def test_build_the_identity():
    canonicalizer = build_canonicalizer(config(NAME="IdentityCanonicalizer"))
    assert isinstance(canonicalizer, IdentityCanonicalizer)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(NAME="Other"), "NAME"),
        (dict(), "WEIGHTS"),
        (dict(WEIGHTS="nowhere.pth"), "WEIGHTS"),
        (dict(WEIGHTS="canon_seg://nothing.pth"), "WEIGHTS"),
        (dict(TRAINABLE=True, GROUP_ORDER=8), "GROUP_ORDER"),
        (dict(TRAINABLE=True, GROUP_ORDER=0), "GROUP_ORDER"),
        (dict(TRAINABLE=True, INPUT_SIZE=96), "INPUT_SIZE"),
        (dict(TRAINABLE=True, INPUT_SIZE=1), "INPUT_SIZE"),
        (dict(TRAINABLE=True, NETWORK=network_keys([2])), "FIELDS"),
    ],
)
def test_bad_keys_are_named(changes, named):
    with pytest.raises(InputError, match=f"MODEL.CANONICALIZER.{named}|NETWORK.*{named}"):
        build_canonicalizer(config(**changes))


def test_a_file_for_another_group(tmp_path):
    spec = NetworkSpec("GCNN", 8, (1, 1), 1)
    path = tmp_path / "c8.pth"
    save_canonicalizer(path, build_trainable_network(spec), 65)
    with pytest.raises(InputError, match="GROUP is C4, and the network is for C8.*c8.pth"):
        build_canonicalizer(config(WEIGHTS=str(path)))


def test_plain_weights_have_plain_names(file):
    contents = torch.load(file, weights_only=True)
    assert set(contents["exported"]) == set(build_plain_network(SPEC).state_dict())


def test_inference_imports_neither_escnn_nor_detectron2(file):
    program = textwrap.dedent(f"""
        import sys
        for name in ("escnn", "detectron2", "segment_anything"):
            sys.modules[name] = None  # importing it raises ImportError
        import torch
        from canon_seg.images.canonicalizer import GroupCanonicalizer
        from canon_seg.networks.scorer import NetworkScorer
        from canon_seg.networks.weights import load_canonicalizer
        network, size = load_canonicalizer({str(file)!r})
        canonicalizer = GroupCanonicalizer(NetworkScorer(network, input_size=size))
        image = torch.arange(3 * 40 * 50).reshape(3, 40, 50).to(torch.uint8)
        first = canonicalizer.pose(image).turns
        poses = [canonicalizer.pose(torch.rot90(image, k, (1, 2))).turns for k in range(4)]
        assert poses == [(first + k) % 4 for k in range(4)], poses
        print("poses", *poses)
        import canon_seg.networks.build, canon_seg.core.prior
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("poses")
