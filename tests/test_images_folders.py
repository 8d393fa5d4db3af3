import pytest

from canon_seg.errors import InputError
from canon_seg.images.folders import list_photos


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
