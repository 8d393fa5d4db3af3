"""Training loaders: photographs for the prior loss, COCO-format sets for segmenters."""

import os

import cv2
import numpy as np
import torch
from pycocotools.mask import decode

from canon_seg.coco.masks import annotation_to_rle
from canon_seg.d2.sam import image_size
from canon_seg.errors import InputError
from canon_seg.images.near_duplicates import split_by_content
from canon_seg.images.reading import read_image
from canon_seg.images.resize import network_size
from canon_seg.networks.backbone import MIN_SIZE
from canon_seg.networks.build import uses_backbone
from canon_seg.networks.photo_stream import (
    PhotoStream,
    build_photo_loader,
    disturb_pixels,
    draw_turns,
    folder_weights,
    list_photos,
)
from canon_seg.networks.pose_views import PoseStream
from canon_seg.sam.models import LongestSide

from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BitMasks, BoxMode, Instances
from detectron2.utils import comm

HOLDOUT_EVERY = 25  # one photograph in so many is kept out of training, to watch it


def trains_on_photos(cfg):
    """Whether images alone are needed: for a canonicalizer without the segmenter's losses."""
    return (
        cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter"
        and cfg.MODEL.CANONICALIZER.TASK_WEIGHT == 0
    )


def has_sam(cfg):
    """Whether the segmenter that the config describes is SAM."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name == "CanonicalizedSegmenter":
        name = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
    return name == "SamSegmenter"


def split_photos(cfg):
    """Upright photographs for the prior loss: of DATASETS.PHOTOS, and the images of DATASETS.TRAIN.

    Returns:
        (training files, held-out files): always the same split, none held out of a handful.
    Raises:
        InputError: naming the config key.
    """
    files = [file for folder in cfg.DATASETS.PHOTOS for file in list_photos(folder)]
    files += [
        example["file_name"] for example in _load_examples(cfg.DATASETS.TRAIN, filter_empty=False)
    ]
    files = list(dict.fromkeys(files))
    if cfg.DATASETS.MAX_PHOTOS:
        files = files[:: -(-len(files) // cfg.DATASETS.MAX_PHOTOS)]
    if cfg.DATASETS.HELD_OUT == "BY_CONTENT":
        return split_by_content(files, HOLDOUT_EVERY, cfg.DATASETS.SERIES)
    if cfg.DATASETS.HELD_OUT != "EVERY_25TH":
        raise InputError(
            f"DATASETS.HELD_OUT is {cfg.DATASETS.HELD_OUT!r}; known: EVERY_25TH, BY_CONTENT"
        )
    held_out = files[HOLDOUT_EVERY - 1 :: HOLDOUT_EVERY]
    training = [f for i, f in enumerate(files) if i % HOLDOUT_EVERY != HOLDOUT_EVERY - 1]
    return training, held_out


def build_train_loader(cfg, photos=None):
    """The loader for what the config trains: photographs alone, or annotated images.

    Args:
        cfg: config.
        photos: the training files of :func:`split_photos`, where these are known already.

    Raises:
        InputError: if no training data are named, or some that cannot be used.
    """
    if cfg.INPUT.QUARTER_TURNS and cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter":
        raise InputError(
            "INPUT.QUARTER_TURNS turns the images that a canonicalizer should learn to take for "
            "upright; it is for segmenters trained by themselves (MODEL.META_ARCHITECTURE)"
        )
    if trains_on_photos(cfg):
        if not cfg.DATASETS.PHOTOS and not cfg.DATASETS.TRAIN:
            raise InputError(
                "no training data: set DATASETS.PHOTOS to folders of upright photographs, or "
                "DATASETS.TRAIN to registered COCO-format sets"
            )
        return _build_photo_loader(cfg, photos or split_photos(cfg)[0])
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            "no training data: a segmenter's losses need annotated images, set DATASETS.TRAIN to "
            "registered COCO-format sets (DATASETS.COCO registers them)"
        )
    if not has_sam(cfg):
        check_registered("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
        _check_mask_format(cfg)
        try:
            mapper = _WithErrors(_detection_mapper(cfg))
            return _ErrorsRaised(build_detection_train_loader(cfg, mapper=mapper))
        except (AssertionError, OSError) as error:
            raise InputError(
                f"DATASETS.TRAIN: {cfg.DATASETS.TRAIN} cannot be used ({error})"
            ) from error
    examples = _load_examples(cfg.DATASETS.TRAIN, filter_empty=True)
    annotations = [a for example in examples for a in example.get("annotations", ())]
    if not any(annotation.get("segmentation") for annotation in annotations):
        raise InputError(
            f"DATASETS.TRAIN: the sets {', '.join(cfg.DATASETS.TRAIN)} hold no masks; SAM learns "
            "from annotations with a 'segmentation'"
        )
    pasted = _load_examples(cfg.DATASETS.PASTE, filter_empty=True) if cfg.DATASETS.PASTE else ()
    mapper = RegionMapper(image_size(cfg), cfg.INPUT.FORMAT, pasted, cfg.INPUT.QUARTER_TURNS)
    return _ErrorsRaised(
        build_detection_train_loader(cfg, mapper=_WithErrors(mapper), dataset=examples)
    )


class _WithErrors:
    """A mapper that hands bad input on as an example: raised in a worker, it would arrive as the
    text of a traceback."""

    def __init__(self, mapper):
        self.mapper = mapper

    def __call__(self, dataset_dict):
        try:
            return self.mapper(dataset_dict)
        except InputError as error:
            wrong = error
        except (OSError, SizeMismatchError) as error:  # detectron2's, of an image file
            reason = " ".join(str(error).split())
            wrong = InputError(f"{dataset_dict['file_name']}: cannot be trained on ({reason})")
        # Batches are made by these, which mappers may be the first to know.
        size = {key: dataset_dict.get(key, 1) for key in ("height", "width")}
        return {**size, "error": wrong}


class _ErrorsRaised:
    """The loader of a :class:`_WithErrors`, which raises what that handed on."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        for batch in self.loader:
            for example in batch:
                if "error" in example:
                    raise example["error"]
            yield batch


