from importlib.util import find_spec

import pytest
import torch
from torch import nn

from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.networks import blocks
from canon_seg.networks.blocks import PlainConvBlock, make_odd
from canon_seg.networks.equivariant import (
    NetworkSpec,
    build_plain_network,
    build_trainable_network,
    export_network,
)

TOLERANCE = 1e-4  # of the largest logit
GCNN = NetworkSpec("GCNN", 4, (8, 16, 32, 48), 2)
GWRN = NetworkSpec("GWRN", 4, (16, 28, 56, 88), 2)
SMALL = {
    "GCNN": NetworkSpec("GCNN", 4, (2, 4, 6), 2),
    "GWRN": NetworkSpec("GWRN", 4, (2, 4, 4), 2),
}
SIZES = [(65, 65), (64, 64), (50, 33), (17, 40), (3, 8), (2, 2), (1, 7), (1, 1)]


needs_escnn = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")


@torch.no_grad()
def trained(spec):
    """A trainable network with weights and batch statistics that nothing is special about."""
    torch.manual_seed(0)
    network = build_trainable_network(spec)
    for name, parameter in network.named_parameters():
        if ".norm." in name:
            parameter.add_(0.3 * torch.rand_like(parameter))
    network.train()(torch.randn(4, 3, 65, 50))
    return network.eval()


@torch.no_grad()
def equivariance_error(network, size, order=4):
    """Largest difference of the logits of turned images, as a fraction of the largest logit."""
    torch.manual_seed(1)
    image = torch.randn(2, 3, *size)
    logits = network(image)
    errors = [
        (network(turn_maps(image, turns)) - logits.roll(turns * order // 4, dims=1)).abs().max()
        for turns in C4.elements
        if turns * order % 4 == 0
    ]
    return float(max(errors) / logits.abs().max())


@pytest.fixture(scope="module", params=[GCNN, GWRN], ids=lambda spec: spec.name)
def network(request):
    return trained(request.param)


@needs_escnn
def test_trainable_permutes_its_logits(network):
    for size in SIZES:
        assert equivariance_error(network, size) < TOLERANCE, size


@needs_escnn
def test_exported_permutes_its_logits(network):
    exported = export_network(network)
    for size in SIZES:
        assert equivariance_error(exported, size) < TOLERANCE, size


@needs_escnn
def test_logits_tell_poses_apart(network):
    # Constant logits would be equivariant too.
    torch.manual_seed(2)
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 65, 65))
    assert logits.std() > 1e-3 * logits.abs().max()


@needs_escnn
def test_exported_equals_trainable(network):
    exported = export_network(network)
    torch.manual_seed(3)
    with torch.no_grad():
        for size in [(65, 65), (40, 63)]:
            images = torch.randn(2, 3, *size)
            torch.testing.assert_close(exported(images), network(images), rtol=1e-4, atol=1e-4)


@needs_escnn
@pytest.mark.parametrize("order", [2, 4, 8])
def test_half_precision_keeps_the_symmetry(order):
    # Not to the 1e-3 of half precision: turned copies of a filter are rounded alike.
    network = export_network(trained(NetworkSpec("GCNN", order, (2, 4, 6), 2)))
    network.half().float()
    assert equivariance_error(network, (50, 33), order) < 5e-6


@needs_escnn
def test_exported_is_plain_torch(network):
    exported = export_network(network)
    assert not exported.training
    assert {type(m).__module__.split(".")[0] for m in exported.modules()} == {"torch", "canon_seg"}


@needs_escnn
def test_parameter_counts(network):
    count = sum(parameter.numel() for parameter in network.parameters())
    low, high = {"GCNN": (0.15e6, 0.3e6), "GWRN": (1.8e6, 2.0e6)}[network.spec.name]
    assert low < count < high


@needs_escnn
def test_equivariant_while_training():
    network = trained(SMALL["GWRN"]).train()
    assert equivariance_error(network, (34, 51)) < TOLERANCE


