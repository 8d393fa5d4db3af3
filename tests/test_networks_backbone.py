import sys

import numpy as np
import pytest
import torch
from optional import need

from canon_seg.d2.config import load_config
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_scorer import (
    BackboneScorer,
    average_over_turns,
    load_backbone_scorer,
)
from canon_seg.networks.backbone_weights import (
    is_pose_network,
    load_pose_network,
    save_pose_network,
)
from canon_seg.networks.build import build_canonicalizer, load_scorer, uses_backbone

BACKBONE = "test_efficientnet"  # timm's smallest
KEY = "MODEL.CANONICALIZER.SCORER"


@pytest.fixture(scope="module", autouse=True)
def timm():
    return need("timm")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = PoseNetwork(BackboneSpec(BACKBONE))
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, 64, 64))
        for name, value in network.body.named_parameters():
            if name.startswith("classifier"):
                value.normal_()  # sure enough of something
    return network.eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("weights") / "canonicalizer.pth")
    save_pose_network(path, network, 64, {1: 1.5, 0: 0.5})
    return path


def photo(height=50, width=70, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def scorer(network, **options):
    return BackboneScorer(
        network, **{"input_size": 64, "image_format": "RGB", "passes": 1, **options}
    ).eval()


def test_network(network):
    images = torch.rand(3, 3, 64, 64)
    assert network(images).shape == (3, 4)
    mean = 255 * torch.tensor(network.mean).view(1, 3, 1, 1)
    assert network.normalize(mean.expand(1, 3, 2, 2)).abs().max() < 1e-6


def test_all_poses_are_equally_likely_at_first():
    network = PoseNetwork(BackboneSpec(BACKBONE)).eval()
    logits = network(torch.rand(2, 3, 64, 64))
    assert logits.softmax(dim=1).sub(0.25).abs().max() < 0.1
    assert logits.std() > 0


def test_unknown_backbone():
    with pytest.raises(InputError, match=f"{KEY}.BACKBONE is 'no_such_net', which timm"):
        PoseNetwork(BackboneSpec("no_such_net"))


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=f"{KEY}.BACKBONE needs .* pip install timm"):
        PoseNetwork(BackboneSpec(BACKBONE))


def test_average_over_turns():
    torch.manual_seed(0)
    log_probabilities = torch.randn(4, 2, 4).log_softmax(dim=2)
    average = average_over_turns(log_probabilities)
    for image in range(2):
        for pose in C4.elements:
            said = [log_probabilities[k, image, C4.compose(pose, k)] for k in C4.elements]
            assert average[image, pose] == pytest.approx(float(sum(said)) / 4)


@pytest.mark.parametrize("passes", [1, 0])
def test_canonicalizer_is_exactly_equivariant(network, passes):
    canonicalizer = GroupCanonicalizer(scorer(network, passes=passes)).eval()
    for seed in range(3):
        image = photo(seed=seed).permute(1, 2, 0).numpy()
        poses = [
            canonicalizer.pose(torch.tensor(turn_image(image, k).copy()).permute(2, 0, 1))
            for k in C4.elements
        ]
        assert len(set(poses[0].probabilities)) == 4
        for turns, pose in enumerate(poses):
            assert pose.turns == C4.compose(poses[0].turns, turns)
            assert pose.probabilities == tuple(np.roll(poses[0].probabilities, turns))


def test_orbit_alone_is_nearly_equivariant(network):
    """Group averaging does by itself, but for rounding, what the representative makes exact."""
    image = photo(60, 60).float()  # shrunk without rounding to whole numbers
    judge = scorer(network, passes=0)
    expected = judge.logits([image])[0].log_softmax(dim=0)
    assert expected.std() > 0.01
    for turns in C4.elements:
        said = judge.logits([turn_maps(image, turns).contiguous()])[0].log_softmax(dim=0)
        torch.testing.assert_close(said, expected.roll(turns), atol=2e-4, rtol=0)
    alone = scorer(network, passes=1)
    single = [alone.logits([turn_maps(image, k).contiguous()])[0].roll(-k) for k in C4.elements]
    assert (single[0] - single[1]).abs().max() > 0.05


