"""Networks of groups with other turns than those by index: on a disc, and with a vector as pose."""

import math
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_networks_angles import direction_of_light, sky_and_ground

from canon_seg.core.group import C4, D4, SO2, C
from canon_seg.core.prior import TARGET_WIDTH, check_vector_loss, vector_loss
from canon_seg.core.scorer import CircularDistribution, VonMisesDistribution
from canon_seg.core.turn import Turn, compose, distance
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.tilt import rotate_image
from canon_seg.networks.blocks import blurred, cut_disc, disc, mean_in_disc
from canon_seg.networks.build import load_scorer
from canon_seg.networks.equivariant import (
    NetworkSpec,
    build_plain_network,
    build_trainable_network,
    export_network,
)
from canon_seg.networks.photo_stream import PhotoStream
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.networks.weights import load_canonicalizer, save_canonicalizer

needs_escnn = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")
VECTOR = NetworkSpec("GCNN", 8, (2, 3), 1, vector=True, blur=True)


def smooth_image(size=97):
    """A picture without fine structure, whose turns by any angle are nearly what they should be."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(4 * x * y + 1)]
    return (127 + 100 * np.stack(waves, axis=2)).astype(np.float32)


def as_input(image):
    return torch.from_numpy(np.ascontiguousarray((image - 127) / 60)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def network():
    if find_spec("escnn") is None:
        pytest.skip("escnn is not installed")
    torch.manual_seed(0)
    network = build_trainable_network(VECTOR)
    with torch.no_grad():
        network(torch.randn(4, 3, 49, 49))
    return network.eval()


# ---- the disc


@pytest.mark.parametrize("size", [(33, 33), (33, 46), (50, 33), (40, 40), (3, 8), (1, 4), (1, 1)])
def test_the_disc_turns_with_the_image(size):
    image = torch.rand(1, 2, *size, generator=torch.manual_seed(0))
    cut = cut_disc(image)
    assert abs(cut.shape[2] - cut.shape[3]) <= 1 and cut.any()
    for turn in D4.elements:
        assert torch.equal(cut_disc(turn_maps(image, turn)), turn_maps(cut, turn))
        mean = mean_in_disc(turn_maps(cut, turn))
        assert torch.allclose(mean, mean_in_disc(cut), atol=1e-6)


def test_corners_are_not_in_the_disc():
    weights = disc(65, 65, torch.zeros(1))
    assert weights[0, 0] == weights[5, 5] == 0 and weights[32, 0] > 0 and weights[32, 32] == 1
    assert float(weights.sum()) == pytest.approx(math.pi * 32.5**2, rel=0.01)


def test_blurring_keeps_what_is_smooth_and_takes_away_what_alternates():
    flat = torch.full((1, 3, 5, 7), 2.0)
    assert torch.allclose(blurred(flat), flat)
    checks = (torch.arange(9)[:, None] + torch.arange(9)) % 2 * 2.0 - 1
    assert blurred(checks[None, None])[..., 1:-1, 1:-1].abs().max() < 1e-6


# ---- networks


@needs_escnn
@pytest.mark.parametrize("size", [(65, 65), (64, 50)])
def test_the_vector_turns_with_the_image(network, size):
    exported = export_network(network)
    image = torch.randn(2, 3, *size, generator=torch.manual_seed(1))
    with torch.no_grad():
        for model in (network, exported):
            x, y = model(image).unbind(1)
            turned = model(turn_maps(image, 1))
            expected = torch.stack([-y, x], dim=1)
            scale = float(expected.norm(dim=1).max())
            assert torch.allclose(turned, expected, atol=1e-4 * scale)
        assert torch.allclose(exported(image), network(image), atol=1e-4 * scale)
        assert scale > 1e-4
    assert {type(m).__module__.split(".")[0] for m in exported.modules()} == {"torch", "canon_seg"}


@needs_escnn
def test_between_quarter_turns_the_vector_turns_nearly_so(network):
    """Measured, and never called exact; a square picture instead of a disc is worse."""
    exported, image = export_network(network), smooth_image()
    first = VonMisesDistribution(exported(as_input(image))).mode()[0]
    errors = []
    for degrees in (45, 22.5, 100):
        turned = rotate_image(image, degrees, "crop")
        found = VonMisesDistribution(exported(as_input(turned))).mode()[0]
        errors.append(distance(found, compose(first, Turn.by(degrees))))
    assert max(errors) < 10
    assert max(errors) > 1e-3


@needs_escnn
def test_eight_poses_turn_nearly_so_by_half_of_a_quarter():
    torch.manual_seed(0)
    network = build_trainable_network(NetworkSpec("GCNN", 8, (2, 3), 1, blur=True, kernel=5))
    noise = np.random.default_rng(0).normal(0, 400, (97, 97, 3)).astype(np.float32)
    image = 127 + cv2.GaussianBlur(noise, (0, 0), 4)
    with torch.no_grad():
        network(torch.randn(4, 3, 49, 49))
        exported = export_network(network.eval())
        logits = exported(as_input(image))
        turned = exported(as_input(rotate_image(image, 45, "crop")))
    error = (turned - logits.roll(1, dims=1)).norm()
    assert 1e-4 < error < 0.8 * (turned - logits).norm()


@needs_escnn
def test_the_weights_file_round_trip(network, tmp_path):
    path = tmp_path / "vector.pth"
    save_canonicalizer(path, network, 33)
    plain, size = load_canonicalizer(path)
    assert (plain.spec, plain.spec.group, size) == (VECTOR, SO2, 33)
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        expected = export_network(network)(image)
        assert torch.allclose(plain(image), expected, atol=2e-2 * float(expected.norm()))
        again, _ = load_canonicalizer(path, trainable=True)
        assert torch.allclose(again(image), expected, atol=2e-2 * float(expected.norm()))
    scorer = load_scorer(path)
    assert scorer.group == SO2 and isinstance(scorer([image[0]]), VonMisesDistribution)
    with pytest.raises(InputError, match="serves poses of SO2, not of C8"):
        load_scorer(path, group=C(8))


def test_the_canonicalizer_of_a_vector_is_exact_on_quarter_turns():
    torch.manual_seed(0)
    scorer = NetworkScorer(build_plain_network(VECTOR).eval(), input_size=33)
    canonicalizer = GroupCanonicalizer(scorer, min_tilt=0.0).eval()
    assert canonicalizer.group == SO2
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    pose = canonicalizer.pose(image)
    assert len(pose.probabilities) == 72 and not pose.turn.exact
    for turn in C4.elements:
        turned = canonicalizer.pose(turn_maps(image, turn))
        assert turned.turn == compose(pose.turn, turn)
        assert turned.probability == pose.probability


@pytest.mark.parametrize(
    ("values", "named"),
    [({"mirrors": True}, "no mirrors"), ({"group_order": 2}, "ORIENTATIONS is 2")],
)
def test_vectors_that_cannot_be(values, named):
    with pytest.raises(InputError, match=named):
        NetworkSpec(
            **{"name": "GCNN", "group_order": 8, "fields": (2, 3), "depth": 1} | values, vector=True
        )


# ---- the distribution and its loss


def test_a_von_mises_distribution():
    vectors = torch.tensor([[3.0, 0.0], [0.0, -20.0], [-2.0, 2.0]])
    found = VonMisesDistribution(vectors)
    assert [turn.degrees for turn in found.mode()] == pytest.approx([0, 270, 135], abs=1e-5)
    assert found.concentration.tolist() == pytest.approx([3, 20, math.sqrt(8)])
    assert found.modes(2) == [[turn] for turn in found.mode()] and len(found[1]) == 1
    # The masses of its arcs are those of the density.
    angles = torch.arange(72, dtype=torch.float64) * math.pi / 36
    density = torch.distributions.VonMises(math.pi * 3 / 4, math.sqrt(8)).log_prob(angles).exp()
    assert torch.allclose(found.probabilities[2], density / density.sum(), atol=1e-6)
    for turn in (*C4.elements, Turn.by(33.5)):
        turned = found.act(turn)
        for before, after in zip(found.mode(), turned.mode(), strict=True):
            assert distance(after, compose(before, turn)) < 1e-4
        assert torch.allclose(turned.near(compose(Turn(), turn)), found.near(Turn()), atol=0.02)
    assert isinstance(found, CircularDistribution)


def test_the_loss_is_the_cross_entropy_with_a_von_mises_distribution():
    vectors, degrees = torch.tensor([[2.0, 1.0], [-1.0, 30.0]]), torch.tensor([40.0, 95.0])
    kappa = (180 / math.pi / TARGET_WIDTH) ** 2
    angles = torch.linspace(-math.pi, math.pi, 100_001, dtype=torch.float64)[:-1]
    step, expected = 2 * math.pi / len(angles), []
    for vector, angle in zip(vectors.double(), degrees.double(), strict=True):
        target = torch.distributions.VonMises(torch.deg2rad(angle), kappa).log_prob(angles).exp()
        mine = torch.distributions.VonMises(
            torch.atan2(vector[1], vector[0]), vector.norm()
        ).log_prob(angles)
        mixed = 0.9 * target + 0.1 / (2 * math.pi)
        expected.append(-float((mixed * mine).sum() * step))
    assert float(vector_loss(vectors, degrees, 0.1)) == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("kind", ["von_mises", "squared", "cosine"])
def test_gradients_at_a_vector_of_no_length(kind):
    """They pull towards the truth; that of the cosine has no bound there."""
    vectors = torch.zeros(1, 2, requires_grad=True)
    vector_loss(vectors, torch.tensor([90.0]), 0.0, kind).backward()
    x, y = (-vectors.grad[0]).tolist()
    assert abs(x) < 1e-6 * y and y > 0.5
    small = torch.tensor([[1e-4, 0.0]], requires_grad=True)
    vector_loss(small, torch.tensor([90.0]), 0.0, kind).backward()
    assert (float(small.grad.norm()) > 1e3) == (kind == "cosine")


def test_losses_that_are_not_there():
    assert check_vector_loss("cosine") == "cosine"
    with pytest.raises(ValueError, match="VECTOR_LOSS is 'l1'; known: von_mises, cosine"):
        check_vector_loss("l1")


# ---- views


@pytest.mark.parametrize("group", [SO2, C(8)], ids=lambda group: group.name)
def test_the_label_of_a_view_is_its_angle(group, tmp_path):
    Image.fromarray(sky_and_ground()).save(tmp_path / "a.png")
    stream = PhotoStream(
        [str(tmp_path / "a.png")],
        np.ones(1),
        batch_size=12,
        shapes=[(65, 65)],
        min_scale=0.9,
        image_format="RGB",
        seed=0,
        group=group,
    )
    seen = set()
    for example in next(iter(stream)):
        degrees = example["degrees"] if group == SO2 else example["pose"].degrees
        light = direction_of_light(example["image"].permute(1, 2, 0).numpy())
        assert abs((light - degrees + 180) % 360 - 180) < 25
        seen.add(round(degrees) % 90)
    assert len(seen) > 1


def test_mirrors_are_no_augmentation_where_they_are_to_be_found(tmp_path):
    image = sky_and_ground()
    image[:, :75] //= 2  # the left half is darker
    Image.fromarray(image).save(tmp_path / "a.png")
    options = {"batch_size": 16, "shapes": [(48, 60)], "min_scale": 0.9, "image_format": "RGB"}
    darker = {}
    for group in (C4, D4):
        stream = PhotoStream([str(tmp_path / "a.png")], np.ones(1), seed=0, group=group, **options)
        views = [example["image"].float() for example in next(iter(stream))]
        darker[group] = {bool(v[..., :30].mean() < v[..., 30:].mean()) for v in views}
    assert darker == {C4: {True, False}, D4: {True}}
