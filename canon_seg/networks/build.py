"""Build canonicalizers and scorers from a config."""

import os
from typing import Any

import torch

from canon_seg.config.assets import resolve_asset
from canon_seg.core.canonicalizer import CANONICALIZERS, Canonicalizer
from canon_seg.core.group import C4, PlanarGroup, elements_of
from canon_seg.core.prior import check_prior
from canon_seg.core.scorer import ARCS, SCORERS, Scorer
from canon_seg.errors import InputError, of_key
from canon_seg.images import canonicalizer, energy  # noqa: F401 - register what they define
from canon_seg.images.canonicalizer import group_of
from canon_seg.io.imagenet import PREFIX, read_pretrained
from canon_seg.networks.backbone import KEY, BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.backbone_weights import QUARTERS, is_pose_network, load_pose_network
from canon_seg.networks.circle_scorer import CircleScorer
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
    group = group_of(cfg)
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
        if group.elements is None and group.mirrors:
            raise _misfit(group, "C(n), D(n) or SO2", "")
        network, input_size = build_trainable_network(network_spec(cfg)), keys.INPUT_SIZE
        origin = ""
    else:
        raise InputError(
            "MODEL.CANONICALIZER.WEIGHTS is empty: give a weights file, or set "
            "MODEL.CANONICALIZER.TRAINABLE True to train from scratch"
        )
    if group != network.spec.group:
        raise _misfit(group, network.spec.group.name, origin)
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


def build_backbone_scorer(cfg: Any) -> "BackboneScorer | CircleScorer":
    """Build the scorer with a backbone that ``cfg.MODEL.CANONICALIZER`` describes.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER
    group, origin = group_of(cfg), ""
    if keys.WEIGHTS:
        network, input_size, temperatures = load_pose_network(
            resolve_asset(keys.WEIGHTS), keys.SCORER.BACKBONE
        )
        origin = f" (from {keys.WEIGHTS})"
    elif keys.TRAINABLE:
        poses = ARCS * (1 + group.mirrors) if group.elements is None else len(elements_of(group))
        network = PoseNetwork(BackboneSpec(keys.SCORER.BACKBONE, poses, group.mirrors))
        input_size, temperatures = keys.INPUT_SIZE, {}
        if keys.SCORER.PRETRAINED:
            _start_from(network, keys.SCORER.PRETRAINED)
    else:
        raise InputError(
            "MODEL.CANONICALIZER.WEIGHTS is empty: give a weights file, or set "
            "MODEL.CANONICALIZER.TRAINABLE True to train MODEL.CANONICALIZER.SCORER.BACKBONE"
        )
    if keys.TRAINABLE:
        network.freeze_stages(keys.SCORER.FREEZE_STAGES)
        temperatures = {}
    if network.spec.num_poses != QUARTERS:
        circle = network.spec.circle
        if group.mirrors != circle.mirrors or (keys.TRAINABLE and group.elements is not None):
            raise _misfit(group, circle.name if keys.WEIGHTS else "C4, SO2 or O2", origin)
        return CircleScorer(
            network,
            group=group,
            input_size=input_size,
            image_format=cfg.INPUT.FORMAT,
            passes=keys.SCORER.PASSES,
            temperatures=temperatures,
        )
    if group != C4:
        raise _misfit(group, "C4", origin)
    return BackboneScorer(
        network,
        input_size=input_size,
        image_format=cfg.INPUT.FORMAT,
        passes=keys.SCORER.PASSES,
        temperatures=temperatures,
    )


def load_scorer(
    path: str | os.PathLike[str],
    *,
    image_format: str = "RGB",
    passes: int = 0,
    group: PlanarGroup | None = None,
) -> NetworkScorer | BackboneScorer | CircleScorer:
    """Build the scorer of a weights file of any kind.

    Args:
        path: file that tools/train_net.py wrote, or "canon_seg://NAME".
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        passes: turns of an image that a backbone looks at, 0 for all or 1.
        group: of the poses; None for that of the file.

    Returns:
        the scorer in eval mode, on the CPU.

    Raises:
        InputError: naming the file, if it is missing, damaged or of another kind, or does not
            serve the group.
    """
    path = resolve_asset(os.fspath(path))
    if not is_pose_network(path):
        equivariant, size = load_canonicalizer(path)
        scorer: Any = NetworkScorer(equivariant, input_size=size, image_format=image_format)
    else:
        network, size, temperatures = load_pose_network(path)
        options: dict[str, Any] = {
            "input_size": size,
            "image_format": image_format,
            "passes": passes,
            "temperatures": temperatures,
        }
        if network.spec.num_poses == QUARTERS:
            scorer = BackboneScorer(network, **options)
        else:
            circle = network.spec.circle
            fits = group is not None and group.mirrors == circle.mirrors
            scorer = CircleScorer(network, group=group if fits and group else circle, **options)
    if group is not None and scorer.group != group:
        raise InputError(
            f"{path} serves poses of {scorer.group.name}, not of {group.name}; give weights for "
            "that group (those for SO2 serve every C(n), those for O2 every D(n))"
        )
    built: NetworkScorer | BackboneScorer | CircleScorer = scorer.eval()
    return built


def _start_from(network: PoseNetwork, source: str) -> None:
    """Take over weights of ImageNet, or of a network for fewer poses."""
    path = resolve_asset(source)
    if source.startswith(PREFIX) or not is_pose_network(path):
        network.load_pretrained(read_pretrained(path, f"{KEY}.PRETRAINED"), source)
    else:
        with of_key(f"{KEY}.PRETRAINED"):
            network.take_over(load_pose_network(path)[0])


def network_spec(cfg: Any) -> NetworkSpec:
    """Return the :class:`NetworkSpec` that ``cfg.MODEL.CANONICALIZER`` describes."""
    keys = cfg.MODEL.CANONICALIZER
    group = group_of(cfg)
    return NetworkSpec(
        keys.NETWORK.NAME,
        group.order or keys.NETWORK.ORIENTATIONS,
        tuple(keys.NETWORK.FIELDS),
        keys.NETWORK.DEPTH,
        group.mirrors,
        vector=group.order is None,
        disc=keys.NETWORK.DISC,
        blur=keys.NETWORK.BLUR,
        kernel=keys.NETWORK.KERNEL,
    )


def prior_of(cfg: Any) -> torch.Tensor:
    """Return the prior of a config's group: (N,) probabilities; (1,) for a continuous one, upright.

    Raises:
        InputError: naming the key.
    """
    group, prior = group_of(cfg), list(cfg.MODEL.CANONICALIZER.PRIOR)
    count = 1 if group.elements is None else len(elements_of(group))
    if prior == [1.0, 0.0, 0.0, 0.0]:  # the default: upright, for every group
        prior = [1.0] + [0.0] * (count - 1)
    with of_key("MODEL.CANONICALIZER."):
        return check_prior(prior, count)


def _misfit(group: PlanarGroup, trained_for: str, origin: str) -> InputError:
    return InputError(
        f"MODEL.CANONICALIZER.GROUP is {group.name}, and the network is for {trained_for}{origin}, "
        "which does not score its poses; take weights or a scorer for this group (those for SO2 "
        "serve every C(n), those for O2 every D(n))"
    )
