import numpy as np
import pytest

from canon_seg.errors import InputError
from canon_seg.evaluation.stress import KINDS, stress_image


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(40, 220, (60, 90, 3), dtype=np.uint8)


SIZES = {
    "letterbox": (90, 90),
    "pillarbox": (60, 134),
    "wide_frame": (90, 120),
    "phone_bars": (72, 90),
    "under_exposed": (60, 90),
    "few_pixels": (32, 48),
    "panorama": (15, 90),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(photo, kind):
    before = photo.copy()
    stressed = stress_image(photo, kind)
    assert stressed.shape == (*SIZES[kind], 3) and stressed.dtype == np.uint8
    assert np.array_equal(photo, before) and not np.shares_memory(stressed, photo)
    assert np.array_equal(stress_image(photo, kind), stressed)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("letterbox", np.s_[15:75]),
        ("pillarbox", np.s_[:, 22:112]),
        ("wide_frame", np.s_[15:75, 15:105]),
        ("phone_bars", np.s_[5:65]),
    ],
)
def test_borders_leave_the_photo_as_it_is(photo, kind, place):
    stressed = stress_image(photo, kind)
    assert np.array_equal(stressed[place], photo)
    stressed[place] = 0
    assert set(np.unique(stressed)) <= {0, 255}


def test_phone_bars_tell_up_from_down(photo):
    stressed = stress_image(photo, "phone_bars")
    assert np.median(stressed[:5]) == 0 and np.median(stressed[65:]) == 255
    assert stressed[:5].max() == 255 and stressed[65:].min() == 0


def test_darkness_and_panorama(photo):
    assert np.array_equal(stress_image(photo, "under_exposed"), (photo * 0.15).astype(np.uint8))
    assert np.array_equal(stress_image(photo, "panorama"), photo[22:37])


def test_small_photos(photo):
    for kind in KINDS:
        assert stress_image(photo[:1, :1], kind).size


def test_unknown_kind(photo):
    with pytest.raises(InputError, match="--stress: there is no kind 'fog'; known: letterbox"):
        stress_image(photo, "fog")
