import cv2
import numpy as np
import pytest
import torch
from tiny_models import random_image, tiny_segmenter

from canon_seg.core import action
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4, SO2
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn, turned_size
from canon_seg.images.arrays import turn_maps
from canon_seg.images.soft_masks import ScoredMasks, filled, tilt_with_vanished
from canon_seg.images.tilt import warp_points, warp_scores, warp_to
from canon_seg.sam.prompted import enlarge_logits


def disc(size, centre, radius):
    """Scores of a disc: pixels inside its edge, at the pixel centres."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return (radius - np.hypot(x - centre[0], y - centre[1])).astype(np.float32)


@pytest.mark.parametrize("degrees", [-45, 17.5, 33])
def test_scores_are_interpolated_and_then_cut(degrees):
    """The mask is that of the tilted disc, nearer than sampling a mask that was cut before."""
    tilting = Tilting.expanding(degrees, (60, 80)).windowed(3, 5, 70, 80)
    centre = np.array([31.3, 27.8])
    scores = disc((60, 80), centre, 17.2)
    wanted = disc(tilting.target, warp_points(centre, tilting), 17.2) > 0
    soft = ScoredMasks(torch.from_numpy(scores)[None], 0.0, (60, 80)).tilted(tilting)[0].numpy()
    cut, _ = tilt_with_vanished(torch.from_numpy(scores > 0)[None], tilting)
    wrong = int((soft != wanted).sum()), int((cut[0].numpy() != wanted).sum())
    assert wrong[0] <= 4 and wrong[1] > 10


def test_the_window_of_a_mask_is_cut_as_the_whole_frame():
    rng = np.random.default_rng(2)
    noise = cv2.GaussianBlur(rng.normal(size=(57, 83)).astype(np.float32), (5, 5), 1)
    scores = np.where(disc((57, 83), (30, 30), 20) > 0, noise, -1).astype(np.float32)
    for degrees in (-44, 12, 45):
        tilting = Tilting.expanding(degrees, scores.shape).windowed(2, 3, 60, 70)
        whole = warp_to(scores, tilting, cv2.INTER_LINEAR, (float(scores.min()),) * 4)
        # Scores near the threshold may round to either side, by the place of the window.
        clear = np.abs(whole) > 0.02
        found = warp_scores(scores, 0.0, tilting)
        assert found.any() and np.array_equal(found[clear], whole[clear] > 0)


def test_exact_turns_wait_for_the_tilt():
    scores = torch.from_numpy(disc((30, 50), (20, 12), 9))[None]
    masks = ScoredMasks(scores, 0.0, (30, 50))
    for turn in (*C4.elements, Turn(1, 0, True)):
        size = turned_size(30, 50, turn)
        turned = action.act(masks, turn, 30, 50, "pred_masks")
        wanted = ScoredMasks(turn_maps(scores, turn), 0.0, size)
        tilting = Tilting.expanding(20, size)
        assert turned.size == size
        assert torch.equal(turned.tilted(tilting), wanted.tilted(tilting))
    with pytest.raises(ValueError, match="does not act by index"):
        masks.turned(Turn(0, 10.0))


def test_what_vanishes_is_told_from_what_was_empty():
    # In the canonical frame there is room for masks that lie outside of the given image.
    canvas = Tilting.expanding(30, (40, 60))
    scores = torch.full((3, *canvas.target), -1.0)
    scores[0, 0, 0] = 1
    scores[1, 30:40, 30:50] = 1
    for masks in (ScoredMasks(scores, 0.0, canvas.target), scores > 0):
        assert filled(masks).tolist() == [True, True, False]
        back, vanished = tilt_with_vanished(masks, canvas.inverse())
        assert vanished.tolist() == [True, False, False]
        assert back.flatten(1).any(dim=1).tolist() == [False, True, False]


def test_logits_are_enlarged_as_segment_anything_does():
    sam = tiny_segmenter("sam").sam
    side = sam.image_encoder.img_size
    small = torch.randn(3, side // 4, side // 4)
    wanted = sam.postprocess_masks(small[:, None], (40, side), (61, 97))[:, 0]
    assert torch.equal(enlarge_logits(side, (40, side), (61, 97), small), wanted)


def test_rows_are_chosen_before_anything_is_enlarged():
    calls = []

    def enlarge(scores):
        calls.append(len(scores))
        return scores.repeat_interleave(4, 1).repeat_interleave(4, 2)

    masks = ScoredMasks(torch.randn(5, 10, 12), 0.0, (40, 48), enlarge)
    two = masks[torch.tensor([True, False, False, True, False])]
    assert len(two) == 2 and not calls
    assert two.tilted(Tilting.expanding(10, (40, 48))).shape[0] == 2 and calls == [1, 1]


@pytest.mark.parametrize("size", [(40, 60), (97, 80), (20, 30)])
def test_frames_of_another_size_are_resized_frames(size):
    """A point goes to the results' frame as to the image's, and is then resized."""
    image = random_image(40, 60)
    frame = CanonicalFrame(FixedPoseCanonicalizer(Turn.by(110), SO2), image)
    other = frame.resized(*size)
    ratio = np.array(other.canonical_size) / frame.canonical_size
    assert ratio.std() < 0.02 and abs(ratio.mean() - (size[0] * size[1] / 2400) ** 0.5) < 0.02
    points = np.array([[30.0, 20.0], [44.5, 31.0]])
    given = frame.back(points.copy(), "corners")
    enlarged = other.back(points * ratio[::-1], "corners")
    np.testing.assert_allclose(enlarged, given * [size[1] / 60, size[0] / 40], atol=0.02)
    # The inverse leads back, to the grid of coordinates.
    np.testing.assert_allclose(other.there(enlarged, "corners"), points * ratio[::-1], atol=0.03)
    if size == (40, 60):
        assert np.array_equal(enlarged, given)
    masks = torch.ones(1, *other.canonical_size, dtype=torch.bool)
    assert tuple(other.back(masks, "masks").shape[1:]) == size
