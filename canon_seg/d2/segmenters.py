"""Segmenters from a config: any detectron2 meta-architecture, with its official checkpoint."""

import os

from canon_seg.config.assets import resolve_asset
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.detector_sam import DetectorSam, build_detector
from canon_seg.errors import InputError
from canon_seg.networks.numerics import speed_up, used_numerics
from canon_seg.sam.loading import WEIGHTS_KEY, check_weights_file, load_sam_weights

from detectron2.modeling import META_ARCH_REGISTRY


def build_segmenter(cfg):
    """The segmenter that ``cfg.MODEL.SEGMENTER`` describes, weights loaded, on the CPU.

    SAM comes with the detector that prompts it, if ``MODEL.SAM.PROMPTS`` is "detector".

    Returns:
        nn.Module, or None where META_ARCHITECTURE is "".
    Raises:
        InputError: naming the key or the file that cannot be used.
    """
    name = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
    if not name:
        return None
    if name not in META_ARCH_REGISTRY or name == "CanonicalizedSegmenter":
        known = sorted(key for key, _ in META_ARCH_REGISTRY if key != "CanonicalizedSegmenter")
        raise InputError(
            f"MODEL.SEGMENTER.META_ARCHITECTURE is {name!r}; registered: {', '.join(known)}"
        )
    weights = resolve_asset(cfg.MODEL.SEGMENTER.WEIGHTS)
    if name == "SamSegmenter":
        check_weights_file(weights, cfg.MODEL.SAM.SIZE)
    # Addresses such as detectron2://... are the checkpointer's to fetch.
    elif weights and "://" not in weights and not os.path.isfile(weights):
        raise InputError(
            f"{WEIGHTS_KEY}: there is no file {weights}. Give a checkpoint of the detectron2 model "
            "zoo (.pkl) or one of your own (.pth)"
        )
    segmenter = META_ARCH_REGISTRY.get(name)(cfg)
    if weights and name == "SamSegmenter":
        load_sam_weights(segmenter.sam, weights, WEIGHTS_KEY)
    elif weights:
        SafeCheckpointer(segmenter, key=WEIGHTS_KEY).load(weights)
    if name == "SamSegmenter" and cfg.MODEL.SAM.PROMPTS == "detector":
        segmenter = DetectorSam(build_detector(cfg), segmenter)
    speed_up(segmenter, used_numerics(cfg))
    return segmenter
