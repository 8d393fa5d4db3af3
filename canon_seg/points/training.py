"""Train classifiers and canonicalizers of point clouds."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from canon_seg.points.canonicalizer import (
    CanonicalizedPointClassifier,
    classification_loss,
    cloud_prior_loss,
)
from canon_seg.points.clouds import CloudSet
from canon_seg.points.group import SpatialGroup, rotate_points

SCALE = 0.1  # clouds are scaled at random by up to this much
JITTER = 0.01  # standard deviation of the noise on each coordinate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say how something is trained.

    Attributes:
        epochs: passes over the clouds.
        points: of each cloud that a step sees, drawn anew for each batch; at most its own.
        batch_size: clouds in a step.
        learning_rate: of AdamW, the largest.
        weight_decay: of AdamW.
        seed: of the order, the rotations and the noise.
        title: of the progress bar.
    """

    epochs: int
    points: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    title: str


def train_classifier(
    model: CanonicalizedPointClassifier, clouds: CloudSet, group: SpatialGroup, recipe: Recipe
) -> None:
    """Train all of a model for classification, in place: what of it has parameters that learn.

    Args:
        model: ends in eval mode.
        clouds: to train on.
        group: whose random elements the clouds are rotated by.
        recipe: see :class:`Recipe`.
    """

    def loss(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return classification_loss(model(batch), labels)

    _fit(model, clouds, group, loss, recipe)


def train_by_prior(
    canonicalizer: nn.Module, clouds: CloudSet, group: SpatialGroup, recipe: Recipe
) -> None:
    """Train a canonicalizer by the prior alone, in place: canonical poses should look upright.

    No classifier is needed: one that is frozen can be put behind it.

    Args:
        canonicalizer: ends in eval mode.
        clouds: that stand in the prior's poses.
        group: the rotations that the prior leaves free, by which the clouds are rotated: "I" or
            "z".
        recipe: see :class:`Recipe`.
    """

    def loss(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cloud_prior_loss(canonicalizer(batch).mode(), group)

    _fit(canonicalizer, clouds, group, loss, recipe)


def _fit(
    model: nn.Module,
    clouds: CloudSet,
    group: SpatialGroup,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    recipe: Recipe,
) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    # The last batch is left out where it is not full: batch statistics of one cloud say nothing.
    batch_size = min(recipe.batch_size, len(clouds))
    steps_per_epoch = len(clouds) // batch_size
    steps = recipe.epochs * steps_per_epoch
    bar = tqdm(total=steps, desc=recipe.title, unit="step")
    model.train()
    for module in model.modules():
        learns = [parameter.requires_grad for parameter in module.parameters()]
        if learns and not any(learns):
            module.eval()  # what is frozen keeps its batch statistics
    for step in range(steps):
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(clouds), generator=generator)
        start = step % steps_per_epoch * batch_size
        chosen = order[start : start + batch_size]
        drawn = torch.randperm(clouds.points.shape[1], generator=generator)[: recipe.points]
        batch = _augmented(clouds.points[chosen][:, drawn], generator)
        batch = rotate_points(batch, group.sample(len(chosen), generator))
        for parameters_of in optimizer.param_groups:
            parameters_of["lr"] = recipe.learning_rate * _schedule(step, steps)
        loss = loss_of(batch.to(device), clouds.labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    bar.close()
    model.eval()


def _augmented(points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    scale = 1 + SCALE * (2 * torch.rand(len(points), 1, 3, generator=generator) - 1)
    return points * scale + JITTER * torch.randn(points.shape, generator=generator)


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate as a fraction: a twentieth of the steps up, then a cosine down."""
    warmup = max(1, steps // 20)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
