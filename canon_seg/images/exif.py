r"""Edit a block of EXIF data, which has the form of a TIFF file, in place: nothing else moves.

Camera makers keep data of their own in it, with offsets that only hold while nothing moves. So
values are changed where they lie, and what is longer than before is put at the end. A block is what
follows ``Exif\0\0`` in a JPEG file, the chunk ``eXIf`` of a PNG or ``EXIF`` of a WebP file, or a
whole TIFF file.
"""

import re
import struct
from dataclasses import dataclass

from canon_seg.core.turn import Turn, compose

ORIENTATIONS = {
    1: Turn(0),
    2: Turn(0, mirrored=True),
    3: Turn(2),
    4: Turn(2, mirrored=True),
    5: Turn(1, mirrored=True),
    6: Turn(3),
    7: Turn(3, mirrored=True),
    8: Turn(1),
}
"""What each value of the orientation tag asks to be done with the stored pixels."""

ORIENTATION = 0x0112
_WIDTH, _HEIGHT, _EXIF_IFD = 0xA002, 0xA003, 0x8769
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4
_EMPTY = b"II*\0\x08\0\0\0" + bytes(6)  # no entry, and no second directory
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"']))([1-8])")


@dataclass(frozen=True)
class _Directory:
    """Say where the entries of a directory lie: positions by tag, and that of the next one's."""

    entries: dict[int, int]
    start: int
    next_at: int


def orientation_for(turn: Turn) -> int:
    """Return the value of the orientation tag that asks for an exact turn.

    Raises:
        ValueError: for a turn with a tilt.
    """
    for value, meant in ORIENTATIONS.items():
        if meant == turn:
            return value
    raise ValueError(f"no orientation tag asks for {turn}")


def get_orientation(block: bytes) -> int:
    """Return the value of the orientation tag in an EXIF block; 1 where there is none.

    Raises:
        ValueError: if the block is broken.
    """
    order, first, _ = _directories(block)
    place = first.entries.get(ORIENTATION)
    return 1 if place is None else _get(block, order, place)


def set_orientation(block: bytes, value: int) -> bytes:
    """Set the orientation of the image in an EXIF block, adding the tag where there is none.

    Args:
        block: EXIF data; empty for none yet.
        value: 1 to 8.

    Returns:
        the new block.

    Raises:
        ValueError: if the block is broken.
    """
    data = bytearray(block or _EMPTY)
    order, first, _ = _directories(data)
    if ORIENTATION in first.entries:
        _set(data, order, first.entries[ORIENTATION], value)
        return bytes(data)
    # A new first directory at the end; the old one stays where it is, unused.
    old = bytes(data[first.start + 2 : first.next_at + 4])
    entry = struct.pack(f"{order}HHIHH", ORIENTATION, _SHORT, 1, value, 0)
    place = 12 * sum(tag < ORIENTATION for tag in first.entries)
    data += bytes(len(data) % 2)
    struct.pack_into(f"{order}I", data, 4, len(data))
    data += struct.pack(f"{order}H", len(old[:-4]) // 12 + 1) + old[:place] + entry + old[place:]
    return bytes(data)


def remove_orientation(block: bytes, width: int, height: int) -> bytes:
    """Say in an EXIF block that pixels lie as they are seen, of the image and of its thumbnail.

    Args:
        block: EXIF data.
        width, height: of the image now, in pixels: set where the block names them.

    Raises:
        ValueError: if the block is broken.
    """
    data = bytearray(block)
    order, first, second = _directories(data)
    for directory in (first, second):
        if directory and ORIENTATION in directory.entries:
            _set(data, order, directory.entries[ORIENTATION], 1)
    if _EXIF_IFD in first.entries:
        inner = _directory(data, order, _get(data, order, first.entries[_EXIF_IFD]))
        for tag, value in ((_WIDTH, width), (_HEIGHT, height)):
            if tag in inner.entries:
                _set(data, order, inner.entries[tag], value)
    return bytes(data)


def turn_thumbnail_tag(block: bytes, turn: Turn) -> bytes:
    """Turn the thumbnail along by its own orientation tag, where it has one.

    Without one of its own, that of the image holds for it.

    Args:
        block: EXIF data.
        turn: that the image as it is seen gets, by index.

    Raises:
        ValueError: if the block is broken.
    """
    data = bytearray(block)
    order, _, second = _directories(data)
    if second and ORIENTATION in second.entries:
        place = second.entries[ORIENTATION]
        _set(data, order, place, turned_orientation(_get(data, order, place), turn))
    return bytes(data)


def turned_orientation(value: int, turn: Turn) -> int:
    """Return the orientation tag for an image with the tag ``value`` that is turned as seen."""
    return orientation_for(compose(ORIENTATIONS.get(value, ORIENTATIONS[1]), turn))


def find_thumbnail(block: bytes) -> "tuple[bytes, int | None] | None":
    """Find the JPEG thumbnail in an EXIF block, and its own orientation tag if it has one.

    Returns:
        (JPEG file, value of the tag or None), or None without a thumbnail.

    Raises:
        ValueError: if the block is broken.
    """
    order, _, second = _directories(block)
    if not second or not {_THUMBNAIL, _THUMBNAIL_LENGTH} <= second.entries.keys():
        return None
    start = _get(block, order, second.entries[_THUMBNAIL])
    length = _get(block, order, second.entries[_THUMBNAIL_LENGTH])
    thumbnail = bytes(block[start : start + length])
    if not length or len(thumbnail) != length:
        return None
    tag = second.entries.get(ORIENTATION)
    return thumbnail, None if tag is None else _get(block, order, tag)


def replace_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    """Put another JPEG thumbnail in the place of the one that an EXIF block has.

    Raises:
        ValueError: if the block is broken or has none.
    """
    if find_thumbnail(block) is None:
        raise ValueError("there is no thumbnail")
    data = bytearray(block)
    order, _, second = _directories(data)
    assert second is not None  # noqa: S101 - there is a thumbnail
    start_at, length_at = (second.entries[tag] for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH))
    start, length = _get(data, order, start_at), _get(data, order, length_at)
    if start + length == len(data):
        data[start:] = thumbnail
    elif len(thumbnail) <= length:
        data[start : start + length] = thumbnail + bytes(length - len(thumbnail))
    else:
        data[start : start + length] = bytes(length)
        _set(data, order, start_at, len(data))
        data += thumbnail
    _set(data, order, length_at, len(thumbnail))
    return bytes(data)


