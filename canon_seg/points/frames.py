"""Make orthonormal frames of vectors, and frames of principal axes."""

import torch

DEGENERATE = 1e-3  # of the longest vector: shorter ones, or sines of angles, say no direction


def orthonormal_frames(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make rotations of pairs of vectors, by Gram-Schmidt and the cross product.

    The third axis is the cross product, so that the frame is right-handed: a rotation and never a
    reflection, whatever the vectors are. Rotating the vectors rotates the frame.

    Args:
        vectors: (B, 2, 3).

    Returns:
        (frames, sound): (B, 3, 3) rotation matrices, whose columns are the axes z, x, y of the
        frame in the order x, y, z; and (B,) bool, False where a vector is almost nothing or the two
        are almost parallel. Such a frame is still a rotation, but means nothing.
    """
    up, ahead = vectors.unbind(dim=1)
    lengths = torch.linalg.vector_norm(vectors, dim=2)
    longest = lengths.amax(dim=1)
    z = _normalised(up, _axis(up, 2))
    across = ahead - (ahead * z).sum(dim=1, keepdim=True) * z
    sound = (lengths[:, 0] > DEGENERATE * longest) & (longest > 0)
    sound &= torch.linalg.vector_norm(across, dim=1) > DEGENERATE * longest
    # What is left of parallel vectors is rounding, which need not lie across.
    x = _normalised(torch.where(sound[:, None], across, 0.0), _perpendicular(z))
    y = torch.linalg.cross(z, x)
    return torch.stack([x, y, z], dim=2), sound


def principal_frames(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make frames of the principal axes of clouds: the comparison that needs no training.

    An axis has no sign, so that four right-handed frames are as good as each other. All are given;
    the caller resolves the ambiguity, or averages over it.

    Args:
        points: (B, N, 3), centred.

    Returns:
        (frames, sound): (B, 4, 3, 3) rotation matrices whose columns are the axes by descending
        variance; and (B,) bool, False where two variances are nearly equal, so that the axes
        between them mean nothing.
    """
    covariance = points.double().transpose(1, 2) @ points.double()
    variances, axes = torch.linalg.eigh(covariance)
    axes = axes.flip(2).to(points)
    axes = axes * torch.linalg.det(axes).sign()[:, None, None]  # right-handed
    signs = points.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    gaps = variances.diff(dim=1).amin(dim=1) / variances[:, -1].clamp(min=1e-30)
    return axes[:, None] * signs[None, :, None, :], gaps > 10 * DEGENERATE


def have_shape(points: torch.Tensor) -> torch.Tensor:
    """Say of each cloud (B, N, 3), centred, whether its points are neither all equal nor on a line.

    Returns:
        (B,) bool.
    """
    covariance = points.double().transpose(1, 2) @ points.double()
    variances = torch.linalg.eigvalsh(covariance)
    found: torch.Tensor = variances[:, 1] > DEGENERATE**2 * variances[:, 2]
    return found


def _normalised(vectors: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # Where there is no direction, the division is made harmless for its gradient as well.
    some = lengths > 1e-12
    return torch.where(some, vectors / torch.where(some, lengths, 1.0), otherwise)


def _axis(like: torch.Tensor, index: int) -> torch.Tensor:
    return torch.eye(3).to(like)[index].expand_as(like)


def _perpendicular(vectors: torch.Tensor) -> torch.Tensor:
    """Return unit vectors at right angles to unit vectors (B, 3)."""
    least = vectors.abs().argmin(dim=1)
    other = torch.eye(3).to(vectors)[least]
    return torch.nn.functional.normalize(torch.linalg.cross(vectors, other), dim=1)
