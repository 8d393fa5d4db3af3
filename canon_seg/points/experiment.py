"""Run the experiment on point clouds: classification under rotations that training did not show.

The third experiment of Mondal et al. 2023. A scenario such as z/SO3 says what training clouds and
evaluation clouds are rotated by: here, about the vertical axis, and by anything.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from canon_seg.errors import InputError
from canon_seg.io.checkpoint import load_state, load_torch_file
from canon_seg.io.files import save_torch
from canon_seg.points.canonicalizer import (
    CanonicalizedPointClassifier,
    IdentityCloudCanonicalizer,
    PrincipalAxesCanonicalizer,
    VectorNeuronCanonicalizer,
    prior_angles,
)
from canon_seg.points.clouds import CloudSet
from canon_seg.points.group import SO3, TRIVIAL, SpatialGroup, Z, rotate_points, rotation_angle
from canon_seg.points.models import DGCNN, PointNet
from canon_seg.points.training import Recipe, train_by_prior, train_classifier

GROUPS = {"I": TRIVIAL, "z": Z, "SO3": SO3}
SCENARIOS = ("I/SO3", "z/z", "z/SO3", "SO3/SO3")
ROWS = (
    "vanilla",
    "rotation augmentation",
    "learned",
    "prior",
    "prior, frozen classifier",
    "principal axes",
)
CLASSIFIER_NAMES = ("PointNet", "DGCNN")
TOLERANCE = 1e-4  # radians between canonical forms that are called equal, in float32
FORMAT = "canon_seg.points"
VERSION = 1
_WEIGHTS = "--weights"
_BATCH = 64


@dataclass(frozen=True)
class Model:
    """Say what one model is, and for which scenarios it stands.

    Attributes:
        classifier: one of :data:`CLASSIFIER_NAMES`.
        row: of the table, one of :data:`ROWS`.
        trained_under: group of the rotations in training, "I", "z" or "SO3".
        scenarios: that it is evaluated in.
    """

    classifier: str
    row: str
    trained_under: str
    scenarios: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the model's name, such as "PointNet/vanilla/z"."""
        return f"{self.classifier}/{self.row}/{self.trained_under}"

    @property
    def parts(self) -> dict[str, str]:
        """Return the names of what is trained for it, by the modules of the model.

        One part may serve several models.
        """
        if self.row == "prior":
            return {"canonicalizer": f"prior/{self.trained_under}", "classifier": self.name}
        plain = f"{self.classifier}/vanilla/{self.trained_under}"
        if self.row == "prior, frozen classifier":
            return {"canonicalizer": f"prior/{self.trained_under}", "classifier": plain}
        if self.row == "learned":
            return {"": self.name}
        return {"classifier": plain if self.row == "rotation augmentation" else self.name}


# A prior's canonicalizer is trained alone. Canonical forms do not depend on how a cloud was
# rotated, so that what is trained in learned poses or along principal axes is trained once, on
# aligned clouds, and stands for every scenario.
MODELS = (
    Model("PointNet", "vanilla", "z", ("z/z", "z/SO3")),
    Model("PointNet", "prior, frozen classifier", "z", ("z/z", "z/SO3")),
    Model("PointNet", "prior", "z", ("z/z", "z/SO3")),
    Model("PointNet", "vanilla", "I", ("I/SO3",)),
    Model("PointNet", "vanilla", "SO3", ("SO3/SO3",)),
    Model("PointNet", "rotation augmentation", "SO3", SCENARIOS),
    Model("PointNet", "principal axes", "I", SCENARIOS),
    Model("PointNet", "prior, frozen classifier", "I", ("I/SO3",)),
    Model("PointNet", "prior", "I", ("I/SO3",)),
    Model("PointNet", "learned", "I", SCENARIOS),
    Model("DGCNN", "vanilla", "z", ("z/z", "z/SO3")),
    Model("DGCNN", "prior, frozen classifier", "z", ("z/z", "z/SO3")),
    Model("DGCNN", "vanilla", "I", ("I/SO3",)),
    Model("DGCNN", "prior, frozen classifier", "I", ("I/SO3",)),
    Model("DGCNN", "vanilla", "SO3", ("SO3/SO3",)),
)
"""In the order in which their parts are trained."""


def num_points(cfg: Any, classifier: str) -> int:
    """Return how many points of a cloud a classifier looks at."""
    return int(cfg.MODEL.POINTNET.POINTS if classifier == "PointNet" else cfg.MODEL.DGCNN.POINTS)


