"""Read COCO instance annotations, and check them before anything runs on them."""

import json
import math
from collections import Counter
from pathlib import Path

import pycocotools.mask as mask_util

from canon_seg.coco.boxes import compare_boxes, impossible_box
from canon_seg.coco.masks import run_lengths
from canon_seg.errors import InputError, warn
from canon_seg.images.checking import describe_orientations, inspect_images
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.kinds import describe_contents

_MAX_LISTED = 10


def load_coco(annotations_path, images_dir):
    """Read a COCO instances file and check all that an evaluation or a training relies on.

    pycocotools and Detectron2 check little of it: a polygon of four numbers is drawn as a box, an
    RLE of the wrong size fills a mask with leftovers of the memory, annotations of unknown images
    are dropped, and the rest ends in a KeyError that names no file.

    Completed where something is absent: ``iscrowd`` is 0, ``area`` is the number of pixels of the
    rasterised mask. Ids are kept, whatever integers they are.

    Args:
        annotations_path: str or path of the JSON file.
        images_dir: str or path of the folder that ``file_name`` is relative to. Only its presence
            is checked here; see :func:`check_images`.

    Returns:
        dict of the whole file, with the lists "images", "annotations" and "categories".

    Raises:
        InputError: anything is missing or contradictory; names the file, the ids, what to do.
    """
    path = Path(annotations_path)
    dataset = _read_json(path)
    if not Path(images_dir).is_dir():
        raise InputError(f"{images_dir}: is not a folder; give the folder with the images")

    _check_sections(dataset, path)
    images, annotations = dataset["images"], dataset["annotations"]
    for section in ("images", "annotations", "categories"):
        _check_ids(dataset[section], section, path)
    _raise_problems(path, "categories", map(_category_problem, dataset["categories"]))
    _raise_problems(path, "images", map(_image_entry_problem, images))

    images_by_id = {image["id"]: image for image in images}
    category_ids = {category["id"] for category in dataset["categories"]}
    _raise_problems(
        path,
        "annotations",
        (_annotation_problem(entry, images_by_id, category_ids) for entry in annotations),
    )
    dataset["annotations"] = [
        _completed(entry, images_by_id[entry["image_id"]]) for entry in annotations
    ]
    if differing := compare_boxes(dataset):
        warn(f"{path}: {differing}")
    return dataset


def check_images(
    dataset,
    images_dir,
    progress=True,
    decode=True,
    num_threads=4,
    options=ReadingOptions(),
    cache="",
):
    """Open every image of a data set and compare its size, before hours are spent on the first.

    Args:
        dataset: dict as returned by :func:`load_coco`.
        images_dir: str or path of the folder that ``file_name`` is relative to.
        progress: whether to show a progress bar.
        decode: whether to decode all pixels, which is what finds files that are cut short;
            otherwise only the headers are read.
        num_threads: files read at a time.
        options: :class:`canon_seg.images.reading.ReadingOptions`: how the images will be read.
        cache: see :func:`canon_seg.images.checking.inspect_images`.

    Returns:
        a line about the images that have an EXIF orientation, or None where there are none.

    Raises:
        InputError: some are missing, unreadable or of another size; names the first ten and how
            many there are.
    """
    images = dataset["images"]
    files = [str(Path(images_dir, entry["file_name"])) for entry in images]
    found = inspect_images(
        files,
        options,
        decode=decode,
        progress=progress,
        cache=cache,
        num_threads=num_threads,
    )
    problems = []
    for file, entry, facts in zip(files, images, found, strict=True):
        if isinstance(facts, InputError):
            problems.append(f"{facts}{_separator_advice(images_dir, entry['file_name'])}")
        else:
            size = facts.size(options.exif)
            other = facts.size(not options.exif)
            problems.append(_size_problem(file, size, other, options.exif, entry))
    problems = [problem for problem in problems if problem]
    if problems:
        raise InputError(
            f"{images_dir}: {len(problems)} of {len(images)} images cannot be used:"
            + listed(problems)
        )
    return describe_orientations(found, options.exif)


