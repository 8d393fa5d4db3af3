"""Read images with one class each: CIFAR-10 as torchvision has it, class folders, or drawn ones."""

import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from canon_seg.classification.procedural import CLASSES, draw_images
from canon_seg.errors import InputError
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import read_image
from canon_seg.io.checkpoint import load_pickle_file

CIFAR_FOLDER = "cifar-10-batches-py"
"""What torchvision's ``CIFAR10(root)`` unpacks below its root."""

PROCEDURAL = "drawn images, which are no CIFAR-10"
MIN_SIDE = 8
"""Pixels of the shorter side of the smallest image that is read."""

DRAWN = {"train": 4000, "test": 800}
"""Images that are drawn where no folder is given."""


@dataclass(frozen=True)
class LabelledImages:
    """Hold square images of one size, each with its class.

    Attributes:
        images: (N, 3, S, S) uint8 tensor, RGB.
        labels: (N,) int64 tensor, 0..len(classes) - 1.
        classes: names.
        source: where they are from, in words.

    Raises:
        InputError: if images and labels do not match, or a label is out of range.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{self.source}: there are {len(self.images)} images and {len(self.labels)} "
                "labels; give one for each"
            )
        if not len(self.images):
            raise InputError(f"{self.source}: there is no image; give a folder with some")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{self.source}: labels reach from {low} to {high}, and {len(self.classes)} "
                f"classes have the numbers 0 to {len(self.classes) - 1}; get the data again"
            )

    def __len__(self) -> int:
        return len(self.images)

    def at(self, places: "torch.Tensor | slice") -> "LabelledImages":
        """Return the images at some places."""
        return replace(self, images=self.images[places], labels=self.labels[places])

    def to(self, device: "torch.device | str") -> "LabelledImages":
        """Return the images and labels on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def drawn(self, count: int, seed: int = 0) -> "LabelledImages":
        """Return ``count`` of the images, by a seed; all for 0, or where there are no more."""
        if not 0 < count < len(self):
            return self
        generator = torch.Generator().manual_seed(seed)
        return self.at(torch.randperm(len(self), generator=generator)[:count].sort().values)


def read_images(folder: str, split: str, side: int, key: str) -> LabelledImages:
    """Read the images of one split.

    Args:
        folder: torchvision's root of CIFAR-10, or its ``cifar-10-batches-py``; a folder with
            ``train`` and ``test`` that hold a folder for each class, or with ``train.npz`` and
            ``test.npz`` that hold such images packed; a folder of class folders, which then serves
            both splits; "" to draw images.
        split: "train" or "test".
        side: in pixels; images of another size are cut to their middle square and resized.
        key: flag or config key that names the folder, for messages.

    Raises:
        InputError: naming the folder or file that cannot be used.
    """
    if not folder:
        drawn = draw_images(DRAWN[split], side, seed={"train": 0, "test": 1}[split])
        return LabelledImages(*drawn, CLASSES, PROCEDURAL)
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{key}: there is no folder {folder}; give one of images, or leave it out")
    for place in (root / CIFAR_FOLDER, root):
        if (place / "batches.meta").is_file():
            return _resized(_read_cifar(place, split, key), side)
    packed = root / f"{split}.npz"
    if packed.is_file():
        return _resized(_read_packed(packed, key), side)
    place = root / split if (root / split).is_dir() else root
    return _read_class_folders(place, side, key)


