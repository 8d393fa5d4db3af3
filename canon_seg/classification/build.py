"""Build a classifier, its canonicalizer and the two together from a config."""

from typing import Any

from canon_seg.classification.classifier import (
    CanonicalizedClassifier,
    ConfidenceScorer,
    Predictor,
)
from canon_seg.config.assets import PREFIX as EMBEDDED
from canon_seg.config.assets import resolve_asset
from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.group import elements_of
from canon_seg.core.prior import check_label_smoothing
from canon_seg.core.scorer import SCORERS, Scorer
from canon_seg.errors import InputError, of_key
from canon_seg.images.canonicalizer import GroupCanonicalizer, group_of
from canon_seg.io.checkpoint import load_state, load_torch_file, weights_in
from canon_seg.io.imagenet import PREFIX, read_pretrained
from canon_seg.networks.build import build_canonicalizer, prior_of
from canon_seg.networks.square import (
    SquareNetwork,
    SquareScorer,
    SquareSpec,
    build_body,
    is_square,
    load_square,
    statistics_of,
)

META_ARCHITECTURE = "CanonicalizedClassifier"
KEY = "MODEL.CLASSIFIER"
SCORER_KEY = "MODEL.CANONICALIZER.SCORER"
CONFIDENCE = "ConfidenceScorer"
TORCHVISION = "torchvision://"
DEFAULT_SIZE = 64


def build_model(cfg: Any, classes: "tuple[str, ...] | None" = None) -> CanonicalizedClassifier:
    """Build the canonicalized classifier that a config describes.

    Args:
        cfg: config.
        classes: names of the data's classes, which a classifier with random weights is built for.

    Raises:
        InputError: naming the key that cannot be used.
    """
    predictor, _ = build_predictor(cfg, classes)
    keys = cfg.MODEL.CANONICALIZER
    canonicalizer = build_pose_finder(cfg, predictor)
    with of_key("MODEL.CANONICALIZER."):
        smoothing = check_label_smoothing(keys.LABEL_SMOOTHING)
    with of_key(f"{KEY}."):
        class_smoothing = check_label_smoothing(cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING)
    learns = canonicalizer.finds_poses
    return CanonicalizedClassifier(
        predictor,
        canonicalizer,
        prior=prior_of(cfg) if learns else None,
        task_weight=keys.TASK_WEIGHT if learns else 1.0,
        prior_weight=keys.PRIOR_WEIGHT if learns else 0.0,
        label_smoothing=smoothing,
        class_smoothing=class_smoothing,
        freeze=cfg.MODEL.CLASSIFIER.FREEZE,
    )


def build_pose_finder(cfg: Any, predictor: Predictor) -> Canonicalizer:
    """Build the canonicalizer of a config; the predictor is asked where that scores the poses."""
    keys = cfg.MODEL.CANONICALIZER
    if keys.SCORER.NAME != CONFIDENCE or keys.NAME != "GroupCanonicalizer":
        return build_canonicalizer(cfg)
    scorer = ConfidenceScorer(predictor, group=group_of(cfg), image_format=cfg.INPUT.FORMAT)
    return GroupCanonicalizer(scorer)


def leave_out_embedded(cfg: Any) -> None:
    """Take embedded weights out of a config, for images of other classes than theirs."""
    for node in (cfg.MODEL.CLASSIFIER, cfg.MODEL.CANONICALIZER):
        if node.WEIGHTS.startswith(EMBEDDED):
            node.WEIGHTS = ""


