"""Register and look up data sets in detectron2's catalogue."""

import os
from pathlib import Path

from canon_seg.coco.dataset import load_coco
from canon_seg.d2 import compat  # noqa: F401 - before detectron2
from canon_seg.errors import InputError

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances


def register_coco(name, annotations_path, images_dir):
    """Check a COCO instances file and register it with detectron2 under ``name``.

    Registering the same files under the same name again does nothing.

    Raises:
        InputError: the file fails :func:`load_coco`, or the name stands for other files.
    """
    files = str(Path(annotations_path).resolve()), str(Path(images_dir).resolve())
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name)
        known_files = getattr(known, "json_file", None), getattr(known, "image_root", None)
        if known_files != files:
            raise InputError(
                f"data set name {name!r} already stands for {known_files[0]} with images in "
                f"{known_files[1]}; choose another name for {files[0]}"
            )
        return
    load_coco(*files)
    register_coco_instances(name, {}, *files)


def check_registered(key, names):
    """Raise :class:`InputError` naming ``key`` for a data set that is not there."""
    for name in names:
        if name not in DatasetCatalog.list():
            raise InputError(
                f"{key}: {name!r} is not registered; give its files in DATASETS.COCO as (name, "
                "annotations.json, image folder)"
            )
        # Names of detectron2's own sets are always registered, their files need not be there.
        file = MetadataCatalog.get(name).get("json_file")
        if file and not os.path.isfile(file):
            raise InputError(
                f"{key}: {name!r} is registered, but there is no file {file}; detectron2 looks for "
                "its own sets in the folder that the variable DETECTRON2_DATASETS names"
            )


def load_examples(names, filter_empty):
    """Load detectron2's dicts of the images of DATASETS.TRAIN; sets may differ in categories.

    Args:
        names: registered data sets.
        filter_empty: whether to leave out images without annotations.

    Raises:
        InputError: naming the set that cannot be used.
    """
    check_registered("DATASETS.TRAIN", names)
    examples = []
    for name in names:
        try:
            examples += get_detection_dataset_dicts([name], filter_empty=filter_empty)
        except (AssertionError, OSError) as error:
            raise InputError(f"DATASETS.TRAIN: {name!r} is of no use ({error})") from error
    return examples


def coco_files(name, cfg):
    """Find the (annotation file, image folder) of a data set that --dataset names.

    Args:
        name: of a set of DATASETS.COCO, or of one that is registered with detectron2.
        cfg: config.

    Raises:
        InputError: if there is no such set, or it is not one of instances in COCO format.
    """
    own = {name: files for name, *files in cfg.DATASETS.COCO}
    if name in own:
        return own[name]
    if name not in DatasetCatalog.list():
        raise InputError(
            f"--dataset: {name!r} is neither in DATASETS.COCO ({', '.join(own) or 'empty'}) nor "
            "registered with detectron2; give --annotations FILE --images DIR instead"
        )
    metadata = MetadataCatalog.get(name)
    files = metadata.get("json_file"), metadata.get("image_root")
    if None in files or metadata.get("evaluator_type", "coco") != "coco":
        raise InputError(
            f"--dataset: {name!r} is not a set of instances in COCO format; give one that is"
        )
    if not Path(files[0]).is_file():
        raise InputError(
            f"--dataset: {name!r} is registered, but there is no file {files[0]}; detectron2 looks "
            "for its data sets in the folder that DETECTRON2_DATASETS names (default: datasets)"
        )
    return files
