"""Ask a `Sam` how sure it is of an image: the canonicalizer's judge that needs no training."""

from functools import partial
from typing import Any

import torch
from segment_anything.modeling import Sam

from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.energy import SegmenterScorer
from canon_seg.sam.prompted import PromptedSam
from canon_seg.sam.prompts import Prompts

POINTS_PER_SIDE = 8
TEMPERATURE = 0.01


def confidence(ious: torch.Tensor, stabilities: torch.Tensor) -> float:
    """Return how sure a `Sam` is of its masks: the mean of predicted IoU and stability.

    Args:
        ious, stabilities: (N,) tensors, see :class:`canon_seg.sam.prompted.PromptedMasks`.

    Returns:
        float, about 0..1; 0 of no masks.
    """
    if not len(ious):
        return 0.0
    return float((ious.double().mean() + stabilities.double().mean()) / 2)


def grid(height: int, width: int, per_side: int = POINTS_PER_SIDE) -> Prompts:
    """Return clicks on a grid of ``per_side`` x ``per_side`` places, each alone."""
    places = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side
    rows, columns = torch.meshgrid(places * height - 0.5, places * width - 0.5, indexing="ij")
    points = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2).float()
    return Prompts(points=points, point_labels=torch.ones(points.shape[:2], dtype=torch.int64))


def grid_energy(prompted: PromptedSam, image: torch.Tensor) -> float:
    """Return the energy of an image of which no prompt is known: minus the confidence on a grid.

    Args:
        prompted: the `Sam`.
        image: (3, H, W) tensor, values 0..255, in the channel order that ``prompted`` takes.
    """
    height, width = image.shape[-2:]
    return embedded_grid_energy(prompted, prompted.embed(image), (height, width))


def embedded_grid_energy(
    prompted: PromptedSam, embedding: torch.Tensor, size: tuple[int, int]
) -> float:
    """Return the energy of an image by its embedding, see :func:`grid_energy`."""
    return -confidence(*prompted.rate(embedding, grid(*size), size))


class SamGridScorer(SegmenterScorer):
    """Score poses by how sure a `Sam` is of the masks of a grid of clicks.

    Attributes:
        prompted: the `Sam`.

    Args:
        prompted: see the attribute.
        **options: of :class:`canon_seg.images.energy.EnergyScorer`.
    """

    def __init__(self, prompted: PromptedSam, **options: Any) -> None:
        super().__init__(
            partial(grid_energy, prompted), image_format=prompted.image_format, **options
        )
        self.prompted = prompted


def bound_to_sam(canonicalizer: Canonicalizer, prompted: PromptedSam) -> Canonicalizer:
    """Return a canonicalizer that asks this `Sam` on a grid, if it asks its segmenter at all.

    Args:
        canonicalizer: any; not changed.
        prompted: a `Sam` that takes the canonicalizer's channel order.
    """
    scorer = getattr(canonicalizer, "scorer", None)
    if not isinstance(scorer, SegmenterScorer) or asks(canonicalizer, prompted.sam):
        return canonicalizer
    bound = SamGridScorer(prompted, group=scorer.group, temperature=scorer.temperature)
    return GroupCanonicalizer(bound, uncertain=canonicalizer.uncertain).eval()


def asks(canonicalizer: Canonicalizer, sam: Sam) -> bool:
    """Tell whether a canonicalizer asks this very `Sam` on a grid."""
    scorer = getattr(canonicalizer, "scorer", None)
    return isinstance(scorer, SamGridScorer) and scorer.prompted.sam is sam


def sam_judge(
    sam: Sam, *, multimask: bool = True, temperature: float = TEMPERATURE
) -> GroupCanonicalizer:
    """Make the canonicalizer that takes the pose in which a `Sam` is surest on a coarse grid.

        predictor = CanonicalSamPredictor(sam, sam_judge(sam))

    No network is trained for it. It takes four runs of the image encoder in place of one.

    Args:
        sam: in eval mode.
        multimask: whether clicks are answered by the likeliest of three masks, as official
            checkpoints want it, instead of the one mask.
        temperature: see :class:`canon_seg.images.energy.EnergyScorer`.
    """
    prompted = PromptedSam(sam, "RGB", multimask)
    return GroupCanonicalizer(SamGridScorer(prompted, temperature=temperature)).eval()