def build_predictor(
    cfg: Any, classes: "tuple[str, ...] | None" = None
) -> tuple[SquareNetwork, "tuple[str, ...] | None"]:
    """Build the classifier of a config.

    Args:
        cfg: config.
        classes: of the data; None where only the weights file is to say them.

    Returns:
        (network, classes): the names of its outputs, None where nothing says them.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CLASSIFIER
    state = None
    if keys.WEIGHTS:
        path, key = resolve_asset(keys.WEIGHTS), f"{KEY}.WEIGHTS"
        contents = load_torch_file(path, key)
        if is_square(contents):
            network, about = load_square(path, key, cfg.INPUT.FORMAT, keys.INPUT_SIZE)
            if not isinstance(about.get("classes"), list):
                raise InputError(
                    f"{path} ({key}) holds a network of poses, and one of classes is needed; it is "
                    "for MODEL.CANONICALIZER.WEIGHTS"
                )
            return network, tuple(map(str, about["classes"]))
        state = weights_in(contents, path, key)  # type: ignore[no-untyped-call]
    if classes is None:
        raise InputError(f"{KEY}.WEIGHTS is empty: give a weights file, or images to train on")
    with of_key(f"{KEY}.NAME"):
        body = _body(keys, len(classes))
    if state is not None:
        load_state(body, state, path, key)
    elif keys.PRETRAINED:
        _start_from(body, keys.PRETRAINED, f"{KEY}.PRETRAINED")
    with of_key(f"{KEY}.INPUT_SIZE"):
        network = SquareNetwork(
            body,
            input_size=keys.INPUT_SIZE or DEFAULT_SIZE,
            image_format=cfg.INPUT.FORMAT,
            **statistics_of(body),
        )
    return network.eval(), classes


@SCORERS.register("SquareScorer")
def build_square_scorer(cfg: Any) -> Scorer:
    """Build the scorer of square images that a config describes.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys, group = cfg.MODEL.CANONICALIZER, group_of(cfg)
    if group.elements is None:
        raise InputError(
            f"MODEL.CANONICALIZER.GROUP is {group.name}, and a SquareScorer has an output for each "
            "pose; give a finite group, such as C8"
        )
    if keys.WEIGHTS:
        path, key = resolve_asset(keys.WEIGHTS), "MODEL.CANONICALIZER.WEIGHTS"
        network, about = load_square(path, key, cfg.INPUT.FORMAT)
        if about.get("group") != group.name:
            raise InputError(
                f"{path} ({key}) is for {about.get('group', 'classes, not poses')}, and "
                f"MODEL.CANONICALIZER.GROUP is {group.name}; make them one"
            )
    elif keys.TRAINABLE:
        spec = SquareSpec(keys.SCORER.BACKBONE, keys.SCORER.BLOCKS, len(elements_of(group)))
        body = build_body(spec, SCORER_KEY)
        if keys.SCORER.PRETRAINED:
            _start_from(body, keys.SCORER.PRETRAINED, f"{SCORER_KEY}.PRETRAINED")
        with of_key("MODEL.CANONICALIZER.INPUT_SIZE"):
            network = SquareNetwork(
                body,
                input_size=keys.INPUT_SIZE,
                image_format=cfg.INPUT.FORMAT,
                **statistics_of(body),
            )
    else:
        raise InputError(
            "MODEL.CANONICALIZER.WEIGHTS is empty: give a weights file, or set "
            "MODEL.CANONICALIZER.TRAINABLE True to train from scratch"
        )
    with of_key(f"{SCORER_KEY}.PASSES"):
        return SquareScorer(network, group=group, passes=keys.SCORER.PASSES)


def _start_from(body: Any, source: str, key: str) -> None:
    """Take over the blocks of a backbone from ImageNet, or of a network that was trained here."""
    if not hasattr(body, "load_pretrained"):
        raise InputError(
            f"{key} is for a network that is cut (BLOCKS above 0); set it to '', and give the "
            "state dict of a whole classifier as MODEL.CLASSIFIER.WEIGHTS"
        )
    path = resolve_asset(source)
    contents = None if source.startswith(PREFIX) else load_torch_file(path, key)
    state = contents["state"] if is_square(contents) else read_pretrained(path, key)
    body.load_pretrained(state, f"{source} ({key})")


def _body(keys: Any, outputs: int) -> Any:
    if not keys.NAME.startswith(TORCHVISION):
        return build_body(SquareSpec(keys.NAME, keys.BLOCKS, outputs), KEY)
    import torchvision

    name = keys.NAME[len(TORCHVISION) :]
    if name not in torchvision.models.list_models(torchvision.models):
        raise ValueError(
            f"{name!r} is no image classifier of torchvision {torchvision.__version__}; "
            "torchvision.models.list_models(torchvision.models) lists the names"
        )
    return torchvision.models.get_model(name, weights=None, num_classes=outputs)
