"""Set the photographs of folders upright, in a folder of their own."""

import csv
import glob
import io
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn, inverse
from canon_seg.errors import InputError
from canon_seg.images.file_levelling import level_file
from canon_seg.images.file_turning import turn_file
from canon_seg.images.folders import list_photos
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.io.files import write_atomically, write_text
from canon_seg.io.names import printable
from canon_seg.predictors.upright import quarter_probabilities

JOURNAL = ".canon-seg-upright.jsonl"
"""In the output folder: a line for the settings, then one for each photograph that is finished."""

TURNED, UPRIGHT, UNCERTAIN, FAILED = RESULTS = ("turned", "upright", "uncertain", "failed")

FindPose = Callable[[np.ndarray], Pose]
"""Function from an (H, W, 3) RGB image to its pose; its policy is "keep" where that is unclear."""


@dataclass(frozen=True)
class Photo:
    """Name a photograph and its place in the output folder.

    Attributes:
        source: path of the file.
        name: its path within the output folder.
    """

    source: Path
    name: Path


@dataclass(frozen=True)
class Row:
    """Hold what became of one photograph.

    Attributes:
        file: its path within the output folder, with slashes.
        result: "turned"; "upright"; "uncertain": left as it was; "failed": left too, since it
            cannot be read or turned.
        degrees: counterclockwise turn that sets it upright, 0, 90, 180 or 270; of an uncertain one
            the likeliest; None for one that failed before its pose was found.
        probability: of that turn, 0 to 1, or None likewise; with tilts that of all angles within
            45 degrees of it.
        way: how it was turned: "pixels" without loss, "tag", "re-encoded", or "levelled"; else "".
        reason: why it failed, else "".
        tilt: degrees counterclockwise by which it was levelled besides, 0 where it was not; None
            where tilts were not looked for.
    """

    file: str
    result: str
    degrees: "int | None" = None
    probability: "float | None" = None
    way: str = ""
    reason: str = ""
    tilt: "float | None" = None


def find_photos(patterns: Iterable[str], leave_out: Iterable[Path] = ()) -> list[Photo]:
    """Find photographs and choose their places in the output folder.

    Those of a folder keep their places below it; files, and what globs name, go to the top.

    Args:
        patterns: paths of files and folders, and globs.
        leave_out: folders whose photographs do not count, such as that of the results.

    Raises:
        InputError: for what is not there or lies in such a folder itself, and for two photographs
            with one place.
    """
    outside = [path.resolve() for path in leave_out]
    photos: dict[Path, Photo] = {}
    for pattern in patterns:
        # Path.glob takes no absolute patterns.
        found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise InputError(f"{pattern}: there is no such file or folder; check the path")
        for path in map(Path, found):
            if any(folder in (path.resolve(), *path.resolve().parents) for folder in outside):
                raise InputError(f"{path} lies in a folder of the results; give another --output")
            files = (
                [Path(file) for file in list_photos(str(path), "PHOTOS")]
                if path.is_dir()
                else [path]
            )
            for file in files:
                if any(folder in file.resolve().parents for folder in outside):
                    continue
                name = file.relative_to(path) if path.is_dir() else Path(file.name)
                other = photos.setdefault(name, Photo(file, name))
                if other.source.resolve() != file.resolve():
                    raise InputError(
                        f"{other.source} and {file} would both become {name}; give them one after "
                        "the other, with an --output of their own"
                    )
    return list(photos.values())


def decide(
    photo: Photo,
    find_pose: FindPose,
    reading: ReadingOptions = ReadingOptions(),
    canvas: str = "inscribed",
) -> "tuple[Row, bytes | None]":
    """Find the pose of a photograph, and what its file is to be.

    Args:
        photo: the photograph.
        find_pose: see :data:`FindPose`.
        reading: how files are read, with their EXIF orientation.
        canvas: of photographs that are levelled, see
            :func:`canon_seg.images.file_levelling.level_file`.

    Returns:
        (row, contents): None where the file stays as it is.
    """
    name = photo.name.as_posix()
    try:
        pose = find_pose(read_image(photo.source, "RGB", reading))
    except InputError as error:
        return Row(name, FAILED, reason=str(error)), None
    quarters = quarter_probabilities(pose)
    likeliest = int(np.argmax(quarters))
    # A pose of all angles has a tilt, though it be 0.
    tilt = None if len(pose.probabilities) == 4 else pose.to_canonical.tilt
    turn = inverse(replace(Turn(likeliest), tilt=pose.turn.tilt))
    degrees = int(Turn(turn.quarters).degrees)
    row = Row(name, UPRIGHT, degrees, round(float(quarters[likeliest]), 6), tilt=tilt)
    if pose.policy == "keep":
        return replace(row, result=UNCERTAIN), None
    if turn == Turn():
        return row, None
    try:
        data = photo.source.read_bytes()
        if turn.exact:
            turned = turn_file(data, turn, reading.max_pixels)
        else:
            turned = level_file(data, turn, canvas, reading.max_pixels)
    except (InputError, OSError) as error:
        failed = replace(row, result=FAILED, reason=f"{photo.source}: {error}")
        return replace(failed, tilt=tilt and 0.0), None
    return replace(row, result=TURNED, way=turned.way), turned.contents


