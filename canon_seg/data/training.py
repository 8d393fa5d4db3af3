"""Training loaders: photographs for the prior loss, COCO-format sets for segmenters."""

import cv2
import numpy as np
import torch
from pycocotools.mask import decode
from segment_anything.utils.transforms import ResizeLongestSide

from canon_seg import compat  # noqa: F401
from canon_seg.canonicalizers.resize import network_size
from canon_seg.data.images import read_image
from canon_seg.data.photos import (
    PhotoStream,
    build_photo_loader,
    disturb_pixels,
    folder_weights,
    list_photos,
)
from canon_seg.errors import InputError
from canon_seg.geometry.masks import annotation_to_rle
from detectron2.data import (
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.structures import BitMasks, Instances

HOLDOUT_EVERY = 25  # one photograph in so many is kept out of training, to watch it


def split_photos(folders):
    """(training files, held-out files) of the photo folders, always the same split.

    Raises:
        InputError: naming DATASETS.PHOTOS.
    """
    files = [file for folder in folders for file in list_photos(folder)]
    held_out = files[HOLDOUT_EVERY - 1 :: HOLDOUT_EVERY]
    training = [f for i, f in enumerate(files) if i % HOLDOUT_EVERY != HOLDOUT_EVERY - 1]
    return training, held_out


def build_train_loader(cfg):
    """The loader for what the config trains: photographs alone, or annotated images.

    Raises:
        InputError: if no training data are named.
    """
    if cfg.DATASETS.PHOTOS and not cfg.DATASETS.TRAIN:
        return _build_photo_loader(cfg)
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            "no training data: set DATASETS.PHOTOS to folders of upright photographs, or "
            "DATASETS.TRAIN to registered COCO-format sets"
        )
    if cfg.MODEL.META_ARCHITECTURE != "SamSegmenter":
        return build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))
    # SAM knows no classes, so that sets with different categories go together.
    examples = [
        example
        for name in cfg.DATASETS.TRAIN
        for example in get_detection_dataset_dicts([name], filter_empty=True)
    ]
    mapper = RegionMapper(cfg.MODEL.SAM.TINY.IMAGE_SIZE, cfg.INPUT.FORMAT)
    return build_detection_train_loader(cfg, mapper=mapper, dataset=examples)


def _build_photo_loader(cfg):
    files, _ = split_photos(cfg.DATASETS.PHOTOS)
    side = cfg.MODEL.CANONICALIZER.INPUT_SIZE
    longer = network_size(3, 4, side)
    stream = PhotoStream(
        files,
        folder_weights(files, cfg.DATASETS.FOLDER_POWER),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        shapes=[longer, longer[::-1], (side, side)],
        min_scale=cfg.INPUT.CROP_MIN_SCALE,
        image_format=cfg.INPUT.FORMAT,
        seed=max(cfg.SEED, 0),
    )
    return build_photo_loader(stream, cfg.DATALOADER.NUM_WORKERS)


class RegionMapper:
    """Annotated image to a training example for SAM: one random view and its masks.

    Views are crops around a random instance or of the whole image, mirrored at random, with
    disturbed colours. Never turned: the segmenter is meant to know upright images.

    Args:
        side: longer side of the view in pixels.
        image_format: "RGB" or "BGR".
    """

    MIN_AREA = 64  # pixels of a mask in the view; smaller ones teach little
    MAX_INSTANCES = 16
    TRIES = 10  # views drawn until one shows a mask

    def __init__(self, side, image_format):
        self.side, self.image_format = side, image_format

    def __call__(self, dataset_dict):
        """
        Args:
            dataset_dict: in detectron2's standard format, with "annotations".
        Returns:
            dict with ``image`` (3, h, w) uint8, longer side ``side``, and ``instances``.
        """
        example = dict(dataset_dict)
        annotations = [a for a in example.pop("annotations") if not a.get("iscrowd")]
        # More than the prompts that will be drawn, but not all of the hundreds that there may be.
        chosen = np.random.permutation(len(annotations))[: self.MAX_INSTANCES]
        annotations = [annotations[index] for index in chosen]
        image = read_image(example["file_name"], self.image_format)
        height, width = image.shape[:2]
        masks = [
            255 * decode(annotation_to_rle(a["segmentation"], height, width)) for a in annotations
        ]
        for _ in range(self.TRIES):
            view = self._choose_view((height, width), annotations)
            seen = np.stack([view(mask) > 127 for mask in masks])
            areas = seen.sum(axis=(1, 2))
            if areas.max() >= self.MIN_AREA:
                break
        seen = seen[areas >= min(self.MIN_AREA, areas.max())]
        example["image"] = torch.from_numpy(
            disturb_pixels(view(image).astype(np.float32), np.random).transpose(2, 0, 1).copy()
        )
        example["instances"] = instances = Instances(seen.shape[1:])
        instances.gt_masks = BitMasks(torch.from_numpy(seen))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return example

    def _choose_view(self, size, annotations):
        """A function that cuts the same random view out of the image and out of its masks."""
        left, top, width, height = self._choose_crop(size, annotations)
        view_size = ResizeLongestSide.get_preprocess_shape(height, width, self.side)
        interpolation = cv2.INTER_AREA if height > view_size[0] else cv2.INTER_LINEAR
        mirror = np.random.rand() < 0.5

        def view(pixels):
            pixels = pixels[top : top + height, left : left + width]
            pixels = cv2.resize(pixels, view_size[::-1], interpolation=interpolation)
            return pixels[:, ::-1] if mirror else pixels

        return view

    def _choose_crop(self, size, annotations):
        """x0, y0, width, height of a view: around an instance, or most of the image."""
        height, width = size
        shorter = min(size)
        if np.random.rand() < 0.6:
            # Around one instance, so that small ones are seen large enough to learn from.
            box = annotations[np.random.randint(len(annotations))]["bbox"]
            extent = max(box[2], box[3], 16) * np.random.uniform(1.2, 5.0)
            extent = int(np.clip(extent, min(96, shorter), shorter))
            center_x, center_y = box[0] + box[2] / 2, box[1] + box[3] / 2
            shift = 0.25 * extent
            left = center_x - extent / 2 + np.random.uniform(-shift, shift)
            top = center_y - extent / 2 + np.random.uniform(-shift, shift)
            crop_width = crop_height = extent
        else:
            crop_height = int(height * np.random.uniform(0.7, 1.0))
            crop_width = int(width * np.random.uniform(0.7, 1.0))
            left = np.random.uniform(0, width - crop_width)
            top = np.random.uniform(0, height - crop_height)
        left = int(np.clip(left, 0, width - crop_width))
        top = int(np.clip(top, 0, height - crop_height))
        return left, top, crop_width, crop_height
