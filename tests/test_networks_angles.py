"""The scorer of the circle: its views, its network, its weights file, its config."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from optional import need
from PIL import Image

from canon_seg.core.group import C4, D4, O2, SO2, C
from canon_seg.core.prior import circle_loss
from canon_seg.core.scorer import CircularDistribution
from canon_seg.core.turn import Turn, compose, distance
from canon_seg.d2.config import load_config
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.shapes import shape_of_area, to_area
from canon_seg.networks import angle_views, pose_views
from canon_seg.networks.angle_views import AngleStream, draw_angle_view, view_shapes
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_weights import load_pose_network, save_pose_network
from canon_seg.networks.build import build_canonicalizer, load_scorer
from canon_seg.networks.calibration import fit_circle
from canon_seg.networks.circle_scorer import CircleScorer, pool
from canon_seg.networks.photo_stream import build_photo_loader
from canon_seg.predictors.defaults import load_default_canonicalizer

BACKBONE = "test_efficientnet"
KEY = "MODEL.CANONICALIZER"


@pytest.fixture(scope="module", autouse=True)
def timm():
    return need("timm")


def network_of(arcs, seed=0):
    torch.manual_seed(seed)
    network = PoseNetwork(BackboneSpec(BACKBONE, arcs))
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, 64, 64))
        for name, value in network.body.named_parameters():
            if name.startswith("classifier"):
                value.normal_()
    return network.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "canonicalizer_so2.pth"
    temperatures = {"SO2": {1: 1.5, 0: 0.5}, "C4": {1: 2.0}}
    save_pose_network(path, network_of(72), 64, temperatures)
    return str(path)


def sky_and_ground(height=120, width=150):
    """Bright above the horizon, dark below: a photograph whose angle is plain to see."""
    image = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    image[: height // 2] += 200
    return image.astype(np.uint8)


def direction_of_light(view):
    """The angle by which an upright horizon was turned: from the centre of brightness."""
    grey = view.astype(float).mean(axis=2)
    rows, columns = np.indices(grey.shape)
    inside = (rows - grey.shape[0] / 2) ** 2 + (columns - grey.shape[1] / 2) ** 2
    grey = np.where(inside <= (min(grey.shape) / 2 - 1) ** 2, grey, 0)
    x = (grey * (columns - (grey.shape[1] - 1) / 2)).sum()
    y = (grey * (rows - (grey.shape[0] - 1) / 2)).sum()
    return math.degrees(math.atan2(-x, -y)) % 360  # up is 0, left, counterclockwise, is 90


def no_disturbance(monkeypatch):
    for name in ("BORDERED", "FEW_PIXELS"):
        monkeypatch.setattr(angle_views, name, 0.0)
    for name in ("DARK", "COMPRESSED", "DISTURBED"):
        monkeypatch.setattr(pose_views, name, 0.0)


# ---- views


@pytest.mark.parametrize("kind", ["quarter", "inside", "canvas"])
def test_the_label_of_a_view_is_its_angle(kind, monkeypatch):
    monkeypatch.setattr(angle_views, "QUARTER", float(kind == "quarter"))
    monkeypatch.setattr(angle_views, "CANVAS", float(kind == "canvas"))
    monkeypatch.setattr(angle_views, "_draw_fill", lambda rng: (110.0,) * 3)
    monkeypatch.setattr(angle_views, "crop", lambda image, rng, min_scale: image)
    no_disturbance(monkeypatch)
    rng = np.random.default_rng(3)
    seen = set()
    for shape in [(64, 64), (48, 80), (80, 48)] * 10:
        view, degrees = draw_angle_view(sky_and_ground(), shape, rng, 0.95)
        assert view.shape == (*shape, 3) and view.dtype == np.uint8 and 0 <= degrees < 360
        # Where the horizon lies off the middle, the centre of brightness is off a little too.
        assert distance(Turn.by(direction_of_light(view)), Turn.by(degrees)) < 12
        seen.add(degrees)
    assert (len(seen) == 4) == (kind == "quarter")


def test_no_fill_inside_a_turned_photograph(monkeypatch):
    monkeypatch.setattr(angle_views, "QUARTER", 0.0)
    monkeypatch.setattr(angle_views, "CANVAS", 0.0)
    no_disturbance(monkeypatch)
    called = []
    monkeypatch.setattr(angle_views, "_draw_fill", lambda rng: called.append(1) or (0.0,) * 3)
    rng = np.random.default_rng(4)
    photo = np.full((90, 120, 3), 200, np.uint8)
    for _ in range(40):
        view, _ = draw_angle_view(photo, (48, 64), rng, 0.7)
        assert (view == 200).all()
    assert not called


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (40, 41)])
def test_photographs_of_any_size(size):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for _ in range(12):
        assert draw_angle_view(photo, (64, 96), rng, 0.5)[0].shape == (64, 96, 3)


def test_a_stream_of_views(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(sky_and_ground()).save(path)

    def batches(seed):
        stream = AngleStream(
            [str(path)],
            np.ones(1),
            batch_size=3,
            shapes=view_shapes([64]),
            min_scale=0.6,
            image_format="RGB",
            seed=seed,
        )
        return list(islice(build_photo_loader(stream, 0), 4))

    first, again, other = batches(1), batches(1), batches(2)
    for batch, same in zip(first, again, strict=True):
        assert len({example["image"].shape for example in batch}) == 1
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batch, same, strict=True))
        assert [a["degrees"] for a in batch] == [b["degrees"] for b in same]
    assert any(
        a["degrees"] != b["degrees"]
        for x, y in zip(first, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_shapes_keep_proportions():
    for width in (100, 133, 150, 178, 200, 400):
        height, wide = shape_of_area(192, width / 100)
        assert height % 16 == 0 and wide % 16 == 0 and abs(height * wide / 192**2 - 1) < 0.2
        assert wide <= 2.3 * height
    # A disc stays one: nothing is squashed.
    rows, columns = np.indices((300, 437))
    disc = ((rows - 150) ** 2 + (columns - 218) ** 2 < 100**2) * 255
    image = torch.from_numpy(disc.astype(np.uint8)).expand(3, -1, -1)
    small = to_area(image, 192)[0] > 127
    spread = [float(torch.std(axis.float())) for axis in small.nonzero().unbind(1)]
    assert abs(spread[0] / spread[1] - 1) < 0.02


# ---- loss


def test_the_loss_is_least_at_the_target():
    degrees = torch.tensor([12.0, 359.0])
    arcs = torch.arange(72) * 5.0
    away = (arcs - degrees[:, None] + 180) % 360 - 180
    best = CircularDistribution(-0.5 * (away / 5.0) ** 2)
    least = circle_loss(best, degrees)
    entropy = -(best.probabilities * best.probabilities.log().nan_to_num(neginf=0)).sum(1).mean()
    assert least == pytest.approx(float(entropy), abs=1e-4)
    for turn in (5, 90, 180):
        assert circle_loss(best.act(Turn.by(turn)), degrees) > least
    turned = circle_loss(best.act(Turn.by(100.5)), degrees + 100.5)
    assert turned == pytest.approx(float(least), abs=1e-5)
    flat = CircularDistribution(torch.zeros(2, 72))
    assert circle_loss(flat, degrees, 0.1) == pytest.approx(math.log(72), abs=1e-5)


# ---- scorer


def photo(height=50, width=70, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("group", [SO2, C(8), C4], ids=lambda group: group.name)
def test_one_network_serves_every_group_of_rotations(file, group):
    network, size, temperatures = load_pose_network(file)
    scorer = CircleScorer(
        network,
        group=group,
        input_size=size,
        image_format="RGB",
        passes=1,
        temperatures=temperatures,
    ).eval()
    arcs = scorer.arcs_of_inputs(scorer.prepare(photo())[None])
    found = scorer([photo()])
    if group == SO2:
        assert torch.allclose(found.logits, arcs / 1.5)
    else:
        likely = arcs.double().softmax(1)[0]
        reach = 72 // group.order
        middle = [likely.roll(reach // 2 - reach * k)[: reach + 1] for k in range(group.order)]
        if reach % 2:  # arcs lie within one element each
            wanted = torch.stack([part[:reach].sum() for part in middle])
        else:  # those on a border are shared
            wanted = torch.stack([part.sum() - part[0] / 2 - part[-1] / 2 for part in middle])
        logits = found.logits[0] * (2.0 if group == C4 else 1.0)
        assert torch.allclose(logits.double().exp(), wanted, atol=1e-6)


def test_all_four_looks_turn_along(file):
    network, size, _ = load_pose_network(file)
    scorer = CircleScorer(network, input_size=size, image_format="RGB").eval()
    assert scorer.passes == 0
    inputs = scorer.prepare(photo())[None]
    arcs = scorer.arcs_of_inputs(inputs)
    for quarters in (1, 2, 3):
        turned = scorer.arcs_of_inputs(turn_maps(inputs, quarters))
        assert torch.allclose(turned, arcs.roll(18 * quarters, dims=1), atol=1e-5)
    assert not torch.allclose(
        arcs,
        CircleScorer(network, input_size=size, image_format="RGB", passes=1)
        .eval()
        .arcs_of_inputs(inputs),
        atol=1e-2,
    )


def test_a_network_starts_from_one_for_fewer_poses():
    quarters, circle = network_of(4), network_of(72, seed=1)
    circle.take_over(quarters)
    images = torch.rand(5, 3, 64, 96)
    with torch.no_grad():
        old, new = quarters(images), circle(images)
    assert torch.allclose(new[:, ::18], old, atol=1e-5)
    assert torch.allclose(new[:, 9], (old[:, 0] + old[:, 1]) / 2, atol=1e-5)
    assert torch.allclose(new[:, 63], (old[:, 3] + old[:, 0]) / 2, atol=1e-5)
    with pytest.raises(ValueError, match="cannot start from one"):
        quarters.take_over(circle)


def test_the_weights_file_round_trip(file, tmp_path):
    network, size, temperatures = load_pose_network(file)
    assert (network.spec.num_poses, size) == (72, 64)
    assert temperatures == {"SO2": {1: 1.5, 0: 0.5}, "C4": {1: 2.0}}
    scorer = load_scorer(file)
    assert isinstance(scorer, CircleScorer) and scorer.group == SO2
    assert load_scorer(file, group=C(8)).group == C(8)
    with pytest.raises(InputError, match="serves poses of SO2, not of D4"):
        load_scorer(file, group=D4)
    assert load_default_canonicalizer(weights=file, group="C4").group == C4
    with pytest.raises(InputError, match="group: 'C' is no group"):
        load_default_canonicalizer(weights=file, group="C")
    scorer.save(tmp_path / "again.pth")
    again = load_scorer(tmp_path / "again.pth")
    assert torch.equal(again([photo()]).logits, scorer([photo()]).logits)
    contents = torch.load(file, weights_only=True)
    torch.save({**contents, "arcs": 7}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="damaged: its arcs are 7"):
        load_pose_network(tmp_path / "bad.pth")
    torch.save({**contents, "group": "O3"}, tmp_path / "o3.pth")
    with pytest.raises(InputError, match="for the group O3; only C4, SO2 and O2"):
        load_pose_network(tmp_path / "o3.pth")


@pytest.fixture(scope="module")
def mirror_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "canonicalizer_o2.pth"
    network = network_of(144)
    network.spec = BackboneSpec(BACKBONE, 144, mirrors=True)
    save_pose_network(path, network, 64, {"O2": {1: 1.5}, "D4": {1: 2.0}})
    return str(path)


@pytest.mark.parametrize("name", ["O2", "D4", "D8"])
def test_a_network_with_mirrors_serves_every_group_with_mirrors(mirror_file, name):
    canonicalizer = build_canonicalizer(config(mirror_file, GROUP=name)).eval()
    assert canonicalizer.group.name == name
    image, seen = photo(), set()
    pose = canonicalizer.pose(image)
    assert sum(pose.probabilities) == pytest.approx(1)
    for turn in D4.elements:
        turned = canonicalizer.pose(turn_maps(image, turn))
        assert turned.turn == compose(pose.turn, turn)
        assert turned.probability == pose.probability
        assert sorted(turned.probabilities) == sorted(pose.probabilities)
        seen.add(turned.turn)
    assert len(seen) == 8
    scorer = load_scorer(mirror_file, passes=0)
    assert scorer.group == O2
    inputs = scorer.prepare(image)[None]
    arcs = CircularDistribution(scorer.arcs_of_inputs(inputs), group=O2)
    for turn in D4.elements:  # all eight looks turn along
        found = scorer.arcs_of_inputs(turn_maps(inputs, turn))
        assert torch.allclose(found, arcs.act(turn).logits, atol=1e-5)
    if name != "O2":
        with pytest.raises(InputError, match="GROUP is C4, and the network is for O2"):
            build_canonicalizer(config(mirror_file, GROUP="C4"))


def test_a_network_with_mirrors_starts_from_one_without():
    circle, mirrors = network_of(72, seed=1), PoseNetwork(BackboneSpec(BACKBONE, 144, True)).eval()
    mirrors.take_over(circle)
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        old, new = circle(images), mirrors(images)
    assert torch.allclose(new, torch.cat([old, old], dim=1), atol=1e-5)
    with pytest.raises(ValueError, match="cannot start from one"):
        circle.take_over(mirrors)


def test_views_with_mirrors_say_so(tmp_path):
    image = sky_and_ground()
    image[:60, :75] //= 2  # of the sky the left half is darker
    Image.fromarray(image).save(tmp_path / "a.png")
    stream = AngleStream(
        [str(tmp_path / "a.png")],
        np.ones(1),
        batch_size=24,
        shapes=[(64, 64)],
        min_scale=0.9,
        image_format="RGB",
        seed=0,
        group=O2,
    )
    mirrored = [example["mirrored"] for example in next(iter(stream))]
    assert 4 < sum(mirrored) < 20
    assert all(isinstance(value, bool) for value in mirrored)


def test_the_loss_knows_the_side_of_the_mirror():
    degrees, mirrored = torch.tensor([10.0, 200.0]), torch.tensor([False, True])
    logits = torch.full((2, 144), -30.0)
    logits[0, 2], logits[1, 72 + 40] = 0.0, 0.0
    right = CircularDistribution(logits, group=O2)
    wrong = CircularDistribution(logits.roll(72, dims=1), group=O2)
    assert circle_loss(right, degrees, 0.0, mirrored) < circle_loss(wrong, degrees, 0.0, mirrored)
    flat = CircularDistribution(torch.zeros(2, 144), group=O2)
    assert circle_loss(flat, degrees, 0.1, mirrored) == pytest.approx(math.log(144), abs=1e-5)


def test_temperatures_are_fitted_for_each_group(file):
    network, size, _ = load_pose_network(file)
    scorer = CircleScorer(network, input_size=size, image_format="RGB").eval()
    images = [sky_and_ground(60, 80 + index) for index in range(3)]
    fitted = fit_circle(scorer, images)
    assert set(fitted) == {"C4", "C8", "SO2"} and scorer.passes == 0
    assert all(set(by_passes) == {0, 1} for by_passes in fitted.values())
    assert all(0 < value < 25 for by in fitted.values() for value in by.values())


def config(file, **keys):
    options = ["MODEL.DEVICE", "cpu", "MODEL.CANONICALIZER.WEIGHTS", file]
    for name, value in keys.items():
        options += [f"{KEY}.{name}", value]
    return load_config("configs/sam_tiny_c4.yaml", options)


@pytest.mark.parametrize("name", ["C4", "C8", "C1", "C5", "SO2"])
def test_groups_by_config(file, name):
    canonicalizer = build_canonicalizer(config(file, GROUP=name)).eval()
    assert canonicalizer.group.name == name
    image = photo()
    pose = canonicalizer.pose(image)
    assert sum(pose.probabilities) == pytest.approx(1)
    for quarters in (1, 2, 3) if name not in ("C1", "C5") else ():
        turned = canonicalizer.pose(turn_maps(image, quarters))
        assert turned.turn == compose(pose.turn, Turn(quarters))
        shift = len(pose.probabilities) * quarters // 4
        assert turned.probabilities == (*pose.probabilities[-shift:], *pose.probabilities[:-shift])
        assert turned.probability == pose.probability


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"GROUP": "D4"}, "GROUP is D4, and the network is for SO2"),
        ({"GROUP": "O2"}, "GROUP is O2, and the network is for SO2"),
        ({"GROUP": "SO3"}, "GROUP: 'SO3' is no group of turns"),
        ({"GROUP": "C0"}, "GROUP: 'C0' is no group of turns"),
        ({"GROUP": "C8", "GROUP_ORDER": 6}, "GROUP_ORDER is 6, but GROUP is C8"),
        ({"GROUP": "SO2", "GROUP_ORDER": 8}, "GROUP_ORDER is 8, but GROUP is SO2"),
        ({"GROUP": "SO2", "MIN_TILT": -1.0}, "MIN_TILT is -1"),
        ({"GROUP": "SO2", "SCORER.PASSES": 2}, "PASSES is 2"),
    ],
)
def test_keys_that_do_not_fit_are_named(file, keys, message):
    with pytest.raises(InputError, match=message):
        build_canonicalizer(config(file, **keys))


def test_a_network_of_quarter_turns_does_not_serve_any_angle(tmp_path):
    path = tmp_path / "c4.pth"
    save_pose_network(path, network_of(4), 64)
    with pytest.raises(InputError, match="GROUP is SO2, and the network is for C4"):
        build_canonicalizer(config(str(path), GROUP="SO2"))


def test_the_group_is_named_twice_at_most(file):
    assert build_canonicalizer(config(file, GROUP="C8", GROUP_ORDER=8)).group == C(8)


def test_small_tilts_are_left_alone(file):
    image = photo()
    pose = build_canonicalizer(config(file, GROUP="SO2", MIN_TILT=0.0)).eval().pose(image)
    assert pose.turn.tilt
    level = build_canonicalizer(config(file, GROUP="SO2", MIN_TILT=45.0)).eval().pose(image)
    assert level.turn == Turn(pose.turn.quarters) and level.probability == pose.probability


def test_an_image_of_one_colour_has_no_angle(file):
    canonicalizer = build_canonicalizer(config(file, GROUP="SO2")).eval()
    for size in [(1, 1), (20, 30), (16, 16)]:
        pose = canonicalizer.pose(torch.full((3, *size), 90, dtype=torch.uint8))
        assert pose.turn == Turn() and len(set(pose.probabilities)) == 1
        assert pose.probability == pytest.approx(20 / 360)


@pytest.mark.parametrize("policy", ["keep", "vote"])
def test_uncertain_angles(file, policy):
    canonicalizer = build_canonicalizer(
        config(file, GROUP="SO2", UNCERTAIN=policy, UNCERTAIN_BELOW=1.0)
    ).eval()
    pose = canonicalizer.pose(photo())
    assert pose.policy == policy
    if policy == "keep":
        assert pose.turn == Turn()
    else:
        assert all(distance(other, pose.turn) >= 45 for other in pose.others) and pose.others


def test_modes_of_the_circle():
    arcs = torch.full((1, 72), -9.0)
    arcs[0, 10], arcs[0, 11], arcs[0, 12], arcs[0, 40] = 2.0, 3.0, 2.0, 2.5
    found = CircularDistribution(arcs)
    first, second = found.modes(2)[0]
    assert first.degrees == pytest.approx(55, abs=0.01)
    assert second.degrees == pytest.approx(200, abs=0.01)
    assert found.mode() == [first]
    likely = found.probabilities[0]
    assert float(found.near(first)) == pytest.approx(float(likely[9:14].sum() - 0.0), abs=0.01)
    whole = sum(float(found.near(Turn.by(20.0 * k + 5))) for k in range(18))
    assert whole == pytest.approx(1)
    tilted = found.act(Turn.by(33.25))
    assert tilted.mode()[0].degrees == pytest.approx(88.25, abs=0.01)
    assert float(tilted.near(tilted.mode()[0])) == pytest.approx(float(found.near(first)), abs=1e-6)


def test_pooling_keeps_the_mass():
    arcs = torch.randn(4, 72, generator=torch.manual_seed(0))
    for order in (1, 3, 4, 5, 8, 72):
        assert torch.allclose(pool(arcs, C(order)).exp().sum(1), torch.ones(4), atol=1e-6)
    assert torch.allclose(pool(arcs, C(72)), arcs.log_softmax(1), atol=1e-5)
