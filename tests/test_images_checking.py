"""Image files looked at before work begins, and what is remembered of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from canon_seg.errors import InputError, InputWarning
from canon_seg.images.checking import describe_orientations, inspect_images
from canon_seg.images.reading import ImageFacts, ReadingOptions


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # tests may change it
    exif, names = Image.Exif(), []
    for index, orientation in enumerate((1, 6, 3, 3)):
        exif[0x0112] = orientation
        names.append(str(tmp_path / f"{index}.jpg"))
        noise = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(names[-1], exif=exif)
    return names


def cut(file):
    whole = Path(file).read_bytes()
    Path(file).write_bytes(whole[: len(whole) * 9 // 10])


def test_every_file_has_its_answer(files):
    cut(files[1])
    found = inspect_images([*files, "nowhere.jpg"], progress=False)
    assert found[0] == ImageFacts(20, 30, 1) and found[2] == ImageFacts(20, 30, 3)
    assert isinstance(found[1], InputError) and "1.jpg: cannot be decoded" in str(found[1])
    assert isinstance(found[4], InputError)
    assert inspect_images(files, decode=False, progress=False)[1] == ImageFacts(20, 30, 6)


def test_orientations_in_words(files):
    found = inspect_images(files, progress=False)
    line = describe_orientations(found, exif=True)
    assert "of 4 images: 3 (turned by 180 degrees) in 2, 6 (turned by 90 degrees) in 1" in line
    assert describe_orientations(found[:1], exif=True) is None
    assert "unreadable in 1" in describe_orientations([ImageFacts(2, 2, 0)], exif=True)


def test_whole_files_are_decoded_once(files, tmp_path, monkeypatch):
    cache = str(tmp_path / "new" / "checked.json")
    cut(files[1])
    first = inspect_images(files, progress=False, cache=cache)
    loaded = []
    load = ImageFile.ImageFile.load

    def count(image):
        loaded.append(os.path.basename(image.filename))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", count)
    second = inspect_images(files, progress=False, cache=cache)
    assert [str(one) for one in first] == [str(one) for one in second]
    assert set(loaded) == {"1.jpg"}  # one that is not whole is opened again
    loaded.clear()
    Image.new("RGB", (7, 5)).save(files[0])
    assert inspect_images(files, progress=False, cache=cache)[0] == ImageFacts(5, 7, 1)
    assert set(loaded) == {"0.jpg", "1.jpg"}
    # Another limit than the one that they were read with.
    few = inspect_images(files, ReadingOptions(max_pixels=100), progress=False, cache=cache)
    assert few[0] == ImageFacts(5, 7, 1)
    assert isinstance(few[2], InputError) and "INPUT.MAX_PIXELS" in str(few[2])


def test_files_that_are_gone_are_forgotten(files, tmp_path):
    cache = str(tmp_path / "checked.json")
    inspect_images(files[:2], progress=False, cache=cache)
    os.remove(files[0])
    inspect_images(files[2:], progress=False, cache=cache)
    assert sorted(json.loads(Path(cache).read_text())) == files[1:]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": [1, 2, 3, 4, "5"]}'])
def test_a_damaged_cache_costs_time_only(files, tmp_path, text):
    (tmp_path / "checked.json").write_text(text)
    with pytest.warns(InputWarning, match="DATASETS.CHECK_CACHE: .* is of no use"):
        found = inspect_images(files, progress=False, cache=str(tmp_path / "checked.json"))
    assert found[0] == ImageFacts(20, 30, 1)


def test_a_cache_that_cannot_be_written(files, tmp_path):
    with pytest.warns(InputWarning, match="DATASETS.CHECK_CACHE: .*cannot be used"):
        found = inspect_images(files, progress=False, cache=f"{files[0]}/checked.json")
    assert len(found) == 4
