"""Define the groups of rotations of space that poses of point clouds come from."""

import math
from dataclasses import dataclass

import torch

_TOLERANCE = 1e-4  # of the entries of a rotation matrix, in float32


@dataclass(frozen=True)
class SpatialGroup:
    """Hold a group of rotations of space, whose elements are (3, 3) matrices.

    It is a :class:`canon_seg.core.group.Group`. No rotation of a point cloud acts by index, so the
    exact part is the identity alone: equivariance is measured here and never called exact.

    >>> SO3.exact.name, Z.exact.name, SO3.distance(about_z(10.0), about_z(40.0))
    ('I', 'I', 30.0)

    Attributes:
        name: "SO3" for all rotations, "z" for those about the z axis, "I" for the identity alone.

    Raises:
        ValueError: for another name.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in ("SO3", "z", "I"):
            raise ValueError(f"{self.name!r} is no group of rotations of space; known: SO3, z, I")

    @property
    def identity(self) -> torch.Tensor:
        """Return the (3, 3) float64 matrix that changes nothing."""
        return torch.eye(3, dtype=torch.float64)

    @property
    def elements(self) -> "tuple[torch.Tensor, ...] | None":
        """Return all elements, or None for a continuous group."""
        return (self.identity,) if self.name == "I" else None

    @property
    def exact(self) -> "SpatialGroup":
        """Return the subgroup that acts by index: the identity alone."""
        return TRIVIAL

    def element(self, value: torch.Tensor) -> torch.Tensor:
        """Return a value as the element that it is.

        Args:
            value: (3, 3) matrix.

        Raises:
            ValueError: if it is no rotation, or none of this group.
        """
        matrix = torch.as_tensor(value)
        if matrix.shape != (3, 3):
            raise ValueError(f"a rotation of space is a 3 x 3 matrix, got {tuple(matrix.shape)}")
        matrix = matrix.double()
        if not bool(((matrix @ matrix.T - torch.eye(3)).abs() < _TOLERANCE).all()):
            raise ValueError("the matrix is no rotation: its columns are not orthonormal")
        if torch.linalg.det(matrix) < 0:
            raise ValueError("the matrix is a reflection: its determinant is -1")
        axis = matrix[2] - torch.tensor([0.0, 0.0, 1.0])
        if self.name == "z" and not bool((axis.abs() < _TOLERANCE).all()):
            raise ValueError("the rotation is not about the z axis")
        if self.name == "I" and not bool(((matrix - torch.eye(3)).abs() < _TOLERANCE).all()):
            raise ValueError("the rotation is not the identity")
        return matrix

    def compose(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the element that acts as ``b`` after ``a``."""
        return self.element(b) @ self.element(a)

    def inverse(self, a: torch.Tensor) -> torch.Tensor:
        """Return the element that undoes ``a``."""
        return self.element(a).T

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> float:
        """Measure the angle between two elements in [0, 180] degrees; bi-invariant."""
        return round(float(rotation_angle(self.element(a).T @ self.element(b))), 9)

    def sample(self, count: int, generator: "torch.Generator | None" = None) -> torch.Tensor:
        """Draw rotations uniformly.

        Args:
            count: how many.
            generator: of random numbers; None for the global one.

        Returns:
            (count, 3, 3) float32 matrices.
        """
        if self.name == "I":
            return torch.eye(3).repeat(count, 1, 1)
        if self.name == "z":
            return about_z(360 * torch.rand(count, generator=generator))
        # Uniform unit quaternions are normalised normal ones.
        quaternions = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        return _from_quaternions(torch.nn.functional.normalize(quaternions, dim=1)).float()


TRIVIAL = SpatialGroup("I")
"""The identity: all clouds are aligned."""

Z = SpatialGroup("z")
"""Rotations about the z axis, which is up: clouds stand, and their heading is free."""

SO3 = SpatialGroup("SO3")
"""All rotations of space."""


def about_z(degrees: "torch.Tensor | float") -> torch.Tensor:
    """Return rotations about the z axis, counterclockwise as seen from above.

    Args:
        degrees: angle, or a tensor of any shape.

    Returns:
        (..., 3, 3) matrices, float64 for a number.
    """
    angle = torch.as_tensor(degrees, dtype=None if torch.is_tensor(degrees) else torch.float64)
    cos, sin = torch.cos(angle * (math.pi / 180)), torch.sin(angle * (math.pi / 180))
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]
    return _as_matrices(torch.stack(rows, dim=-1))


def rotation_angle(matrices: torch.Tensor) -> torch.Tensor:
    """Return the angles of rotations in [0, 180] degrees.

    By the chord |R - I|, since the arc cosine of the trace loses half of the digits of small
    angles.

    Args:
        matrices: (..., 3, 3).
    """
    chord = torch.linalg.matrix_norm(matrices - torch.eye(3).to(matrices)) / math.sqrt(8)
    return torch.asin(chord.clamp(max=1)) * (360 / math.pi)


def rotate_points(points: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotate points or normals about the origin.

    Args:
        points: (..., N, 3); rows are points, or directions such as normals.
        rotations: (..., 3, 3).

    Returns:
        (..., N, 3).
    """
    return points @ rotations.transpose(-1, -2)


def _from_quaternions(quaternions: torch.Tensor) -> torch.Tensor:
    w, x, y, z = quaternions.unbind(dim=-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return _as_matrices(torch.stack(rows, dim=-1))


def _as_matrices(rows: torch.Tensor) -> torch.Tensor:
    return rows.reshape(*rows.shape[:-1], 3, 3)
