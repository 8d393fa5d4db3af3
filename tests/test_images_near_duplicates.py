import cv2
import numpy as np
import pytest
from PIL import Image

from canon_seg.errors import InputError
from canon_seg.images.near_duplicates import (
    difference_hash,
    group_near_duplicates,
    split_by_content,
)


def photo(seed, height=60, width=80):
    """Smooth noise, as different from seed to seed as photographs are."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def write(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02}.png" for index in range(len(images))]
    for path, image in zip(paths, images):
        Image.fromarray(np.ascontiguousarray(image)).save(path)
    return [str(path) for path in paths]


def test_groups(tmp_path):
    first, second = photo(0), photo(1)
    brighter = np.clip(first * 1.1 + 5, 0, 255).astype(np.uint8)
    images = [
        first,
        second,
        brighter,
        np.rot90(first),
        photo(2),
        second[:, ::-1],
        cv2.resize(first, (40, 30), interpolation=cv2.INTER_AREA),
    ]
    assert group_near_duplicates(write(tmp_path, images)).tolist() == [0, 1, 0, 0, 4, 1, 0]
    assert len(group_near_duplicates([])) == 0


def test_hash_of_different_photos():
    distances = [
        (difference_hash(photo(0)) != difference_hash(photo(seed))).sum() for seed in range(1, 9)
    ]
    assert difference_hash(photo(0)).shape == (256,)
    assert min(distances) > 60


def test_split(tmp_path):
    files = write(tmp_path / "single", [photo(seed) for seed in range(40)])
    files += write(tmp_path / "copies", [np.rot90(photo(seed), 2) for seed in range(40)])
    files += write(tmp_path / "drive", [photo(seed) for seed in range(100, 140)])
    training, held_out = split_by_content(files, 4, series=["drive"])
    assert sorted(training + held_out) == sorted(files)
    assert 4 <= len(held_out) <= 40
    names = {file.replace("copies", "single") for file in held_out}
    assert 2 * len(names) == len(held_out)  # a photo and its copy
    assert not any("drive" in file for file in held_out)
    assert any("drive" in file for file in split_by_content(files, 4)[1])
    # More photographs behind change nothing about those that were there.
    fewer = split_by_content(files[:40], 4)[1]
    assert fewer == [file for file in held_out if "single" in file]


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    with pytest.raises(InputError, match="broken.jpg: is not an image"):
        group_near_duplicates([str(tmp_path / "broken.jpg")])
