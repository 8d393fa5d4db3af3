"""Build a `Sam` of any size, and load its weights: embedded, official, or trained here."""

from pathlib import Path

from segment_anything.modeling import Sam

from canon_seg.config.assets import resolve_asset
from canon_seg.config.load import default_config
from canon_seg.errors import InputError
from canon_seg.io.checkpoint import fetch, load_state, load_torch_file, weights_in
from canon_seg.sam.models import (
    OFFICIAL_IMAGE_SIZE,
    OFFICIAL_SIZES,
    build_official_sam,
    build_tiny_sam,
)
from canon_seg.sam.two_stage import TwoStageDecoder, build_two_stage_sam

SEGMENTER = "SamSegmenter"
"""The MODEL.SEGMENTER.META_ARCHITECTURE of configs whose segmenter is a `Sam`."""

WEIGHTS_KEY = "MODEL.SEGMENTER.WEIGHTS"
EMBEDDED = "canon_seg://sam_tiny.pth"

_RESIDUAL_ONLY = ("image_encoder.stem.", "mask_decoder.coarse_comparison.")

OFFICIAL_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
OFFICIAL_FILES = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
}


def load_sam(weights: str = EMBEDDED, size: str = "tiny", key: str = "weights") -> Sam:
    """Build a `Sam` and load its weights.

    Args:
        weights: path of an official file or of a segmenter.pth that tools/train_net.py wrote,
            "canon_seg://NAME" for one that comes with the package, or an address to fetch it from.
        size: "vit_h", "vit_l", "vit_b", or "tiny" with the architecture of the config's defaults.
        key: config key or option that ``weights`` came from, for messages.

    Returns:
        `Sam` in eval mode, on the CPU.

    Raises:
        InputError: naming the file and the key, if it can't be used.
    """
    cfg = default_config()
    cfg.MODEL.SAM.SIZE = size
    sam = build_sam(cfg)
    load_sam_weights(sam, weights, key)
    return sam.eval()


def is_sam(cfg) -> bool:
    """Say whether a config is of a SAM behind a canonicalizer, which runs without detectron2."""
    keys = cfg.MODEL
    return (
        keys.META_ARCHITECTURE == "CanonicalizedSegmenter"
        and keys.SEGMENTER.META_ARCHITECTURE == SEGMENTER
    )


def sam_from_config(cfg) -> Sam:
    """Build the `Sam` that ``cfg.MODEL.SAM`` describes with the weights of ``cfg.MODEL.SEGMENTER``.

    Returns:
        `Sam` in eval mode, on the CPU; with random weights where the config names none.

    Raises:
        InputError: naming the key or the file that cannot be used.
    """
    weights = cfg.MODEL.SEGMENTER.WEIGHTS
    check_weights_file(weights, cfg.MODEL.SAM.SIZE)
    sam = build_sam(cfg)
    if weights:
        load_sam_weights(sam, weights, WEIGHTS_KEY)
    return sam.eval()


def build_sam(cfg) -> Sam:
    """Build the `Sam` that ``cfg.MODEL.SAM`` describes, with random weights.

    Raises:
        InputError: if the size is unknown.
    """
    keys = cfg.MODEL.SAM
    if keys.SIZE in OFFICIAL_SIZES:
        return build_official_sam(keys.SIZE)
    if keys.SIZE != "tiny":
        known = ", ".join((*OFFICIAL_SIZES, "tiny"))
        raise InputError(f"MODEL.SAM.SIZE is {keys.SIZE!r}; known: {known}")
    tiny = keys.TINY
    if tiny.IMAGE_SIZE % 32 or tiny.EMBED_DIM % 16:
        raise InputError(
            "MODEL.SAM.TINY: IMAGE_SIZE must be a multiple of 32 and EMBED_DIM one of 16; got "
            f"{tiny.IMAGE_SIZE} and {tiny.EMBED_DIM}"
        )
    if tiny.BACKBONE:
        return build_two_stage_sam(
            tiny.IMAGE_SIZE, tiny.BACKBONE, tiny.EMBED_DIM, tiny.FREEZE_STAGES
        )
    if not len(tiny.CHANNELS) == len(tiny.BLOCKS) == 4:
        raise InputError(
            "MODEL.SAM.TINY: CHANNELS and BLOCKS are for four stages; got "
            f"{list(tiny.CHANNELS)} and {list(tiny.BLOCKS)}"
        )
    return build_tiny_sam(tiny.IMAGE_SIZE, tiny.CHANNELS, tiny.BLOCKS, tiny.EMBED_DIM)


def load_sam_weights(sam: Sam, path: str, key: str) -> None:
    """Load the weights of a `Sam`, in place, whatever wraps them in the file.

    Args:
        sam: the `Sam`.
        path: as ``weights`` of :func:`load_sam`.
        key: config key or option that it came from, for messages.

    Raises:
        InputError: naming both, if the file is missing, damaged or of another model.
    """
    path = fetch(resolve_asset(path), key)
    weights = weights_in(load_torch_file(path, key), path, key)
    # Constants that some write, and that the model has of its own.
    means = ("pixel_mean", "pixel_std")
    weights = {name: value for name, value in weights.items() if name not in means}
    has_backbone = isinstance(sam.mask_decoder, TwoStageDecoder)
    if has_backbone and any(name.startswith(_RESIDUAL_ONLY) for name in weights):
        raise InputError(
            f"{path} ({key}) holds a small SAM of the earlier architecture, without a backbone; "
            'set MODEL.SAM.TINY.BACKBONE to ""'
        )
    load_state(sam, weights, path, key)


def check_weights_file(weights: str, size: str) -> None:
    """Raise InputError that says which file to get, where MODEL.SEGMENTER.WEIGHTS names none.

    Args:
        weights: the value of the key; addresses are looked for when they are fetched.
        size: MODEL.SAM.SIZE.
    """
    path = resolve_asset(weights)
    if not path or "://" in path or Path(path).is_file():
        return
    raise InputError(f"{WEIGHTS_KEY}: there is no file {path}. {weights_advice(size)}")


def weights_advice(size: str) -> str:
    """Say where the weights of a `Sam` of that MODEL.SAM.SIZE are to be had."""
    official = OFFICIAL_FILES.get(size)
    if official is None:
        return "Give a segmenter.pth that tools/train_net.py wrote"
    return (
        f"For MODEL.SAM.SIZE {size} get the official {official} from {OFFICIAL_PAGE} and set "
        f"{WEIGHTS_KEY} to its path"
    )


def image_size(cfg) -> int:
    """Say the side in pixels of the square input of the `Sam` that ``cfg.MODEL.SAM`` describes."""
    keys = cfg.MODEL.SAM
    return OFFICIAL_IMAGE_SIZE if keys.SIZE in OFFICIAL_SIZES else keys.TINY.IMAGE_SIZE
