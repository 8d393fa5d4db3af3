"""Decode every image that a training can draw before it begins, since hours later is too late."""

import os
import sys

from canon_seg.coco.dataset import listed
from canon_seg.d2.catalog import load_examples
from canon_seg.errors import InputError
from canon_seg.images.checking import describe_orientations, inspect_images
from canon_seg.images.reading import ReadingOptions

MOST_THREADS = 8


def check_training_images(cfg, photos=()):
    """Check all images of a training, unless DATASETS.CHECK_IMAGES is False.

    Args:
        cfg: config.
        photos: paths of photographs, where these are what is trained on; else the sets of
            DATASETS.TRAIN and DATASETS.PASTE are, with the sizes that their annotations say.

    Returns:
        a line about EXIF orientations, or None; see
        :func:`canon_seg.images.checking.describe_orientations`.

    Raises:
        InputError: some are missing, cut short, unreadable or of another size than their
            annotations say; names the first ten and how many there are.
    """
    if not cfg.DATASETS.CHECK_IMAGES:
        return None
    sizes = dict.fromkeys(photos)
    if not photos:
        for example in load_examples(
            [*cfg.DATASETS.TRAIN, *cfg.DATASETS.PASTE], filter_empty=False
        ):
            sizes[example["file_name"]] = example.get("height"), example.get("width")
    options = ReadingOptions.from_config(cfg)
    found = inspect_images(
        list(sizes),
        options,
        cache=cfg.DATASETS.CHECK_CACHE,
        num_threads=min(MOST_THREADS, os.cpu_count() or 1),
    )
    problems = []
    for (file, size), facts in zip(sizes.items(), found, strict=True):
        if isinstance(facts, InputError):
            problems.append(str(facts))
        elif size and None not in size and facts.size(options.exif) != size:
            read = facts.size(options.exif)
            problems.append(
                f"{file}: is {read[0]} x {read[1]} (height x width), but its annotations say "
                f"{size[0]} x {size[1]}"
                + (
                    f"; INPUT.EXIF {not options.exif} would make them agree"
                    if facts.size(not options.exif) == size
                    else ""
                )
            )
    if problems:
        raise InputError(
            f"{len(problems)} of {len(sizes)} training images cannot be used; get them again, or "
            "take them out:" + listed(problems)
        )
    return describe_orientations(found, options.exif)


def check_before_training(cfg, photos=()):
    """Do as :func:`check_training_images`, and say on stderr what is found."""
    line = check_training_images(cfg, photos)
    if line:
        print(line, file=sys.stderr)
