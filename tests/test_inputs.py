import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import random_image

from canon_seg.errors import InputError
from canon_seg.predictors.inputs import as_image

IMAGE = np.ascontiguousarray(random_image(20, 30).permute(1, 2, 0).numpy())


def test_an_array_is_taken_as_it_is():
    assert as_image(IMAGE) is IMAGE and as_image(IMAGE, "BGR") is IMAGE


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_files_and_pillow_images_become_arrays(tmp_path, image_format):
    wanted = IMAGE if image_format == "RGB" else IMAGE[..., ::-1]
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    for image in (path, str(path), Image.open(path), Image.fromarray(IMAGE)):
        assert np.array_equal(as_image(image, image_format), wanted)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_pillow_images_of_all_modes_become_what_their_files_do(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(IMAGE).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    assert np.array_equal(as_image(image), as_image(path))
    assert as_image(image).dtype == np.uint8


def test_the_exif_tag_of_a_file_is_applied_and_that_of_a_pillow_image_is_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(as_image(tmp_path / "photo.png"), np.rot90(IMAGE, -1))
    with Image.open(tmp_path / "photo.png") as image:
        assert np.array_equal(as_image(image), IMAGE)


FRACTIONS = np.round(IMAGE / 255, 3)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.transpose(2, 0, 1),
        FRACTIONS,
        FRACTIONS.astype(np.float16),
        FRACTIONS.astype(np.float32).transpose(2, 0, 1),
        IMAGE.astype(np.float16),
        IMAGE.astype(np.float64).transpose(2, 0, 1),
        IMAGE.astype(np.int64),
        np.concatenate([IMAGE, IMAGE[..., :1]], axis=2),
        np.concatenate([IMAGE, IMAGE[..., :1]], axis=2).astype(np.float16) / 256,
    ],
)
def test_the_message_ends_with_what_makes_the_image_good(image):
    with pytest.raises(InputError, match="give \\(height, width, 3\\) and uint8: ") as caught:
        as_image(image)
    expression = str(caught.value).partition("uint8: ")[2].partition(" for values")[0]
    made = eval(expression, {"np": np, "image": image})  # noqa: S307
    assert made.dtype == np.uint8 and made.shape == IMAGE.shape
    assert np.abs(made.astype(int) - IMAGE).max() <= 1


@pytest.mark.parametrize(
    "grey",
    [
        IMAGE[..., 0],
        IMAGE[..., :1],
        IMAGE[..., 0][None],
        IMAGE[..., 0].astype(np.float16),
        IMAGE[..., 0] / 255,
        IMAGE[..., 0].astype(np.uint16) * 257,
        IMAGE[..., 0] > 127,
    ],
)
def test_grey_is_said_to_be_stacked(grey):
    with pytest.raises(InputError) as caught:
        as_image(grey)
    expression = str(caught.value).partition("uint8: ")[2].partition(" for values")[0]
    made = eval(expression, {"np": np, "image": grey})  # noqa: S307
    expected = (IMAGE[..., 0] > 127) * 255 if grey.dtype == bool else IMAGE[..., 0]
    assert made.shape == IMAGE.shape and made.dtype == np.uint8
    assert np.abs(made.astype(int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "NoneType .cv2.imread gives None"),
        ([[1, 2]], "is a list; give a numpy array, a Pillow image"),
        (torch.zeros(3, 20, 30), "give image.permute.1, 2, 0..cpu...numpy"),
        (torch.zeros(20, 30, 3), "give image.cpu...numpy"),
        (IMAGE / 127.5 - 1, "go from -1 to 1; undo the normalisation"),
        (np.where(IMAGE > 200, np.nan, IMAGE), "not all finite"),
        (np.zeros((2, 20, 30, 3), np.uint8), "shape .2, 20, 30, 3."),
        (np.zeros((20, 30, 5), np.uint8), "shape .20, 30, 5."),
        (np.zeros((20, 0, 3), np.uint8), "shape .20, 0, 3."),
        (np.full((20, 30, 3), "a"), "dtype <U1"),
        (Image.fromarray(FRACTIONS[..., 0].astype(np.float32)), "floating-point"),
        ("none.jpg", "none.jpg: no such image file"),
    ],
)
def test_other_things_are_refused_in_words(image, message):
    with pytest.raises(InputError, match=message):
        as_image(image)