@needs_escnn
@pytest.mark.parametrize("name", ["GCNN", "GWRN"])
@pytest.mark.parametrize("order", [2, 8])
def test_other_orders(name, order):
    spec = NetworkSpec(name, order, (2, 3, 3), 1)
    network = trained(spec)
    assert equivariance_error(network, (33, 46), order) < TOLERANCE
    assert equivariance_error(export_network(network), (33, 46), order) < TOLERANCE


@needs_escnn
def test_export_keeps_the_mode():
    network = trained(SMALL["GCNN"])
    for mode in (True, False):
        network.train(mode)
        export_network(network)
        assert all(module.training == mode for module in network.modules())


@needs_escnn
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", SMALL)
def test_export_from_a_gpu(name):
    network = trained(SMALL[name])
    expected = export_network(network).state_dict()
    found = export_network(network.cuda()).state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


@needs_escnn
def test_export_follows_the_weights():
    network = trained(SMALL["GCNN"]).train()
    before = export_network(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        after = export_network(network)(image)
        torch.testing.assert_close(after, network.eval()(image), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before(image))


@needs_escnn
@pytest.mark.parametrize("name", ["GCNN", "GWRN"])
def test_even_sizes_break_without_make_odd(monkeypatch, name):
    network = export_network(trained(SMALL[name]))
    assert equivariance_error(network, (64, 64)) < TOLERANCE
    monkeypatch.setattr(blocks, "make_odd", lambda x: x)
    assert equivariance_error(network, (65, 65)) < TOLERANCE
    assert equivariance_error(network, (64, 64)) > 10 * TOLERANCE


def test_one_strided_convolution_is_equivariant_only_at_odd_sizes():
    # The reason for make_odd, without any group convolution: an invariant filter and a stride.
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    nn.init.constant_(conv.weight, 1)
    torch.manual_seed(0)
    for size, breaks in [(97, False), (96, True)]:
        image = torch.randn(1, 1, size, size)
        with torch.no_grad():
            turned = conv(turn_maps(image, 1)) - turn_maps(conv(image), 1)
        assert (turned.abs().max() > 1e-3) == breaks


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((5, 7), (5, 7)),
        ((6, 7), (5, 7)),
        ((5, 2), (5, 1)),
        ((4, 4), (3, 3)),
        ((1, 1), (1, 1)),
    ],
)
def test_make_odd_sizes(size, expected):
    assert make_odd(torch.rand(1, 2, *size)).shape[-2:] == expected


def test_make_odd_averages_neighbours():
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]]])
    assert make_odd(x).tolist() == [[[[2.0], [6.0], [10.0]]]]


def test_names_of_the_weights():
    # Files of weights that are out there hold these names.
    names = set(build_plain_network(GCNN).state_dict())
    convs = ["stem", *(f"stages.{i}" for i in range(6)), "head"]
    assert names == {f"{conv}.conv.{kind}" for conv in convs for kind in ("weight", "bias")}


@needs_escnn
def test_a_new_network_has_the_names_of_one_in_training():
    # Else a checkpoint of a training would not fit the network that is to go on with it.
    names = set(build_trainable_network(SMALL["GCNN"]).state_dict())
    assert names == set(trained(SMALL["GCNN"]).train().state_dict())


def test_strided_block_halves():
    block = PlainConvBlock(4, None, 2, 5, stride=2)
    assert block(torch.zeros(1, 3, 96, 33)).shape == (1, 8, 48, 17)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("GCN", 4, (8, 8), 1), "NETWORK.NAME"),
        (("GCNN", 4, (8,), 1), "FIELDS"),
        (("GCNN", 4, (8, 0), 1), "FIELDS"),
        (("GCNN", 4, (8, 8), 0), "DEPTH"),
    ],
)
def test_bad_specs(values, named):
    with pytest.raises(InputError, match=named):
        NetworkSpec(*values)


def test_spec_round_trip():
    assert NetworkSpec.from_dict(GWRN.to_dict()) == GWRN


def test_training_without_escnn_is_an_input_error(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "canon_seg.networks.escnn_layers", None)
    with pytest.raises(InputError, match="escnn"):
        build_trainable_network(GCNN)
