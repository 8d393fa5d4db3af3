"""Quarter turns of COCO run-length encoded masks, and from polygons to such masks.

Polygons are rasterised once, upright, by pycocotools; the raster is then turned by index. Turning
the polygons first would change pixels.
"""

import operator

import numpy as np
from pycocotools import mask as coco_mask

from canon_seg.errors import InputError
from canon_seg.geometry.arrays import turn_maps


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
    turned = encode_mask(turn_maps(decode_rle(rle), turns))
    return with_str_counts(turned) if isinstance(rle["counts"], str) else turned


def annotation_to_rle(segmentation, height, width):
    """The mask of a COCO annotation as a compressed RLE with bytes counts.

    Args:
        segmentation: list of polygons (flat x, y lists; their union counts), or RLE of any kind.
        height, width: size of the annotated image.

    Raises:
        InputError: if it is malformed, empty, or of another size than the image.
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
        if mask.shape != (height, width):
            raise InputError(
                f"RLE of size {list(mask.shape)} in an image of height {height} and width "
                f"{width}: the annotation belongs to another image, or the sizes are swapped"
            )
        return encode_mask(mask)
    polygons = [polygon.tolist() for polygon in check_polygons(segmentation)]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def check_polygons(polygons):
    """COCO polygons as a list of flat float64 arrays, or :class:`InputError` if they are not."""
    if not isinstance(polygons, (list, tuple)) or len(polygons) == 0:
        raise InputError(
            "segmentation must be an RLE or a non-empty list of polygons, "
            f"got {type(polygons).__name__} {str(polygons)[:40]}"
        )
    return [_check_polygon(polygon) for polygon in polygons]


def decode_rle(rle):
    """The mask of a COCO RLE of any kind: uint8 array (height, width) of 0 and 1.

    Does what ``pycocotools.mask.decode`` does, but checks that the runs fill the mask, where
    pycocotools reads or leaves whatever is in memory.

    Raises:
        InputError: if the RLE is malformed.
    """
    try:
        height, width = (operator.index(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, (str, bytes)):
            runs = _decompress(counts.encode() if isinstance(counts, str) else counts)
        else:
            runs = np.asarray(counts, dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"malformed RLE ({type(error).__name__}: {error}): expected "
            '{"size": [height, width], "counts": a compressed string or a list of run lengths}'
        ) from error
    area = height * width
    in_range = runs.ndim == 1 and ((0 <= runs) & (runs <= area)).all()
    if min(height, width) < 0 or not in_range or runs.sum() != area:
        raise InputError(
            f"malformed RLE: the runs do not fill a mask of height {height} and width {width}; "
            "the counts are damaged or belong to another size"
        )
    values = (np.arange(len(runs)) % 2).astype(np.uint8)  # runs alternate, zeros first
    return np.repeat(values, runs).reshape(width, height).T  # column by column


def encode_mask(mask):
    """The compressed RLE (bytes counts) of a (height, width) numpy mask; non-zero is inside."""
    return coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))


def with_str_counts(rle):
    """The same compressed RLE with str counts, as JSON needs them."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


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


def _decompress(counts):
    """Run lengths of compressed COCO counts (bytes).

    A number is written in characters of 5 bits, lowest first, from "0" upwards; 32 means that
    more follow, and the highest bit of the last is the sign. From the fourth number on, it is
    the difference to the run two before.
    """
    runs = []
    value = shift = 0
    for char in counts:
        bits = char - ord("0")
        if not 0 <= bits < 64:
            raise ValueError(f"character {chr(char)!r} in the counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the counts end inside a number")
    return np.asarray(runs, dtype=np.int64)
