"""Build what finds the poses of images alone, without prompts, from a config."""

from collections.abc import Sequence
from typing import Any

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.errors import InputError
from canon_seg.images.energy import judges_by_segmenter
from canon_seg.networks.build import build_canonicalizer
from canon_seg.sam.confidence import bound_to_sam
from canon_seg.sam.loading import is_sam, sam_from_config
from canon_seg.sam.prompted import PromptedSam


def build_pose_finder(
    cfg: Any, config_file: str = "", options: Sequence[str] = ()
) -> Canonicalizer:
    """Build the canonicalizer of a config, with the segmenter that it may ask for poses.

    A segmenter is built only if the canonicalizer asks it; detectron2 is needed only if it is not a
    SAM that is prompted from outside.

    Args:
        cfg: config of :func:`canon_seg.config.load.load_config`; not changed.
        config_file, options: what it was loaded from. A segmenter of detectron2 is built of these
            and all of detectron2's own keys, on ``cfg.MODEL.DEVICE``.

    Returns:
        the canonicalizer in eval mode, on ``cfg.MODEL.DEVICE``.

    Raises:
        InputError: naming the key that cannot be used.
    """
    cfg = cfg.clone()
    cfg.defrost()
    keys = cfg.MODEL
    keys.CANONICALIZER.TRAINABLE = False
    canonicalizer = build_canonicalizer(cfg).to(keys.DEVICE).eval()
    if not canonicalizer.finds_poses:
        raise InputError(
            f"MODEL.CANONICALIZER.NAME is {keys.CANONICALIZER.NAME!r}, which looks for no pose; "
            "set GroupCanonicalizer"
        )
    if not judges_by_segmenter(canonicalizer):
        return canonicalizer
    if not keys.SEGMENTER.META_ARCHITECTURE:
        raise InputError(
            "MODEL.CANONICALIZER.SCORER.NAME is SegmenterScorer, but there is no segmenter to ask; "
            "give a config with a segmenter, or set MODEL.SEGMENTER.META_ARCHITECTURE"
        )
    if is_sam(cfg) and keys.SAM.PROMPTS != "detector":
        sam = sam_from_config(cfg).requires_grad_(False).to(keys.DEVICE)
        return bound_to_sam(
            canonicalizer,
            PromptedSam(sam, cfg.INPUT.FORMAT, keys.SAM.MULTIMASK, keys.SAM.PROMPTS_PER_BATCH),
        )
    try:
        from canon_seg.d2.config import load_config
        from canon_seg.d2.judge import bound_to_model
        from canon_seg.d2.models import build_models
    except ModuleNotFoundError as error:
        raise InputError(
            f"MODEL.CANONICALIZER.SCORER.NAME is SegmenterScorer, and the segmenter "
            f"{keys.SEGMENTER.META_ARCHITECTURE} needs detectron2 ({error}); run "
            "canon-seg-install-detectron2, or name another scorer"
        ) from error
    complete = load_config(config_file, options)
    complete.MODEL.DEVICE = keys.DEVICE
    complete.MODEL.CANONICALIZER.TRAINABLE = False
    finder: Canonicalizer = bound_to_model(build_models(complete, ["canonical"])["canonical"](0))
    return finder
