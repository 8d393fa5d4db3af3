from itertools import islice

import numpy as np
import pytest
from PIL import Image

from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image
from canon_seg.networks import pose_views
from canon_seg.networks.photo_stream import build_photo_loader
from canon_seg.networks.pose_views import (
    PoseStream,
    add_border,
    compress,
    crop,
    draw_border,
    draw_view,
)


def sky_and_ground(height=60, width=80):
    """A photo whose upper half is bright and whose lower half is dark, with some texture."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (height, width, 3))
    image[: height // 2] += 180
    return image.astype(np.uint8)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        Image.fromarray(sky_and_ground()).save(path)
    return [str(path) for path in paths]


def stream(files, **options):
    options = {"batch_size": 5, "shapes": [(32, 32), (48, 48)], "min_scale": 0.9, **options}
    weights = np.full(len(files), 1 / len(files))
    return PoseStream(files, weights, image_format="RGB", seed=0, **options)


def brightest_side(view):
    """Quarter turns counterclockwise after which the upper half of an upright view is here."""
    side = view.shape[0] // 4
    grey = view.mean(axis=2)
    return int(np.argmax([turn_image(grey, -turns % 4)[:side].mean() for turns in range(4)]))


def test_the_label_is_the_turn(monkeypatch):
    """However a view is disturbed: where the sky is tells its pose."""
    monkeypatch.setattr(pose_views, "BORDERED", 0.0)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        view, pose = draw_view(sky_and_ground(), 48, rng, 0.9)
        assert view.shape == (48, 48, 3) and view.dtype == np.uint8
        assert brightest_side(view) == pose
        seen.add(pose)
    assert seen == {0, 1, 2, 3}


def test_all_that_may_happen_to_a_view(monkeypatch):
    for name in ("FEW_PIXELS", "TILTED", "DARK", "BORDERED", "COMPRESSED", "DISTURBED"):
        monkeypatch.setattr(pose_views, name, 1.0)
    rng = np.random.default_rng(0)
    for side in (32, 49):
        for _ in range(30):
            view, _ = draw_view(sky_and_ground(), side, rng, 0.3)
            assert view.shape == (side, side, 3)


def test_stream(files):
    batches = list(islice(stream(files), 12))
    assert {example["image"].shape for batch in batches for example in batch} == {
        (3, 32, 32),
        (3, 48, 48),
    }
    for batch in batches:
        assert len(batch) == 5 and len({example["image"].shape for example in batch}) == 1
        assert all(example["pose"] in range(4) for example in batch)
    again = list(islice(stream(files), 12))
    for batch, same in zip(batches, again):
        for one, other in zip(batch, same):
            assert one["pose"] == other["pose"] and one["image"].equal(other["image"])


def test_unreadable_photos_are_named(files, tmp_path):
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(InputError, match="0.png: is not an image"):
        list(islice(build_photo_loader(stream(files), 0), 10))


def test_photos_that_are_not_upright_count_by_their_turn(files, monkeypatch):
    """For studies: a photo that lies on its side is taken for an upright one."""
    monkeypatch.setattr(pose_views, "BORDERED", 0.0)
    lying = stream(files, turns=np.ones(3, np.int64))
    for batch in islice(lying, 4):
        for example in batch:
            view = example["image"].permute(1, 2, 0).numpy()
            lies = (brightest_side(view) - example["pose"]) % 4
            assert lies in (1, 3)  # on its left side, mirrored on its right one


def test_crops():
    image, rng = sky_and_ground(60, 240), np.random.default_rng(0)
    shapes = [crop(image, rng, 0.5).shape for _ in range(300)]
    assert (60, 240, 3) in shapes
    assert all(height <= 60 and width <= 240 for height, width, _ in shapes)
    assert any(width > 6 * height for height, width, _ in shapes)  # a panorama
    assert crop(image[:1, :1], rng, 0.5).shape == (1, 1, 3)


def test_borders():
    rng = np.random.default_rng(0)
    view = sky_and_ground(30, 30)
    for _ in range(50):
        widths = draw_border(64, rng)
        assert all(0 <= width <= 64 / 3 for width in widths)
        top, bottom, left, right = widths
        bordered = add_border(view, widths, rng)
        assert bordered.shape == (30 + top + bottom, 30 + left + right, 3)
        assert np.array_equal(bordered[top : top + 30, left : left + 30], view)


def test_compress():
    view = sky_and_ground()
    worse, better = compress(view, 20), compress(view, 90)
    assert worse.shape == view.shape and worse.dtype == np.uint8
    assert 0 < np.abs(better.astype(int) - view).mean() < np.abs(worse.astype(int) - view).mean()
