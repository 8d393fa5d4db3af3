import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import random_canonicalizer, random_image

from canon_seg.core.group import C4, D4
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.evaluation.intervals import wilson
from canon_seg.evaluation.pose_report import caption
from canon_seg.evaluation.poses import (
    agrees_when_turned,
    choose_mistakes,
    confusion,
    find_poses,
    measure_gate,
    measure_poses,
    reliability,
)
from canon_seg.images.arrays import turn_image

UPRIGHT = torch.tensor([1.0, 0.0, 0.0, 0.0])


def pixels(height, width, seed=0):
    return np.ascontiguousarray(random_image(height, width, seed).permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        Image.fromarray(pixels(40 + index, 64, index)).save(folder / f"{index:02}.png")
    return folder


def test_the_confusion_is_that_of_really_turned_photos(photos):
    canonicalizer, files = random_canonicalizer(), sorted(photos.iterdir())
    probabilities, agreeing = find_poses(canonicalizer, files, "RGB", num_turned=5, progress=False)
    assert probabilities.shape == (12, 4) and agreeing == 5
    poses = probabilities.argmax(axis=1)
    assert len(set(poses)) > 1
    expected = np.zeros((4, 4), int)
    for index in range(12):
        for turns in range(4):
            turned = turn_image(pixels(40 + index, 64, index), turns)
            image = torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1)))
            expected[turns, canonicalizer.pose(image).turns] += 1
    assert np.array_equal(confusion(poses), expected)


def test_the_parts_of_poses_with_mirrors(photos):
    canonicalizer, files = random_canonicalizer(mirrors=True), sorted(photos.iterdir())
    probabilities, agreeing = find_poses(canonicalizer, files, "RGB", num_turned=3, progress=False)
    assert probabilities.shape == (12, 8) and agreeing == 3
    poses = probabilities.argmax(axis=1)
    assert len(set(poses)) > 2
    expected = np.zeros((8, 8), int)
    for index in range(12):
        for row, turn in enumerate(D4.elements):
            turned = turn_image(pixels(40 + index, 64, index), turn)
            image = torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1)))
            expected[row, D4.index(canonicalizer.pose(image).turn)] += 1
    assert np.array_equal(confusion(poses, D4), expected)
    measured = measure_poses(probabilities, torch.eye(8)[0], D4)
    assert measured["accuracy"] == (poses == 0).mean()
    assert measured["turn_accuracy"] == (poses % 4 == 0).mean()
    assert measured["mirror_accuracy"] == (poses < 4).mean()
    assert {"turn_accuracy", "mirror_accuracy"} <= set(measured["intervals"])
    gated = measure_gate(probabilities, 1e9, D4)
    assert gated["upright"]["accuracy"] == 1 and gated["turned"]["accuracy"] == 0


class NotEquivariant:
    """Always sure of pose 1."""

    group = C4

    def pose(self, image):
        return Pose(1, (0.1, 0.7, 0.1, 0.1))


def test_poses_that_do_not_turn_along_are_noticed(photos):
    _, agreeing = find_poses(
        NotEquivariant(), sorted(photos.iterdir()), "RGB", num_turned=99, progress=False
    )
    assert agreeing == 0
    flat = np.full((30, 40, 3), 7, np.uint8)  # looks the same after half a turn
    assert agrees_when_turned(NotEquivariant(), flat, np.array([0.1, 0.7, 0.1, 0.1]))


def test_all_unreadable_photos_are_named(photos, tmp_path):
    bad = [tmp_path / "empty.jpg", tmp_path / "text.png"]
    bad[0].write_bytes(b"")
    bad[1].write_text("text")
    files = [*sorted(photos.iterdir())[:2], *bad]
    with pytest.raises(InputError, match="2 of 4 photographs") as caught:
        find_poses(random_canonicalizer(), files, "RGB", progress=False)
    assert all(str(file) in str(caught.value) for file in bad)
    with pytest.raises(InputError) as caught:
        find_poses(random_canonicalizer(), files[:3], "RGB", progress=False)
    assert str(caught.value).startswith(f"{bad[0]}: is empty")


