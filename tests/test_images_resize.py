import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from canon_seg.images.resize import (
    MAX_ASPECT,
    STRIDE,
    network_size,
    normalize,
    resize_for_network,
    resize_on_device,
)

sides = st.integers(1, 5000)
input_sizes = st.integers(1, 12).map(lambda k: STRIDE * k + 1)


@given(sides, sides, input_sizes)
def test_network_size(height, width, input_size):
    h, w = network_size(height, width, input_size)
    assert network_size(width, height, input_size) == (w, h)
    assert h % STRIDE == w % STRIDE == 1
    assert min(h, w) == input_size and max(h, w) <= MAX_ASPECT * input_size
    assert (h <= w) if height <= width else (w <= h)
    aspect = min(max(height, width) / min(height, width), MAX_ASPECT)
    assert abs(max(h, w) - input_size * aspect) <= STRIDE / 2 + 1e-6 + (aspect - 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (97, 129)),
        ((640, 480), (129, 97)),
        ((97, 97), (97, 97)),
        ((1, 1000), (97, 385)),
        ((1, 1), (97, 97)),
    ],
)
def test_known_sizes(size, expected):
    assert network_size(*size, 97) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(120, 160), (20, 9), (1, 300)])
def test_resized_images_keep_dtype_and_range(dtype, size):
    image = torch.full((3, *size), 200).to(dtype)
    small = resize_for_network(image, 33)
    assert small.dtype == dtype and small.shape == (3, *network_size(*size, 33))
    torch.testing.assert_close(small, torch.full_like(small, 200))


def test_an_image_of_the_right_size_is_not_touched():
    image = torch.randint(0, 256, (3, 33, 65), dtype=torch.uint8)
    assert resize_for_network(image, 33) is image


def test_fine_patterns_become_grey():
    # Without anti-aliasing noise would be sampled, and stay noise.
    torch.manual_seed(0)
    noise = 255 * (torch.rand(3, 330, 330) > 0.5)
    small = resize_for_network(noise.float(), 33)
    assert small.std() < 20 < noise.float().std()
    assert small.mean() == pytest.approx(127.5, abs=3)


def test_uint8_and_float_agree():
    image = torch.randint(0, 256, (3, 150, 100), dtype=torch.uint8)
    difference = resize_for_network(image, 33).float() - resize_for_network(image.float(), 33)
    assert difference.abs().max() <= 1.5


def test_normalize_by_hand():
    images = torch.tensor([0, 255, 128], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    result = normalize(images)
    assert result.dtype == torch.float32
    assert result.flatten().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(20, 31), (64, 48), (90, 120)])
def test_resizing_on_a_device_is_pillows_to_a_grey_level(size):
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    ours = resize_on_device(image, *size)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.BILINEAR)
    theirs = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    assert ours.dtype == torch.uint8 and ours.shape == theirs.shape
    assert (ours.int() - theirs.int()).abs().max() <= 1