def hold_out(data: LabelledImages, count: int) -> tuple[LabelledImages, LabelledImages]:
    """Split training images in (to train on, held out), always in the same way."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(2026))
    return data.at(order[count:]), data.at(order[:count])


def check_classes(found: LabelledImages, known: "tuple[str, ...] | list[str]", key: str) -> None:
    """Raise InputError where images are of other classes than a classifier's.

    Args:
        found: the images.
        known: names of the classifier's outputs, in order.
        key: flag or config key that names the folder, for messages.
    """
    if list(found.classes) != list(known):
        raise InputError(
            f"{key}: the classes are {', '.join(found.classes[:12])}, and the classifier knows "
            f"{', '.join(list(known)[:12])}; give images of these, or weights trained for the "
            "others (MODEL.CLASSIFIER.WEIGHTS)"
        )


def _read_cifar(folder: Path, split: str, key: str) -> LabelledImages:
    """Read CIFAR-10's own files, as torchvision does, without running what they hold."""
    names = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
    meta = _unpickled(folder / "batches.meta", key)
    images, labels = [], []
    for name in names:
        batch = _unpickled(folder / name, key)
        try:
            pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
            numbers = [int(label) for label in batch["labels"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(folder / name, key, error) from error
        images.append(pixels)
        labels += numbers
    try:
        classes = tuple(map(str, meta["label_names"]))
    except (KeyError, TypeError) as error:
        raise _damaged(folder / "batches.meta", key, error) from error
    found = torch.from_numpy(np.concatenate(images))
    return LabelledImages(found, torch.tensor(labels), classes, str(folder))


def _unpickled(path: Path, key: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{key}: {path} is missing; unpack CIFAR-10 again")
    contents = load_pickle_file(path, key)  # type: ignore[no-untyped-call]
    if not isinstance(contents, dict):
        raise _damaged(path, key, "it holds no dict")
    return contents


def _read_packed(path: Path, key: str) -> LabelledImages:
    """Read arrays ``images`` (N, S, S, 3), ``labels`` and ``classes`` of one .npz file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, numbers = arrays["images"], arrays["labels"]
            classes = tuple(map(str, arrays["classes"]))
        if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
            raise ValueError(f"its images have the shape {images.shape}")
        if images.dtype != np.uint8:
            raise ValueError(f"its images are {images.dtype}, not uint8 from 0 to 255")
        if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(
                f"its labels are {numbers.dtype} of the shape {numbers.shape}, not N integers"
            )
        labels = torch.from_numpy(numbers.astype(np.int64))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{key}: {path} is damaged or does not hold images (N, S, S, 3), labels and classes "
            f"({error}); write it again"
        ) from error
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(pixels, labels, classes, str(path))


def _damaged(path: Path, key: str, error: object) -> InputError:
    return InputError(
        f"{key}: {path} is damaged or no file of CIFAR-10's ({error}); get it again from its source"
    )


def _read_class_folders(folder: Path, side: int, key: str) -> LabelledImages:
    classes = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not classes:
        raise InputError(
            f"{key}: {folder} holds no folder for each class, nor CIFAR-10 as torchvision unpacks "
            f"it ({CIFAR_FOLDER}); give one of the two"
        )
    files = [
        (Path(file), label)
        for label, name in enumerate(classes)
        for file in list_photos(str(folder / name), key)
    ]
    images = np.empty((len(files), side, side, 3), np.uint8)
    for k, (path, _) in enumerate(tqdm(files, desc=f"reading {folder}", delay=2)):
        images[k] = _read_square(path, side, key)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(
        pixels, torch.tensor([label for _, label in files]), tuple(classes), str(folder)
    )


def _read_square(path: "os.PathLike[str]", side: int, key: str) -> np.ndarray:
    try:
        image = Image.fromarray(read_image(path, "RGB"))  # upright, as EXIF says
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    shorter = min(image.size)
    if shorter < MIN_SIDE:
        raise InputError(
            f"{key}: {path} is {image.size[0]} x {image.size[1]} pixels; {MIN_SIDE} are the least "
            "for a side that networks can see something in; take it away"
        )
    left, top = (image.size[0] - shorter) // 2, (image.size[1] - shorter) // 2
    image = image.crop((left, top, left + shorter, top + shorter))
    if shorter != side:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _resized(data: LabelledImages, side: int) -> LabelledImages:
    if data.images.shape[-1] == side:
        return data
    rows = [
        np.asarray(
            Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        ).transpose(2, 0, 1)
        for image in data.images.permute(0, 2, 3, 1).numpy()
    ]
    return replace(data, images=torch.from_numpy(np.stack(rows)))
