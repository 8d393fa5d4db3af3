"""Build canonicalizers and scorers from a config."""

import os
from typing import Any

from canon_seg.config.assets import resolve_asset
from canon_seg.core.canonicalizer import CANONICALIZERS, Canonicalizer
from canon_seg.core.scorer import SCORERS, Scorer
from canon_seg.errors import InputError, of_key
from canon_seg.images import canonicalizer, energy  # noqa: F401 - register what they define
from canon_seg.io.imagenet import read_pretrained
from canon_seg.networks.backbone import KEY, BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_scorer import BackboneScorer, load_backbone_scorer
from canon_seg.networks.backbone_weights import is_pose_network, load_pose_network
from canon_seg.networks.equivariant import NetworkSpec, build_trainable_network
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.networks.weights import load_canonicalizer


def build_canonicalizer(cfg: Any) -> Canonicalizer:
    """Build the canonicalizer that ``cfg.MODEL.CANONICALIZER`` describes.

    Raises:
        InputError: naming the key that cannot be used.
    """
    built: Canonicalizer = canonicalizer_class(cfg).from_config(cfg)
    return built


def canonicalizer_class(cfg: Any) -> Any:
    """Return the registered class that ``MODEL.CANONICALIZER.NAME`` names.

    Raises:
        InputError: if there is none.
    """
    with of_key("MODEL.CANONICALIZER.NAME"):
        return CANONICALIZERS.get(cfg.MODEL.CANONICALIZER.NAME)


@SCORERS.register("NetworkScorer")
def build_network_scorer(cfg: Any) -> Scorer:
    """Build the scorer whose network is in a weights file, or is to be trained.

    The file, or SCORER.BACKBONE, tells a backbone from an equivariant network.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER
    _check_order(keys.GROUP_ORDER, keys.GROUP_ORDER, "")
    if uses_backbone(cfg):
        return build_backbone_scorer(cfg)
    if keys.WEIGHTS:
        if keys.SCORER.BACKBONE:
            raise InputError(
                f"{keys.WEIGHTS} (MODEL.CANONICALIZER.WEIGHTS) holds an equivariant network, but "
                f"MODEL.CANONICALIZER.SCORER.BACKBONE is {keys.SCORER.BACKBONE!r}; set WEIGHTS to "
                "that backbone's file, or BACKBONE to ''"
            )
        network, input_size = load_canonicalizer(
            resolve_asset(keys.WEIGHTS), trainable=keys.TRAINABLE
        )
        origin = f" (from {keys.WEIGHTS})"
    elif keys.TRAINABLE:
        network, input_size = build_trainable_network(network_spec(cfg)), keys.INPUT_SIZE
        origin = ""
    else:
        raise InputError(
            "MODEL.CANONICALIZER.WEIGHTS is empty: give a weights file, or set "
            "MODEL.CANONICALIZER.TRAINABLE True to train from scratch"
        )
    _check_order(network.spec.group_order, keys.GROUP_ORDER, origin)
    with of_key(f"MODEL.CANONICALIZER.INPUT_SIZE{origin}"):
        return NetworkScorer(network, input_size=input_size, image_format=cfg.INPUT.FORMAT)


def uses_backbone(cfg: Any) -> bool:
    """Tell whether the config's network is a pretrained backbone in place of an equivariant one.

    Raises:
        InputError: naming the weights file, if it is missing or damaged.
    """
    keys = cfg.MODEL.CANONICALIZER
    if keys.NAME != "GroupCanonicalizer" or keys.SCORER.NAME != "NetworkScorer":
        return False
    if keys.WEIGHTS:
        return is_pose_network(resolve_asset(keys.WEIGHTS))
    return bool(keys.SCORER.BACKBONE)


def build_backbone_scorer(cfg: Any) -> BackboneScorer:
    """Build the :class:`BackboneScorer` that ``cfg.MODEL.CANONICALIZER`` describes.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER
    if keys.WEIGHTS:
        network, input_size, temperatures = load_pose_network(
            resolve_asset(keys.WEIGHTS), keys.SCORER.BACKBONE
        )
    elif keys.TRAINABLE:
        network = PoseNetwork(BackboneSpec(keys.SCORER.BACKBONE))
        input_size, temperatures = keys.INPUT_SIZE, {}
        if keys.SCORER.PRETRAINED:
            source = keys.SCORER.PRETRAINED
            network.load_pretrained(read_pretrained(source, f"{KEY}.PRETRAINED"), source)
    else:
        raise InputError(
            "MODEL.CANONICALIZER.WEIGHTS is empty: give a weights file, or set "
            "MODEL.CANONICALIZER.TRAINABLE True to train MODEL.CANONICALIZER.SCORER.BACKBONE"
        )
    if keys.TRAINABLE:
        network.freeze_stages(keys.SCORER.FREEZE_STAGES)
        temperatures = {}
    return BackboneScorer(
        network,
        input_size=input_size,
        image_format=cfg.INPUT.FORMAT,
        passes=keys.SCORER.PASSES,
        temperatures=temperatures,
    )


def load_scorer(
    path: str | os.PathLike[str], *, image_format: str = "RGB", passes: int = 0
) -> NetworkScorer | BackboneScorer:
    """Build the scorer of a weights file of either kind.

    Args:
        path: file that tools/train_net.py wrote, or "canon_seg://NAME".
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: turns of an image that a backbone looks at, 0 for all or 1.

    Returns:
        the scorer in eval mode, on the CPU.

    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind.
    """
    path = resolve_asset(os.fspath(path))
    if is_pose_network(path):
        return load_backbone_scorer(path, image_format=image_format, passes=passes)
    network, input_size = load_canonicalizer(path)
    return NetworkScorer(network, input_size=input_size, image_format=image_format).eval()


def network_spec(cfg: Any) -> NetworkSpec:
    """Return the :class:`NetworkSpec` that ``cfg.MODEL.CANONICALIZER`` describes."""
    keys = cfg.MODEL.CANONICALIZER
    return NetworkSpec(
        keys.NETWORK.NAME, keys.GROUP_ORDER, tuple(keys.NETWORK.FIELDS), keys.NETWORK.DEPTH
    )


def _check_order(order: int, wanted: int, origin: str) -> None:
    if order != wanted or order != 4:
        raise InputError(f"MODEL.CANONICALIZER.GROUP_ORDER is {order}{origin}; only 4 is supported")