def build(model: Model, cfg: Any, num_classes: int) -> CanonicalizedPointClassifier:
    """Build a model with random weights on the config's device, in eval mode."""
    canonicalizer: nn.Module
    if model.row.startswith(("learned", "prior")):
        keys = cfg.MODEL.CANONICALIZER
        canonicalizer = VectorNeuronCanonicalizer(keys.CHANNELS, keys.POINTS, keys.HIDDEN)
    elif model.row == "principal axes":
        canonicalizer = PrincipalAxesCanonicalizer()
    else:
        canonicalizer = IdentityCloudCanonicalizer()
    classifier: nn.Module
    if model.classifier == "PointNet":
        keys = cfg.MODEL.POINTNET
        classifier = PointNet(num_classes, keys.WIDTHS, keys.HIDDEN)
    else:
        keys = cfg.MODEL.DGCNN
        classifier = DGCNN(num_classes, keys.WIDTHS, keys.NEIGHBOURS, keys.JOINED, keys.HIDDEN)
    return CanonicalizedPointClassifier(canonicalizer, classifier).to(cfg.MODEL.DEVICE).eval()


Part = dict[str, torch.Tensor]
"""The weights of what is trained at once, a module's state dict."""


def train_all(
    cfg: Any,
    clouds: CloudSet,
    parts: "Mapping[str, Part] | None" = None,
    finished: "Callable[[Mapping[str, Part]], None] | None" = None,
) -> dict[str, Part]:
    """Train all parts of the table's models.

    Args:
        cfg: see :mod:`canon_seg.points.config`.
        clouds: to train on, aligned.
        parts: that are trained already.
        finished: called with all parts so far after each part.

    Returns:
        dict from a part's name to its weights.
    """
    trained = dict(parts or {})
    for model in MODELS:
        for module, part in model.parts.items():
            if part not in trained:
                # Each part starts from the seed, so that it does not depend on those before it.
                torch.manual_seed(cfg.DATA.SEED)
                built = build(model, cfg, len(clouds.classes))
                trained[part] = _train_part(built, module, part, model, cfg, clouds, trained)
                if finished:
                    finished(trained)
    return trained


def _train_part(
    built: CanonicalizedPointClassifier,
    module: str,
    part: str,
    model: Model,
    cfg: Any,
    clouds: CloudSet,
    trained: Mapping[str, Part],
) -> Part:
    alone = module == "classifier"
    group = GROUPS[model.trained_under]
    shown = clouds.thinned(num_points(cfg, model.classifier))
    recipe = Recipe(
        epochs=cfg.SOLVER.EPOCHS if alone else cfg.SOLVER.CANONICALIZER_EPOCHS,
        points=shown.points.shape[1] if model.classifier == "DGCNN" else cfg.SOLVER.POINTS,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        learning_rate=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        seed=cfg.DATA.SEED,
        title=part,
    )
    if module == "canonicalizer":
        train_by_prior(built.canonicalizer, shown, group, recipe)
    else:
        if "canonicalizer" in model.parts:
            built.canonicalizer.load_state_dict(trained[model.parts["canonicalizer"]])
            built.canonicalizer.requires_grad_(False)
        train_classifier(built, shown, group, recipe)
    return _weights(built.get_submodule(module))


def _weights(module: nn.Module) -> Part:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _architecture(cfg: Any) -> str:
    """Return the part of a config that weights belong to."""
    keys = cfg.MODEL.clone()
    del keys["DEVICE"]
    return str(keys.dump())


def save_parts(path: "str | os.PathLike[str]", parts: Mapping[str, Part], cfg: Any) -> None:
    """Write the weights of all parts to one file."""
    save_torch(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "config": _architecture(cfg),
            "parts": dict(parts),
        },
    )


def load_parts(path: "str | os.PathLike[str]", cfg: Any) -> dict[str, Part]:
    """Read the weights of the parts that a file holds.

    Raises:
        InputError: naming the file, if it is missing, of another kind or for another config.
    """
    contents = load_torch_file(path, _WEIGHTS)
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise InputError(
            f"{path} is no weights file of point clouds ({_WEIGHTS}); give one that "
            "tools/eval_points.py wrote with --train"
        )
    if contents.get("version") != VERSION or contents.get("config") != _architecture(cfg):
        raise InputError(
            f"{path} was trained with other values of MODEL than the config's; train anew with "
            "--train, or take the config that it was trained with"
        )
    parts: dict[str, Part] = contents["parts"]
    return parts


def load_models(
    path: "str | os.PathLike[str]", cfg: Any, num_classes: int
) -> dict[str, CanonicalizedPointClassifier]:
    """Build all models from a weights file.

    Returns:
        dict from a model's name to the model, in eval mode.

    Raises:
        InputError: naming the file; see :func:`load_parts`; also if it lacks a part, or was trained
            on other classes.
    """
    parts = load_parts(path, cfg)
    models = {}
    for model in MODELS:
        built = build(model, cfg, num_classes)
        for module, name in model.parts.items():
            if name not in parts:
                raise InputError(
                    f"{path} holds no weights of {name}: training did not end; go on with --train "
                    "--resume"
                )
            load_state(built.get_submodule(module), parts[name], path, f"{_WEIGHTS}, {name}")
        models[model.name] = built
    return models


