"""Build the models that a sweep compares: one segmenter behind different canonicalizers."""

from dataclasses import replace

from canon_seg.core.canonicalizer import (
    AllPosesCanonicalizer,
    FixedPoseCanonicalizer,
    IdentityCanonicalizer,
)
from canon_seg.core.group import D4, O2
from canon_seg.core.turn import as_turn
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.errors import InputError
from canon_seg.networks.build import build_canonicalizer

from detectron2.modeling import build_model

MODES = {
    "vanilla": "the segmenter alone, behind the identity canonicalizer",
    "canonical": "the segmenter behind the canonicalizer of the config",
    "C4": "as canonical, with the weights read for quarter turns alone",
    "C8": "as canonical, with the weights read for multiples of 45 degrees",
    "SO2": "as canonical, with the weights read for any angle",
    "D4": "as canonical, with the weights read for quarter turns and mirrors",
    "O2": "as canonical, with the weights read for any angle and mirrors",
    "oracle": "the segmenter behind a canonicalizer that knows the true pose, to the nearest "
    "quarter turn and the side of the mirror: the upper bound of C4 and D4",
    "oracle_any": "the segmenter behind one that knows the true angle: what is lost then is lost "
    "to interpolation and canvas",
    "tta": "the segmenter on all four turns of the given image, merged: test-time augmentation",
}

GROUP_MODES = ("C4", "C8", "SO2", "D4", "O2")
"""Modes whose canonicalizer is that of the config, read for the group of their name."""


def build_models(cfg, modes):
    """Build the model of each mode on ``cfg.MODEL.DEVICE``, in eval mode, around one segmenter.

    Args:
        cfg: config; not changed. Its canonicalizer is built only if ``modes`` has "canonical".
        modes: keys of ``MODES``.

    Returns:
        dict from mode to a function from the true pose (any turn, or a number of quarter turns) to
        the model for such images.

    Raises:
        InputError: naming the mode or the config key that cannot be used.
    """
    modes, cfg = check_modes(modes), cfg.clone()
    cfg.defrost()
    if cfg.MODEL.META_ARCHITECTURE != CanonicalizedSegmenter.__name__:
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}; what is wanted here is "
            "CanonicalizedSegmenter, with the model itself as MODEL.SEGMENTER.META_ARCHITECTURE"
        )
    if not cfg.MODEL.SEGMENTER.META_ARCHITECTURE:
        raise InputError(
            "MODEL.SEGMENTER.META_ARCHITECTURE is empty: there is nothing to evaluate; name a "
            "segmenter, such as SamSegmenter or GeneralizedRCNN"
        )
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    groups = {mode: _read_for(cfg, mode) for mode in modes if mode in GROUP_MODES}
    if "canonical" not in modes:
        cfg.MODEL.CANONICALIZER.NAME = "IdentityCanonicalizer"
    return models_by_mode(build_model(cfg).eval(), modes, groups)


def _read_for(cfg, name):
    """Build the canonicalizer of a config for another group."""
    cfg = cfg.clone()
    cfg.MODEL.CANONICALIZER.GROUP, cfg.MODEL.CANONICALIZER.GROUP_ORDER = name, 4
    try:
        return build_canonicalizer(cfg).to(cfg.MODEL.DEVICE).eval()
    except InputError as error:
        raise InputError(f"--modes {name}: {error}") from error


def models_by_mode(model, modes, groups=None):
    """Do as :func:`build_models`, around a :class:`CanonicalizedSegmenter` that exists already.

    Args:
        model: the mode "canonical".
        modes: keys of ``MODES``.
        groups: dict from those of ``GROUP_MODES`` that are asked for to their canonicalizers.
    """
    known = {
        **{
            mode: lambda found=found: _for_all_poses(behind(found, model))
            for mode, found in (groups or {}).items()
        },
        "vanilla": lambda: _for_all_poses(behind(IdentityCanonicalizer(), model)),
        "canonical": lambda: _for_all_poses(model),
        "oracle": lambda: _for_each_pose(model),
        "oracle_any": lambda: lambda turn: behind(FixedPoseCanonicalizer(turn, O2), model),
        "tta": lambda: _for_all_poses(behind(AllPosesCanonicalizer(), model)),
    }
    return {mode: known[mode]() for mode in check_modes(modes)}


def check_modes(modes):
    """Return the modes without repetition, or raise an :class:`InputError` that lists them all."""
    for mode in modes:
        if mode not in MODES:
            raise InputError(
                f"--modes: {mode!r} is not a mode; known: {', '.join(MODES)} (config options KEY "
                "VALUE come last, after --output)"
            )
    return list(dict.fromkeys(modes))


def _for_all_poses(model):
    return lambda pose: model


def _for_each_pose(model):
    oracles = {pose: behind(FixedPoseCanonicalizer(pose, D4), model) for pose in D4.elements}
    return lambda pose: oracles[replace(as_turn(pose), tilt=0.0)]


def behind(canonicalizer, model):
    """Return ``model`` with another canonicalizer and no cache; all else is shared."""
    return CanonicalizedSegmenter(
        canonicalizer=canonicalizer,
        segmenter=model.segmenter,
        resize=model.resize,
        prior=model.prior,
        prior_weight=model.prior_weight,
        task_weight=model.task_weight,
        merge_nms_thresh=model.merge_nms_thresh,
        max_detections=model.max_detections,
    ).eval()
