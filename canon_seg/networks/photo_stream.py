"""Stream folders of upright photographs without labels: all that the prior loss needs."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from canon_seg.core.group import C4, PlanarGroup
from canon_seg.core.tilting import FILL
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image, turned_size
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import to_chw
from canon_seg.io.relay import RaisingLoader, bad_example

MAX_TILT = 8.0  # degrees; upright photographs are that much off
MAX_CANVAS_TILT = 42.0  # degrees; at 45 two poses are equally right


def folder_weights(files: Sequence[str], power: float) -> np.ndarray:
    """Return the probability of drawing each file, so that large folders do not drown small ones.

    Args:
        files: paths.
        power: a folder with n photos is drawn in proportion to n ** power.

    Returns:
        (len(files),) float64 array that sums to 1.
    """
    _, members, counts = np.unique(
        [str(Path(file).parent) for file in files], return_inverse=True, return_counts=True
    )
    weights: np.ndarray = counts[members] ** (power - 1.0)
    weights /= weights.sum()
    return weights


def choose_turns(files: Sequence[str], fraction: float, turns: int) -> np.ndarray:
    """Choose quarter turns of photographs, some not upright; the same for the same file names.

    Args:
        files: paths.
        fraction: of the photographs that are turned, 0..1.
        turns: 1, 2 or 3 quarter turns counterclockwise; 0 draws one of the three for each.

    Returns:
        (len(files),) int64 array.
    """
    drawn = np.zeros(len(files), np.int64)
    for index, file in enumerate(files):
        rng = np.random.default_rng(zlib.crc32(Path(file).name.encode()))
        if rng.random() < fraction:
            drawn[index] = turns or rng.integers(1, 4)
    return drawn


def augment(
    image: np.ndarray,
    shape: tuple[int, int],
    rng: np.random.Generator,
    min_scale: float,
    on_canvas: float = 0.0,
    *,
    flips: bool = True,
) -> np.ndarray:
    """Return a random upright view of a photograph: everything may change but which side is up.

    Args:
        image: H x W x 3 uint8.
        shape: (height, width) of the result.
        rng: numpy Generator.
        min_scale: smallest side of the crop as a fraction of the largest possible crop.
        on_canvas: probability that the view is shown tilted by up to 42 degrees, with plain corners
            around it: as photographs look that were rotated by no quarter turn.
        flips: whether left and right are exchanged at random; not where the mirror is to be found.

    Returns:
        height x width x 3 uint8.
    """
    height, width = shape
    largest = min(image.shape[0] / height, image.shape[1] / width)
    # The crop's aspect ratio is the result's, up to a stretch that photographs bear easily.
    scale = largest * rng.uniform(min_scale, 1.0)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    crop_height = int(np.clip(round(scale * height * stretch), 1, image.shape[0]))
    crop_width = int(np.clip(round(scale * width / stretch), 1, image.shape[1]))
    top = rng.integers(image.shape[0] - crop_height + 1)
    left = rng.integers(image.shape[1] - crop_width + 1)
    view = image[top : top + crop_height, left : left + crop_width]
    shrinks = crop_height > height
    view = cv2.resize(
        view, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    if flips and rng.random() < 0.5:
        view = view[:, ::-1]
    if on_canvas and rng.random() < on_canvas:
        view = _tilt_on_canvas(view, rng.uniform(-MAX_CANVAS_TILT, MAX_CANVAS_TILT), rng)
    elif rng.random() < 0.5:
        view = _tilt(view, rng.uniform(-MAX_TILT, MAX_TILT))
    return disturb_pixels(view.astype(np.float32), rng)


def _tilt(view: np.ndarray, degrees: float) -> np.ndarray:
    """Tilt as a camera that is not held quite level; mirrored borders fill the corners."""
    height, width = view.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(
        np.ascontiguousarray(view), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )


def _tilt_on_canvas(view: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Tilt between just filling the frame and lying in it as a whole; corners are plain."""
    height, width = view.shape[:2]
    cos, sin = np.cos(np.radians(degrees)), abs(np.sin(np.radians(degrees)))
    whole = min(height / (height * cos + width * sin), width / (width * cos + height * sin))
    grey = FILL if rng.random() < 0.5 else rng.uniform(0, 255)
    matrix = cv2.getRotationMatrix2D(
        ((width - 1) / 2, (height - 1) / 2), degrees, rng.uniform(whole, 1.0)
    )
    return cv2.warpAffine(
        np.ascontiguousarray(view), matrix, (width, height), borderValue=(grey,) * 3
    )


