"""Build segmenters: any detectron2 meta-architecture of a config, with its official checkpoint."""

import os

from canon_seg.config.assets import resolve_asset
from canon_seg.d2.capabilities import CANONICALIZED, capabilities, hook, registered
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.detector_sam import DetectorSam, build_detector
from canon_seg.errors import InputError
from canon_seg.networks.numerics import speed_up, used_numerics
from canon_seg.sam.loading import WEIGHTS_KEY

from detectron2.modeling import META_ARCH_REGISTRY


def build_segmenter(cfg):
    """Build the segmenter that ``cfg.MODEL.SEGMENTER`` describes, weights loaded, on the CPU.

    One that takes prompts comes with the detector that gives them, if ``MODEL.SAM.PROMPTS`` is
    "detector".

    Returns:
        nn.Module, or None where META_ARCHITECTURE is "".

    Raises:
        InputError: naming the key or the file that cannot be used.
    """
    name = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
    if not name:
        return None
    found = registered(name)
    if found is None or name == CANONICALIZED:
        known = sorted(key for key, _ in META_ARCH_REGISTRY if key != CANONICALIZED)
        raise InputError(
            f"MODEL.SEGMENTER.META_ARCHITECTURE is {name!r}; registered: {', '.join(known)}"
        )
    weights = resolve_asset(cfg.MODEL.SEGMENTER.WEIGHTS)
    # Addresses such as detectron2://... are fetched when they are loaded.
    if weights and "://" not in weights and not os.path.isfile(weights):
        raise InputError(f"{WEIGHTS_KEY}: there is no file {weights}. {_advice(found, cfg)}")
    segmenter = found(cfg)
    if weights:
        _load_weights(segmenter, weights)
    if capabilities(found).takes_prompts and cfg.MODEL.SAM.PROMPTS == "detector":
        segmenter = DetectorSam(build_detector(cfg), segmenter)
    speed_up(segmenter, used_numerics(cfg))
    return segmenter


def _load_weights(segmenter, weights):
    load = hook(segmenter, "load_weights")
    if load is not None:
        load(weights, WEIGHTS_KEY)
        return
    module = segmenter.get_submodule(capabilities(segmenter).checkpoint_module)
    SafeCheckpointer(module, key=WEIGHTS_KEY).load(weights)


def _advice(segmenter, cfg):
    advice = hook(segmenter, "weights_advice")
    if advice is None:
        return "Give a checkpoint of the detectron2 model zoo (.pkl) or one of your own (.pth)"
    return advice(cfg)
