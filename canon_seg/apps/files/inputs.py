"""Find the files to work on, and choose what to call their pictures."""

import glob
from pathlib import Path

from canon_seg.apps import photographs
from canon_seg.apps.files.parsing import fit_prompts
from canon_seg.apps.files.video import is_video, video_size
from canon_seg.errors import InputError
from canon_seg.images.folders import EXTENSIONS, warn_of_skipped
from canon_seg.images.reading import ReadingOptions, image_size


def find_inputs(patterns, prompts, reading=ReadingOptions(), recursive=False, leave_out=None):
    """Find images and videos that the prompts fit; return an InputError for each of the others.

    Args:
        patterns: paths of files and folders, and globs; nothing for sample photographs.
        prompts: list of :class:`canon_seg.sam.prompts.Prompts`.
        reading: how images are read.
        recursive: folders stand for all below them.
        leave_out: a folder whose files do not count then, that of the results.

    Returns:
        (paths, errors): two lists. Files are opened, not read to their end.
    """
    paths = []
    if patterns:
        found, errors = expand(patterns, recursive, leave_out)
    else:
        found, errors = sample_photographs(), []
    for path in found:
        try:
            size = video_size(path) if is_video(path) else image_size(path, reading)
            fit_prompts(prompts, path, *size)
        except InputError as error:
            errors.append(error)
        else:
            paths.append(path)
    return paths, errors


def expand(patterns, recursive=False, leave_out=None):
    """List paths of files in order, each once: those of globs, images and videos of folders.

    Args: as :func:`find_inputs`.

    What is no file stays as a path, for whoever opens it to complain.

    Returns:
        (paths, errors): an InputError for each folder without images and videos.
    """
    paths, errors = [], []
    for pattern in patterns:
        is_there = Path(pattern).exists()
        # Path.glob takes no absolute patterns.
        found = [] if is_there else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        for path in map(Path, found or [pattern]):
            try:
                paths += _files_in(path, recursive, leave_out) if path.is_dir() else [path]
            except InputError as error:
                errors.append(error)
    unique = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    return list(unique.values()), errors


def _files_in(folder, recursive, leave_out):
    outside = leave_out and leave_out.resolve()
    found = sorted(
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and not (recursive and outside in path.resolve().parents)
    )
    paths = [path for path in found if path.suffix.lower() in EXTENSIONS or is_video(path)]
    if not paths:
        advice = "" if recursive else "; --recursive looks below it, too"
        raise InputError(f"{folder}: holds no image or video by name{advice}")
    warn_of_skipped(str(folder), [path.name for path in found if path not in set(paths)])
    return paths


def places_below(patterns, paths):
    """Find the folder of each path below the folder that was given for it.

    Args:
        patterns: as given.
        paths: of files.

    Returns:
        dict from path to relative path; "." for files that were given themselves.
    """
    folders = [Path(pattern) for pattern in patterns if Path(pattern).is_dir()]
    places = {}
    for path in paths:
        above = [folder for folder in folders if folder in path.parents]
        places[path] = path.parent.relative_to(above[0]) if above else Path()
    return places


def sample_photographs():
    """List the photographs in scikit-image's own files: nothing is downloaded."""
    paths = [photograph.path for photograph in photographs.sample_photographs()]
    if not paths:
        raise InputError(
            "--input is missing, and scikit-image with its photographs is not installed: name an "
            "image, or pip install scikit-image"
        )
    return paths


def output_names(paths, output, places=None):
    """Choose a file name for each path's picture or video: its stem, numbered where that is taken.

    Neither the pictures with other endings nor the inputs themselves may overwrite another.

    Args:
        paths: of the inputs.
        output: folder of the pictures.
        places: folder below it for each path, see :func:`places_below`; None for ``output`` itself.

    Returns:
        names with slashes, below ``output``.
    """
    taken = {path.resolve() for path in paths}
    names = []
    for path in paths:
        place = (places or {}).get(path, Path())
        ends = [".mp4"] if is_video(path) else [".png", "_turns.png", "_upright.png", "_objects"]
        number, stem = 1, path.stem
        while taken & (files := {(output / place / f"{stem}{end}").resolve() for end in ends}):
            number += 1
            stem = f"{path.stem}_{number}"
        taken |= files
        names.append((place / (stem + ends[0])).as_posix())
    return names
