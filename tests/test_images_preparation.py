import numpy as np
import pytest
import torch

from canon_seg.images.preparation import MAX_GAIN, brighten, to_square, trim_borders


def photo(height=40, width=60, seed=0, low=40, high=220):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (3, height, width), generator=generator, dtype=torch.uint8)


def bordered(image, top=0, bottom=0, left=0, right=0, colour=(0, 0, 0)):
    _, height, width = image.shape
    canvas = torch.empty(3, height + top + bottom, width + left + right, dtype=image.dtype)
    canvas[:] = torch.tensor(colour, dtype=image.dtype).view(3, 1, 1)
    canvas[:, top : top + height, left : left + width] = image
    return canvas


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "borders",
    [
        {},
        {"top": 9, "bottom": 9},
        {"left": 15, "right": 3},
        {"top": 4},
        {"top": 10, "bottom": 10, "left": 10, "right": 10, "colour": (250, 120, 3)},
    ],
)
def test_plain_borders_are_cut_off(borders, dtype):
    image = photo().to(dtype)
    assert torch.equal(trim_borders(bordered(image, **borders)), image)


def test_bars_of_two_colours_and_within_one_another():
    image = photo()
    phone = bordered(bordered(image, top=5), bottom=8, colour=(255, 255, 255))
    assert torch.equal(trim_borders(phone), image)
    windowbox = bordered(bordered(image, top=5, bottom=5, colour=(90, 90, 90)), left=9, right=9)
    assert torch.equal(trim_borders(windowbox), image)


def test_noise_of_compression_is_no_picture():
    noisy = bordered(photo(), top=9, bottom=9, colour=(20, 20, 20)).int()
    noise = torch.randint(-5, 6, noisy.shape, generator=torch.Generator().manual_seed(1))
    assert trim_borders((noisy + noise).to(torch.uint8)).shape == (3, 40, 60)


def test_a_border_ends_where_its_colour_does():
    image = bordered(photo(), top=6, colour=(200, 200, 200))
    assert trim_borders(bordered(image, top=5)).shape == (3, 40, 60)  # in a second round
    steps = torch.arange(40, dtype=torch.uint8).view(1, 40, 1).expand(3, 40, 60) * 6
    assert trim_borders(steps).shape[1] >= 28  # of a sky that grows brighter not much is taken


def test_what_is_plain_stays_whole():
    for image in (torch.full((3, 30, 40), 7, dtype=torch.uint8), torch.zeros(3, 1, 1)):
        assert torch.equal(trim_borders(image), image)
    narrow = bordered(photo(8, 60), top=20, bottom=20)
    assert trim_borders(narrow).shape == narrow.shape


def test_large_images_are_sampled_but_cut_exactly():
    image = photo(300, 1500)
    assert torch.equal(trim_borders(bordered(image, top=31, left=200, right=77)), image)


def test_to_square():
    assert to_square(photo(), 32).shape == (3, 32, 32)
    plain = to_square(torch.full((3, 11, 70), 93, dtype=torch.uint8), 48)
    assert plain.dtype == torch.float32 and torch.equal(plain, torch.full((3, 48, 48), 93.0))


def test_dark_images_are_brightened():
    image = photo(low=0, high=256).float()
    dark = (image * 0.15).to(torch.uint8).float()
    brightened = brighten(torch.stack([image, dark]))
    assert torch.equal(brightened[0], image)
    whole_steps = 1 / 0.15
    assert (brightened[1] - image * 220 / 252).abs().max() < 1.5 * whole_steps
    assert brightened.max() <= 255


def test_darkness_has_its_bounds():
    black = torch.zeros(1, 3, 8, 8)
    assert torch.equal(brighten(black), black)
    assert torch.equal(brighten(black + 1), black + MAX_GAIN)
    one_light = black + 10
    one_light[..., 0, 0] = 255  # a lamp does not make a photo bright
    assert brighten(one_light).median() == 100


def test_brightening_turns_along():
    images = photo(32, 32, low=0, high=90).float()[None]
    turned = torch.rot90(images, 1, (-2, -1))
    assert torch.equal(brighten(turned), torch.rot90(brighten(images), 1, (-2, -1)))
    assert np.isfinite(brighten(images).numpy()).all()
