"""Turn COCO run-length encoded masks by quarter turns, and make such masks of polygons.

Polygons are rasterised once, upright, by pycocotools; the raster is then turned by index. Turning
the polygons first would change pixels.
"""

import operator

import numpy as np
from pycocotools import mask as coco_mask

from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps, turned_size
from canon_seg.images.coordinates import turn_boxes_xywh


def turn_rle(rle, turns):
    """Turn a COCO RLE.

    Args:
        rle: ``{"size": [height, width], "counts": ...}`` with compressed counts (bytes or str) or
            uncompressed counts (list of run lengths).
        turns: quarter turns counterclockwise.

    Returns:
        A compressed RLE of the turned size. Its counts are str where the input's were str (as in
        JSON files), bytes otherwise.

    Raises:
        InputError: if the RLE is malformed.
    """
    height, width, runs = _checked_runs(rle)
    mask, left, top = _window_of_runs(runs, height)
    box = np.array([left, top, mask.shape[1], mask.shape[0]])
    left, top = turn_boxes_xywh(box, turns, height, width)[:2]
    turned = encode_window(turn_maps(mask, turns), left, top, *turned_size(height, width, turns))
    return with_str_counts(turned) if isinstance(rle["counts"], str) else turned


def areas_of_rles(rles):
    """Count the pixels of each mask.

    Each is counted by itself: pycocotools 2.0.11 puts the number of masks that it is given into 8
    bits on the way, so that more than 255 raise OverflowError with numpy 2.

    Args:
        rles: list of compressed RLEs.

    Returns:
        list of int, pixels.
    """
    return [int(coco_mask.area(rle)) for rle in rles]


def annotation_to_rle(segmentation, height, width):
    """Return the mask of a COCO annotation as a compressed RLE with bytes counts.

    Args:
        segmentation: list of polygons (flat x, y lists; their union counts), or RLE of any kind.
        height, width: size of the annotated image.

    Raises:
        InputError: if it is malformed, empty, or of another size than the image.
    """
    if isinstance(segmentation, dict):
        return encode_mask(decode_rle_of_image(segmentation, height, width))
    polygons = [polygon.tolist() for polygon in check_polygons(segmentation)]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def check_polygons(polygons):
    """Return COCO polygons as a list of flat float64 arrays, or raise :class:`InputError`."""
    if not isinstance(polygons, (list, tuple)) or len(polygons) == 0:
        raise InputError(
            "segmentation must be an RLE or a non-empty list of polygons, "
            f"got {type(polygons).__name__} {str(polygons)[:40]}"
        )
    return [_check_polygon(polygon) for polygon in polygons]


def decode_rle(rle):
    """Decode a COCO RLE of any kind to a uint8 array (height, width) of 0 and 1.

    Does what ``pycocotools.mask.decode`` does, but checks that the runs fill the mask, where
    pycocotools reads or leaves whatever is in memory.

    Raises:
        InputError: if the RLE is malformed.
    """
    height, width, runs = _checked_runs(rle)
    return _fill(runs).reshape(width, height).T  # column by column


def decode_rle_of_image(rle, height, width):
    """Decode a COCO RLE as :func:`decode_rle` does, and insist on the size of its image.

    Args:
        rle: RLE of any kind.
        height, width: size of the annotated image.

    Raises:
        InputError: if the RLE is malformed or of another size.
    """
    mask = decode_rle(rle)
    if mask.shape != (height, width):
        raise InputError(
            f"RLE of size {list(mask.shape)} in an image of height {height} and width {width}: the "
            "annotation belongs to another image, or the sizes are swapped"
        )
    return mask


def encode_mask(mask):
    """Encode a (height, width) numpy mask, non-zero inside, as a compressed RLE (bytes counts)."""
    return coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))


