from itertools import chain, islice

import numpy as np
import pytest
import torch
from PIL import Image

from canon_seg.errors import InputError
from canon_seg.images.folders import list_photos
from canon_seg.networks.photo_stream import (
    PhotoStream,
    augment,
    build_photo_loader,
    choose_turns,
    disturb_pixels,
    folder_weights,
)
from canon_seg.networks.pose_views import PoseStream


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["b/2.jpg", "a/1.PNG", "a/c/3.webp", "0.jpeg", "a/4.bmp"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40 + index, 50, index)).save(path)
    for name in ("a/notes.txt", "a/.hidden.jpg", "b/2.jpg.part"):
        (tmp_path / name).write_text("no photograph")
    return tmp_path


FILES = ["a/1", "a/2", "a/3", "a/4", "b/1", "c/1", "a/5", "a/6", "a/7", "a/8", "a/9"]


@pytest.mark.parametrize(("power", "share_of_a"), [(1, 9 / 11), (0, 1 / 3), (0.5, 3 / 5)])
def test_folder_weights(power, share_of_a):
    weights = folder_weights(FILES, power)
    assert weights.shape == (11,) and weights.sum() == pytest.approx(1)
    in_a = [weight for weight, file in zip(weights, FILES) if file.startswith("a")]
    assert sum(in_a) == pytest.approx(share_of_a)
    assert len({round(weight, 12) for weight in in_a}) == 1


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (97, 97), (10, 400), (1, 1), (3, 2)])
@pytest.mark.parametrize("shape", [(65, 97), (97, 65), (33, 33)])
def test_augmented_views_have_the_shape_and_type_asked_for(size, shape):
    rng = np.random.default_rng(0)
    image = photo(*size)
    before = image.copy()
    for _ in range(20):
        view = augment(image, shape, rng, 0.5)
        assert view.shape == (*shape, 3) and view.dtype == np.uint8
    assert np.array_equal(image, before)


@pytest.mark.parametrize("shape", [(65, 97), (97, 65), (33, 33)])
@pytest.mark.parametrize("size", [(200, 300), (300, 200), (128, 128)])
def test_augmented_views_stay_upright(size, shape):
    # Bright at the top, and nothing to tell left from right.
    ramp = np.linspace(255, 0, size[0])[:, None, None]
    image = np.broadcast_to(ramp, (*size, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(200):
        view = augment(image, shape, rng, 0.5).astype(float)
        rows, columns = view.mean(axis=(1, 2)), view.mean(axis=(0, 2))
        third = len(rows) // 3
        assert rows[:third].mean() > rows[-third:].mean() + 10
        # A tilt of 8 degrees tells left from right by a seventh of what tells up from down.
        assert np.ptp(columns) < 10 + 0.3 * np.ptp(rows)


def test_views_on_a_canvas_are_tilted_further_and_keep_the_top_up():
    image = np.zeros((300, 300, 3), np.uint8)
    image[:150] = 200  # above
    image[150:] = 100
    rng, slopes = np.random.default_rng(1), []
    for _ in range(200):
        view = _undisturbed(image, (97, 97), rng, 1.0, on_canvas=1.0)[..., 0].astype(int)
        above, below = (np.argwhere(view == grey) for grey in (200, 100))
        y, x = above.mean(axis=0) - below.mean(axis=0)
        assert y < 0
        slopes.append(np.degrees(np.arctan2(x, -y)))
    assert -50 < min(slopes) < -30 and 30 < max(slopes) < 50
    corners = view[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert len(set(corners)) == 1


def test_augmentation_mirrors_about_half():
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, :30] = 255
    rng = np.random.default_rng(2)
    left = [
        v[:, :6].mean() > v[:, -6:].mean()
        for v in (augment(image, (33, 33), rng, 0.9) for _ in range(200))
    ]
    assert 60 < sum(left) < 140


def test_crops_are_as_large_as_asked_for():
    # Of a ramp, a crop of at least 0.8 of the height (less 14 % of stretch) shows at least 0.68.
    image = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3))
    rng = np.random.default_rng(3)
    spans = []
    for _ in range(100):
        view = np.median(_undisturbed(image, (33, 33), rng, 0.8), axis=(1, 2))
        spans.append((view.max() - view.min()) / 199)
    assert min(spans) > 0.6 and max(spans) > 0.9 and np.ptp(spans) > 0.1


