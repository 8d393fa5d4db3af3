"""Classify square images behind a canonicalizer, and train the two by a task and a prior."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.classification.turning import (
    all_canonical,
    check_square,
    turn_squares,
    unique_images,
)
from canon_seg.core.canonicalizer import Canonicalizer, IdentityCanonicalizer
from canon_seg.core.group import PlanarGroup, elements_of
from canon_seg.core.pose import Pose
from canon_seg.core.prior import prior_loss
from canon_seg.core.scorer import GridDistribution
from canon_seg.core.turn import IDENTITY, Turn, compose, inverse
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.representative import representative_turns
from canon_seg.networks.square import upright_logits

Predictor = Callable[[torch.Tensor], torch.Tensor]
"""Network from (B, 3, S, S) images, values 0..255, to (B, C) logits."""


class CanonicalizedClassifier(nn.Module):
    """Bring each image to its canonical pose, then ask any network which class it is of.

    Turned copies of one image, by turns that act by index, have the same canonical bytes, whatever
    the two networks are; in one batch these run once, so that the copies have the same logits to
    the last bit. For other turns it is as good as the canonicalizer.

    Attributes:
        predictor, canonicalizer, task_weight, prior_weight: as given.

    Args:
        predictor: see :data:`Predictor`; a module or any callable.
        canonicalizer: of any group of turns; None leaves images as they are.
        prior: (N,) probabilities of the poses that the predictor was trained on; None for upright.
        task_weight, prior_weight: of the two parts of the loss, see :meth:`losses`.
        label_smoothing, class_smoothing: weights of the uniform distributions mixed into the prior
            and into the classes, in [0, 1).
        freeze: whether the predictor stays as it is while the canonicalizer learns.

    Raises:
        TypeError: if the predictor cannot be called.
    """

    def __init__(
        self,
        predictor: Predictor,
        canonicalizer: "Canonicalizer | None" = None,
        *,
        prior: "torch.Tensor | None" = None,
        task_weight: float = 0.0,
        prior_weight: float = 100.0,
        label_smoothing: float = 0.0,
        class_smoothing: float = 0.0,
        freeze: bool = True,
    ) -> None:
        super().__init__()
        if not callable(predictor):
            raise TypeError(
                f"the predictor is a {type(predictor).__name__}; give a network, or a function "
                "from images to logits"
            )
        self.predictor = predictor
        self.canonicalizer = IdentityCanonicalizer() if canonicalizer is None else canonicalizer
        self.task_weight, self.prior_weight = float(task_weight), float(prior_weight)
        self.label_smoothing = float(label_smoothing)
        self.class_smoothing = float(class_smoothing)
        self.freeze = freeze
        if prior is None and self.group.elements is not None:
            prior = torch.eye(len(self.group.elements))[0]
        self.register_buffer("prior", prior, persistent=False)
        if freeze and isinstance(predictor, nn.Module):
            predictor.requires_grad_(False)

    prior: torch.Tensor

    @property
    def group(self) -> PlanarGroup:
        """Return the group of the poses."""
        return self.canonicalizer.group

    def train(self, mode: bool = True) -> "CanonicalizedClassifier":
        """Set the mode as nn.Module does; a frozen predictor stays in eval mode."""
        super().train(mode)
        if self.freeze and isinstance(self.predictor, nn.Module):
            self.predictor.eval()
        return self

    @torch.no_grad()
    def poses(self, images: torch.Tensor) -> list[Pose]:
        """Find the poses of images, in eval mode.

        Args:
            images: (B, 3, S, S) uint8 tensor, in the channel order that the canonicalizer takes.
        """
        check_square(images)
        finder = self.canonicalizer
        if not isinstance(finder, GroupCanonicalizer) or not len(images):
            return [finder.pose(image) for image in images]
        first = [representative_turns(image.permute(1, 2, 0), finder.group)[0] for image in images]
        # One run of the scorer for all: the canonicalizer asks it about one image after another.
        representatives, places = unique_images(turn_squares(images, first))
        found = finder.scores(list(representatives))
        if isinstance(found, GridDistribution):  # one transfer for all of them
            found = GridDistribution(found.group, found.logits.cpu())
        return [
            finder.pose_by(lambda representative, turn, k=k: found[k], image)  # type: ignore[misc]
            for image, k in zip(images, places.tolist(), strict=True)
        ]

    def canonical(self, images: torch.Tensor, poses: Sequence[Pose]) -> torch.Tensor:
        """Bring images to the canonical form of the poses given.

        Args:
            images: (B, 3, S, S) uint8 tensor.
            poses: one for each.

        Returns:
            (B, 3, S, S) uint8 tensor. A tilt is undone on the representative of the image's orbit,
            so that all of the orbit get the same bytes.
        """
        shared = [(*pose.to_representative, IDENTITY)[0] for pose in poses]
        to_canonical = [
            inverse(compose(pose.turn, first)) for pose, first in zip(poses, shared, strict=True)
        ]
        return turn_squares(turn_squares(images, shared), to_canonical)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images.

        Args:
            images: (B, 3, S, S) uint8 tensor, in the channel order that the canonicalizer takes.

        Returns:
            (B, C) logits; of an uncertain pose with votes the logarithm of the mean of the classes'
            probabilities in the poses that vote, each weighted by the probability of its pose. Of a
            continuous group all that vote weigh as much.
        """
        return self.classify(images, self.poses(images))

    @torch.no_grad()
    def classify(self, images: torch.Tensor, poses: Sequence[Pose]) -> torch.Tensor:
        """Classify images whose poses were found before, see :meth:`forward`."""
        asked = [
            (k, replace(pose, turn=turn, policy="argmax", others=()))
            for k, pose in enumerate(poses)
            for turn in (pose.turn, *pose.others)
        ]
        rows = torch.tensor([k for k, _ in asked], dtype=torch.int64)
        canonical, places = unique_images(
            self.canonical(images[rows.to(images.device)], [pose for _, pose in asked])
        )
        found = self.predictor(canonical)[places.to(images.device)]
        logits = found[torch.searchsorted(rows, torch.arange(len(poses))).to(found.device)]
        for k, pose in enumerate(poses):
            if pose.others:
                votes = found[(rows == k).to(found.device)].softmax(dim=1)
                logits[k] = (self._weights(pose).to(votes) @ votes).log()
        return logits

    def _weights(self, pose: Pose) -> torch.Tensor:
        """Return the weight of each pose that votes; they sum to 1."""
        voters = [pose.turn, *pose.others]
        likely = [1.0] * len(voters)
        if self.group.elements is not None:
            likely = [pose.probabilities[self.group.index(turn)] for turn in voters]
        return torch.tensor(likely) / sum(likely)

    def losses(
        self, images: torch.Tensor, labels: torch.Tensor, turns: "Sequence[Turn] | None" = None
    ) -> dict[str, torch.Tensor]:
        """Return the parts of the training loss: total = task + weight x prior.

        Args:
            images: (B, 3, S, S) uint8 tensor of images whose poses follow the prior.
            labels: (B,) integers.
            turns: by which each image is turned before the canonicalizer sees it; None for none.
                It is asked for what the images were like before.

        Returns:
            dict of scalars with weights multiplied in: ``task``, the cross-entropy of the classes
            in the canonical pose, straight through to the scores; ``prior``, the cross-entropy of
            the prior with the poses found. Parts without a weight are left out.
        """
        given = images if turns is None else turn_squares(images, turns)
        if not self.canonicalizer.finds_poses:
            return {"task": self._task_loss(given, labels)}
        distribution = self.canonicalizer.scores(list(given))
        if not isinstance(distribution, GridDistribution):
            raise ValueError(
                f"{self.group.name} has no list of poses to choose among in training; take C(n)"
            )
        parts = {}
        if self.task_weight:
            canonical = straight_through(given, distribution)
            parts["task"] = self._task_loss(canonical, labels)
        if self.prior_weight:
            logits = distribution.logits
            if turns is not None:
                logits = upright_logits(logits, self.group, turns)
            loss = prior_loss(logits, self.prior, self.label_smoothing)
            parts["prior"] = self.prior_weight * loss
        return parts

    def _task_loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits, smoothing = self.predictor(images), self.class_smoothing
        return self.task_weight * F.cross_entropy(logits, labels, label_smoothing=smoothing)


