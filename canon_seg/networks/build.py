"""Canonicalizers from a config."""

from canon_seg.config.assets import resolve_asset
from canon_seg.core.group import C4
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import (
    GroupCanonicalizer,
    IdentityCanonicalizer,
    UncertainPoses,
)
from canon_seg.images.resize import STRIDE
from canon_seg.networks.backbone import (
    BackboneCanonicalizer,
    BackboneScorer,
    BackboneSpec,
    PoseNetwork,
)
from canon_seg.networks.backbone_weights import is_pose_network, load_pose_network
from canon_seg.networks.equivariant import NetworkSpec, build_trainable_network
from canon_seg.networks.imagenet import read_pretrained
from canon_seg.networks.weights import load_canonicalizer


def build_canonicalizer(cfg):
    """The canonicalizer that ``cfg.MODEL.CANONICALIZER`` describes.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER
    if keys.NAME == "IdentityCanonicalizer":
        return IdentityCanonicalizer()
    if keys.NAME != "GroupCanonicalizer":
        raise InputError(
            f"MODEL.CANONICALIZER.NAME is {keys.NAME!r}; known: GroupCanonicalizer, "
            "IdentityCanonicalizer"
        )
    _check_order(keys.GROUP_ORDER, "")
    uncertain = UncertainPoses(keys.UNCERTAIN, keys.UNCERTAIN_BELOW, keys.VOTE_POSES)
    if uses_backbone(cfg):
        return BackboneCanonicalizer(build_backbone_scorer(cfg), uncertain)
    if keys.WEIGHTS:
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
    _check_order(network.spec.group_order, origin)
    if input_size % STRIDE != 1 or input_size <= STRIDE:
        raise InputError(
            f"MODEL.CANONICALIZER.INPUT_SIZE is {input_size}{origin}; it must be of the form "
            f"{STRIDE} k + 1 (65, 97, 129, ...)"
        )
    return GroupCanonicalizer(
        network,
        input_size=input_size,
        image_format=cfg.INPUT.FORMAT,
        uncertain=uncertain,
    )


def uses_backbone(cfg):
    """Tell whether the config's network is a pretrained backbone in place of an equivariant one.

    Raises:
        InputError: naming the weights file, if it is missing or damaged.
    """
    keys = cfg.MODEL.CANONICALIZER
    if keys.NAME != "GroupCanonicalizer":
        return False
    if keys.WEIGHTS:
        return is_pose_network(resolve_asset(keys.WEIGHTS))
    return bool(keys.SCORER.BACKBONE)


def build_backbone_scorer(cfg):
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
        network = PoseNetwork(BackboneSpec(keys.SCORER.BACKBONE, C4.order))
        input_size, temperatures = keys.INPUT_SIZE, {}
        if keys.SCORER.PRETRAINED:
            source = keys.SCORER.PRETRAINED
            network.load_pretrained(read_pretrained(source), source)
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
        temperature=temperatures.get(keys.SCORER.PASSES, 1.0),
    )


def network_spec(cfg):
    """The :class:`NetworkSpec` that ``cfg.MODEL.CANONICALIZER`` describes."""
    keys = cfg.MODEL.CANONICALIZER
    return NetworkSpec(
        keys.NETWORK.NAME, keys.GROUP_ORDER, tuple(keys.NETWORK.FIELDS), keys.NETWORK.DEPTH
    )


def _check_order(order, origin):
    if order != C4.order:
        raise InputError(
            f"MODEL.CANONICALIZER.GROUP_ORDER is {order}{origin}; only {C4.order} is supported"
        )