def without_empty_masks(dataset):
    """Leave out the annotations whose mask has no pixel: outside the image, or of no area.

    Nothing can find these, and whether a turn keeps them would depend on the angle.

    Args:
        dataset: dict as returned by :func:`load_coco`; not changed.

    Returns:
        (dict of the same form, list of the ids of the annotations that are left out).
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    kept, empty = [], []
    for entry in dataset["annotations"]:
        if _mask_area(entry["segmentation"], *sizes[entry["image_id"]]):
            kept.append(entry)
        else:
            empty.append(entry["id"])
    return {**dataset, "annotations": kept}, empty


def describe_empty(ids):
    """Say how many annotations :func:`without_empty_masks` left out, and which.

    Returns:
        list of a line, or of none where there are none.
    """
    if not ids:
        return []
    return [f"instances of empty masks, left out: {len(ids)}{name_annotations(ids)}"]


def name_annotations(ids):
    """Return the first annotation ids in brackets, or nothing where there are none."""
    if not ids:
        return ""
    return f" (annotations {', '.join(map(str, ids[:10]))}{', ...' if len(ids) > 10 else ''})"


def contiguous_ids(dataset):
    """Assign class indices to category ids: in ascending order these become 0, 1, 2, ...

    These are the class indices that detectron2 gives to the categories.

    Args:
        dataset: dict of a COCO instances file.

    Returns:
        dict from category id to index.
    """
    ids = sorted(category["id"] for category in dataset["categories"])
    return {category_id: index for index, category_id in enumerate(ids)}


def _read_json(path):
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such annotation file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; give the JSON file with annotations") from error
    except json.JSONDecodeError as error:
        found = describe_contents(path)
        if found and found[0] != "a JSON text" and not found[0].startswith("empty"):
            raise InputError(f"{path}: is no annotation file but {found[0]}; {found[1]}") from error
        raise InputError(
            f"{path}: is not valid JSON, line {error.lineno}, column {error.colno}: {error.msg}; "
            "it may be cut short, get or write it again"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not a JSON text file; give COCO annotations") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _check_sections(dataset, path):
    if not isinstance(dataset, dict):
        raise InputError(
            f"{path}: holds a {type(dataset).__name__} where COCO's instances format has an "
            "object with images, annotations and categories"
            + (" (a results file?)" if isinstance(dataset, list) else "")
        )
    if kind := _other_kind(dataset):
        raise InputError(f"{path}: {kind}")
    for section in ("images", "annotations", "categories"):
        entries = dataset.get(section)
        if section not in dataset:
            raise InputError(f'{path}: has no "{section}"; give a file in COCO\'s instances format')
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f'{path}: "{section}" must be a list of objects')
        if not entries:
            raise InputError(f'{path}: "{section}" is empty; give a data set with some')


def _other_kind(dataset):
    """Describe a JSON file of another kind than COCO's instances, or return None."""
    entries = dataset.get("annotations")
    first = entries[0] if isinstance(entries, list) and entries else None
    first = first if isinstance(first, dict) else {}
    if "segments_info" in first:
        return (
            "is a panoptic file, whose masks are in PNG files (segments_info); give the instances "
            "file of the set, such as instances_val2017.json"
        )
    if "caption" in first and "bbox" not in first:
        return "is a file of captions; give the instances file of the set"
    if "shapes" in dataset and "imagePath" in dataset:
        return "is a file of Labelme for one image; convert the set to COCO's instances format"
    if "_via_img_metadata" in dataset or "_via_settings" in dataset:
        return "is a project of VGG Image Annotator; export it in COCO's format"
    if "images" in dataset and "annotations" not in dataset and "categories" in dataset:
        return (
            'has no "annotations", as the files of images to be tested have none; give a file in '
            "COCO's instances format"
        )
    return None


def _check_ids(entries, section, path):
    for index, entry in enumerate(entries):
        if not _is_integer(entry.get("id")):
            raise InputError(
                f"{path}: {section}[{index}] has the id {entry.get('id')!r}; every entry needs an "
                "integer id"
            )
    repeated = [key for key, count in Counter(e["id"] for e in entries).items() if count > 1]
    if repeated:
        raise InputError(
            f"{path}: {section}: {len(repeated)} ids are used more than once, first "
            f"{repeated[:_MAX_LISTED]}; give each entry an id of its own"
        )


def _raise_problems(path, section, problems):
    """Raise an InputError if any of ``problems``, which are strings or None, is a string."""
    found = [problem for problem in problems if problem]
    if found:
        raise InputError(
            f"{path}: {len(found)} {section} cannot be used; mend or remove them:" + listed(found)
        )


def listed(problems):
    """Return the first problems of a list, a line each, and how many more there are."""
    lines = problems[:_MAX_LISTED]
    if len(problems) > _MAX_LISTED:
        lines = [*lines, f"... and {len(problems) - _MAX_LISTED} more"]
    return "".join(f"\n  {line}" for line in lines)


def _category_problem(entry):
    if not isinstance(entry.get("name"), str):
        return f"category {entry['id']}: has no name"
    return None


def _image_entry_problem(entry):
    name = f"image {entry['id']}"
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        return f"{name}: has no file_name"
    for key in ("height", "width"):
        if not _is_integer(entry.get(key)) or entry[key] < 1:
            return f"{name} ({entry['file_name']}): {key} is {entry.get(key)!r}, not a size"
    return None