def remove_thumbnail(block: bytes) -> bytes:
    """Take the thumbnail's directory out of the chain of an EXIF block; no byte moves.

    Raises:
        ValueError: if the block is broken.
    """
    data = bytearray(block)
    order, first, _ = _directories(data)
    struct.pack_into(f"{order}I", data, first.next_at, 0)
    return bytes(data)


def set_xmp_orientation(packet: bytes, value: int) -> bytes:
    """Set the orientation in an XMP packet that states one; its length stays.

    Args:
        packet: XMP data, uncompressed.
        value: 1 to 8.
    """
    return _XMP_ORIENTATION.sub(rb"\g<1>%d" % value, packet)


def _directories(block: "bytes | bytearray") -> "tuple[str, _Directory, _Directory | None]":
    """Return the byte order, the first directory, and the second, of the thumbnail, if any."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        raise ValueError("the EXIF data do not begin as such")
    first = _directory(block, order, _unpack(block, order, "I", 4))
    start = _unpack(block, order, "I", first.next_at)
    try:
        second = _directory(block, order, start) if start else None
    except ValueError:  # it is of the thumbnail only: viewers ignore it likewise
        second = None
    return order, first, second


def _directory(block: "bytes | bytearray", order: str, start: int) -> _Directory:
    count = _unpack(block, order, "H", start)
    places = [start + 2 + 12 * index for index in range(count)]
    entries = {_unpack(block, order, "H", place): place for place in reversed(places)}
    next_at = start + 2 + 12 * count
    _unpack(block, order, "I", next_at)
    return _Directory(entries, start, next_at)


def _get(block: "bytes | bytearray", order: str, place: int) -> int:
    """Return the one number of the entry at a position."""
    kind = _unpack(block, order, "H", place + 2)
    return _unpack(block, order, "H" if kind == _SHORT else "I", place + 8)


def _set(block: bytearray, order: str, place: int, value: int) -> None:
    kind = _unpack(block, order, "H", place + 2)
    if kind not in (_SHORT, _LONG) or _unpack(block, order, "I", place + 4) != 1:
        raise ValueError(f"an entry of the EXIF data has the unknown type {kind}")
    struct.pack_into(order + ("H" if kind == _SHORT else "I"), block, place + 8, value)


def _unpack(block: "bytes | bytearray", order: str, code: str, place: int) -> int:
    try:
        value: int = struct.unpack_from(order + code, block, place)[0]
    except struct.error:
        raise ValueError("the EXIF data are cut short") from None
    return value
