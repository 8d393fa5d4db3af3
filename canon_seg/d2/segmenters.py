"""Segmenters from a config: any detectron2 meta-architecture, with its official checkpoint."""

import os

from canon_seg.config.assets import resolve_asset
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.detector_sam import DetectorSam, build_detector
from canon_seg.d2.numerics import speed_up, used_numerics
from canon_seg.d2.sam import OFFICIAL_FILES
from canon_seg.errors import InputError

from detectron2.modeling import META_ARCH_REGISTRY

WEIGHTS_KEY = "MODEL.SEGMENTER.WEIGHTS"


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
    # Addresses such as detectron2://... are the checkpointer's to fetch.
    if weights and "://" not in weights and not os.path.isfile(weights):
        raise InputError(f"{WEIGHTS_KEY}: there is no file {weights}. {_advice(cfg)}")
    segmenter = META_ARCH_REGISTRY.get(name)(cfg)
    if weights:
        # segment_anything's files hold a bare `Sam`, detectron2's the whole model.
        module = segmenter.sam if name == "SamSegmenter" else segmenter
        SafeCheckpointer(module, key=WEIGHTS_KEY).load(weights)
    if name == "SamSegmenter" and cfg.MODEL.SAM.PROMPTS == "detector":
        segmenter = DetectorSam(build_detector(cfg), segmenter)
    speed_up(segmenter, used_numerics(cfg))
    return segmenter


def _advice(cfg):
    if cfg.MODEL.SEGMENTER.META_ARCHITECTURE != "SamSegmenter":
        return "Give a checkpoint of the detectron2 model zoo (.pkl) or one of your own (.pth)"
    official = OFFICIAL_FILES.get(cfg.MODEL.SAM.SIZE)
    if official is None:
        return "Give a segmenter.pth that tools/train_net.py wrote"
    return (
        f"For MODEL.SAM.SIZE {cfg.MODEL.SAM.SIZE} get the official {official} from the "
        f"segment-anything project and set {WEIGHTS_KEY} to its path"
    )
