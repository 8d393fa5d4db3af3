import numpy as np
import pytest
from PIL import Image

from canon_seg.apps.drawing import (
    MASK_OPACITY,
    add_caption,
    colors,
    draw_masks,
    draw_segmentation,
    fit,
    save_picture,
    side_by_side,
    zoom_factor,
)
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image, turn_maps


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def square(height, width, y0, y1, x0, x1):
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_colors_differ_from_their_neighbours():
    palette = colors(30).astype(int)
    assert palette.shape == (30, 3) and colors(0).shape == (0, 3)
    for step in (1, 2, 3, 4):
        assert np.abs(palette[step:] - palette[:-step]).sum(axis=1).min() > 60
    assert np.array_equal(colors(5), palette[:5])


def test_masks_tint_their_inside_and_nothing_else():
    image, mask = grey(40, 60), square(40, 60, 10, 30, 20, 50)
    picture = draw_masks(image, [mask], colors(1))
    assert np.array_equal(picture[~mask], image[~mask])
    expected = (1 - MASK_OPACITY) * 100 + MASK_OPACITY * colors(1)[0]
    assert np.allclose(picture[20, 35], expected, atol=1)
    assert np.array_equal(picture[10, 35], colors(1)[0])  # the contour
    assert (image == 100).all()


def test_the_smallest_mask_is_on_top():
    large, small = square(40, 60, 0, 40, 0, 60), square(40, 60, 10, 30, 20, 50)
    for masks, index in (([large, small], 1), ([small, large], 0)):
        picture = draw_masks(grey(40, 60, 0), masks, colors(2))
        assert np.allclose(picture[20, 35], MASK_OPACITY * colors(2)[index], atol=1)


def test_masks_of_turned_images_give_turned_pictures():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 47, 3), dtype=np.uint8)
    mask = square(30, 47, 5, 20, 10, 30)
    upright = draw_masks(image, [mask], colors(1))
    for turns in (1, 2, 3):
        turned = draw_masks(turn_image(image, turns), [turn_maps(mask, turns)], colors(1))
        assert np.array_equal(turned, turn_image(upright, turns))


def test_no_masks_leave_the_image_as_it_is():
    image = grey(500, 600)
    picture = draw_segmentation(image, [])
    assert np.array_equal(picture, image) and picture is not image


def test_prompts_are_drawn_in_the_colours_of_their_masks():
    masks = [square(500, 600, 0, 1, 0, 1)] * 2
    picture = draw_segmentation(grey(500, 600), masks, [(100, 50, 400, 350)], [(450, 420)])
    box, click = colors(2)
    for x, y in ((100, 200), (399, 200), (200, 50), (200, 349)):  # the outermost pixels inside
        assert np.array_equal(picture[y, x], box)
    assert np.array_equal(picture[420, 450], click)
    assert (picture[200, 250] == 100).all() and (picture[400, 300] == 100).all()


def test_small_images_are_enlarged_with_all_that_is_drawn():
    assert [zoom_factor(*size) for size in ((480, 100), (241, 10), (100, 240), (1, 1))] == [
        1,
        1,
        2,
        480,
    ]
    mask = square(40, 60, 10, 30, 20, 50)
    picture = draw_segmentation(grey(40, 60), [mask, mask], [(20, 10, 50, 30)], [(5, 7)])
    assert picture.shape == (320, 480, 3)
    box, click = colors(2)
    assert np.array_equal(picture[10 * 8, 30 * 8], box)
    assert np.array_equal(picture[30 * 8 - 1, 30 * 8], box)
    assert np.array_equal(picture[7 * 8 + 4, 5 * 8 + 4], click)


@pytest.mark.parametrize("size", [(300, 400), (1, 1), (2000, 3), (480, 9)])
def test_captions_are_above_the_picture_and_fit(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    captioned = add_caption(picture, ["pose 90°, probability 0.98", "3 masks"])
    height, width = size
    left = (captioned.shape[1] - width) // 2
    assert np.array_equal(captioned[-height:, left : left + width], picture)
    caption = captioned[:-height]
    assert (caption == 255).any() and caption.shape[1] >= 150
    assert (caption[:, -2:] == caption[0, 0]).all()  # no letter is cut off


def test_large_pictures_shrink_and_others_stay():
    assert fit(grey(300, 600), 200).shape == (100, 200, 3)
    assert fit(grey(1, 600), 200).shape == (1, 200, 3)
    picture = grey(100, 200)
    assert fit(picture, 200) is picture


def test_pictures_of_any_sizes_stand_side_by_side():
    row = side_by_side([grey(10, 20, 1), grey(20, 10, 2), grey(5, 5, 3)], gap=4)
    assert row.shape == (20, 20 + 4 + 10 + 4 + 5, 3)
    assert (row[:10, :20] == 1).all() and (row[:, 24:34] == 2).all() and (row[:5, 38:] == 3).all()


def test_pictures_are_written_whole_or_not_at_all(tmp_path):
    save_picture(tmp_path / "new" / "picture.png", grey(3, 4))
    assert np.array_equal(Image.open(tmp_path / "new" / "picture.png"), grey(3, 4))
    with pytest.raises(TypeError):
        save_picture(tmp_path / "new" / "picture.png", np.zeros((3, 4, 7), np.uint8))
    assert np.array_equal(Image.open(tmp_path / "new" / "picture.png"), grey(3, 4))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        save_picture(tmp_path / "file" / "picture.png", grey(3, 4))


def test_a_full_disk_is_an_error_that_names_the_picture(tmp_path, monkeypatch):
    def save(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(InputError, match="picture.png.*No space left"):
        save_picture(tmp_path / "picture.png", grey(3, 4))
    assert not list(tmp_path.iterdir())
