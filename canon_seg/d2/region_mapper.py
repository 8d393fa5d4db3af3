"""Show SAM random views of annotated images in training, and the masks of the regions in them."""

import cv2
import numpy as np
import torch
from pycocotools.mask import decode

from canon_seg.coco.masks import annotation_to_rle
from canon_seg.d2.catalog import load_examples
from canon_seg.d2.mapped_loader import build_mapped_loader
from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import to_chw
from canon_seg.networks.photo_stream import disturb_pixels
from canon_seg.sam.models import LongestSide

from detectron2.structures import BitMasks, BoxMode, Instances


def build_region_loader(cfg, side):
    """Build the loader of views of the sets in DATASETS.TRAIN, with objects of DATASETS.PASTE.

    Args:
        cfg: config.
        side: longer side of the views in pixels.

    Returns:
        Iterable of lists of the dicts that :class:`RegionMapper` makes.

    Raises:
        InputError: if a set cannot be used, or none has masks.
    """
    examples = load_examples(cfg.DATASETS.TRAIN, filter_empty=True)
    annotations = [a for example in examples for a in example.get("annotations", ())]
    if not any(annotation.get("segmentation") for annotation in annotations):
        raise InputError(
            f"DATASETS.TRAIN: the sets {', '.join(cfg.DATASETS.TRAIN)} hold no masks; SAM learns "
            "from annotations with a 'segmentation'"
        )
    pasted = load_examples(cfg.DATASETS.PASTE, filter_empty=True) if cfg.DATASETS.PASTE else ()
    mapper = RegionMapper(
        side,
        cfg.INPUT.FORMAT,
        pasted,
        cfg.INPUT.QUARTER_TURNS,
        ReadingOptions.from_config(cfg),
    )
    return build_mapped_loader(cfg, mapper, examples)


def _is_object(annotation):
    return bool(annotation.get("segmentation")) and not annotation.get("iscrowd")


class RegionMapper:
    """Make a training example for SAM of an annotated image: one random view and its masks.

    Views are crops around a random instance or of the whole image, mirrored at random, with
    disturbed colours. Turned only where that is asked for: the segmenter is meant to know upright
    images.

    Args:
        side: longer side of the view in pixels.
        image_format: "RGB" or "BGR".
        pasted: examples in detectron2's format whose objects are pasted into half of the views
            (Ghiasi et al., "Simple Copy-Paste", CVPR 2021).
        quarter_turns: turn each view by a random one.
        options: how images are read.
    """

    MIN_AREA = 24  # pixels of a mask in the view; smaller ones teach little
    MAX_INSTANCES = 32
    MAX_PASTED = 4
    TRIES = 10  # views drawn until one shows such a mask; else the best of them is taken

    def __init__(
        self, side, image_format, pasted=(), quarter_turns=False, options=ReadingOptions()
    ):
        self.options = options
        self.side, self.image_format, self.quarter_turns = side, image_format, quarter_turns
        self.pasted = [
            (example, annotation)
            for example in pasted
            for annotation in example["annotations"]
            if _is_object(annotation) and annotation["bbox"][2] * annotation["bbox"][3] > 1024
        ]

    def __call__(self, dataset_dict):
        """Make a training example from an image of a data set.

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
        image = read_image(example["file_name"], self.image_format, self.options)
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
        example["image"] = to_chw(disturb_pixels(pixels.astype(np.float32), np.random))
        example["instances"] = instances = Instances(seen.shape[1:])
        instances.gt_masks = BitMasks(torch.from_numpy(seen))
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return example

    def _paste(self, pixels, masks):
        """Return (pixels, masks) with a few objects of other images in front of what is there.

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
        """Draw an object, sides up to ``largest`` pixels: (h x w x 3 uint8, h x w opacity 0..1)."""
        example, annotation = self.pasted[np.random.randint(len(self.pasted))]
        image = read_image(example["file_name"], self.image_format, self.options)
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
        """Draw (view, size): ``view`` cuts the same part out of an image and out of its masks."""
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
        """Draw x0, y0, width, height of a view: around an instance, or most of the image."""
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
