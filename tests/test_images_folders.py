import os
import sys

import numpy as np
import pytest
from optional import need
from PIL import Image, features

from canon_seg.errors import InputError, InputWarning
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import image_size, read_image


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.jpg", "a/1.PNG", "a/c/3.webp", "0.jpeg", "a/4.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"names are all that counts")
    for name in ("a/notes.txt", "a/.hidden.jpg", "b/2.jpg.part"):
        (tmp_path / name).write_text("no photograph")
    return tmp_path


def test_list_photos(folder):
    names = [str(folder / n) for n in ("0.jpeg", "a/1.PNG", "a/4.bmp", "a/c/3.webp", "b/2.jpg")]
    assert list_photos(str(folder), "--images") == names


def test_bad_folders_are_named(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="DATASETS.PHOTOS: there is no folder") as caught:
            list_photos(str(path), "DATASETS.PHOTOS")
        assert str(path) in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="DATASETS.PHOTOS: .*empty holds no photograph"):
        list_photos(str(tmp_path / "empty"), "DATASETS.PHOTOS")


FORMATS = {
    "jfif": "JPEG",
    "jpe": "JPEG",
    "tif": "TIFF",
    "TIFF": "TIFF",
    "gif": "GIF",
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "j2k": "JPEG2000",
    "ppm": "PPM",
    "tga": "TGA",
    "heic": "HEIF",
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_all_that_can_be_read_is_found_and_read(tmp_path, suffix):
    if suffix == "heic":
        need("pillow_heif").register_heif_opener()
    elif not features.check(
        {"avif": "avif", "jp2": "jpg_2000", "j2k": "jpg_2000"}.get(suffix, "zlib")
    ):
        pytest.skip(f"Pillow was built without {FORMATS[suffix]}")
    pixels = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    pixels[:8, :12] = 10, 220, 30
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(pixels).save(path, FORMATS[suffix])
    assert list_photos(str(tmp_path), "--images") == [str(path)]
    read = read_image(path, "RGB")
    assert image_size(path) == read.shape[:2] == (16, 24)
    for y, x in ((3, 3), (3, 20), (12, 3)):
        assert np.abs(read[y, x].astype(int) - pixels[y, x]).max() < 30


def test_what_is_skipped_is_counted_and_named(folder):
    (folder / "a" / "raw.CR2").touch()
    with pytest.warns(InputWarning, match="--images: .*: 3 files are skipped") as caught:
        list_photos(str(folder), "--images")
    message = str(caught[0].message)
    assert "1 .txt" in message and "1 .cr2" in message and "1 .part" in message
    assert os.path.join("a", "notes.txt") in message and "hidden" not in message


def test_heic_without_its_library(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(InputError, match="a.heic: is an HEIC image, .*pip install pillow-heif"):
        read_image(tmp_path / "a.heic")