def _check_mask_format(cfg):
    """Raise :class:`InputError` for masks that detectron2 would find only in the midst of it all."""
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
    """detectron2's own mapper with the disturbances that the config adds to it."""
    options = DatasetMapper.from_config(cfg, is_train=True)
    added = []
    if cfg.INPUT.COLOR_JITTER:
        limits = max(0.0, 1 - cfg.INPUT.COLOR_JITTER), 1 + cfg.INPUT.COLOR_JITTER
        added += [T.RandomBrightness(*limits), T.RandomContrast(*limits)]
        added += [T.RandomSaturation(*limits)]
    if cfg.INPUT.QUARTER_TURNS:
        added += [T.RandomRotation([0, 90, 180, 270], expand=True, sample_style="choice")]
    return DatasetMapper(**{**options, "augmentations": options["augmentations"] + added})


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


def _load_examples(names, filter_empty):
    """detectron2's dicts of the sets' images; sets of different categories may mix."""
    check_registered("DATASETS.TRAIN", names)
    examples = []
    for name in names:
        try:
            examples += get_detection_dataset_dicts([name], filter_empty=filter_empty)
        except (AssertionError, OSError) as error:
            raise InputError(f"DATASETS.TRAIN: {name!r} is of no use ({error})") from error
    return examples


