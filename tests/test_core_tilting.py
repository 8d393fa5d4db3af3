from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_models import any_angle_canonicalizer, random_image, random_prompts

from canon_seg.core import action
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, KnownPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4, D4, O2, SO2, C
from canon_seg.core.pose import Pose
from canon_seg.core.tilting import FILL, Tilting, content_window, fill_colour
from canon_seg.core.turn import Turn, compose
from canon_seg.errors import InputError
from canon_seg.images.actions import tilt_pixels
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.tilt import rotate_image, warp_boxes, warp_mask, warp_points, warp_to

SIZES = [(40, 61), (61, 40), (37, 37), (8, 90), (2, 3)]


def smooth_image(height, width):
    """(3, height, width) uint8 without fine detail, so that interpolation changes little."""
    rng = np.random.default_rng((height, width))
    coarse = rng.uniform(0, 255, (-(-height // 24) + 1, -(-width // 24) + 1, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8)).permute(2, 0, 1)


@pytest.mark.parametrize("degrees", [-45, -10, 0.5, 33, 45])
def test_points_by_the_rotation_matrix(degrees):
    tilting = Tilting.expanding(degrees, (40, 61)).windowed(3, 5, 30, 40)
    angle = np.radians(degrees)
    # y runs down, so that a counterclockwise turn has this sign.
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (20, 2))
    height, width = Tilting.expanding(degrees, (40, 61)).target
    wanted = (points - [30.5, 20]) @ matrix.T + [width / 2 - 5, height / 2 - 3]
    np.testing.assert_allclose(warp_points(points, tilting), wanted, atol=1e-9)
    np.testing.assert_allclose(
        warp_points(warp_points(points, tilting), tilting.inverse()), points, atol=1e-9
    )


def test_pixels_follow_the_points():
    """A bright pixel is where its centre goes, in a window too."""
    image = np.zeros((60, 90), np.float32)
    image[20, 70] = 1
    tilting = Tilting.expanding(27, (60, 90)).windowed(4, 7, 80, 70)
    warped = warp_to(image, tilting, cv2.INTER_LINEAR, (0,) * 4)
    rows, columns = np.indices(warped.shape)
    centre = np.array([(columns * warped).sum(), (rows * warped).sum()]) / warped.sum()
    wanted = tilt_pixels(np.array([[70.0, 20.0]]), tilting)
    np.testing.assert_allclose(centre, wanted[0], atol=0.2)


def test_a_mask_in_its_window_is_the_whole_mask():
    rng = np.random.default_rng(1)
    mask = np.zeros((57, 83), bool)
    mask[30:50, 5:40] = rng.random((20, 35)) > 0.4
    for degrees in (-44, 12, 45):
        tilting = Tilting.expanding(degrees, mask.shape).windowed(2, 3, 60, 70)
        whole = warp_to(mask.view(np.uint8), tilting, cv2.INTER_NEAREST, (0,) * 4).view(bool)
        assert np.array_equal(warp_mask(mask, tilting), whole) and whole.any()
    assert not warp_mask(np.zeros((57, 83), bool), tilting).any()


def test_hulls_hold_the_corners():
    tilting = Tilting.expanding(30, (100, 200))
    box = np.array([[20.0, 10.0, 60.0, 90.0]])
    corners = warp_points(np.array([[20.0, 10], [60, 10], [60, 90], [20, 90]]), tilting)
    hull = warp_boxes(box, tilting)[0]
    np.testing.assert_allclose(hull, [*corners.min(0), *corners.max(0)])
    cut = warp_boxes(np.array([[-50.0, -50, 400, 400]]), tilting)[0]
    assert cut.tolist() == [0, 0, tilting.target[1], tilting.target[0]]


def test_the_colour_of_a_canvas():
    image = random_image(20, 30)
    assert fill_colour(image).tolist() == [FILL] * 3
    image[:, [0, 0, -1, -1], [0, -1, 0, -1]] = torch.tensor([[200], [10], [30]], dtype=torch.uint8)
    assert fill_colour(image).tolist() == [200, 10, 30]


def test_pure_fill_is_left_out():
    image = torch.full((3, 30, 40), 100, dtype=torch.uint8)
    image[:, 5:20, 7:33] = 200
    image[:, 2, 2] = 110  # noise of JPEG
    assert content_window(image, torch.tensor([100] * 3)) == (5, 7, 15, 26)
    assert content_window(image * 0, torch.tensor([0] * 3)) == (0, 0, 30, 40)


def test_the_oracle_sees_objects_at_their_upright_scale():
    """A canvas in a canvas would halve them at 45 degrees."""
    photo = smooth_image(120, 160)
    for angle in (45, 30, 250, 315):
        given = np.ascontiguousarray(rotate_image(photo.permute(1, 2, 0).numpy(), angle))
        frame = CanonicalFrame(
            FixedPoseCanonicalizer(Turn.by(angle), SO2), torch.from_numpy(given).permute(2, 0, 1)
        )
        height, width = frame.canonical_size
        # Whatever the segmenter resizes by, an object's share of the frame is that of before.
        assert 120 / height >= 0.95 and 160 / width >= 0.95
        canonical = cv2.resize(frame.image.permute(1, 2, 0).numpy(), (160, 120))
        difference = np.abs(canonical.astype(int) - photo.permute(1, 2, 0).numpy())
        assert np.median(difference) <= 4


@pytest.mark.parametrize("group", [SO2, O2, C(8)], ids=lambda group: group.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_exact_turns_of_a_tilted_image_differ_by_exactly_these(group, size):
    """Whatever pose is found, and whichever way things lie: the bytes are those of one orbit."""
    image = random_image(*size)
    prompts = random_prompts(*size, "both").snapped()
    if group.mirrors:
        tilts = [Turn(1, 20.5, True), Turn(3, -44.0), Turn(0, 45.0, True)]
        canonicalizers = [FixedPoseCanonicalizer(turn, group) for turn in tilts]
    else:
        canonicalizers = [any_angle_canonicalizer(group)]
    for canonicalizer in canonicalizers:
        first = CanonicalFrame(canonicalizer, image, prompts)
        masks = torch.rand(3, *first.canonical_size) > 0.5
        logits = torch.rand(1, 16, 16)
        for turn in C4.elements:
            turned = turn_maps(image, turn).contiguous()
            if group.mirrors:
                canonicalizer = FixedPoseCanonicalizer(compose(first.pose.turn, turn), group)
            frame = CanonicalFrame(canonicalizer, turned, prompts.turned(turn, *size))
            assert frame.pose.turn == compose(first.pose.turn, turn)
            assert torch.equal(frame.image, first.image)
            assert frame.prompts.key() == first.prompts.key()
            back = frame.back(masks.clone(), "masks")
            assert torch.equal(back, turn_maps(first.back(masks.clone(), "masks"), turn))
            array = frame.there(turned.permute(1, 2, 0).numpy(), "image")
            assert np.array_equal(array, first.image.permute(1, 2, 0).numpy())
            # Logits that serve again go there and back without a loss.
            assert torch.equal(frame.there(frame.back(logits, "logits"), "logits"), logits)


def test_the_angles_of_the_scorer_do_tilt():
    # Else the test above would say little.
    tilts = {
        any_angle_canonicalizer().pose(random_image(20, width)).turn.tilt for width in range(20, 30)
    }
    assert len(tilts) == 10
    quarters = [any_angle_canonicalizer(C(8)).pose(random_image(20, w)).turn for w in range(20, 40)]
    assert {turn.tilt for turn in quarters} == {0.0, 45.0}


def test_what_the_canonical_frame_finds_is_where_it_was():
    """An object found in the canonical frame covers the object of the given image."""
    photo = np.full((90, 120, 3), 60, np.uint8)
    photo[30:70, 20:60] = [250, 20, 20]
    for angle in (12.5, 200, 318):
        given = np.ascontiguousarray(rotate_image(photo, angle))
        frame = CanonicalFrame(
            FixedPoseCanonicalizer(Turn.by(angle), SO2), torch.from_numpy(given).permute(2, 0, 1)
        )
        found = (frame.image[0] > 155)[None]
        assert abs(int(found.sum()) - 40 * 40) < 120
        back = frame.back(found.clone(), "masks")[0].numpy()
        wanted = given[..., 0] > 155
        assert (back & wanted).sum() / (back | wanted).sum() > 0.93
        box = frame.there(frame.back(np.array([[10.0, 10.0, 20.0, 30.0]]), "boxes"), "boxes")[0]
        assert (box[:2] <= 10).all() and box[2] >= 20 and box[3] >= 30


@pytest.mark.parametrize("tilts", [(20, 100), (20, 180), (90, 110)])
def test_votes_between_tilts_come_to_one_frame(tilts):
    """What each pose has found is tilted once, and lies as it does when it is brought back."""
    image = random_image(50, 70)
    turns = [Turn.by(degrees) for degrees in tilts]
    pose = Pose(turns[0], (1.0,), "vote", (turns[1],), probability=0.5)
    frame = CanonicalFrame(KnownPoseCanonicalizer(pose, any_angle_canonicalizer()), image)
    for turn in turns:
        seen = frame.in_pose(turn)
        masks = torch.zeros(1, *seen.canonical_size, dtype=torch.bool)
        masks[:, 10:40, 20:50] = True
        there = frame.to_vote(turn, masks.clone(), "masks")
        assert there.any() and torch.equal(
            frame.from_vote(there, "masks"), seen.back(masks.clone(), "masks")
        )


def test_what_does_not_tilt_is_named():
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn.by(20), SO2), random_image(20, 30))
    with pytest.raises(TypeError, match="'thing' of type str turns by an angle between"):
        frame.back("something", "thing")
    with pytest.raises(ValueError, match="another size than the frame"):
        CanonicalFrame(
            FixedPoseCanonicalizer(Turn.by(20), SO2), random_image(20, 30), size=(40, 60)
        ).there(random_image(20, 30), "image")
    with pytest.raises(ValueError, match="masks of size"):
        frame.there(np.zeros((3, 7, 7), bool), "masks")
    with pytest.raises(ValueError, match="is known already"):
        action.register_tilt(np.ndarray, "image")(lambda value, tilting: value)


def test_pixels_of_one_exist():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1)
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn.by(30), SO2), image)
    assert frame.back(torch.ones(1, *frame.canonical_size, dtype=torch.bool), "masks").shape == (
        1,
        1,
        1,
    )
    assert any_angle_canonicalizer().pose(image).turn == Turn()


