"""Provide detectron2's `DefaultPredictor` for this project's configs."""

import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.device import resolve_device
from canon_seg.d2.capabilities import capabilities
from canon_seg.d2.models import build_models
from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions
from canon_seg.images.tensors import segmenter_inputs
from canon_seg.predictors.checks import boxes_problem, points_problem
from canon_seg.predictors.inputs import as_image
from canon_seg.predictors.prompts import to_numpy
from canon_seg.sam.prompts import Prompts

from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog


class CanonicalPredictor:
    """Take one BGR image, return one result, as `DefaultPredictor`; results turn with the image.

        predictor = CanonicalPredictor(load_config("configs/mask_rcnn_c4.yaml"))
        result = predictor(cv2.imread("photo.jpg"))
        Visualizer(image_rgb).draw_instance_predictions(result["instances"])

    Images are given as read: the pose is found before any resizing, which happens inside of the
    model. Results are on the CPU, where detectron2's `Visualizer` takes them as they are.

    Attributes:
        cfg: a copy of the config.
        model: :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter` in eval mode.
        metadata: detectron2's, of the first set in DATASETS.TEST; only where there is one.
        input_format: channel order that the model takes, "RGB" or "BGR".

    Args:
        cfg: config of :func:`canon_seg.d2.config.load_config`; not changed. Weights are those of
            MODEL.SEGMENTER.WEIGHTS and MODEL.CANONICALIZER.WEIGHTS. Where MODEL.DEVICE has
            detectron2's default, "cuda", and there is none, the CPU is taken, and stderr says so.

    Raises:
        InputError: naming the config key or the file that cannot be used.
    """

    def __init__(self, cfg):
        self.cfg = cfg.clone()
        self.cfg.defrost()
        was_asked_for = self.cfg.MODEL.DEVICE != get_cfg().MODEL.DEVICE
        options = ["MODEL.DEVICE", self.cfg.MODEL.DEVICE] if was_asked_for else []
        resolve_device(self.cfg, "", options)
        self.model = build_models(self.cfg, ["canonical"])["canonical"](0)
        if len(self.cfg.DATASETS.TEST):
            self.metadata = MetadataCatalog.get(self.cfg.DATASETS.TEST[0])
        self.input_format = self.cfg.INPUT.FORMAT

    def __call__(self, original_image, prompts=None):
        """Return the result of one image.

        Args:
            original_image: (H, W, 3) uint8 array, BGR, as read; or a Pillow image, or the path of
                a file, see :func:`canon_seg.predictors.inputs.as_image`.
            prompts: for a promptable segmenter: :class:`canon_seg.sam.prompts.Prompts` in
                the frame of the image.

        Returns:
            dict: ``pose`` (:class:`canon_seg.images.canonicalizer.Pose`) and what the
            segmenter gives, ``instances``, ``sem_seg``, ``panoptic_seg``, on the CPU.

        Raises:
            InputError: for an image or prompts that are no good, or that the segmenter does not
                take.
        """
        return self.batch([original_image], [prompts])[0]

    @torch.no_grad()
    def batch(self, original_images, prompts=None):
        """Return the results of several images of any sizes, which go through the model together.

        Args:
            original_images: sequence of images, see :meth:`__call__`.
            prompts: None, or for each image the prompts or None.

        Returns:
            list of results.
        """
        prompts = [None] * len(original_images) if prompts is None else list(prompts)
        if len(prompts) != len(original_images):
            raise InputError(f"{len(prompts)} prompts for {len(original_images)} images")
        inputs = [self._inputs(*pair) for pair in zip(original_images, prompts, strict=True)]
        return [_on_cpu(result) for result in self.model(inputs)] if inputs else []

    def _inputs(self, image, prompts):
        image = as_image(image, "BGR", ReadingOptions.from_config(self.cfg))
        if problem := self._prompts_problem(prompts, image.shape[:2]):
            raise InputError(problem)
        keys = {} if prompts is None else {"prompts": prompts.clipped(*image.shape[:2])}
        pixels = image[..., ::-1] if self.input_format == "RGB" else image
        return segmenter_inputs(pixels, **keys)

    def _prompts_problem(self, prompts, size):
        name = self.cfg.MODEL.SEGMENTER.META_ARCHITECTURE
        if prompts is None:
            if capabilities(self.model.segmenter).needs_prompts:
                return (
                    f"{name} needs prompts: give canon_seg.sam.prompts.Prompts with the "
                    "image, or a detector that makes them (MODEL.SAM.PROMPTS)"
                )
            return None
        if not isinstance(prompts, Prompts):
            return (
                f"prompts are a {type(prompts).__name__}; give "
                "canon_seg.sam.prompts.Prompts, such as Prompts(boxes=tensor)"
            )
        if not capabilities(self.model.segmenter).takes_prompts:
            return f"{name} takes no prompts; leave them out, or take a config with SamSegmenter"
        if len(prompts) == 0:  # an image in which a detector found nothing
            return None
        problem = None
        if prompts.points is not None:
            labels = to_numpy(prompts.point_labels)
            problem = points_problem(to_numpy(prompts.points), labels, size)
        if prompts.boxes is not None:
            problem = problem or boxes_problem(to_numpy(prompts.boxes), size)
        return problem


def _on_cpu(value):
    """Move tensors, `Instances`, and containers of these to the CPU; leave all else as it is."""
    if hasattr(value, "to"):
        return value.to("cpu")
    if isinstance(value, dict):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(part) for part in value)
    return value
