"""Keep a sweep's finished images on disk, to go on after a kill and to score one by one.

Every process that takes part appends to a file of its own in one folder, a line for each image::

    {"image_id": 11, "facts": {...}, "sizes": [2, 310], "views": [[], [{...}, {...}]]}

``sizes`` are the lengths of the views in characters, so that one view of all images can be read
without the others.
"""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch

from canon_seg.d2.versions import versions
from canon_seg.errors import InputError
from canon_seg.io.files import check_output_dir, write_atomically, write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_VIEWS = b', "views": ['


@dataclass(frozen=True)
class _Line:
    path: Path
    start: int
    views_start: int
    end: int
    sizes: tuple
    facts: dict


class Records:
    """Keep the folder of an unfinished sweep.

    Args:
        folder: path; created, and filled with files of names of its own.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._file = self._lock = None

    def is_unfinished(self):
        """Return whether an earlier sweep left finished images here."""
        return self._header.is_file() and any(self.folder.glob("*.jsonl"))

    def begin(self, header, resume):
        """Make the folder ready; in one process only, before any other call.

        Args:
            header: flat dict that JSON can hold: all that the results depend on.
            resume: keep the finished images of an earlier sweep with the same header; otherwise
                they are removed.

        Raises:
            InputError: if the earlier sweep had another header, the folder cannot be written, or
                another sweep is at work in it.
        """
        header = json.loads(json.dumps(header))  # tuples become lists
        self._take_lock()
        try:
            self._begin(header, resume)
        except InputError:
            self._free_lock()
            raise

    def _begin(self, header, resume):
        if resume and self._header.is_file():
            earlier = self._read_header()
            keys = sorted(key for key in {*earlier, *header} if earlier.get(key) != header.get(key))
            if keys:
                raise InputError(
                    f"--resume: the unfinished sweep in {self.folder} had another "
                    f"{', '.join(keys)}; give what it was given, or begin anew without --resume"
                )
            return
        self._remove_files()
        write_json(self._header, header)

    def append(self, image_id, facts, views):
        """Add a finished image: it is on the disk when this returns.

        Args:
            image_id: int.
            facts: small dict that JSON can hold.
            views: list of lists of COCO results.
        """
        views = [json.dumps(view, allow_nan=False) for view in views]
        head = {"image_id": image_id, "facts": facts, "sizes": [len(view) for view in views]}
        line = json.dumps(head)[:-1].encode() + _VIEWS + ", ".join(views).encode() + b"]}\n"
        try:
            if self._file is None:
                path = self.folder / f"{secrets.token_hex(8)}.jsonl"
                self._file = path.open("xb", buffering=0)
            _write_whole(self._file, line)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); make room, then go on with "
                "--resume"
            ) from error

    def finished(self):
        """Find the finished images: dict from image id, ascending, to what finds them in the files.

        A last line that was cut off is left out.
        """
        lines = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                start = 0
                for line in file:
                    if line.endswith(b"\n"):
                        image_id, found = _parse(line, path, start)
                        lines.setdefault(image_id, found)
                    start += len(line)
        return dict(sorted(lines.items()))

    def view(self, finished, index):
        """Yield the COCO results of one view, as a list for each image, by ascending image id.

        Args:
            finished: what :meth:`finished` gave.
            index: of the view.
        """
        for line in finished.values():
            with line.path.open("rb") as file:
                file.seek(line.views_start + sum(line.sizes[:index]) + len(", ") * index)
                yield json.loads(file.read(line.sizes[index]))

    def write(self, finished, path):
        """Write the header and all finished images to one file, ordered by image id."""
        with write_atomically(path) as temporary, temporary.open("wb") as merged:
            merged.write(json.dumps(self._read_header()).encode() + b"\n")
            for line in finished.values():
                with line.path.open("rb") as file:
                    file.seek(line.start)
                    merged.write(file.read(line.end - line.start))

    def remove(self):
        """Remove the folder, if nothing else was put into it."""
        self._remove_files()
        if self._lock is not None:
            (self.folder / "lock").unlink(missing_ok=True)
        self._free_lock()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _remove_files(self):
        if self._file is not None:
            self._file.close()
            self._file = None
        for path in [self._header, *self.folder.glob("*.jsonl")]:
            path.unlink(missing_ok=True)

    def _take_lock(self):
        """Make sure that no other sweep of this machine uses the folder; its end gives it free."""
        check_output_dir(self.folder)
        if fcntl is None or self._lock is not None:
            return
        lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise InputError(
                f"{self.folder}: another sweep is at work there; wait for its end, or give another "
                "--output"
            ) from error
        except OSError:  # a file system without locks
            lock.close()
            return
        self._lock = lock

    def _free_lock(self):
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read_header(self):
        try:
            return json.loads(self._header.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{self._header}: is damaged ({error}); begin anew without --resume"
            ) from error

    @property
    def _header(self):
        return self.folder / "header.json"


def _write_whole(file, line):
    """Append a line to an unbuffered file and see it to the disk, or leave the file as it was."""
    start, rest = file.tell(), memoryview(line)
    try:
        while rest:  # a write may take a part, where room is short
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(start)
        file.seek(start)
        raise


def _parse(line, path, start):
    try:
        split = line.index(_VIEWS)
        head = json.loads(line[:split] + b"}")
        length = sum(head["sizes"]) + len(", ") * max(0, len(head["sizes"]) - 1) + len("]}\n")
        if split + len(_VIEWS) + length != len(line):
            raise ValueError("its views have other lengths than it says")
        return head["image_id"], _Line(
            path=path,
            start=start,
            views_start=start + split + len(_VIEWS),
            end=start + len(line),
            sizes=tuple(head["sizes"]),
            facts=head["facts"],
        )
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is damaged at byte {start} ({error}); remove it to evaluate its images again"
        ) from error


def describe_sweep(cfg, models, dataset, images_dir, prompts, views):
    """Describe what the results of a sweep depend on, as :class:`Records` compares it.

    Args:
        cfg: config, of which the keys count that have to do with evaluation.
        models: dict from mode to a function from the true pose to the model; the weights count,
            wherever they came from.
        dataset, images_dir, prompts: as :func:`canon_seg.evaluation.sweep.run_sweep` takes them.
            Of the image files the sizes count.
        views: list of :class:`canon_seg.evaluation.views.View`.

    Returns:
        flat dict.
    """
    files = [(Path(images_dir) / image["file_name"]).stat().st_size for image in dataset["images"]]
    boxes = (
        []
        if prompts is None
        else [
            (
                image_id,
                own.boxes.tolist(),
                own.classes.tolist(),
                None if own.scores is None else own.scores.tolist(),
            )
            for image_id, own in prompts.items()
        ]
    )
    return {
        **{
            key: value
            for section in ("MODEL", "INPUT", "TEST")
            for key, value in _flat(cfg[section], section)
            if key not in ("MODEL.CANONICALIZER.CACHE", "INPUT.MAX_PIXELS")  # change no result
        },
        "--threads": torch.get_num_threads(),
        "versions": list(versions().values()),
        "data set": _digest([json.dumps([dataset, files]).encode()]),
        "prompts": _digest([json.dumps(boxes).encode()]),
        "weights": _digest(_weights(model_for(0) for model_for in models.values())),
        "modes": list(models),
        "angles": [view.label for view in views],
        "canvas": sorted({view.canvas for view in views}),
        "tight boxes": sorted({view.tight_boxes for view in views}),
    }


def _flat(node, name):
    if not isinstance(node, dict):
        return [(name, node)]
    return [item for key, value in node.items() for item in _flat(value, f"{name}.{key}")]


def _weights(models):
    seen = set()  # most of the tensors are shared between the models
    for model in models:
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                yield name.encode()
                yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _digest(parts):
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
