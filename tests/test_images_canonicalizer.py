from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from optional import need
from tiny_models import any_angle_canonicalizer
from torch import nn

from canon_seg.core.canonicalizer import (
    AllPosesCanonicalizer,
    FixedPoseCanonicalizer,
    IdentityCanonicalizer,
)
from canon_seg.core.group import C4 as CORE_C4
from canon_seg.core.group import SO2, C
from canon_seg.core.pose import Pose, UncertainPoses
from canon_seg.core.scorer import GridDistribution
from canon_seg.core.turn import Turn
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer, straight_through
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.sam.prompts import Prompts

SIZES = [(40, 40), (41, 41), (37, 52), (33, 33), (90, 64), (7, 3), (1, 60), (2, 1), (1, 1)]


class NotEquivariant(nn.Module):
    """Chaotic in its input: any change of any pixel changes the pose at random."""

    def forward(self, x):
        flat = x.flatten(1).double()
        weights = torch.arange(1, 1 + flat.shape[1]).double().sin()
        return torch.stack([(1e5 * (i + 1) * (flat * weights).sum(1)).sin() for i in range(4)], 1)


class NearTie(nn.Module):
    """Logits that are equal but for the rounding of a long sum."""

    def forward(self, x):
        flat = x.flatten(1)
        sums = [flat.roll(i, dims=1).cumsum(1)[:, -1] for i in range(4)]
        return torch.stack([1e-6 * value / (1 + abs(sums[0])) for value in sums], 1)


class Tie(nn.Module):
    def forward(self, x):
        return x.new_zeros(len(x), 4)


def random_network():
    # Convolutions without any symmetry: random weights of the plain form.
    torch.manual_seed(0)
    return build_plain_network(NetworkSpec("GCNN", 4, (2, 4, 4), 1))


def residual_network():
    torch.manual_seed(0)
    return build_plain_network(NetworkSpec("GWRN", 4, (2, 4, 4), 1))


def backbone(passes):
    need("timm")
    torch.manual_seed(0)
    network = PoseNetwork(BackboneSpec("test_efficientnet"))
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))  # sets the batch statistics
        network.body.classifier.weight.normal_()  # sure enough of something
    return BackboneScorer(network, input_size=32, image_format="RGB", passes=passes)


def one_look():
    return backbone(1)


def four_looks():
    return backbone(0)


NETWORKS = [random_network, residual_network, NotEquivariant, NearTie, Tie, one_look, four_looks]


def canonicalizer_of(network, image_format="RGB"):
    if isinstance(network, BackboneScorer):
        return GroupCanonicalizer(network).eval()
    return GroupCanonicalizer(
        NetworkScorer(network, input_size=33, image_format=image_format, group=CORE_C4)
    ).eval()