def set_upright(
    photo: Photo,
    find_pose: FindPose,
    output: Path,
    uncertain: "Path | None" = None,
    reading: ReadingOptions = ReadingOptions(),
    canvas: str = "inscribed",
) -> Row:
    """Write a photograph to the output folder: turned upright, or a copy of the same bytes.

    Args:
        photo: the photograph.
        find_pose: see :data:`FindPose`.
        output: folder to write to.
        uncertain: a further folder for copies of those whose pose is not clear.
        reading, canvas: see :func:`decide`.

    Returns:
        what became of it; "failed" too where another file is in its place.
    """
    row, contents = decide(photo, find_pose, reading, canvas)
    targets = [output / photo.name]
    if uncertain is not None and row.result == UNCERTAIN:
        targets.append(uncertain / photo.name)
    for target in targets:
        try:
            _write(target, photo.source, contents)
        except InputError as error:
            return replace(row, result=FAILED, way="", reason=str(error))
        except OSError as error:
            return replace(row, result=FAILED, way="", reason=f"{photo.source}: {error}")
    return row


def _write(target: Path, source: Path, contents: "bytes | None") -> None:
    wanted = source.read_bytes() if contents is None else contents
    if target.exists():
        if target.is_file() and target.read_bytes() == wanted:
            return
        raise InputError(
            f"{target} is there already, and is another file; nothing is overwritten: move it "
            "away, or give another folder"
        )
    with write_atomically(target) as temporary:
        temporary.write_bytes(wanted)
        shutil.copystat(source, temporary)


class Journal:
    """Remember which photographs are finished, so that a run that was interrupted goes on.

    Args:
        folder: of the results.
        settings: that two runs into one folder must share.

    Raises:
        InputError: if the folder was begun with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self.rows = folder / JOURNAL, {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:  # the last one, cut short
                continue
        if entries and entries[0] != settings:
            both = {**entries[0], **settings}
            changed = [key for key in both if settings.get(key) != entries[0].get(key)]
            raise InputError(
                f"{folder} was begun with another {', '.join(changed)}; give another folder, or "
                "the same again"
            )
        self.rows = {entry["file"]: entry for entry in entries[1:]}
        if not entries:
            write_text(self.path, json.dumps(settings) + "\n")

    def find(self, photo: Photo, folders: Iterable[Path]) -> "Row | None":
        """Return the row of a photograph that is finished and has not changed since."""
        entry = self.rows.get(photo.name.as_posix())
        if entry is None or entry["source"] != _stamp(photo.source):
            return None
        row = Row(**entry["row"])
        wanted = folders if row.result == UNCERTAIN else list(folders)[:1]
        return row if all((folder / photo.name).is_file() for folder in wanted) else None

    def add(self, photo: Photo, row: Row) -> None:
        """Note a photograph as finished; one that failed is tried again by the next run."""
        if row.result == FAILED:
            return
        entry = {"file": row.file, "source": _stamp(photo.source), "row": asdict(row)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def format_row(row: Row) -> str:
    """Format a row of the table of :data:`HEADER`, or, with tilts, of :data:`LEVEL_HEADER`."""
    words = turn_in_words(row.degrees)
    said = {TURNED: words if row.degrees else "levelled", UPRIGHT: "upright", FAILED: "FAILED"}
    said[UNCERTAIN] = "uncertain" if not row.degrees else f"uncertain ({words}?)"
    probability = "" if row.probability is None else f"{row.probability:.3f}"
    last = row.reason or printable(row.file)
    tilt = "" if row.tilt is None else f"{f'{row.tilt:+.1f}' if row.tilt else '':>7}  "
    return f"{said[row.result]:32}  {tilt}{row.way:10}  {probability:>11}  {last}"


HEADER = f"{'turn':32}  {'by':10}  {'probability':>11}  file"
LEVEL_HEADER = f"{'turn':32}  {'tilt, °':>7}  {'by':10}  {'probability':>11}  file"


def turn_in_words(degrees: "int | None") -> str:
    """Say a turn by degrees counterclockwise the shorter way round."""
    if degrees == 270:
        return "90 degrees clockwise"
    return f"{degrees} degrees" + (" counterclockwise" if degrees == 90 else "")


def summarize(rows: Iterable[Row]) -> str:
    """Count what became of photographs, in one line."""
    rows = list(rows)
    counts = {result: sum(row.result == result for row in rows) for result in RESULTS}
    said = {
        "pixels": "in their pixels, without loss",
        "tag": "by their tag",
        "re-encoded": "re-encoded",
        "levelled": "levelled",
    }
    ways = {way: sum(row.way == way for row in rows) for way in said}
    turned = ", ".join(f"{count} {said[way]}" for way, count in ways.items() if count)
    parts = [f"{counts[TURNED]} turned" + (f" ({turned})" if turned else "")]
    parts.append(f"{counts[UPRIGHT]} upright")
    parts.append(f"{counts[UNCERTAIN]} uncertain, left as they were")
    if counts[FAILED]:
        parts.append(f"{counts[FAILED]} failed, left as they were")
    return f"{len(rows)} photographs: " + ", ".join(parts)


FIELDS = ("file", "result", "degrees", "probability", "way", "reason", "tilt")


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the table; it is complete or absent. InputError where it can't be written."""
    file = io.StringIO()
    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(path, file.getvalue())


def check_csv(path: Path) -> None:
    """Raise InputError where another file than a table of ours is at the path."""
    if path.is_dir():
        raise InputError(f"--csv: {path} is a folder; give the name of a file")
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            # Tables of earlier versions have no tilt.
            if file.readline().strip() not in (",".join(FIELDS), ",".join(FIELDS[:-1])):
                raise InputError(
                    f"--csv: {path} is there already, and is another file; give another name"
                )
