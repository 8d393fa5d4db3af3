"""Check, centre and thin out point clouds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from canon_seg.errors import InputError

MIN_POINTS = 16  # fewer say nothing of a shape
_THINNEST = 1e-5  # of the length: what is thinner is a line, but for rounding


@dataclass(frozen=True)
class CloudSet:
    """Hold labelled point clouds.

    Attributes:
        points: (M, N, 3) float32, M clouds of N points, z up; each centred, its farthest point at
            distance 1.
        labels: (M,) int64, indices of ``classes``.
        classes: names.
        name: of the set, for messages and tables.
    """

    points: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.points)

    def thinned(self, count: int) -> "CloudSet":
        """Return the set with the first ``count`` points of each cloud.

        Raises:
            InputError: if the clouds have fewer.
        """
        if count > self.points.shape[1]:
            raise InputError(
                f"{self.name}: the clouds have {self.points.shape[1]} points, fewer than the "
                f"{count} asked for; ask for fewer"
            )
        return CloudSet(self.points[:, :count], self.labels, self.classes, self.name)


def make_cloud_set(
    clouds: Sequence[np.ndarray],
    labels: Sequence[int],
    classes: Sequence[str],
    name: str,
    sources: Sequence[str],
) -> CloudSet:
    """Check clouds, normalise them and put them into one set.

    Args:
        clouds: (N, 3) arrays, all of one length.
        labels: indices of ``classes``.
        classes: their names.
        name: of the set.
        sources: where each cloud comes from, for messages.

    Raises:
        InputError: naming the source, if a cloud is no cloud of finite points with some extent, or
            its label is out of range.
    """
    if not len(clouds):
        raise InputError(f"{name} holds no point clouds")
    for cloud, label, source in zip(clouds, labels, sources, strict=True):
        problem = what_is_wrong(cloud)
        if problem:
            raise InputError(f"{source}: {problem}")
        if not 0 <= label < len(classes):
            raise InputError(
                f"{source}: the label {label} is out of range; there are {len(classes)} classes, "
                f"0 to {len(classes) - 1}"
            )
        if len(cloud) != len(clouds[0]):
            raise InputError(
                f"{source}: {len(cloud)} points, where others of {name} have {len(clouds[0])}"
            )
    points = torch.from_numpy(np.stack(clouds).astype(np.float32))
    return CloudSet(
        normalised_clouds(points),
        torch.as_tensor(np.asarray(labels, np.int64)),
        tuple(classes),
        name,
    )


def what_is_wrong(cloud: np.ndarray) -> "str | None":
    """Describe what keeps an array from being a point cloud, or return None.

    Points that are all equal, or all on a line, are refused: rotations, or those about the line,
    leave such a cloud as it is, so that it has no pose.
    """
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        return f"a cloud is an N x 3 array of coordinates, got the shape {cloud.shape}"
    if len(cloud) < MIN_POINTS:
        return f"{len(cloud)} points are too few; give at least {MIN_POINTS}"
    if not np.isfinite(cloud).all():
        bad = int((~np.isfinite(cloud)).any(axis=1).sum())
        return (
            f"{bad} of {len(cloud)} points have coordinates that are NaN or infinite; remove them"
        )
    if not np.ptp(cloud, axis=0).max() > 0:
        return "all points are equal, so that there is no shape; remove the cloud"
    extents = np.linalg.svd(cloud - cloud.mean(axis=0), compute_uv=False)
    if extents[1] < _THINNEST * extents[0]:
        return "all points lie on a line, so that there is no shape; remove the cloud"
    return None


def normalised_clouds(points: torch.Tensor) -> torch.Tensor:
    """Centre clouds and scale them so that the farthest point lies at distance 1.

    Args:
        points: (B, N, 3).

    Returns:
        (B, N, 3); clouds without extent stay at the origin.

    Raises:
        ValueError: if the points have another shape, or are not all finite.
    """
    if points.ndim != 3 or points.shape[2] != 3 or not points.shape[1]:
        raise ValueError(f"clouds are a tensor of B x N x 3, got the shape {tuple(points.shape)}")
    if not torch.isfinite(points).all():
        bad = (~torch.isfinite(points)).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        raise ValueError(f"coordinates of the clouds {bad} are NaN or infinite; remove them")
    centred = points - points.mean(dim=1, keepdim=True)
    reach = torch.linalg.vector_norm(centred, dim=2).amax(dim=1)
    return centred / torch.where(reach > 0, reach, 1.0)[:, None, None]
