"""Build classifiers of point clouds: PointNet and DGCNN, in their plain forms.

They know nothing of rotations: they are what a canonicalizer is put before.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canon_seg.core.registry import Registry

CLASSIFIERS: "Registry[type[nn.Module]]" = Registry("classifier of point clouds")
"""Classes by their names, called with the number of classes and their own options."""


@CLASSIFIERS.register()
class PointNet(nn.Module):
    """Classify clouds by features of single points, pooled by their maximum.

    Qi, Su, Mo and Guibas, "PointNet: Deep Learning on Point Sets for 3D Classification and
    Segmentation" (CVPR 2017), without the networks that align inputs and features, as is usual
    where the alignment is what is compared.

    Args:
        num_classes: outputs.
        widths: channels of the layers before pooling; the last are pooled.
        hidden: channels of the layer after pooling.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int] = (32, 32, 64, 128), hidden: int = 64
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv1d(before, after, 1, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        self.head = _head(widths[-1], hidden, num_classes)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, num_classes) logits of (B, N, 3) clouds."""
        logits: torch.Tensor = self.head(self.points(points.transpose(1, 2)).amax(dim=2))
        return logits


@CLASSIFIERS.register()
class DGCNN(nn.Module):
    """Classify clouds by convolutions over the edges to the nearest neighbours of each point.

    Wang, Sun, Liu, Sarma, Bronstein and Solomon, "Dynamic Graph CNN for Learning on Point Clouds"
    (ACM TOG 2019), with fewer channels and with the neighbours found in space alone, which costs a
    CPU much less. A convolution of an edge is linear in its two ends: it is computed once for each
    point, and not for each edge.

    Args:
        num_classes: outputs.
        widths: channels of the edge convolutions.
        neighbours: of each point.
        joined: channels that are pooled.
        hidden: channels of the layer after pooling.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (16, 32, 64),
        neighbours: int = 8,
        joined: int = 128,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.edges = nn.ModuleList(
            _EdgeConvolution(before, after)
            for before, after in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.join = nn.Sequential(
            nn.Linear(sum(widths), joined, bias=False), nn.BatchNorm1d(joined), nn.LeakyReLU(0.2)
        )
        self.head = _head(joined, hidden, num_classes)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, num_classes) logits of (B, N, 3) clouds."""
        batch, count, _ = points.shape
        index = nearest(points, min(self.neighbours, count))
        # Rows of all clouds in one table.
        index = index + count * torch.arange(batch, device=points.device)[:, None, None]
        features, levels = points.flatten(0, 1), []
        for edge in self.edges:
            features = edge(features, index.flatten(0, 1))
            levels.append(features)
        joined = self.join(torch.cat(levels, dim=1)).reshape(batch, count, -1)
        logits: torch.Tensor = self.head(joined.amax(dim=1))
        return logits


class _EdgeConvolution(nn.Module):
    """Take the maximum over the edges of each point of a layer that sees both ends of an edge."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.offset = nn.Linear(before, after, bias=False)
        self.centre = nn.Linear(before, after, bias=False)
        self.norm = nn.BatchNorm1d(after)

    def forward(self, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return (M, after) of (M, before) features, with the neighbours (M, k) of each row."""
        ends = self.offset(features)
        edges = F.embedding(index, ends) + (self.centre(features) - ends)[:, None]
        normalised = self.norm(edges.flatten(0, 1)).reshape(edges.shape)
        pooled: torch.Tensor = F.leaky_relu(normalised, 0.2).amax(dim=1)
        return pooled


def nearest(points: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices (B, N, count) of the nearest points of each point, itself among them."""
    with torch.no_grad():
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(count, dim=2, largest=False).indices


def _head(features: int, hidden: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(hidden, num_classes),
    )