def _build_photo_loader(cfg, files):
    if not 0 <= cfg.INPUT.CANVAS_FRACTION <= 1:
        raise InputError(f"INPUT.CANVAS_FRACTION is {cfg.INPUT.CANVAS_FRACTION}; give 0 to 1")
    if uses_backbone(cfg):
        kind, shapes = PoseStream, _square_views(cfg)
    else:
        side = cfg.MODEL.CANONICALIZER.INPUT_SIZE
        longer = network_size(3, 4, side)
        kind, shapes = PhotoStream, [longer, longer[::-1], (side, side)]
    stream = kind(
        files,
        folder_weights(files, cfg.DATASETS.FOLDER_POWER),
        batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
        shapes=shapes,
        min_scale=cfg.INPUT.CROP_MIN_SCALE,
        on_canvas=cfg.INPUT.CANVAS_FRACTION,
        image_format=cfg.INPUT.FORMAT,
        turns=draw_turns(files, cfg.DATASETS.TURNED_FRACTION, cfg.DATASETS.TURNED_BY),
        # Of the generator that SEED has set, another one in every process of a training.
        seed=np.random.randint(2**31),
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


def _is_object(annotation):
    return bool(annotation.get("segmentation")) and not annotation.get("iscrowd")


class RegionMapper:
    """Annotated image to a training example for SAM: one random view and its masks.

    Views are crops around a random instance or of the whole image, mirrored at random, with
    disturbed colours. Turned only where that is asked for: the segmenter is meant to know upright
    images.

    Args:
        side: longer side of the view in pixels.
        image_format: "RGB" or "BGR".
        pasted: examples in detectron2's format whose objects are pasted into half of the views
            (Ghiasi et al., "Simple Copy-Paste", CVPR 2021).
        quarter_turns: turn each view by a random one.
    """

    MIN_AREA = 24  # pixels of a mask in the view; smaller ones teach little
    MAX_INSTANCES = 32
    MAX_PASTED = 4
    TRIES = 10  # views drawn until one shows such a mask; else the best of them is taken

    def __init__(self, side, image_format, pasted=(), quarter_turns=False):
        self.side, self.image_format, self.quarter_turns = side, image_format, quarter_turns
        self.pasted = [
            (example, annotation)
            for example in pasted
            for annotation in example["annotations"]
            if _is_object(annotation) and annotation["bbox"][2] * annotation["bbox"][3] > 1024
        ]

    def __call__(self, dataset_dict):
        """
        Args:
            dataset_dict: in detectron2's standard format, with "annotations".
        Returns:
            dict with ``image`` (3, h, w) uint8, longer side ``side``, and ``instances`` with
            ``gt_masks`` (BitMasks) and their ``gt_boxes``: none where nothing is to be seen.
        Raises:
            InputError: if the image cannot be read or has another size than it should.
        """
        example = dict(dataset_dict)
        annotations = [
            annotation for annotation in example.pop("annotations") if _is_object(annotation)
        ]
        # More than the prompts that will be drawn, but not all of the hundreds that there may be.
        chosen = np.random.permutation(len(annotations))[: self.MAX_INSTANCES]
        annotations = [annotations[index] for index in chosen]
        image = read_image(example["file_name"], self.image_format)
        size = image.shape[:2]
        if size != (example["height"], example["width"]):
            raise InputError(
                f"{example['file_name']} has height {size[0]} and width {size[1]}, but its "
                f"annotations say {example['height']} and {example['width']}; correct one of them"
            )
        masks = [255 * decode(annotation_to_rle(a["segmentation"], *size)) for a in annotations]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYWH_ABS) for a in annotations]
        largest = -1
        for _ in range(self.TRIES):
            candidate, view_size = self._choose_view(size, boxes)
            in_view = np.zeros((len(masks), *view_size), bool)
            for index, mask in enumerate(masks):
                in_view[index] = candidate(mask) > 127
            areas = in_view.sum(axis=(1, 2))
            if areas.max(initial=0) > largest:
                largest = areas.max(initial=0)
                view, seen = candidate, in_view[areas >= max(1, min(self.MIN_AREA, largest))]
            if largest >= self.MIN_AREA:
                break
        pixels = view(image)
        if self.pasted and np.random.rand() < 0.5:
            pixels, seen = self._paste(pixels, seen)
        if self.quarter_turns:
            turns = np.random.randint(4)
            pixels, seen = np.rot90(pixels, turns), np.rot90(seen, turns, axes=(1, 2)).copy()
        example["image"] = torch.from_numpy(
            disturb_pixels(pixels.astype(np.float32), np.random).transpose(2, 0, 1).copy()
        )
        example["instances"] = instances = Instances(seen.shape[1:])
        instances.gt_masks = BitMasks(torch.from_numpy(seen))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return example

    def _paste(self, pixels, masks):
        """(pixels, masks) with a few objects of other images in front of what is there.

        Args:
            pixels: h x w x 3 uint8 view.
            masks: (N, h, w) bool.
        """
        pixels, masks = pixels.copy(), list(masks)
        height, width = pixels.shape[:2]
        for _ in range(np.random.randint(1, self.MAX_PASTED + 1)):
            patch, alpha = self._draw_object(min(height, width))
            high, wide = alpha.shape
            top = np.random.randint(height - high + 1)
            left = np.random.randint(width - wide + 1)
            place = slice(top, top + high), slice(left, left + wide)
            alpha = alpha[..., None]
            pixels[place] = np.rint(alpha * patch + (1 - alpha) * pixels[place])
            own = np.zeros((height, width), bool)
            own[place] = alpha[..., 0] > 0.5
            masks = [mask & ~own for mask in masks] + [own]
        return pixels, np.stack([mask for mask in masks if mask.sum() >= self.MIN_AREA] or [own])

    def _draw_object(self, largest):
        """(h x w x 3 uint8, h x w opacity 0..1) of one object, sides up to ``largest`` pixels."""
        example, annotation = self.pasted[np.random.randint(len(self.pasted))]
        image = read_image(example["file_name"], self.image_format)
        mask = decode(annotation_to_rle(annotation["segmentation"], *image.shape[:2]))
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        x0, y0 = (max(0, int(value)) for value in box[:2])
        x1, y1 = (int(np.ceil(value)) + 1 for value in box[2:])
        patch, alpha = image[y0:y1, x0:x1], mask[y0:y1, x0:x1].astype(np.float32)
        # As large as objects are in whole photographs: many small ones, few that fill the view.
        longer = min(largest, np.exp(np.random.uniform(np.log(16), np.log(0.8 * largest))))
        size = LongestSide.get_preprocess_shape(*alpha.shape, max(2, int(longer)))[::-1]
        shrinks = size[0] < alpha.shape[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        patch = cv2.resize(patch, size, interpolation=interpolation)
        alpha = cv2.resize(alpha, size, interpolation=interpolation)
        if np.random.rand() < 0.5:
            patch, alpha = patch[:, ::-1], alpha[:, ::-1]
        return patch, alpha

    def _choose_view(self, size, boxes):
        """(view, size): cuts the same random view out of an image and out of its masks."""
        left, top, width, height = self._choose_crop(size, boxes)
        view_size = LongestSide.get_preprocess_shape(height, width, self.side)
        interpolation = cv2.INTER_AREA if height > view_size[0] else cv2.INTER_LINEAR
        mirror = np.random.rand() < 0.5

        def view(pixels):
            pixels = pixels[top : top + height, left : left + width]
            pixels = cv2.resize(pixels, view_size[::-1], interpolation=interpolation)
            return pixels[:, ::-1] if mirror else pixels

        return view, view_size

    def _choose_crop(self, size, boxes):
        """x0, y0, width, height of a view: around an instance, or most of the image."""
        height, width = size
        shorter = min(size)
        if boxes and np.random.rand() < 0.5:
            # Around one instance, so that small ones are seen large enough to learn from.
            box = boxes[np.random.randint(len(boxes))]
            extent = max(box[2], box[3], 16) * np.exp(np.random.uniform(np.log(1.5), np.log(10)))
            extent = int(np.clip(extent, min(128, shorter), shorter))
            center_x, center_y = box[0] + box[2] / 2, box[1] + box[3] / 2
            shift = 0.25 * extent
            left = center_x - extent / 2 + np.random.uniform(-shift, shift)
            top = center_y - extent / 2 + np.random.uniform(-shift, shift)
            crop_width = crop_height = extent
        else:
            crop_height = max(1, int(height * np.random.uniform(0.7, 1.0)))
            crop_width = max(1, int(width * np.random.uniform(0.7, 1.0)))
            left = np.random.uniform(0, width - crop_width)
            top = np.random.uniform(0, height - crop_height)
        left = int(np.clip(left, 0, width - crop_width))
        top = int(np.clip(top, 0, height - crop_height))
        return left, top, crop_width, crop_height