def straight_through(images: torch.Tensor, distribution: GridDistribution) -> torch.Tensor:
    """Return canonical images by the likeliest poses, with a gradient that reaches all scores.

    The value is that of the likeliest pose; the gradient is that of the mixture of all canonical
    forms, weighted by their probabilities (Bengio et al. 2013, as in Mondal et al. 2023).

    Args:
        images: (B, 3, S, S) uint8 tensor.
        distribution: of these images.

    Returns:
        (B, 3, S, S) float32 tensor, values 0..255.
    """
    candidates = all_canonical(images, distribution.group).float()
    weights = distribution.logits.float().softmax(dim=1)
    chosen = F.one_hot(distribution.logits.argmax(dim=1), weights.shape[1]).to(weights)
    weights = chosen + weights - weights.detach()
    # Pixels keep their values where the networks run in bfloat16.
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("bn,bnchw->bchw", weights, candidates)


class ConfidenceScorer:
    """Score the poses of images by how sure a classifier is in each: an orbit of its own answers.

    Args:
        predictor: see :data:`Predictor`.
        group: of the poses, finite.
        image_format: channel order of the images.
        temperature: what the log-probability of the likeliest class is divided by, above 0.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        group: PlanarGroup,
        image_format: str = "RGB",
        temperature: float = 1.0,
    ) -> None:
        self.predictor, self.group = predictor, group
        self.image_format, self.temperature = image_format, float(temperature)

    @torch.no_grad()
    def __call__(self, images: Sequence[torch.Tensor]) -> GridDistribution:
        """Return the distribution over the poses of each image, see :class:`core.scorer.Scorer`."""
        candidates = all_canonical(torch.stack(list(images)), self.group)
        logits = self.predictor(candidates.flatten(0, 1))
        sure = logits.log_softmax(dim=1).amax(dim=1).view(len(images), -1)
        return GridDistribution(self.group, sure / self.temperature)


def random_turns(group: PlanarGroup, count: int, generator: torch.Generator) -> list[Turn]:
    """Draw elements of a finite group, all equally likely."""
    elements = elements_of(group)
    drawn = torch.randint(len(elements), (count,), generator=generator)
    return [elements[k] for k in drawn.tolist()]