def disturb_pixels(view: np.ndarray, rng: Any) -> np.ndarray:
    """Disturb by random colours, contrast, blur and noise.

    Args:
        view: H x W x 3 float32, values 0..255.
        rng: numpy Generator, or anything with its ``random``, ``uniform`` and ``normal``.

    Returns:
        H x W x 3 uint8.
    """
    if rng.random() < 0.15:
        view = view.mean(axis=2, keepdims=True).repeat(3, axis=2)
    elif rng.random() < 0.8:
        grey = view.mean(axis=2, keepdims=True)
        view = grey + (view - grey) * rng.uniform(0.5, 1.5)
        view = view * rng.uniform(0.85, 1.15, size=3).astype(np.float32)
    view = (view - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-30, 30)
    if rng.random() < 0.2:
        view = cv2.GaussianBlur(np.ascontiguousarray(view), (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.3:
        view = view + rng.normal(0, rng.uniform(2, 10), view.shape)
    return np.clip(view, 0, 255).astype(np.uint8)


class PhotoStream(IterableDataset[list[dict[str, Any]]]):
    """Yield batches of augmented photographs without end, one shape for each batch.

    The shape (landscape, portrait or square) is drawn apart from the photographs, so that the
    network cannot take the aspect ratio for a hint.

    Args:
        files: paths of upright photographs.
        weights: probability of each.
        batch_size: photographs in a batch.
        shapes: sequence of (height, width).
        min_scale, on_canvas: see :func:`augment`.
        image_format: "RGB" or "BGR".
        seed: int. The same seed gives the same stream; each worker draws its own part of it. A
            resumed training needs another seed, or it sees the same photographs again.
        turns: (len(files),) quarter turns by which each photograph is turned, always the same:
            for studies of what happens where not all are upright. None for none.
        poses: (len(files),) quarter turns counterclockwise by which the files are turned that are
            known not to be upright; undone first. None for none.
        reading: how images are read.
        group: of the poses. If mirrors belong to it, they are no augmentation. If it has turns that
            do not act by index, which a network is equivariant to but nearly, each view is turned
            by a random element, which the example names as ``pose`` or ``degrees``; corners are
            filled with what is mirrored at the edges, for a network that sees the disc.
    """

    def __init__(
        self,
        files: Sequence[str],
        weights: np.ndarray,
        *,
        batch_size: int,
        shapes: Sequence[tuple[int, int]],
        min_scale: float,
        image_format: str,
        seed: int,
        turns: np.ndarray | None = None,
        poses: np.ndarray | None = None,
        on_canvas: float = 0.0,
        reading: ReadingOptions = ReadingOptions(),
        group: PlanarGroup = C4,
    ) -> None:
        self.reading, self.group = reading, group
        self.files, self.weights = files, weights
        self.turns = np.zeros(len(files), np.int64) if turns is None else turns
        self.poses = np.zeros(len(files), np.int64) if poses is None else poses
        self.batch_size, self.shapes = batch_size, shapes
        self.min_scale, self.on_canvas = min_scale, on_canvas
        self.image_format, self.seed = image_format, seed

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        info = get_worker_info()
        rng = np.random.default_rng((self.seed, info.id if info else 0))
        if info:
            cv2.setNumThreads(0)  # the workers are the threads
        while True:
            shape = self.shapes[int(rng.integers(len(self.shapes)))]
            chosen = rng.choice(len(self.files), size=self.batch_size, p=self.weights)
            try:
                batch = [self._load(index, shape, rng) for index in chosen]
            except InputError as error:
                if info is None:
                    raise
                batch = [bad_example(error)]
            yield batch

    def upright(self, index: int) -> np.ndarray:
        """Read a photograph and bring it upright: H x W x 3 uint8."""
        image = read_image(self.files[index], self.image_format, self.reading)
        return turn_image(image, -int(self.poses[index]) % 4)

    def _load(self, index: int, shape: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        file, turns = self.files[index], int(self.turns[index])
        shape = turned_size(*shape, turns)  # so that the turned view has the batch's shape
        image = self.upright(index)
        view = augment(
            image, shape, rng, self.min_scale, self.on_canvas, flips=not self.group.mirrors
        )
        view = turn_image(view, turns)
        if self.group.is_exact:
            return {"file_name": file, "image": to_chw(view)}
        turn, pose = draw_turn(self.group, rng)
        view = turn_image(
            _tilt(turn_image(view, Turn(mirrored=turn.mirrored)), turn.tilt), turn.quarters
        )
        return {"file_name": file, "image": to_chw(view), **pose}


def draw_turn(group: PlanarGroup, rng: np.random.Generator) -> tuple[Turn, dict[str, Any]]:
    """Draw a random element of a group.

    Returns:
        (turn, what a training example says of it): ``pose`` for a finite group; ``degrees`` and
        ``mirrored`` for a continuous one.
    """
    if group.elements is not None:
        turn = group.elements[int(rng.integers(len(group.elements)))]
        return turn, {"pose": turn}
    turn = Turn.by(float(rng.uniform(0, 360)), group.mirrors and bool(rng.random() < 0.5))
    return turn, {"degrees": turn.degrees, "mirrored": turn.mirrored}


def build_photo_loader(stream: PhotoStream, num_workers: int) -> RaisingLoader:
    """Build a loader of lists of detectron2-style dicts with ``image`` (3, h, w) uint8.

    An unreadable photograph is an :class:`InputError` that names it, with workers as without.
    """
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        prefetch_factor=4 if num_workers else None,
    )
    return RaisingLoader(loader)
