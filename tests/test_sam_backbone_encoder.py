"""The encoder on a pretrained backbone: timm's features, folded, and what is frozen."""

import pytest
import torch

from canon_seg.errors import InputError
from canon_seg.sam.backbone_encoder import BackboneEncoder
from canon_seg.sam.models import unpack

timm = pytest.importorskip("timm")
# The blocks of the first stages of the second are of other kinds: plain convolutions, and such
# that are not of single channels.
NAMES = {"tf_efficientnet_lite0": (6, 192), "test_efficientnet": (5, 64)}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(name):
    """The whole backbone, its batch statistics as far from the start as those of a training."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model


def test_the_features_are_the_backbones(whole, name):
    encoder = BackboneEncoder(64, name, 32).eval()
    encoder.load_pretrained(whole.state_dict(), "file")
    features = {}
    for number, block in enumerate(encoder.body.blocks):
        block.register_forward_hook(lambda _, __, out, n=number: features.update({n: out}))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        packed = encoder(images)
        x = whole.bn1(whole.conv_stem(images))
        for number, block in enumerate(whole.blocks[: len(encoder.body.blocks)]):
            x = block(x)
            torch.testing.assert_close(features[number], x, rtol=1e-3, atol=1e-3)
    assert (len(encoder.body.blocks), x.shape[1]) == NAMES[name] and x.shape[2:] == (2, 2)
    assert packed.shape == (2, 4 * 32, 8, 8)
    assert [m.shape[1:] for m in unpack(packed)] == [(32, 8, 8), (8, 16, 16), (4, 32, 32)]


def test_frozen_stages_keep_their_weights(whole, name):
    encoder = BackboneEncoder(64, name, 32, freeze_stages=3).train()
    encoder.load_pretrained(whole.state_dict(), "file")
    encoder(torch.randn(1, 3, 64, 64)).square().mean().backward()
    frozen = [encoder.body.conv_stem, *encoder.body.blocks[:3]]
    assert all(not p.requires_grad and p.grad is None for m in frozen for p in m.parameters())
    trained = [p for block in encoder.body.blocks[3:] for p in block.parameters()]
    assert trained and all(p.grad is not None for p in trained)
    assert not list(encoder.body.buffers())  # no statistics of batches are left


def test_weights_of_another_backbone_are_refused(whole, name):
    encoder = BackboneEncoder(64, name, 32)
    state = {k: v for k, v in whole.state_dict().items() if k != "conv_stem.weight"}
    with pytest.raises(InputError, match=r"PRETRAINED\) holds weights of another backbone"):
        encoder.load_pretrained(state, "file")
    with pytest.raises(InputError, match="FREEZE_STAGES is 9"):
        BackboneEncoder(64, name, 32, freeze_stages=9)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [("resnet18", "is no EfficientNet"), ("mobilenetv4_conv_small", "UniversalInvertedResidual")],
)
def test_other_networks_are_refused(backbone, said):
    with pytest.raises(InputError, match=f"MODEL.SAM.TINY.BACKBONE.*{said}.*tf_efficientnet_lite0"):
        BackboneEncoder(64, backbone, 32)
