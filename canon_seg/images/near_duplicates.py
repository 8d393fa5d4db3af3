"""Find photographs that look nearly alike, by a hash of what is brighter than what."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from canon_seg.images.arrays import turn_image
from canon_seg.images.reading import ReadingOptions, read_image

HASH_SIDE = 16
NEAR = 40  # of 256 bits; photographs of different things are about 128 apart
_BLOCK = 1024  # rows compared at once: bounds the memory


def split_by_content(
    files: Sequence[str],
    every: int,
    series: Sequence[str] = (),
    options: ReadingOptions = ReadingOptions(),
) -> tuple[list[str], list[str]]:
    """Split photographs in two, those that look nearly alike on the same side.

    Args:
        files: paths.
        every: one group of near duplicates in so many is held out, by a checksum of its first
            photograph's file name: the same one, whatever other photographs there are before it.
        series: names of folders of photographs in series, none of which are held out: frames of one
            drive can look unlike and yet show the same street.
        options: how images are read.

    Returns:
        (training files, held-out files), both in the given order.

    Raises:
        InputError: naming a file that cannot be read.
    """
    groups = group_near_duplicates(files, options=options)
    training: list[str] = []
    held_out: list[str] = []
    for file, first in zip(files, groups, strict=True):
        checksum = zlib.crc32(Path(files[first]).name.encode())
        in_series = Path(file).parent.name in series
        (training if in_series or checksum % every else held_out).append(file)
    return training, held_out


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash an image by the sign of the change between neighbouring pixels of a 17 x 16 thumbnail.

    Args:
        image: H x W x 3 uint8.

    Returns:
        (256,) bool array.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return (small[:, 1:] > small[:, :-1]).ravel()


def group_near_duplicates(
    files: Sequence[str], near: int = NEAR, options: ReadingOptions = ReadingOptions()
) -> np.ndarray:
    """Put photographs that look nearly alike, turned copies and mirror images included, together.

    Args:
        files: paths.
        near: bits of the hash in which two photographs of a group may differ.
        options: how images are read.

    Returns:
        (len(files),) int array: the same number for photographs that are linked by a chain of near
        ones; it is the index of the first of them.

    Raises:
        InputError: naming a file that cannot be read.
    """
    parent = np.arange(len(files))
    if not len(files):
        return parent
    hashes, views = [], []
    for file in files:
        image = read_image(file, "RGB", options)
        hashes.append(difference_hash(image))
        turned = [turn_image(image, turns) for turns in range(4)]
        views.append([difference_hash(v) for view in turned for v in (view, view[:, ::-1])])
    # Bits as signs: a product of two hashes counts the bits that agree less those that do not.
    signs = np.array(hashes, np.float32) * 2 - 1
    turned_signs = np.array(views, np.float32).transpose(1, 0, 2) * 2 - 1

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    least = signs.shape[1] - 2 * near
    for turned in turned_signs:
        for start in range(0, len(files), _BLOCK):
            agreement = turned[start : start + _BLOCK] @ signs.T
            for row, column in np.argwhere(agreement >= least):
                first, second = sorted((root(start + row), root(column)))
                parent[second] = first
    return np.array([root(index) for index in range(len(files))])