def test_images_of_many_sizes_and_both_channel_orders(network):
    images = [photo(50, 70), photo(33, 20, 1).float(), photo(64, 64, 2)]
    rgb = scorer(network).logits(images)
    assert rgb.shape == (3, 4)
    bgr = scorer(network, image_format="BGR").logits([image.flip(0) for image in images])
    torch.testing.assert_close(bgr, rgb, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scorer(network)(images[:1]).logits[0], rgb[0], atol=1e-4, rtol=1e-4)


def test_borders_and_darkness_change_nothing_much(network):
    image, judge = photo(), scorer(network)
    expected = judge.logits([image])
    framed = torch.zeros(3, 90, 110, dtype=torch.uint8)
    framed[:, 20:70, 20:90] = image
    torch.testing.assert_close(judge.logits([framed]), expected)


def test_training_takes_views_as_they_are(network):
    judge = scorer(network).train()
    views = [torch.zeros(3, 96, 96, dtype=torch.uint8) for _ in range(2)]
    seen = []
    hook = judge.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    judge.logits(views).sum().backward()
    hook.remove()
    network.load_state_dict(state)
    network.eval().zero_grad()
    assert seen == [(2, 3, 96, 96)]


def test_temperature(network):
    images = [photo()]
    plain = scorer(network).logits(images)
    torch.testing.assert_close(scorer(network, temperatures={1: 2.0}).logits(images), plain / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passes": 2}, f"{KEY}.PASSES is 2; give 1, or 0"),
        ({"input_size": 16}, "MODEL.CANONICALIZER.INPUT_SIZE is 16; give at least 32"),
        ({"temperatures": {1: 0.0}}, "temperature is 0.0; it has to be above 0"),
        ({"temperatures": {0: float("nan")}}, "temperature is nan"),
    ],
)
def test_bad_options(network, options, message):
    with pytest.raises(InputError, match=message):
        scorer(network, **options)


def test_outputs_that_do_not_fit_the_group():
    with pytest.raises(InputError, match=f"{KEY}: the network has 3 outputs, the group 4"):
        scorer(PoseNetwork(BackboneSpec(BACKBONE, 3)))


