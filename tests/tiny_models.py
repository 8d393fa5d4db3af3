"""Models of every kind, small enough for tests, with random weights that are always the same."""

import numpy as np
import torch
from conftest import TINY_SAM

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.keys import add_canon_seg_config
from canon_seg.core.group import SO2
from canon_seg.core.scorer import CircularDistribution, GridDistribution, pointwise
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.d2.sam import SamSegmenter
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.sam.models import build_tiny_sam
from canon_seg.sam.prompts import Prompts

from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

MIN_SIZE = 64
ZOO = {
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "keypoint_rcnn": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml",
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_3x.yaml",
    "panoptic_fpn": "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml",
}


def tiny_config(kind):
    """detectron2's config of a model-zoo model, or of a SemanticSegmentor, at toy size."""
    cfg = get_cfg()
    add_canon_seg_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(ZOO.get(kind, ZOO["panoptic_fpn"])))
    if kind == "semantic":
        cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.PIXEL_STD = [58.0, 58.0, 58.0]  # random weights bear no larger values
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 16
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [16]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 16
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 6
    if kind == "keypoint_rcnn":
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.TEST.DETECTIONS_PER_IMAGE = 6
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = MIN_SIZE, 2 * MIN_SIZE
    return cfg


def tiny_segmenter(kind, seed=3):
    """One of the models of :func:`tiny_config`, or "sam", in eval mode."""
    torch.manual_seed(seed)
    if kind == "sam":
        return SamSegmenter(
            sam=build_tiny_sam(*(value for value in TINY_SAM["TINY"].values() if value != "")),
            image_format="RGB",
        ).eval()
    return build_model(tiny_config(kind)).eval()


def random_canonicalizer(image_format="RGB", seed=0, mirrors=False, **options):
    """A canonicalizer that finds some pose or other, in its exported form."""
    torch.manual_seed(seed)
    network = build_plain_network(NetworkSpec("GCNN", 4, (4, 8), 1, mirrors)).eval()
    return GroupCanonicalizer(
        NetworkScorer(network, input_size=33, image_format=image_format), **options
    )


class AnyAngle:
    """A scorer that says some angle or other, chaotic in its input: not equivariant at all."""

    def __init__(self, group=SO2, image_format="RGB"):
        self.group, self.image_format = group, image_format

    def __call__(self, images):
        rows = []
        for image in images:
            flat = image.flatten().double()
            value = 1e3 * (flat * torch.arange(1, 1 + len(flat)).double().sin()).sum()
            count = 1 + len(pointwise(self.group, 0))
            rows.append(4 * (value * torch.arange(1, max(count, 73)).double()).sin())
        arcs = torch.stack(rows)
        if self.group.elements is None:
            return CircularDistribution(arcs, group=self.group)
        return GridDistribution(self.group, arcs[:, : len(self.group.elements)])


def any_angle_canonicalizer(group=SO2, image_format="RGB", **options):
    """A canonicalizer that finds some tilt or other."""
    options = {"min_tilt": 0.0, **options}
    return GroupCanonicalizer(AnyAngle(group, image_format), **options).eval()


def canonicalized(segmenter, canonicalizer, task_weight=0.0, **kwargs):
    """The two parts as one model."""
    resizes = getattr(segmenter, "resizes_itself", False)
    return CanonicalizedSegmenter(
        canonicalizer=canonicalizer,
        segmenter=segmenter,
        resize=None if resizes else ResizeShortestEdge([MIN_SIZE, MIN_SIZE], 2 * MIN_SIZE),
        prior=torch.eye(4)[0],
        prior_weight=1.0,
        task_weight=task_weight,
        **kwargs,
    ).eval()


def random_image(height, width, seed=0):
    """(3, height, width) uint8 tensor: smooth structure and noise."""
    rng = np.random.default_rng((seed, height, width))
    coarse = rng.uniform(0, 255, (3, -(-height // 8), -(-width // 8)))
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    pixels = pixels + rng.normal(0, 20, pixels.shape)
    return torch.from_numpy(np.clip(pixels, 0, 255).astype(np.uint8))


def random_prompts(height, width, kind="boxes", count=5, seed=0):
    """Prompts of kind "boxes", "points" (two clicks each) or "both", off the pixel grid."""
    rng = np.random.default_rng((seed, height, width))
    size = np.array([width, height])
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * size
    clicks = rng.uniform(0, 1, (count, 2, 2)) * (size - 1)
    boxes = torch.from_numpy(corners.reshape(count, 4)).float()
    points = torch.from_numpy(clicks).float()
    labels = torch.from_numpy(rng.integers(0, 2, (count, 2)))
    classes = torch.from_numpy(rng.integers(0, 3, count))
    return Prompts(
        boxes=None if kind == "points" else boxes,
        points=None if kind == "boxes" else points,
        point_labels=None if kind == "boxes" else labels,
        classes=classes,
    )
