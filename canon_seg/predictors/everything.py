"""Find everything in an image in one call, with any SAM."""

from canon_seg.predictors.defaults import load_default_sam
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator

SMALL_SAM = {
    "points_per_side": 10,
    "pred_iou_thresh": 0.45,
    "stability_score_thresh": 0.6,
    "box_nms_thresh": 0.8,
}
"""Options of segment_anything's generator for the embedded SAM: its own are for large models.

Chosen on 22 photographs of COCO128 that were not trained on, with 98 objects: of the options by
which at least 84 % of the masks come again after JPEG, those that find the most objects.
"""


def segment_everything(image, sam=None, canonicalizer=None, *, progress=False, **options):
    """Find all masks in an image, in its canonical pose.

    Models are not kept between calls: for many images give your own, or keep a
    :class:`canon_seg.predictors.mask_generator.CanonicalSamAutomaticMaskGenerator`, which also
    tells the pose.

    Args:
        image: (H, W, 3) uint8 array, RGB; or a Pillow image, or the path of a file, see
            :func:`canon_seg.predictors.inputs.as_image`.
        sam: segment_anything's `Sam`; or any predictor with ``set_image`` and ``predict``, such as
            `SAM2ImagePredictor(model)` or ``TransformersSam(model, processor)``; None for the
            embedded one.
        canonicalizer: see :mod:`canon_seg.images.canonicalizer`; None for the embedded one.
        progress: whether to show a bar with the time that is left, on a terminal.
        **options: those of segment_anything's `SamAutomaticMaskGenerator`, such as
            ``points_per_side``, with its defaults; of the embedded SAM with :data:`SMALL_SAM`.

    Returns:
        list of segment_anything's records, in the frame of the image: dicts with ``segmentation``
        (an (H, W) bool array), ``area`` (pixels), ``bbox`` (x, y, w, h), ``predicted_iou``,
        ``crop_box``, ``point_coords`` and ``stability_score``.

    Raises:
        InputError: for an image that is no good.
    """
    image = as_image(image)
    if sam is None:
        sam, options = load_default_sam(), {**SMALL_SAM, **options}
    generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **options)
    return generator.generate_with_pose(image, progress)[1]
