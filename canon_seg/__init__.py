"""Canonicalize for segmenters: turn an image upright, segment it, turn the result back."""

import importlib

from canon_seg.errors import without_detectron2

__version__ = "0.1.0"

# Public names and where they live. Each is imported when it is first asked for: `import canon_seg`
# needs neither torch nor detectron2.
_HOMES = {
    "CanonicalSamPredictor": "predictors.sam_predictor",
    "CanonicalSamAutomaticMaskGenerator": "predictors.mask_generator",
    "CanonicalDetector": "predictors.detector",
    "CanonicalImagePredictor": "predictors.adapters",
    "HubCanonicalizer": "predictors.hub",
    "TransformersSam": "predictors.adapters",
    "CanonicalVideoPredictor": "predictors.video_predictor",
    "CanonicalVideoDetector": "predictors.detector",
    "TransformersSamVideo": "predictors.video_predictor",
    "CanonicalPredictor": "predictors.detectron2_predictor",
    "load_config": "d2.config",
    "load_default_canonicalizer": "predictors.defaults",
    "load_default_sam": "predictors.defaults",
    "segment_everything": "predictors.everything",
    "to_coco_json": "predictors.conversions",
    "to_supervision": "predictors.conversions",
    "upright": "predictors.upright",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if name == "HubCanonicalizer" and missing == "huggingface_hub":
            raise ModuleNotFoundError(
                f"{__name__}.{name} needs huggingface_hub: pip install canon_seg[hub]",
                name=error.name,
            ) from error
        if missing != "detectron2":
            raise
        raise ModuleNotFoundError(
            without_detectron2(f"{__name__}.{name}"), name=error.name
        ) from error


def __dir__():
    return sorted([*globals(), *__all__])