def test_a_canvas_that_cannot_be_warped_is_named():
    wide = torch.zeros(3, 2, 40_000, dtype=torch.uint8)
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn.by(20), SO2), wide)
    with pytest.raises(InputError, match="width 40000 .* 32766 px are the most .*GROUP C4"):
        _ = frame.image
    with pytest.raises(InputError, match="to height 33002 and width 2:"):  # the canvas alone
        warp_to(wide[0].numpy()[:, :9], replace(TILT, target=(33_002, 2)), 1, (0,) * 4)
    # By index there is no such limit.
    assert CanonicalFrame(FixedPoseCanonicalizer(Turn(1), SO2), wide).image.shape == (3, 40_000, 2)


TILT = Tilting.expanding(20, (2, 9))


@pytest.mark.parametrize("degrees", [float("nan"), float("inf"), -float("inf")])
def test_angles_are_finite(degrees):
    for call in (
        lambda: Turn.by(degrees),
        lambda: Turn(0, degrees),
        lambda: rotate_image(np.zeros((5, 6, 3), np.uint8), degrees),
    ):
        with pytest.raises(ValueError, match=r"finite|\(-45, 45\]"):
            call()


def test_a_mirror_needs_a_group_that_has_one():
    for group in (C4, C(8), SO2):
        with pytest.raises(ValueError, match=f"{group.name} has no mirrors"):
            FixedPoseCanonicalizer(Turn(mirrored=True), group)
    assert FixedPoseCanonicalizer(Turn(mirrored=True), O2).turn.mirrored


def test_mirrors_by_index_before_the_tilt():
    """D4's mirrors act on the bytes of the representative; a mirror and a tilt commute with it."""
    image = random_image(30, 50)
    first = CanonicalFrame(FixedPoseCanonicalizer(Turn(0, 15.0, True), O2), image)
    for turn in D4.elements[:4]:
        pose = compose(Turn(0, 15.0, True), turn)
        frame = CanonicalFrame(
            FixedPoseCanonicalizer(pose, O2), turn_maps(image, turn).contiguous()
        )
        assert torch.equal(frame.image, first.image)
    plain = CanonicalFrame(
        FixedPoseCanonicalizer(Turn(0, -15.0), O2), turn_maps(image, Turn(0, 0.0, True))
    )
    assert plain.canonical_size == first.canonical_size
    assert isinstance(turn_image(image.permute(1, 2, 0), 1), torch.Tensor)