def encode_window(mask, left, top, height, width):
    """Encode a frame, empty but for a mask in it, as a compressed RLE (bytes counts).

    Does what :func:`encode_mask` does for the whole frame, but scans only the columns of the mask.

    Args:
        mask: (h, w) array; non-zero is inside.
        left, top: of the mask in the frame, in pixels.
        height, width: of the frame.
    """
    columns = np.zeros((mask.shape[1], height), bool)
    columns[:, top : top + mask.shape[0]] = mask.T
    scanned = np.concatenate([[False], columns.ravel(), [False]])
    changes = np.flatnonzero(scanned[1:] != scanned[:-1]) + left * height
    counts = np.diff(changes, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:  # as pycocotools: no empty run at the end
        counts = counts[:-1]
    return coco_mask.frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )


def with_str_counts(rle):
    """Return the same compressed RLE with str counts, as JSON needs them."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def run_lengths(counts: bytes) -> np.ndarray:
    """Decode compressed COCO counts into run lengths.

    A number is written in characters of 5 bits, lowest first, from "0" upwards; 32 means that
    more follow, and the highest bit of the last is the sign. From the fourth number on, it is
    the difference to the run two before.

    Args:
        counts: as pycocotools gives them. Whether they fill a mask is not checked.

    Returns:
        int64 array of run lengths, zeros of the mask first.

    Raises:
        ValueError: if these are no compressed counts.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not ((bits >= 0) & (bits < 64)).all():
        wrong = counts[np.flatnonzero((bits < 0) | (bits >= 64))[0]]
        raise ValueError(f"character {chr(wrong)!r} in the counts")
    if len(bits) == 0:
        return bits
    if bits[-1] & 32:
        raise ValueError("the counts end inside a number")
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("a number in the counts has more than 60 bits")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((bits & 31) << shifts, starts)
    numbers -= np.where(bits[ends] & 16, np.int64(1) << 5 * lengths, 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def _check_polygon(polygon):
    try:
        coords = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"polygon {str(polygon)[:40]} is no list of numbers") from error
    # pycocotools takes four numbers for a box, without a word
    if coords.ndim != 1 or len(coords) < 6 or len(coords) % 2 or not np.isfinite(coords).all():
        raise InputError(
            f"polygon {str(polygon)[:40]} must be a flat list x0, y0, x1, y1, ... "
            "of three or more points with finite coordinates"
        )
    return coords


def _checked_runs(rle):
    """Return (height, width, int64 array of run lengths) of a COCO RLE of any kind."""
    try:
        height, width = (operator.index(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, (str, bytes)):
            runs = run_lengths(counts.encode() if isinstance(counts, str) else counts)
        else:
            runs = np.array([operator.index(count) for count in counts], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"malformed RLE ({type(error).__name__}: {error}): expected "
            '{"size": [height, width], "counts": a compressed string or a list of run lengths}'
        ) from error
    area = height * width
    in_range = runs.ndim == 1 and ((runs >= 0) & (runs <= area)).all()
    if min(height, width) < 0 or not in_range or runs.sum() != area:
        raise InputError(
            f"malformed RLE: the runs do not fill a mask of height {height} and width {width}; "
            "the counts are damaged or belong to another size"
        )
    return height, width, runs


def _fill(runs):
    """Return the flat uint8 array that run lengths stand for: they alternate, zeros first."""
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs)


def _window_of_runs(runs, height):
    """Return a part of a mask that holds all that is set, as (mask h x w, left, top).

    Not always the smallest: where a run goes on in the next column, all rows are in it. Most
    objects are small, and only their columns are ever filled.
    """
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1  # flat indices of runs of ones
    first, last = first[last >= first], last[last >= first]
    if len(first) == 0:
        return np.zeros((0, 0), np.uint8), 0, 0
    left, right = first[0] // height, last[-1] // height + 1
    top, bottom = 0, height
    if (first // height == last // height).all():
        top, bottom = (first % height).min(), (last % height).max() + 1
    changes = np.stack([first, last + 1], axis=1).ravel() - left * height
    runs = np.diff(changes, prepend=0, append=(right - left) * height)
    columns = _fill(runs).reshape(right - left, height)
    return columns[:, top:bottom].T, int(left), int(top)
