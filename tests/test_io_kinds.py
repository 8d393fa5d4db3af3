import io

import pytest
from PIL import Image

from canon_seg.coco.dataset import load_coco
from canon_seg.errors import InputError
from canon_seg.images.reading import read_image
from canon_seg.io.checkpoint import load_pickle_file, load_torch_file
from canon_seg.io.kinds import describe_contents

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"", "empty"),
        (POINTER, "a Git LFS pointer"),
        (PAGE, "a web page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "an XML text"),
        (jpeg(), "a JPEG image"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\x1f\x8b....", "a gzip archive"),
        ((2).to_bytes(8, "little") + b"{}" + bytes(8), "a safetensors file"),
        (b'{"message": "Not Found"}', "a JSON text"),
    ],
)
def test_kinds_of_files(tmp_path, contents, what):
    (tmp_path / "a").write_bytes(contents)
    assert describe_contents(tmp_path / "a")[0].startswith(what)


def test_what_is_not_known(tmp_path):
    (tmp_path / "a").write_bytes(b"\x80\x02}q")
    assert describe_contents(tmp_path / "a") is None
    assert describe_contents(tmp_path / "nowhere") is None


READERS = {
    "photo.jpg": read_image,
    "weights.pth": lambda path: load_torch_file(path, "MODEL.SEGMENTER.WEIGHTS"),
    "weights.pkl": lambda path: load_pickle_file(path, "MODEL.SEGMENTER.WEIGHTS"),
    "instances.json": lambda path: load_coco(path, path.parent),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("contents", "said"), [(POINTER, "Git LFS pointer.*run git lfs pull"), (PAGE, "web page")]
)
def test_every_reader_names_what_a_file_is(tmp_path, name, contents, said):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError, match=f"{name}.*{said}") as caught:
        READERS[name](tmp_path / name)
    assert "weights_only" not in str(caught.value)
