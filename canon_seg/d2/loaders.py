"""Build training loaders: photographs for the prior loss, COCO-format sets for segmenters."""

import numpy as np

from canon_seg.d2.capabilities import CANONICALIZED, hook, segmenter_class
from canon_seg.d2.catalog import check_registered, load_examples
from canon_seg.d2.mapped_loader import ReadingMapper, build_mapped_loader
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import group_of
from canon_seg.images.folders import list_photos
from canon_seg.images.near_duplicates import split_by_content
from canon_seg.images.pose_files import read_poses
from canon_seg.images.reading import ReadingOptions
from canon_seg.images.resize import network_size
from canon_seg.networks.angle_views import AngleStream, view_shapes
from canon_seg.networks.backbone import MIN_SIZE
from canon_seg.networks.build import uses_backbone
from canon_seg.networks.photo_stream import (
    PhotoStream,
    build_photo_loader,
    choose_turns,
    folder_weights,
)
from canon_seg.networks.pose_views import PoseStream

from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.utils import comm

HOLDOUT_EVERY = 25  # one photograph in so many is kept out of training, to watch it


def trains_on_photos(cfg):
    """Tell whether images alone are needed: for a canonicalizer without the segmenter's losses."""
    return cfg.MODEL.META_ARCHITECTURE == CANONICALIZED and cfg.MODEL.CANONICALIZER.TASK_WEIGHT == 0


