"""Read files that say which way photographs lie, written by a scorer or by hand."""

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from canon_seg.core.group import C4, PlanarGroup, elements_of
from canon_seg.errors import InputError
from canon_seg.io.names import as_unicode

DEGREES = (0, 90, 180, 270)


@dataclass(frozen=True)
class PosedPhoto:
    """Say which way one photograph lies.

    Attributes:
        file: its path.
        turns: quarter turns counterclockwise by which the upright photograph was turned, 0..3.
        probability: how sure that is, 0..1.
    """

    file: str
    turns: int
    probability: float


def pose_entry(file: str, probabilities: "list[float]", group: PlanarGroup = C4) -> dict[str, Any]:
    """Return the entry of a photograph in a pose file.

    Args:
        file: path below the folder of the photographs.
        probabilities: of each element of the group, in its order.
        group: finite one of the poses.

    Returns:
        dict that JSON can hold: ``file``, ``probabilities``, ``degrees`` (the likeliest pose:
        degrees counterclockwise by which the upright photograph was turned), and for a group with
        mirrors ``mirrored`` (whether left and right were exchanged before that).
    """
    likeliest = max(range(len(probabilities)), key=probabilities.__getitem__)
    turn = elements_of(group)[likeliest]
    degrees = DEGREES[turn.quarters] if turn.exact else turn.degrees
    entry = {"file": file, "probabilities": probabilities, "degrees": degrees}
    return {**entry, "mirrored": turn.mirrored} if group.mirrors else entry


def read_poses(path: str, folder: str, key: str) -> list[PosedPhoto]:
    """Read a pose file.

    Args:
        path: JSON file: a list of entries as of :func:`pose_entry`. ``probabilities`` may be left
            out of what is sure, ``degrees`` of what is the likeliest.
        folder: that the files are in.
        key: config key or option that the path came from, for messages.

    Returns:
        one for each entry, at least one; ``file`` begins with ``folder``.

    Raises:
        InputError: naming the key, the file, and what is wrong in it.
    """
    name = f"{key}: {path}"
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); give a pose file") from error
    except (ValueError, RecursionError) as error:  # the second of lists within lists
        raise InputError(f"{name}: is no JSON file ({error}); write it again") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f"{name}: is no list of photographs; give what tools/label_poses.py wrote, or "
            "tools/eval_pose.py with --details"
        )
    photos = [_photo(entry, folder, f"{name}, entry {n}") for n, entry in enumerate(entries, 1)]
    photos = _found(photos, folder)
    missing = [photo.file for photo in photos if not Path(photo.file).is_file()]
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of {len(photos)} photographs are not in {folder}, such as "
            f"{os.path.relpath(missing[0], folder)}; give the folder that the file was made of, or "
            "label these photographs"
        )
    twice = len(photos) - len({photo.file for photo in photos})
    if twice:
        raise InputError(f"{name}: {twice} photographs are there twice; leave one of each")
    return photos


def _found(photos: list[PosedPhoto], folder: str) -> list[PosedPhoto]:
    """Return the same with the files whose names are no UTF-8: JSON has escape codes for these."""
    if all(Path(photo.file).is_file() for photo in photos):
        return photos
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    odd = {str(Path(folder, as_unicode(str(f.relative_to(folder))))): str(f) for f in files}
    return [
        photo
        if Path(photo.file).is_file()
        else replace(photo, file=odd.get(photo.file, photo.file))
        for photo in photos
    ]


def _photo(entry: Any, folder: str, name: str) -> PosedPhoto:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise InputError(f"{name}: has no file; give the path of a photograph below {folder}")
    name = f"{name} ({entry['file']})"
    probabilities, degrees = entry.get("probabilities"), entry.get("degrees")
    if probabilities is not None and not _are_probabilities(probabilities):
        raise InputError(
            f"{name}: probabilities are {probabilities}; give {len(DEGREES)} numbers that sum to "
            "1, one for each quarter turn"
        )
    if degrees is None:
        if probabilities is None:
            raise InputError(f"{name}: has neither degrees nor probabilities; give degrees")
        degrees = pose_entry("", probabilities)["degrees"]
    if isinstance(degrees, bool) or degrees not in DEGREES:
        raise InputError(f"{name}: degrees are {degrees!r}; give 0, 90, 180 or 270")
    if entry.get("mirrored"):
        raise InputError(
            f"{name}: is mirrored, and photographs are trained on as they are; leave it out"
        )
    turns = DEGREES.index(degrees)
    probability = 1.0 if probabilities is None else float(probabilities[turns])
    return PosedPhoto(str(Path(folder, entry["file"])), turns, probability)


def _are_probabilities(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(DEGREES)
        and all(isinstance(value, int | float) and value >= 0 for value in values)
        and abs(math.fsum(values) - 1) < 1e-3
    )