def test_expected_calibration_error_by_hand():
    # Bins of a fifth: (0.4, 0.6] holds 0.5 and 0.6, (0.6, 0.8] 0.7, (0.8, 1] 0.9 and 1.
    confidence, right = [0.5, 0.6, 0.7, 0.9, 1.0], [True, False, False, True, True]
    error, bins = reliability(confidence, right, num_bins=5)
    assert [entry["count"] for entry in bins] == [0, 0, 2, 1, 2]
    assert bins[0] == {"count": 0, "accuracy": None, "confidence": None}
    assert bins[2]["accuracy"] == 0.5 and bins[2]["confidence"] == pytest.approx(0.55)
    assert error == pytest.approx((2 * 0.05 + 1 * 0.7 + 2 * 0.05) / 5)


@pytest.mark.parametrize("seed", range(3))
def test_expected_calibration_error_as_defined(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.choice(np.arange(1, 46) / 45, 300)  # many of them on edges of bins
    right = rng.random(300) < confidence
    expected = 0.0
    for m in range(1, 16):
        inside = [(m - 1) / 15 < c <= m / 15 for c in confidence]
        if any(inside):
            expected += abs(np.sum(right[inside]) - np.sum(confidence[inside])) / 300
    error, bins = reliability(confidence, right)
    assert error == pytest.approx(expected, abs=1e-12)
    assert len(bins) == 15 and sum(entry["count"] for entry in bins) == 300


def test_measures_of_a_known_set():
    sure, unsure, wrong = [0.9, 0.1, 0, 0], [0.45, 0.3, 0.25, 0], [0, 0, 0.2, 0.8]
    barely = [0.3, 0.35, 0.2, 0.15]
    measured = measure_poses([sure] * 15 + [unsure] + [wrong] * 3 + [barely], UPRIGHT)
    assert measured["num_images"] == 20
    assert measured["accuracy"] == measured["identity_rate"] == 16 / 20
    # Without the barely wrong one and the unsure right one.
    assert measured["accuracy_without_least_certain_tenth"] == 15 / 18
    assert measured["confusion"] == [[16, 1, 0, 3], [3, 16, 1, 0], [0, 3, 16, 1], [1, 0, 3, 16]]
    assert measured["wasserstein"] == pytest.approx(4 / 20)
    assert measured["kl"] == pytest.approx(-np.log((15 * 0.9 + 0.45 + 0.3) / 20))
    assert measured["ece"] == pytest.approx((15 * 0.1 + 0.55 + 3 * 0.8 + 0.35) / 20)
    intervals = measured["intervals"]
    assert intervals["accuracy"] == intervals["identity_rate"] == wilson(16 / 20, 20)
    assert intervals["accuracy_without_least_certain_tenth"] == wilson(15 / 18, 18)
    for name in ("ece", "wasserstein", "mmd", "kl"):
        low, high = intervals[name]
        assert low < measured[name] < high


def test_infinite_kl_and_few_photos():
    measured = measure_poses([[1.0, 0.0, 0.0, 0.0]], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert measured["kl"] is None and measured["intervals"]["kl"] is None
    assert measured["accuracy_without_least_certain_tenth"] == 1


def test_mistakes_come_first_and_the_surest_of_them_before_all():
    rows = [[0.9, 0.1, 0, 0], [0.1, 0.6, 0.2, 0.1], [0.5, 0.4, 0.1, 0], [0, 0.1, 0, 0.9]]
    assert choose_mistakes(rows, 3) == [3, 1, 2]
    assert choose_mistakes(rows, 9) == [3, 1, 2, 0]


def test_captions():
    assert caption("a.jpg", [0.7, 0.1, 0.1, 0.1]) == "a.jpg\nfound upright: 0.70"
    long = caption("a/very/long/path/to/some/photo.jpg", [0.1, 0.1, 0.1, 0.7])
    assert long == "…/path/to/some/photo.jpg\nfound 270°: 0.70"