def _undisturbed(image, shape, rng, min_scale, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("canon_seg.networks.photo_stream.disturb_pixels", lambda view, rng: view)
        return augment(image, shape, rng, min_scale, **options)


def test_disturbed_pixels_vary_and_stay_in_range():
    rng = np.random.default_rng(4)
    view = photo(20, 20).astype(np.float32)
    results = [disturb_pixels(view.copy(), rng) for _ in range(50)]
    assert all(r.dtype == np.uint8 and r.shape == view.shape for r in results)
    assert len({r.tobytes() for r in results}) == 50
    assert any(np.ptp(r, axis=2).max() <= 1 for r in results)  # some are grey
    assert abs(np.mean([r.mean() for r in results]) - view.mean()) < 15


def stream(folder, seed=0, **changes):
    files = list_photos(str(folder), "DATASETS.PHOTOS")
    arguments = dict(
        batch_size=3, shapes=[(33, 65), (65, 33)], min_scale=0.5, image_format="RGB", seed=seed
    )
    return PhotoStream(files, folder_weights(files, 1), **{**arguments, **changes})


def contents(batches):
    return [
        [(item["file_name"], item["image"].numpy().tobytes()) for item in batch]
        for batch in batches
    ]


def test_batches(folder):
    shapes = set()
    for batch in islice(stream(folder), 20):
        assert len(batch) == 3
        assert {tuple(item["image"].shape) for item in batch} == {tuple(batch[0]["image"].shape)}
        assert all(item["image"].dtype == torch.uint8 for item in batch)
        assert all(item["image"].is_contiguous() for item in batch)
        shapes.add(tuple(batch[0]["image"].shape))
    assert shapes == {(3, 33, 65), (3, 65, 33)}


def test_the_seed_decides_the_stream(folder):
    first = contents(islice(stream(folder), 4))
    assert contents(islice(stream(folder), 4)) == first
    other = contents(islice(stream(folder, seed=1), 4))
    assert not set(chain(*first)) & set(chain(*other))


def test_weights_decide_what_is_drawn(folder):
    files = list_photos(str(folder), "DATASETS.PHOTOS")
    weights = np.eye(len(files))[2]
    one = PhotoStream(
        files, weights, batch_size=8, shapes=[(33, 33)], min_scale=1, image_format="RGB", seed=0
    )
    assert {item["file_name"] for item in next(iter(one))} == {files[2]}


def test_channel_order(folder):
    path = folder / "only" / "red.png"
    path.parent.mkdir()
    Image.new("RGB", (80, 80), (200, 0, 0)).save(path)
    arguments = dict(batch_size=40, shapes=[(33, 33)], min_scale=1, seed=0)
    for image_format, red in (("RGB", 0), ("BGR", 2)):
        batch = next(iter(PhotoStream([str(path)], [1.0], image_format=image_format, **arguments)))
        mean = torch.stack([item["image"] for item in batch]).float().mean(dim=(0, 2, 3))
        assert int(mean.argmax()) == red


def test_workers_draw_different_parts_and_always_the_same(folder):
    def drawn():
        return contents(islice(build_photo_loader(stream(folder), 2), 4))

    first = drawn()
    everything = list(chain(*first))
    assert len(set(everything)) == len(everything)
    assert drawn() == first


def test_loader_without_workers(folder):
    loaded = contents(islice(build_photo_loader(stream(folder), 0), 3))
    assert loaded == contents(islice(stream(folder), 3))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photograph_is_named(folder, workers):
    bad = folder / "a" / "bad.jpg"
    bad.write_bytes(b"no image")
    broken = stream(folder)
    broken.weights = np.array([float(file == str(bad)) for file in broken.files])
    with pytest.raises(InputError) as caught:
        next(iter(build_photo_loader(broken, workers)))
    assert str(caught.value).startswith(f"{bad}: is not an image")
    assert "Traceback" not in str(caught.value)


def test_some_photographs_are_turned_always_the_same(tmp_path):
    files = [f"{number}.jpg" for number in range(600)]
    assert not choose_turns(files, 0.0, 0).any()
    drawn = choose_turns(files, 0.3, 0)
    assert np.array_equal(drawn, choose_turns(files, 0.3, 0))
    assert 0.2 < (drawn > 0).mean() < 0.4 and set(drawn) == {0, 1, 2, 3}
    assert set(choose_turns(files, 0.3, 2)) == {0, 2}
    # A turned view is bright where the upright one's top has gone, and has the batch's shape.
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:20] = 255
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    arguments = dict(batch_size=2, shapes=[(33, 65)], min_scale=1.0, image_format="RGB", seed=0)
    stream = PhotoStream([str(path)], [1.0], turns=np.array([1]), **arguments)
    for example in next(iter(stream)):
        assert example["image"].shape == (3, 33, 65)
        view = example["image"].float().mean(dim=0)
        assert view[:, :15].mean() > view[:, -15:].mean() + 30  # the top goes to the left


def test_photographs_that_lie_are_brought_upright(tmp_path):
    upright = photo(40, 60)
    files = []
    for turns in range(4):
        path = tmp_path / f"{turns}.png"
        Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns))).save(path)
        files.append(str(path))
    arguments = {"batch_size": 1, "shapes": [(16, 24)], "min_scale": 0.5, "image_format": "RGB"}
    stream = PhotoStream(files, [0.25] * 4, seed=0, poses=np.arange(4), **arguments)
    for index in range(4):
        assert np.array_equal(stream.upright(index), upright)
    views = [stream._load(index, (16, 24), np.random.default_rng(0)) for index in range(4)]
    assert all(torch.equal(view["image"], views[0]["image"]) for view in views)
    posed = PoseStream(files, [0.25] * 4, seed=0, poses=np.arange(4), **arguments)
    views = [posed._load(index, (16, 16), np.random.default_rng(0)) for index in range(4)]
    assert all(torch.equal(view["image"], views[0]["image"]) for view in views)