def _annotation_problem(entry, images_by_id, category_ids):
    name = f"annotation {entry['id']}"
    for key, known in (("image_id", images_by_id), ("category_id", category_ids)):
        value = entry.get(key)
        if not _is_integer(value) or value not in known:
            return f"{name}: {key} {value!r} is not among the {key.replace('_id', '')} ids"
    name += f" of image {entry['image_id']}"
    if entry.get("iscrowd", 0) not in (0, 1):
        return f"{name}: iscrowd is {entry['iscrowd']!r}, not 0 or 1"
    if entry.get("ignore"):
        return f'{name}: "ignore" is not supported; use "iscrowd"'
    if "area" in entry and not (_is_number(entry["area"]) and entry["area"] >= 0):
        return f"{name}: area is {entry['area']!r}"

    box = entry.get("bbox")
    if not _is_numbers(box) or len(box) != 4:
        return f"{name}: bbox is {_shortened(box)}, not [x, y, width, height]"
    if box[2] < 0 or box[3] < 0:
        return f"{name}: bbox {box} has a negative width or height"

    segmentation = entry.get("segmentation")
    size = [images_by_id[entry["image_id"]][key] for key in ("height", "width")]
    if isinstance(segmentation, dict):
        problem = _rle_problem(segmentation, size)
    else:
        problem = _polygons_problem(segmentation)
    problem = problem or impossible_box(box, segmentation, *size)
    return problem and f"{name}: {problem}"


def _polygons_problem(polygons):
    if not isinstance(polygons, list) or not polygons:
        return f"segmentation is {_shortened(polygons)}, neither polygons nor an RLE"
    for polygon in polygons:
        if not _is_numbers(polygon):
            return f"polygon {_shortened(polygon)} is not a list of numbers"
        if len(polygon) % 2 or len(polygon) < 6:
            return (
                f"polygon {_shortened(polygon)} has {len(polygon)} numbers; x and y of at least "
                "three points are needed"
            )
    return None


def _rle_problem(rle, image_size):
    size, counts = rle.get("size"), rle.get("counts")
    if size != image_size:
        return f"RLE size {size} is not the image's [height, width] {image_size}"
    if isinstance(counts, str):
        try:
            counts = run_lengths(counts.encode()).tolist()
        except ValueError:
            return "RLE counts cannot be decoded"
    if not isinstance(counts, list) or not all(_is_integer(c) and c >= 0 for c in counts):
        return "RLE counts cannot be decoded"
    if sum(counts) != size[0] * size[1]:
        return f"RLE counts cover {sum(counts)} pixels, but the image has {size[0] * size[1]}"
    return None


def _completed(entry, image):
    entry = {"iscrowd": 0, **entry}
    if "area" not in entry:
        entry["area"] = _mask_area(entry["segmentation"], image["height"], image["width"])
    return entry


def _mask_area(segmentation, height, width):
    rle = segmentation
    if not isinstance(rle, dict) or isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, height, width)
    if isinstance(rle, list):
        rle = mask_util.merge(rle)
    return int(mask_util.area(rle))


def _separator_advice(images_dir, name):
    """Return what to add to the message of a file that is not there for its backslashes."""
    if "\\" in name and Path(images_dir, name.replace("\\", "/")).is_file():
        return (
            "; the backslashes in its file_name are the reason, write / as separator: there is "
            f"{name.replace(chr(92), '/')}"
        )
    return ""


def _size_problem(path, size, other, exif, entry):
    """Describe what is wrong with the size of an image, or return None.

    Args:
        path: of the file.
        size, other: (height, width) as it is read, and with the other value of INPUT.EXIF.
        exif: that value.
        entry: its entry in "images".
    """
    expected = entry["height"], entry["width"]
    if size == expected:
        return None
    message = (
        f"{path}: is {size[0]} x {size[1]} (height x width), but image {entry['id']} of the "
        f"annotations is {expected[0]} x {expected[1]}; "
    )
    if other == expected:
        return message + (
            "so it is without the file's EXIF orientation, which the annotations ignore: give "
            "INPUT.EXIF False to read the raw frames, or annotate the upright image"
            if exif
            else "so it is with the file's EXIF orientation: give INPUT.EXIF True"
        )
    if size[::-1] == expected:
        return message + "height and width are swapped: the annotations are of a turned image"
    return message + "use the image that was annotated"


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_numbers(value):
    return isinstance(value, list) and all(map(_is_number, value))


def _shortened(value, length=60):
    text = json.dumps(value)
    return text if len(text) <= length else text[: length - 3] + "..."