def random_image(height, width, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(100 * height + width)
    return torch.randint(0, 256, (3, height, width), generator=generator).to(dtype)


def bits(pose):
    return [value.hex() for value in pose.probabilities]


def strided(image):
    """Same values, other strides."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("network", NETWORKS)
def test_pose_is_equivariant_to_the_bit(network, dtype):
    canonicalizer = canonicalizer_of(network())
    for size in SIZES:
        image = random_image(*size, dtype)
        if size == (1, 1):  # equals its turns: the canonical image is all there is
            continue
        pose = canonicalizer.pose(image)
        canonical = turn_maps(image, pose.turns_to_canonical)
        for turns in C4.elements:
            for turned in (turn_maps(image, turns), strided(turn_maps(image, turns))):
                other = canonicalizer.pose(turned)
                assert other.turns == C4.compose(pose.turns, turns)
                expected = [bits(pose)[(k - turns) % 4] for k in C4.elements]
                assert bits(other) == expected
                again = turn_maps(turned, other.turns_to_canonical)
                assert again.shape == canonical.shape and torch.equal(again, canonical)


def test_the_chaotic_network_is_chaotic():
    # Else the test above would say little.
    canonicalizer = canonicalizer_of(NotEquivariant())
    image = random_image(37, 52)
    logits = canonicalizer.scores([turn_maps(image, turns) for turns in C4.elements]).logits
    for turns in C4.elements[1:]:
        assert not torch.allclose(logits[turns], logits[0].roll(turns), atol=0.01)
    poses = {canonicalizer.pose(random_image(20, width)).turns for width in range(20, 40)}
    assert poses == {0, 1, 2, 3}


class BrightSide(nn.Module):
    """Says "upright" of images that are bright at the top; equivariant by construction."""

    def forward(self, x):
        sides = [turn_maps(x, C4.inverse(k))[..., : x.shape[-2] // 2, :] for k in C4.elements]
        return torch.stack([side.mean(dim=(1, 2, 3)) for side in sides], 1)


def test_pose_follows_an_equivariant_network():
    # The sign of the convention: an image whose likeliest pose is a is `canonical` turned by a.
    canonicalizer = canonicalizer_of(BrightSide())
    for size in SIZES[:5]:
        image = random_image(*size)
        logits = canonicalizer.scores([image.float()]).logits[0].softmax(0)
        pose = canonicalizer.pose(image.float())
        torch.testing.assert_close(torch.tensor(pose.probabilities), logits, atol=1e-3, rtol=0)
        assert pose.probability == max(pose.probabilities)
        assert sum(pose.probabilities) == pytest.approx(1)


def test_pose_of_a_known_image():
    image = torch.zeros(3, 48, 36)
    image[:, :10] = 255
    for turns in C4.elements:
        pose = canonicalizer_of(BrightSide()).pose(turn_maps(image, turns))
        assert pose.turns == turns
        assert pose.turns_to_canonical == C4.inverse(turns)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("vote_poses", [2, 4])
def test_the_poses_that_vote_turn_with_the_image_in_the_same_order(network, vote_poses):
    canonicalizer = canonicalizer_of(network())
    canonicalizer.uncertain = UncertainPoses("vote", 1.0, vote_poses)
    for size in SIZES[:5]:
        image = random_image(*size)
        pose = canonicalizer.pose(image)
        likeliest = sorted(pose.probabilities, reverse=True)[:vote_poses]
        voters = tuple(turn.quarters for turn in (pose.turn, *pose.others))
        assert [pose.probabilities[turns] for turns in voters] == likeliest
        assert len(set(voters)) == vote_poses and pose.policy == "vote"
        for turns in C4.elements:
            other = canonicalizer.pose(turn_maps(image, turns))
            turned = tuple(turn.quarters for turn in (other.turn, *other.others))
            assert turned == tuple(C4.compose(v, turns) for v in voters)


@pytest.mark.parametrize("policy", UncertainPoses.POLICIES)
def test_the_policy_is_for_poses_below_the_threshold(policy):
    canonicalizer, image = canonicalizer_of(BrightSide()), random_image(37, 52)
    plain = canonicalizer.pose(image)
    assert (plain.policy, plain.others) == ("argmax", ())
    canonicalizer.uncertain = UncertainPoses(policy, plain.probability)
    assert canonicalizer.pose(image) == plain  # not below
    canonicalizer.uncertain = UncertainPoses(policy, plain.probability + 1e-9)
    for turns in C4.elements:
        turned = turn_maps(image, turns)
        pose = canonicalizer.pose(turned)
        assert pose.policy == policy
        assert pose.turns == (0 if policy == "keep" else C4.compose(plain.turns, turns))
        assert len(pose.others) == (policy == "vote")
        plain_turned = canonicalizer_of(BrightSide()).pose(turned)
        assert pose.probabilities == plain_turned.probabilities


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("sometimes",), "UNCERTAIN is 'sometimes'"),
        (("vote", 1.5), "UNCERTAIN_BELOW is 1.5"),
        (("vote", float("nan")), "UNCERTAIN_BELOW is nan"),
        (("vote", 0.5, 3), "VOTE_POSES is 3"),
    ],
)
def test_policies_that_are_not_there(arguments, key):
    with pytest.raises(ValueError, match=key):
        UncertainPoses(*arguments)


def constant():
    return torch.full((3, 40, 40), 9, dtype=torch.uint8)


def constant_wide():
    return torch.full((3, 30, 50), 9, dtype=torch.uint8)


def half_turn_symmetric():
    image = random_image(31, 44)
    return torch.maximum(image, turn_maps(image, 2))


def quarter_turn_symmetric():
    image = random_image(38, 38)
    image = torch.maximum(image, turn_maps(image, 2))
    return torch.maximum(image, turn_maps(image, 1))


SYMMETRIC = [constant, constant_wide, half_turn_symmetric, quarter_turn_symmetric]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("image", SYMMETRIC)
def test_prompts_break_the_tie_of_symmetric_images(image, network):
    image, canonicalizer = image(), canonicalizer_of(network())
    prompts = Prompts(
        boxes=torch.tensor([[3.0, 4.5, 10.123, 20.25], [1.0, 2.0, 9.0, 9.5]]),
        points=torch.tensor([[[2.0, 7.0]], [[11.0, 5.0]]]),
        point_labels=torch.ones(2, 1, dtype=torch.int64),
    ).snapped()
    height, width = image.shape[-2:]
    canonical_prompts = set()
    for turns in C4.elements:
        turned = turn_maps(image, turns)
        turned_prompts = prompts.turned(turns, height, width)
        size = turned.shape[-2:]
        pose = canonicalizer.pose(turned, lambda t: turned_prompts.turned(t, *size).key())
        canonical_prompts.add(
            (
                turned_prompts.turned(pose.turns_to_canonical, *size).key(),
                turn_maps(turned, pose.turns_to_canonical).numpy().tobytes(),
                size[pose.turns % 2],
            )
        )
    assert len(canonical_prompts) == 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("image", SYMMETRIC)
def test_without_prompts_the_canonical_image_is_defined(image, network):
    image, canonicalizer = image(), canonicalizer_of(network())
    found = set()
    for turns in C4.elements:
        turned = turn_maps(image, turns)
        canonical = turn_maps(turned, canonicalizer.pose(turned).turns_to_canonical)
        found.add((tuple(canonical.shape), canonical.numpy().tobytes()))
    assert len(found) == 1


def test_prompts_do_not_matter_to_an_image_without_symmetry():
    canonicalizer = canonicalizer_of(random_network())
    assert canonicalizer.pose(random_image(40, 40), lambda turns: 1 / 0).turns in C4.elements


def test_the_image_is_not_changed():
    image = random_image(33, 33, torch.float32)
    before = image.clone()
    canonicalizer_of(random_network(), "BGR").pose(image)
    assert torch.equal(image, before)


def test_channel_order():
    image = random_image(37, 52)
    rgb = canonicalizer_of(random_network()).scores([image]).logits
    bgr = canonicalizer_of(random_network(), "BGR").scores([image.flip(0)]).logits
    assert torch.equal(rgb, bgr)
    assert not torch.equal(rgb, canonicalizer_of(random_network(), "BGR").scores([image]).logits)


def test_logits_of_many_sizes_keep_their_order():
    canonicalizer = canonicalizer_of(random_network())
    images = [random_image(*size) for size in [(40, 40), (37, 90), (41, 41), (90, 37), (37, 90)]]
    together = canonicalizer.scores(images).logits
    assert together.shape == (5, 4)
    for image, logits in zip(images, together):
        torch.testing.assert_close(
            canonicalizer.scores([image]).logits[0], logits, atol=1e-5, rtol=1e-4
        )


def test_logits_carry_gradients_and_poses_do_not():
    canonicalizer = canonicalizer_of(random_network())
    canonicalizer.scores([random_image(40, 40)]).logits[0, 1].backward()
    gradients = [parameter.grad.abs().max() for parameter in canonicalizer.parameters()]
    assert all(torch.isfinite(g) for g in gradients) and max(gradients) > 0


def test_one_instance_serves_two_threads_and_keeps_no_state():
    canonicalizer = canonicalizer_of(random_network())
    state = {key: value.clone() for key, value in canonicalizer.state_dict().items()}
    attributes = set(vars(canonicalizer))
    images = [random_image(30 + i, 50 - i) for i in range(20)]
    alone = [canonicalizer.pose(image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(canonicalizer.pose, images)) == alone
        assert list(threads.map(canonicalizer.pose, images[::-1])) == alone[::-1]
    assert set(vars(canonicalizer)) == attributes
    assert all(torch.equal(value, state[k]) for k, value in canonicalizer.state_dict().items())


def test_fixed_poses():
    for turns in C4.elements:
        pose = FixedPoseCanonicalizer(turns).pose(random_image(5, 8))
        assert pose.turns == turns and pose.probability == 1 and sum(pose.probabilities) == 1
    assert FixedPoseCanonicalizer(1).snaps


@pytest.mark.parametrize("turn", [90, 4, -1, Turn.by(45), Turn(0, mirrored=True)])
def test_a_fixed_pose_is_an_element(turn):
    with pytest.raises(ValueError, match="degrees|no mirrors|no angle"):
        FixedPoseCanonicalizer(turn)


@pytest.mark.parametrize("canonicalizer", [FixedPoseCanonicalizer(1), AllPosesCanonicalizer()])
def test_what_looks_at_no_image_has_no_scores(canonicalizer):
    with pytest.raises(TypeError, match="looks at no image"):
        canonicalizer.scores([random_image(5, 8)])


@pytest.mark.parametrize("image_format", ["bgr", "L", "", None])
def test_channel_orders_that_are_not_there(image_format):
    with pytest.raises(ValueError, match="image_format is"):
        NetworkScorer(random_network(), input_size=33, image_format=image_format)


def test_a_network_of_eight_poses_is_exact_on_quarter_turns():
    torch.manual_seed(0)
    network = build_plain_network(NetworkSpec("GCNN", 8, (2, 4), 1))
    canonicalizer = GroupCanonicalizer(NetworkScorer(network, input_size=33)).eval()
    for size in [(40, 50), (41, 41), (37, 52)]:
        pose = canonicalizer.pose(random_image(*size))
        for turns in C4.elements:
            other = canonicalizer.pose(turn_maps(random_image(*size), turns))
            assert other.turn == C(8).compose(pose.turn, turns)
            assert bits(other) == [bits(pose)[(k - 2 * turns) % 8] for k in range(8)]


@pytest.mark.parametrize("group", [SO2, C(8), C(6)], ids=lambda group: group.name)
@pytest.mark.parametrize("size", [(40, 40), (30, 50), (50, 30), (1, 1)])
def test_an_image_of_one_colour_has_no_angle(group, size):
    canonicalizer = any_angle_canonicalizer(group)
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    pose = canonicalizer.pose(image)
    assert pose.turn.exact and len(set(pose.probabilities)) == 1
    assert sum(pose.probabilities) == pytest.approx(1) and pose.probability < 0.3
    assert pose.policy == "argmax" and pose.others == ()
    image[0, 0, 0] += 1  # and that of two colours has one, unless it is a pixel
    assert (len(set(canonicalizer.pose(image).probabilities)) > 1) == (size != (1, 1))


@pytest.mark.parametrize("degrees", [-1, 46, float("nan"), float("inf")])
def test_a_least_tilt_is_an_angle(degrees):
    scorer = NetworkScorer(random_network(), input_size=33)
    with pytest.raises(ValueError, match="MIN_TILT is"):
        GroupCanonicalizer(scorer, min_tilt=degrees)


def test_scores_of_another_group_are_refused():
    torch.manual_seed(0)
    network = build_plain_network(NetworkSpec("GCNN", 8, (2, 4), 1))
    lying = canonicalizer_of(network)  # a network of eight scores for a group of four poses
    with pytest.raises(ValueError, match="C4 needs 4 scores for each image"):
        lying.pose(random_image(40, 50))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images(dtype):
    canonicalizer = canonicalizer_of(random_network())
    image = random_image(37, 52).to(dtype)
    pose = canonicalizer.pose(image)
    for turns in C4.elements:
        other = canonicalizer.pose(turn_maps(image, turns))
        assert other.turns == C4.compose(pose.turns, turns)
        assert bits(other) == [bits(pose)[(k - turns) % 4] for k in C4.elements]


def test_groups_with_fewer_turns():
    """A scorer of half turns leaves quarter turns alone, and is exact for half turns."""
    torch.manual_seed(0)
    network = build_plain_network(NetworkSpec("GCNN", 2, (2, 4), 1)).eval()
    canonicalizer = GroupCanonicalizer(NetworkScorer(network, input_size=33))
    image = random_image(40, 50)
    pose, turned = canonicalizer.pose(image), canonicalizer.pose(turn_maps(image, 2))
    assert canonicalizer.group == C(2) and len(pose.probabilities) == 2
    assert turned.turns == (pose.turns + 2) % 4
    assert turned.probabilities == pose.probabilities[::-1]


def test_the_plain_forward_can_be_exported():
    canonicalizer = canonicalizer_of(random_network())
    image = random_image(64, 96).float()
    program = torch.export.export(canonicalizer, (image,))
    exported = program.module()(image)
    torch.testing.assert_close(exported, canonicalizer(image), rtol=1e-5, atol=1e-5)


def test_all_poses():
    pose = AllPosesCanonicalizer().pose(random_image(5, 8))
    assert (pose.turns, pose.others, pose.probability) == (0, (Turn(1), Turn(2), Turn(3)), 0.25)
    assert AllPosesCanonicalizer.snaps


def test_identity_turns_nothing_and_never_snaps():
    identity = IdentityCanonicalizer()
    assert identity.snaps is False
    for turns in C4.elements:
        pose = identity.pose(turn_maps(random_image(5, 8), turns))
        assert pose == Pose(0, (1.0, 0.0, 0.0, 0.0)) and pose.turns_to_canonical == 0


def test_identity_leaves_prompts_to_the_last_bit():
    pytest.importorskip("detectron2", reason="the meta-architecture needs detectron2")
    from canon_seg.d2.meta_arch import CanonicalizedSegmenter

    box = torch.tensor([[1.001, 2.002, 3.003, 4.004]])
    for canonicalizer in (IdentityCanonicalizer(), FixedPoseCanonicalizer(0)):
        model = CanonicalizedSegmenter(
            canonicalizer=canonicalizer,
            segmenter=None,
            resize=None,
            prior=torch.eye(4)[0],
            prior_weight=1.0,
            task_weight=0.0,
        ).eval()
        inputs = {"image": random_image(6, 9), "prompts": Prompts(boxes=box)}
        _, canonical = model.canonicalize(inputs)
        assert torch.equal(canonical["prompts"].boxes, box) != canonicalizer.snaps


def mixture(image, logits):
    """What the gradient of the straight-through estimator has to be, for square images."""
    weights = logits.softmax(0)
    return sum(weights[k] * turn_maps(image, C4.inverse(k)) for k in C4.elements)


@pytest.mark.parametrize("likeliest", C4.elements)
def test_straight_through_of_a_square_image(likeliest):
    torch.manual_seed(likeliest)
    image = 255 * torch.rand(3, 9, 9)
    logits = torch.randn(4)
    logits[likeliest] += 5
    logits.requires_grad_()
    pose, canonical = straight_through(image, GridDistribution(CORE_C4, logits[None]))
    assert pose == Turn(likeliest)
    assert torch.equal(canonical, turn_maps(image, C4.inverse(likeliest)))
    loss_weights = torch.randn(3, 9, 9)
    (ours,) = torch.autograd.grad((canonical * loss_weights).sum(), logits)
    (theirs,) = torch.autograd.grad((mixture(image, logits) * loss_weights).sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    assert ours.abs().min() > 0


@pytest.mark.parametrize("size", [(8, 13), (13, 8), (7, 10), (1, 6)])
def test_straight_through_of_other_images(size):
    torch.manual_seed(1)
    image = 255 * torch.rand(3, *size)
    logits = torch.tensor([0.1, 0.9, 0.3, -0.5], requires_grad=True)
    pose, canonical = straight_through(image, GridDistribution(CORE_C4, logits[None]))
    assert pose == Turn(1)
    assert torch.equal(canonical, turn_maps(image, 3))
    (gradient,) = torch.autograd.grad((canonical * torch.randn_like(canonical)).sum(), logits)
    assert torch.isfinite(gradient).all() and gradient.abs().min() > 0


def test_straight_through_passes_the_gradient_of_the_image():
    image = torch.rand(3, 4, 6, requires_grad=True)
    _, canonical = straight_through(
        image, GridDistribution(CORE_C4, torch.tensor([[0.0, 2.0, 0.0, 0.0]]))
    )
    weights = torch.randn_like(canonical)
    (gradient,) = torch.autograd.grad((canonical * weights).sum(), image)
    assert torch.equal(gradient, turn_maps(weights, 1))
