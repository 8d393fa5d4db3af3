"""Find the poses of point clouds, and classify clouds in their canonical poses."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.core.registry import Registry
from canon_seg.points.clouds import normalised_clouds
from canon_seg.points.frames import have_shape, orthonormal_frames, principal_frames
from canon_seg.points.group import SO3, SpatialGroup, rotate_points, rotation_angle
from canon_seg.points.vector_neurons import VectorNetwork


@dataclass(frozen=True)
class CloudPoses:
    """Hold the poses of B clouds: each cloud equals its canonical form after a rotation.

    As a distribution over the group this is a point mass for each cloud, or K equally likely ones;
    it has no density, so that training draws it to the prior by a distance.

    Attributes:
        rotations: (B, K, 3, 3), K poses of each cloud; 1 but for ambiguous frames.
        sound: (B,) bool, False for clouds in which no frame was to be found; their canonical forms
            are not the same for all rotations.
    """

    rotations: torch.Tensor
    sound: torch.Tensor

    def mode(self) -> torch.Tensor:
        """Return the likeliest pose of each cloud, (B, 3, 3); of equal ones the first."""
        return self.rotations[:, 0]

    def act(self, rotation: torch.Tensor) -> "CloudPoses":
        """Return the poses of the same clouds after they were rotated by a (3, 3) matrix."""
        return CloudPoses(rotation.to(self.rotations) @ self.rotations, self.sound)

    def canonical(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, K, N, 3) canonical forms of the clouds (B, N, 3) whose poses these are."""
        return rotate_points(points[:, None], self.rotations.transpose(-1, -2))

    def back(self, points: torch.Tensor) -> torch.Tensor:
        """Bring points or normals (B, K, N, 3) of the canonical forms to the given clouds."""
        return rotate_points(points, self.rotations)


class CloudCanonicalizer(Protocol):
    """Describe what is asked of whatever finds the poses of clouds."""

    group: SpatialGroup

    def __call__(self, points: torch.Tensor) -> CloudPoses:
        """Return the poses of (B, N, 3) clouds."""
        ...


CLOUD_CANONICALIZERS: "Registry[type[nn.Module]]" = Registry("canonicalizer of point clouds")
"""Classes by their names."""


@CLOUD_CANONICALIZERS.register()
class VectorNeuronCanonicalizer(nn.Module):
    """Find poses by a network of vector neurons, which rotate with the cloud.

    Args:
        channels, points, hidden: see :class:`~canon_seg.points.vector_neurons.VectorNetwork`.
    """

    group = SO3

    def __init__(self, channels: int = 8, points: int = 256, hidden: int = 48) -> None:
        super().__init__()
        self.network = VectorNetwork(channels, points, hidden)

    def forward(self, points: torch.Tensor) -> CloudPoses:
        """Return the poses of (B, N, 3) clouds; differentiable."""
        points = normalised_clouds(points)
        frames, sound = orthonormal_frames(self.network(points))
        return CloudPoses(frames[:, None], sound & have_shape(points.detach()))


@CLOUD_CANONICALIZERS.register()
class PrincipalAxesCanonicalizer(nn.Module):
    """Find poses by principal axes, which need no training; four poses for each cloud."""

    group = SO3

    def forward(self, points: torch.Tensor) -> CloudPoses:
        """Return the poses of (B, N, 3) clouds."""
        frames, sound = principal_frames(normalised_clouds(points))
        return CloudPoses(frames, sound)


@CLOUD_CANONICALIZERS.register()
class IdentityCloudCanonicalizer(nn.Module):
    """Leave every cloud as it is: the plain classifier."""

    group = SO3

    def forward(self, points: torch.Tensor) -> CloudPoses:
        """Return the identity for (B, N, 3) clouds."""
        rotations = torch.eye(3).to(points).expand(len(points), 1, 3, 3)
        return CloudPoses(rotations, points.new_ones(len(points), dtype=torch.bool))


class CanonicalizedPointClassifier(nn.Module):
    """Classify clouds in their canonical poses.

    Args:
        canonicalizer: see :class:`CloudCanonicalizer`.
        classifier: module from (B, N, 3) clouds to (B, classes) logits.
    """

    def __init__(self, canonicalizer: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.canonicalizer, self.classifier = canonicalizer, classifier

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, classes) log-probabilities of (B, N, 3) clouds.

        The probabilities of several poses of a cloud are averaged. In training mode one of the
        poses is drawn in their place, which costs less and teaches all of them in time.
        """
        clouds = self.canonicalizer(points).canonical(normalised_clouds(points))
        if self.training and clouds.shape[1] > 1:
            drawn = torch.randint(clouds.shape[1], (len(clouds),)).to(clouds.device)
            clouds = clouds[torch.arange(len(clouds), device=clouds.device), drawn][:, None]
        logits: torch.Tensor = self.classifier(clouds.flatten(0, 1))
        found = logits.reshape(*clouds.shape[:2], -1).log_softmax(dim=2)
        return found.logsumexp(dim=1) - math.log(clouds.shape[1])


def cloud_prior_loss(rotations: torch.Tensor, group: SpatialGroup) -> torch.Tensor:
    """Draw the poses of clouds that are known to stand in the prior's poses towards them.

    With a point mass as distribution, the cross-entropy with the prior is replaced by a distance,
    as in Mondal et al. 2023, section 3.2.

    Args:
        rotations: (B, 3, 3) predicted poses of such clouds.
        group: the rotations that the prior leaves free: "I" where all clouds are aligned, "z" where
            they stand upright with any heading.

    Returns:
        scalar: the mean of 1 - cos of the angle between pose and identity ("I"), or between the
        predicted up axis and z ("z"); 0..2.

    Raises:
        ValueError: for all of SO(3), under which every pose is as likely: there is no prior.
    """
    if group.name == "SO3":
        raise ValueError("under SO3 all poses are equally likely: there is no prior to draw to")
    if group.name == "z":
        # Rows of the pose are the given frame's axes in the canonical one: what is up stays up.
        return (1 - rotations[:, 2, 2]).mean()
    trace = rotations.diagonal(dim1=1, dim2=2).sum(dim=1)
    return (1 - (trace - 1) / 2).mean()


def prior_angles(rotations: torch.Tensor, group: SpatialGroup) -> torch.Tensor:
    """Measure how far predicted poses are from the prior, (B,) in [0, 180] degrees.

    Args:
        rotations, group: see :func:`cloud_prior_loss`.

    Raises:
        ValueError: as :func:`cloud_prior_loss`.
    """
    if group.name == "SO3":
        raise ValueError(
            "under SO3 all poses are equally likely: there is no prior to compare with"
        )
    if group.name == "z":
        up = rotations[:, :, 2]
        tilted = torch.linalg.vector_norm(up[:, :2], dim=1)
        return torch.rad2deg(torch.atan2(tilted, up[:, 2]))
    return rotation_angle(rotations)


def classification_loss(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean negative log-likelihood of labels (B,), in nats."""
    return F.nll_loss(log_probabilities, labels)
