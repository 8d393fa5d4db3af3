"""Measure a SAM in training by prompts on the objects of held-out images."""

import numpy as np
from pycocotools.mask import decode
from segment_anything import SamPredictor

from canon_seg.coco.masks import annotation_to_rle
from canon_seg.d2.catalog import load_examples
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.sam.interaction import mean_qualities, measure_prompts

from detectron2.structures import BoxMode

CLICKS = (1, 5)
MAX_IMAGES = 10  # spread over each set: a training is not to wait for long
MIN_AREA = 32**2  # pixels; COCO's small objects are not counted
MAX_OBJECTS = 6  # of an image


def measure_sets(segmenter, cfg):
    """Measure a SAM on the sets of DATASETS.TEST_PROMPTS by boxes and clicks.

    Args:
        segmenter: :class:`canon_seg.d2.sam.SamSegmenter`.
        cfg: config.

    Returns:
        dict from names as ``clicks_1_best_scored`` to mean IoU, 0 to 1, over all objects that are
        not small; of some images, a few of each.
    """
    examples = []
    for name in cfg.DATASETS.TEST_PROMPTS:
        whole = load_examples([name], filter_empty=True)
        examples += whole[:: -(-len(whole) // MAX_IMAGES)]
    reading = ReadingOptions.from_config(cfg)
    sam, was_training = segmenter.sam, segmenter.training
    segmenter.eval()
    try:
        parts = [_measure(sam, example, reading) for example in examples]
    finally:
        segmenter.train(was_training)
    return {
        f"{prompt}_{kind.removeprefix('iou_')}": value
        for prompt, values in mean_qualities(parts).items()
        for kind, value in values.items()
    }


def _measure(sam, example, reading):
    image = read_image(example["file_name"], "RGB", reading)
    objects = [
        annotation
        for annotation in example["annotations"]
        if annotation.get("segmentation") and not annotation.get("iscrowd")
    ]
    masks, boxes = [], []
    for annotation in objects:
        rle = annotation_to_rle(annotation["segmentation"], *image.shape[:2])
        mask = decode(rle).astype(bool)
        if mask.sum() > MIN_AREA and len(masks) < MAX_OBJECTS:
            masks.append(mask)
            boxes.append(
                BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            )
    if not masks:
        return {}
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    return measure_prompts(predictor, masks, np.array(boxes, np.float32), CLICKS)