def test_freeze_stages(network):
    frozen = PoseNetwork(BackboneSpec(BACKBONE)).train()
    frozen.freeze_stages(2)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], 0.1)
    frozen(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    for name, value in frozen.state_dict().items():
        kept = name.startswith(("body.conv_stem", "body.bn1", "body.blocks.0", "body.blocks.1"))
        if "num_batches_tracked" in name or "running" in name or "weight" in name:
            assert torch.equal(value, before[name]) == kept, name
    with pytest.raises(InputError, match=f"{KEY}.FREEZE_STAGES is 99, but 'test_efficientnet'"):
        frozen.freeze_stages(99)
    with pytest.raises(InputError, match=f"{KEY}.FREEZE_STAGES is 1, but 'test_resnet'"):
        PoseNetwork(BackboneSpec("test_resnet")).freeze_stages(1)


def test_file(network, file):
    loaded, input_size, temperatures = load_pose_network(file)
    assert input_size == 64 and temperatures == {1: 1.5, 0: 0.5}
    assert not loaded.training and loaded.spec == network.spec
    assert all(value.dtype != torch.float16 for value in loaded.state_dict().values())
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(loaded(images), network(images), atol=0.05, rtol=0.05)
    assert is_pose_network(file)
    for passes, temperature in temperatures.items():
        judge = load_backbone_scorer(file, image_format="RGB", passes=passes, backbone=BACKBONE)
        assert judge.temperature == temperature and judge.passes == passes and not judge.training


def test_files_of_another_kind(file, network, tmp_path):
    name = str(tmp_path / "file.pth")
    with pytest.raises(InputError, match=f"{KEY}.BACKBONE is 'test_resnet'; make them one"):
        load_pose_network(file, "test_resnet")
    contents = torch.load(file, weights_only=True)
    for change, message in [
        ({"format": "other"}, "is no pose network's weights file"),
        ({"version": 9}, "has version 9 of its format"),
        ({"group": "D4"}, "trained for the group D4"),
        ({"temperatures": None}, "is damaged: its temperatures"),
        ({"backbone": "test_resnet"}, "checkpoint of another architecture"),
        ({"backbone": "no_such_net"}, "which timm .* does not know"),
        ({"state": {**contents["state"], "body.classifier.weight": torch.zeros(8, 256)}}, "shape"),
    ]:
        torch.save({**contents, **change}, name)
        with pytest.raises(InputError, match=message):
            load_pose_network(name)
    torch.save([1], name)
    assert not is_pose_network(name)
    with pytest.raises(InputError, match="MODEL.CANONICALIZER.WEIGHTS: there is no file"):
        is_pose_network(str(tmp_path / "nothing.pth"))


def config(*options):
    keys = ["MODEL.CANONICALIZER.INPUT_SIZE", 64, "INPUT.FORMAT", "RGB"]
    return load_config("", [*keys, *options])


def test_from_a_config(file, network):
    weights = ["MODEL.CANONICALIZER.WEIGHTS", file]
    cfg = config(*weights, f"{KEY}.PASSES", 0)
    assert uses_backbone(cfg)
    canonicalizer = build_canonicalizer(cfg).eval()
    assert canonicalizer.scorer.temperature == 0.5 and canonicalizer.scorer.passes == 0
    image = photo()
    expected = load_backbone_scorer(file, image_format="RGB", passes=0).logits([image])
    assert torch.equal(canonicalizer.scores([image]).logits, expected)
    trainable = build_canonicalizer(config(*weights, "MODEL.CANONICALIZER.TRAINABLE", True))
    assert trainable.scorer.temperature == 1
    with pytest.raises(InputError, match="MODEL.CANONICALIZER.WEIGHTS is empty"):
        build_canonicalizer(config(f"{KEY}.BACKBONE", BACKBONE))
    assert not uses_backbone(config())


def test_a_backbone_beside_an_equivariant_file_is_refused():
    weights = ["MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"]
    with pytest.raises(InputError, match=f"gcnn.pth .*an equivariant network, but {KEY}.BACKBONE"):
        build_canonicalizer(config(*weights, f"{KEY}.BACKBONE", BACKBONE))


def test_load_scorer_takes_files_of_both_kinds(file, tmp_path):
    assert load_scorer(file, passes=1).passes == 1 and load_scorer(file).passes == 0
    fast = load_scorer("canon_seg://canonicalizer_gcnn.pth", image_format="BGR")
    assert fast.network.spec.name == "GCNN" and fast.image_format == "BGR" and not fast.training
    torch.save([1], tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth is no canonicalizer's weights file"):
        load_scorer(tmp_path / "other.pth")


def test_pretrained_weights(tmp_path, timm):
    torch.manual_seed(0)
    state = timm.create_model(BACKBONE).state_dict()
    path = str(tmp_path / "pretrained.pth")
    torch.save(state, path)
    cfg = config(
        *["MODEL.CANONICALIZER.TRAINABLE", True, f"{KEY}.BACKBONE", BACKBONE],
        *[f"{KEY}.PRETRAINED", path, f"{KEY}.FREEZE_STAGES", 1],
    )
    body = build_canonicalizer(cfg).scorer.network.body
    assert torch.equal(body.conv_stem.weight, state["conv_stem.weight"])
    assert not body.conv_stem.weight.requires_grad and body.conv_head.weight.requires_grad
    assert body.classifier.weight.shape == (4, body.conv_head.weight.shape[0])
    with pytest.raises(InputError, match=f"{KEY}.PRETRAINED. holds weights of another backbone"):
        PoseNetwork(BackboneSpec("test_resnet")).load_pretrained(state, path)