@torch.no_grad()
def evaluate(
    cfg: Any, models: Mapping[str, CanonicalizedPointClassifier], clouds: CloudSet
) -> dict[str, Any]:
    """Measure all models in all of their scenarios.

    Args:
        cfg: see :mod:`canon_seg.points.config`.
        models: from :func:`load_models`.
        clouds: to evaluate on, aligned; the same rotations of them are shown to all models.

    Returns:
        dict that can be written as JSON: ``num_clouds``; ``classifiers``, from name to row to
        scenario to accuracy, 0..100, null where a row has no such scenario; ``equivariance`` and
        ``prior`` of the trained canonicalizers, see :func:`measure_equivariance` and
        :func:`measure_prior`.
    """
    rows = {(model.classifier, model.row) for model in MODELS}
    table: dict[str, Any] = {
        classifier: {row: dict.fromkeys(SCENARIOS) for row in ROWS if (classifier, row) in rows}
        for classifier in CLASSIFIER_NAMES
    }
    for model in tqdm(MODELS, desc="classifying", unit="model", delay=1):
        shown = clouds.thinned(num_points(cfg, model.classifier))
        tested = {scenario: scenario.partition("/")[2] for scenario in model.scenarios}
        found = {
            group: accuracy(models[model.name], shown, GROUPS[group], cfg)
            for group in sorted(set(tested.values()))
        }
        for scenario, group in tested.items():
            table[model.classifier][model.row][scenario] = found[group]
    canonicalizers = {
        model.parts.get("canonicalizer", model.name): models[model.name].canonicalizer
        for model in MODELS
        if model.row in ("learned", "prior")
    }
    return {
        "num_clouds": len(clouds),
        "classifiers": table,
        "equivariance": {
            name: measure_equivariance(canonicalizer, clouds, cfg)
            for name, canonicalizer in tqdm(
                canonicalizers.items(), desc="comparing rotated clouds", delay=1
            )
        },
        "prior": {
            name: measure_prior(canonicalizer, clouds, GROUPS[name.rpartition("/")[2]], cfg)
            for name, canonicalizer in canonicalizers.items()
        },
    }


def rotated(clouds: CloudSet, group: SpatialGroup, seed: int) -> torch.Tensor:
    """Return the clouds after random rotations of a group; the same for the same seed."""
    rotations = group.sample(len(clouds), torch.Generator().manual_seed(seed))
    return rotate_points(clouds.points, rotations)


def accuracy(model: nn.Module, clouds: CloudSet, group: SpatialGroup, cfg: Any) -> float:
    """Return the percentage of rotated clouds that are classified rightly, 0..100."""
    points = rotated(clouds, group, cfg.DATA.SEED)
    batches = [batch.to(cfg.MODEL.DEVICE) for batch in torch.split(points, _BATCH)]
    found = torch.cat([model(batch).argmax(dim=1).cpu() for batch in batches])
    return 100 * float((found == clouds.labels).double().mean())


@torch.no_grad()
def measure_equivariance(
    canonicalizer: nn.Module, clouds: CloudSet, cfg: Any
) -> dict[str, "float | None"]:
    """Measure how far apart the canonical forms of rotated clouds are, in float32.

    Returns:
        dict: ``sound``, the fraction of clouds in which a frame was found; ``median``, the median
        angle between the canonical forms of a sound cloud and of the same cloud rotated, in
        radians; ``within_tolerance``, the fraction of sound clouds with at most
        :data:`TOLERANCE`. Both are None where no cloud is sound.
    """
    rotations = SO3.sample(len(clouds), torch.Generator().manual_seed(cfg.DATA.SEED))
    angles, sound = [], []
    for points, rotation in zip(
        torch.split(clouds.points.to(cfg.MODEL.DEVICE), _BATCH),
        torch.split(rotations.to(cfg.MODEL.DEVICE), _BATCH),
        strict=True,
    ):
        given = canonicalizer(points)
        turned = canonicalizer(rotate_points(points, rotation))
        expected = rotation.double() @ given.mode().double()
        difference = expected.transpose(1, 2) @ turned.mode().double()
        angles.append(torch.deg2rad(rotation_angle(difference)))
        sound.append(given.sound & turned.sound)
    chosen = torch.cat(angles)[torch.cat(sound)]
    return {
        "sound": float(torch.cat(sound).double().mean()),
        "median": float(chosen.median()) if len(chosen) else None,
        "within_tolerance": float((chosen <= TOLERANCE).double().mean()) if len(chosen) else None,
    }


def measure_prior(
    canonicalizer: nn.Module, clouds: CloudSet, group: SpatialGroup, cfg: Any
) -> dict[str, float]:
    """Measure how far the poses of aligned clouds are from the prior, in degrees."""
    batches = torch.split(clouds.points.to(cfg.MODEL.DEVICE), _BATCH)
    poses = torch.cat([canonicalizer(points).mode() for points in batches])
    angles = prior_angles(poses, group)
    return {"mean": float(angles.mean()), "median": float(angles.median())}