def find_photos(cfg):
    """Find photographs for the prior loss in DATASETS.PHOTOS, POSES and TRAIN.

    Returns:
        list of paths, each once.

    Raises:
        InputError: naming the config key.
    """
    key = "DATASETS.PHOTOS"
    files = [file for folder in cfg.DATASETS.PHOTOS for file in list_photos(folder, key)]
    files += [
        example["file_name"] for example in load_examples(cfg.DATASETS.TRAIN, filter_empty=False)
    ]
    files += known_poses(cfg)
    files = list(dict.fromkeys(files))
    if cfg.DATASETS.MAX_PHOTOS:
        files = files[:: -(-len(files) // cfg.DATASETS.MAX_PHOTOS)]
    return files


def split_photos(cfg, files=None):
    """Split upright photographs in those to train on and those to watch the training.

    Args:
        cfg: config.
        files: what :func:`find_photos` found, where that is known already.

    Returns:
        (training files, held-out files): always the same split, none held out of a handful.

    Raises:
        InputError: naming the config key.
    """
    files = find_photos(cfg) if files is None else files
    if cfg.DATASETS.HELD_OUT == "BY_CONTENT":
        return split_by_content(
            files, HOLDOUT_EVERY, cfg.DATASETS.SERIES, ReadingOptions.from_config(cfg)
        )
    if cfg.DATASETS.HELD_OUT != "EVERY_25TH":
        raise InputError(
            f"DATASETS.HELD_OUT is {cfg.DATASETS.HELD_OUT!r}; known: EVERY_25TH, BY_CONTENT"
        )
    held_out = files[HOLDOUT_EVERY - 1 :: HOLDOUT_EVERY]
    training = [f for i, f in enumerate(files) if i % HOLDOUT_EVERY != HOLDOUT_EVERY - 1]
    return training, held_out


def known_poses(cfg):
    """Read which way the photographs of DATASETS.POSES lie.

    Returns:
        dict from the path to quarter turns counterclockwise, 0..3, of those that are sure enough.

    Raises:
        InputError: naming the config key and the file.
    """
    least = cfg.DATASETS.POSES_ABOVE
    if not 0 <= least <= 1:
        raise InputError(f"DATASETS.POSES_ABOVE is {least}; give a probability, 0 to 1")
    poses = {}
    for pair in cfg.DATASETS.POSES:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise InputError(
                f"DATASETS.POSES: {pair!r} is no pair; give [['poses.json', 'photographs']]"
            )
        photos = read_poses(*pair, "DATASETS.POSES")
        sure = {photo.file: photo.turns for photo in photos if photo.probability >= least}
        if not sure:
            raise InputError(
                f"DATASETS.POSES: no pose in {pair[0]} is as probable as DATASETS.POSES_ABOVE, "
                f"{least}; lower that, or label the photographs better"
            )
        poses.update(sure)
    return poses


def build_train_loader(cfg, photos=None):
    """Build the loader for what the config trains: photographs alone, or annotated images.

    A meta-architecture may bring a loader of its own (see :mod:`canon_seg.d2.capabilities`).

    Args:
        cfg: config.
        photos: the training files of :func:`split_photos`, where these are known already.

    Raises:
        InputError: if no training data are named, or some that cannot be used.
    """
    if cfg.INPUT.QUARTER_TURNS and cfg.MODEL.META_ARCHITECTURE == CANONICALIZED:
        raise InputError(
            "INPUT.QUARTER_TURNS turns the images that a canonicalizer should learn to take for "
            "upright; it is for segmenters trained by themselves (MODEL.META_ARCHITECTURE)"
        )
    if trains_on_photos(cfg):
        if not (cfg.DATASETS.PHOTOS or cfg.DATASETS.POSES or cfg.DATASETS.TRAIN):
            raise InputError(
                "no training data: set DATASETS.PHOTOS to folders of upright photographs, "
                "DATASETS.POSES to labelled ones, or DATASETS.TRAIN to registered COCO-format sets"
            )
        return _build_photo_loader(cfg, photos or split_photos(cfg)[0])
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            "no training data: a segmenter's losses need annotated images, set DATASETS.TRAIN to "
            "registered COCO-format sets (DATASETS.COCO registers them)"
        )
    build = hook(segmenter_class(cfg), "build_train_loader")
    return build(cfg) if build else _build_detection_loader(cfg)


def _build_detection_loader(cfg):
    """Build detectron2's own loader, with the disturbances that the config adds to it."""
    check_registered("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    _check_mask_format(cfg)
    try:
        return build_mapped_loader(cfg, _detection_mapper(cfg))
    except (AssertionError, OSError) as error:
        raise InputError(
            f"DATASETS.TRAIN: {cfg.DATASETS.TRAIN} cannot be used ({error})"
        ) from error


def _check_mask_format(cfg):
    """Raise :class:`InputError` for masks at which detectron2 would fail amid training."""
    if not cfg.MODEL.MASK_ON or cfg.INPUT.MASK_FORMAT == "bitmask":
        return
    for name in cfg.DATASETS.TRAIN:
        for example in DatasetCatalog.get(name):
            if any(
                isinstance(annotation.get("segmentation"), dict) and not annotation.get("iscrowd")
                for annotation in example.get("annotations", ())
            ):
                raise InputError(
                    f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}, but {name!r} has masks as "
                    f"RLE ({example['file_name']}); set INPUT.MASK_FORMAT to bitmask"
                )


def _detection_mapper(cfg):
    """Build detectron2's own mapper with the disturbances that the config adds to it."""
    options = DatasetMapper.from_config(cfg, is_train=True)
    added = []
    if cfg.INPUT.COLOR_JITTER:
        limits = max(0.0, 1 - cfg.INPUT.COLOR_JITTER), 1 + cfg.INPUT.COLOR_JITTER
        added += [T.RandomBrightness(*limits), T.RandomContrast(*limits)]
        added += [T.RandomSaturation(*limits)]
    if cfg.INPUT.QUARTER_TURNS:
        added += [T.RandomRotation([0, 90, 180, 270], expand=True, sample_style="choice")]
    augmentations = options["augmentations"] + added
    if ReadingOptions.from_config(cfg) != ReadingOptions():
        return ReadingMapper(cfg, is_train=True, augmentations=augmentations)
    return DatasetMapper(**{**options, "augmentations": augmentations})


def _build_photo_loader(cfg, files):
    if not 0 <= cfg.INPUT.CANVAS_FRACTION <= 1:
        raise InputError(f"INPUT.CANVAS_FRACTION is {cfg.INPUT.CANVAS_FRACTION}; give 0 to 1")
    group = group_of(cfg)
    if uses_backbone(cfg):
        kind, shapes = PoseStream, _square_views(cfg)
        if group.elements is None:
            kind, shapes = AngleStream, view_shapes(cfg.INPUT.VIEW_SIDES)
    else:
        side = cfg.MODEL.CANONICALIZER.INPUT_SIZE
        longer = network_size(3, 4, side)
        kind, shapes = PhotoStream, [longer, longer[::-1], (side, side)]
        if not group.is_exact:  # the network looks at the disc in the middle
            shapes = [(side, side)]
    poses = known_poses(cfg)
    stream = kind(
        files,
        folder_weights(files, cfg.DATASETS.FOLDER_POWER),
        batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
        shapes=shapes,
        min_scale=cfg.INPUT.CROP_MIN_SCALE,
        on_canvas=cfg.INPUT.CANVAS_FRACTION,
        image_format=cfg.INPUT.FORMAT,
        reading=ReadingOptions.from_config(cfg),
        turns=choose_turns(files, cfg.DATASETS.TURNED_FRACTION, cfg.DATASETS.TURNED_BY),
        poses=np.array([poses.get(file, 0) for file in files], np.int64),
        # Of the generator that SEED has set, another one in every process of a training.
        seed=np.random.randint(2**31),
        group=group,
    )
    return build_photo_loader(stream, cfg.DATALOADER.NUM_WORKERS)


def _square_views(cfg):
    sides = cfg.INPUT.VIEW_SIDES
    if not sides or any(not isinstance(side, int) or side < MIN_SIZE for side in sides):
        raise InputError(f"INPUT.VIEW_SIDES is {sides}; give sides of {MIN_SIZE} pixels or more")
    if cfg.INPUT.CANVAS_FRACTION:
        raise InputError(
            "INPUT.CANVAS_FRACTION is for equivariant networks; set 0 with "
            "MODEL.CANONICALIZER.SCORER.BACKBONE"
        )
    return [(side, side) for side in sides]
