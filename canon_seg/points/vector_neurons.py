"""Build networks of vector neurons, whose features are vectors that rotate with the cloud.

Deng, Litany, Duan, Poulenard, Tagliasacchi and Guibas, "Vector Neurons: A General Framework for
SO(3)-Equivariant Networks" (ICCV 2021). Features are (B, C, 3, ...): C vectors for each point. The
layers mix channels and never coordinates, so that they commute with every rotation.
"""

import torch
from torch import nn

EPSILON = 1e-6


class VectorLinear(nn.Module):
    """Mix the channels of vectors linearly, without a bias (section 3.1).

    Args:
        before, after: channels.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(after, before))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, after, 3, ...) of (B, before, 3, ...)."""
        mixed: torch.Tensor = torch.einsum("oc,bc...->bo...", self.weight, features)
        return mixed


class VectorReLU(nn.Module):
    """Cut vectors off at the plane through the origin that a learned direction is normal to.

    What lies behind the plane loses most of its component along the direction (section 3.2).

    Args:
        channels: of the features.
        slope: what is kept of the component behind the plane, 0..1.
    """

    def __init__(self, channels: int, slope: float = 0.2) -> None:
        super().__init__()
        self.direction = VectorLinear(channels, channels)
        self.slope = slope

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape, (B, C, 3, ...)."""
        direction = self.direction(features)
        along = (features * direction).sum(dim=2, keepdim=True)
        squared = (direction * direction).sum(dim=2, keepdim=True) + EPSILON
        cut: torch.Tensor = features - (1 - self.slope) * along.clamp(max=0) / squared * direction
        return cut


class VectorNorm(nn.Module):
    """Scale the vectors of each point so that their mean length over the channels is learned.

    In place of the paper's normalisation over the batch: a cloud's result depends on no other.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape, (B, C, 3, ...)."""
        length = torch.sqrt((features * features).sum(dim=2, keepdim=True) + EPSILON**2)
        mean = length.mean(dim=1, keepdim=True) + EPSILON
        scale = self.scale.view(1, -1, *(1,) * (features.ndim - 2))
        return features / mean * scale


class VectorMaxPool(nn.Module):
    """Take, in each channel, the vector of the point that goes farthest along a learned direction.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.direction = VectorLinear(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, C, 3) of (B, C, 3, N)."""
        along = (features * self.direction(features)).sum(dim=2, keepdim=True)
        index = along.argmax(dim=3, keepdim=True).expand(-1, -1, 3, -1)
        return features.gather(3, index)[..., 0]


class VectorBlock(nn.Sequential):
    """Chain a linear layer, a normalisation and the cut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(VectorLinear(before, after), VectorNorm(after), VectorReLU(after))


class VectorNetwork(nn.Module):
    """Find two vectors in a cloud that rotate with it.

    Each point is described by vectors of :func:`moment_features`. Which way is up depends on what
    the cloud is, which the lengths and inner products of these vectors tell: they do not change as
    the cloud rotates, so that a plain PointNet may read them (the paper's invariant layer, section
    3.4). It weighs the vectors of each point before these are averaged.

    Args:
        channels: of the vectors of points.
        points: that are looked at, the first of the cloud.
        hidden: channels of the PointNet.
    """

    def __init__(self, channels: int = 8, points: int = 256, hidden: int = 48) -> None:
        super().__init__()
        self.points = points
        self.blocks = nn.Sequential(VectorBlock(MOMENTS, channels), VectorBlock(channels, channels))
        self.pool = VectorMaxPool(channels)
        pairs = MOMENTS * (MOMENTS + 1) // 2
        self.encoder = nn.Sequential(
            *_pointwise(3 * channels + pairs, hidden), *_pointwise(hidden, 2 * hidden)
        )
        self.weights = nn.Sequential(
            *_pointwise(4 * hidden, hidden), nn.Conv1d(hidden, channels + MOMENTS, 1)
        )
        self.vectors = VectorLinear(channels + MOMENTS, 2)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, 2, 3) vectors of (B, N, 3) centred clouds."""
        moments = moment_features(points[:, : self.points])
        features = self.blocks(moments)
        pooled = unit(self.pool(features), dim=2)[..., None]
        first, second = torch.triu_indices(MOMENTS, MOMENTS)
        invariants = torch.cat(
            [
                (features * features).sum(dim=2),
                (features * pooled).sum(dim=2),
                (moments[:, :1] * pooled).sum(dim=2),
                (moments[:, first] * moments[:, second]).sum(dim=2),
            ],
            dim=1,
        )
        encoded = self.encoder(invariants)
        whole = encoded.amax(dim=2, keepdim=True).expand_as(encoded)
        weights = self.weights(torch.cat([encoded, whole], dim=1))[:, :, None]
        vectors = torch.cat([features, moments], dim=1)
        mixed: torch.Tensor = self.vectors((vectors * weights).mean(dim=3))
        return mixed


def _pointwise(before: int, after: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(before, after, 1, bias=False), nn.BatchNorm1d(after), nn.ReLU()


MOMENTS = 5
"""Vectors by which :func:`moment_features` describes a point."""


def moment_features(points: torch.Tensor) -> torch.Tensor:
    """Describe the points of clouds by vectors that rotate with the cloud.

    In place of the offsets to its neighbours, which the paper's networks start from and which cost
    a CPU most of its time, a point is seen against moments of the whole cloud: its covariance C,
    and its principal axes, each in the direction in which the cloud reaches farther out. The inner
    products of a point with these axes are its coordinates in a frame that rotates along. Where the
    cloud is symmetric, an axis says little, and the network has to do without it.

    Args:
        points: (B, N, 3).

    Returns:
        (B, 5, 3, N): p, C p and the three axes, of lengths around 1.
    """
    with torch.no_grad():
        points = points - points.mean(dim=1, keepdim=True)
        squared = (points * points).sum(dim=2, keepdim=True)
        points = points / squared.mean(dim=1, keepdim=True).clamp(min=EPSILON**2).sqrt()
        covariance = 3 * points.transpose(1, 2) @ points / points.shape[1]
        axes = torch.linalg.eigh(covariance.double())[1].to(points)
        along = points @ axes
        # The third moment along each axis has the sign of the side that reaches farther out.
        sides = torch.where((along**3).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        axes = (axes * sides).transpose(1, 2)
        each = axes[:, :, None].expand(-1, -1, points.shape[1], -1)
        own = torch.stack([points, points @ covariance], dim=1)
        return torch.cat([own, each], dim=1).transpose(2, 3)


def unit(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    """Scale vectors to length 1; the shortest, which say no direction, stay shorter."""
    squared = (vectors * vectors).sum(dim=dim, keepdim=True)
    return vectors / torch.sqrt(squared + EPSILON)
