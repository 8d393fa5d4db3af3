"""Look at all image files before work begins on the first: in parallel, and each once for good."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from canon_seg.errors import InputError, warn
from canon_seg.images.reading import ImageFacts, ReadingOptions, image_facts, pixel_limit
from canon_seg.io.files import write_json

_MEANINGS = {
    0: "unreadable",
    2: "2 (mirrored)",
    3: "3 (turned by 180 degrees)",
    4: "4 (mirrored, turned by 180 degrees)",
    5: "5 (mirrored, turned by 90 degrees)",
    6: "6 (turned by 90 degrees)",
    7: "7 (mirrored, turned by 90 degrees)",
    8: "8 (turned by 90 degrees)",
}


def inspect_images(
    files: Sequence[str],
    options: ReadingOptions = ReadingOptions(),
    *,
    decode: bool = True,
    progress: bool = True,
    cache: str = "",
    num_threads: int = 4,
) -> list[ImageFacts | InputError]:
    """Open image files in parallel and say what each one is, or what is wrong with it.

    Args:
        files: paths.
        options: the most pixels.
        decode: whether to decode all pixels, which is what finds files that are cut short;
            otherwise only the headers are read.
        progress: whether to show a progress bar.
        cache: path of a JSON file that remembers, by path, size and time of the last change, which
            files were decoded whole; these are not opened again. It is made where there is none;
            "" for no such file. Only used with ``decode``.
        num_threads: files read at a time.

    Returns:
        For each file its :class:`canon_seg.images.reading.ImageFacts`, or the
        :class:`canon_seg.errors.InputError` that names it.
    """
    remembered = CheckedImages(cache) if decode else CheckedImages("")
    most = pixel_limit(options)

    def inspect(file: str) -> ImageFacts | InputError:
        known = remembered.find(file)
        if known is not None and known.height * known.width <= most:
            return known
        try:
            facts = image_facts(file, options, decode)
        except InputError as error:
            return error
        remembered.add(file, facts)
        return facts

    try:
        with ThreadPoolExecutor(num_threads) as pool:
            return list(
                tqdm(
                    pool.map(inspect, files),
                    total=len(files),
                    desc="checking images",
                    unit="image",
                    disable=not progress,
                )
            )
    finally:
        remembered.write()


def describe_orientations(facts: Iterable[ImageFacts | InputError], exif: bool) -> str | None:
    """Say in one line how many images have which EXIF orientation, or return None if none has any.

    Args:
        facts: of :func:`inspect_images`.
        exif: whether the orientations are applied.
    """
    known = [fact for fact in facts if isinstance(fact, ImageFacts)]
    counts = Counter(fact.orientation for fact in known if fact.orientation != 1)
    if not counts:
        return None
    listed = ", ".join(f"{_MEANINGS[key]} in {count}" for key, count in sorted(counts.items()))
    done = (
        "applied; for annotations that were made on the raw frames give INPUT.EXIF False"
        if exif
        else "not applied (INPUT.EXIF False)"
    )
    return f"EXIF orientation of {len(known)} images: {listed}; {done}"


class CheckedImages:
    """Remember which image files were decoded whole, in a JSON file.

    Args:
        path: of the file, "~" for the user's home; "" remembers nothing. A file that cannot be read
            or written costs time only, and is an :class:`canon_seg.errors.InputWarning`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser() if path else None
        self._found = self._read()
        self._added: dict[str, list[int]] = {}

    def find(self, file: str) -> ImageFacts | None:
        """Return the facts of a file that was added and has not changed since, or None."""
        known = self._found.get(os.path.abspath(file))  # noqa: PTH100 - no links are followed
        if known is None or known[:2] != _state(file):
            return None
        return ImageFacts(*known[2:])

    def add(self, file: str, facts: ImageFacts) -> None:
        """Remember a file that was decoded whole."""
        state = _state(file)
        if self.path is not None and state is not None:
            entry = [*state, facts.height, facts.width, facts.orientation]
            self._added[os.path.abspath(file)] = entry  # noqa: PTH100

    def write(self) -> None:
        """Write the file, if anything was added."""
        if self.path is None or not self._added:
            return
        try:
            # What another process has added meanwhile is kept, and files that are gone are not.
            entries = {**self._read(), **self._added}
            kept = {file: entry for file, entry in entries.items() if Path(file).exists()}
            write_json(self.path, kept, indent=None)
        except InputError as error:
            warn(f"DATASETS.CHECK_CACHE: {error}")

    def _read(self) -> dict[str, list[int]]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            found = json.loads(self.path.read_bytes())
            if not isinstance(found, dict) or not all(map(_is_entry, found.values())):
                raise ValueError("it holds something else")
        except (OSError, ValueError) as error:
            warn(
                f"DATASETS.CHECK_CACHE: {self.path} is of no use ({error}); all images are checked"
            )
            return {}
        return found


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 5 and all(isinstance(n, int) for n in entry)


def _state(file: str) -> list[int] | None:
    """Return what tells whether a file has changed: its bytes, and when it was written."""
    try:
        found = Path(file).stat()
    except OSError:
        return None  # opening it will say why
    return [found.st_size, found.st_mtime_ns]
