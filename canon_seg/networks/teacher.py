"""Teach a scorer by another one, which says how likely each pose of the same views is.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015). The teacher sees
the very views that the student sees (Beyer et al., "Knowledge distillation: A good teacher is
patient and consistent", CVPR 2022): of a crop without a clear upright direction it says so.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from canon_seg.core.prior import TEACHER
from canon_seg.core.scorer import Scorer
from canon_seg.errors import InputError, of_key
from canon_seg.images.canonicalizer import group_of
from canon_seg.networks.backbone import MIN_SIZE
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.build import load_scorer
from canon_seg.networks.circle_scorer import CircleScorer
from canon_seg.networks.scorer import NetworkScorer

_KEY = "MODEL.CANONICALIZER.TEACHER"


def build_teacher(cfg: Any) -> Scorer:
    """Build the scorer that ``cfg.MODEL.CANONICALIZER.TEACHER`` describes, in eval mode.

    Raises:
        InputError: naming the key that cannot be used.
    """
    keys = cfg.MODEL.CANONICALIZER.TEACHER
    try:
        teacher: Any = load_scorer(
            keys.WEIGHTS, image_format=cfg.INPUT.FORMAT, passes=1, group=group_of(cfg)
        )
        if keys.INPUT_SIZE:
            teacher = _at_size(teacher, keys.INPUT_SIZE)
    except InputError as error:
        message = str(error)
        for name in ("WEIGHTS", "INPUT_SIZE"):
            message = message.replace(f"MODEL.CANONICALIZER.{name}", f"{_KEY}.{name}")
        raise InputError(message) from error
    scorer: Scorer = teacher.to(cfg.MODEL.DEVICE).eval()
    return scorer


def _at_size(teacher: Any, size: int) -> Scorer:
    """Return a scorer with the same network that looks at another size."""
    if isinstance(teacher, (BackboneScorer, CircleScorer)):
        if size < MIN_SIZE:
            raise InputError(f"MODEL.CANONICALIZER.INPUT_SIZE is {size}; give at least {MIN_SIZE}")
        teacher.input_size = size
        scorer: Scorer = teacher
        return scorer
    with of_key("MODEL.CANONICALIZER.INPUT_SIZE"):
        return NetworkScorer(teacher.network, input_size=size, image_format=teacher.image_format)


class TaughtLoader:
    """Give the batches of a loader with what a teacher says of each view.

    Args:
        loader: gives batches: lists of dicts with ``image``, (3, h, w), values 0..255.
        teacher: scorer in eval mode. Each dict gets, under
            :data:`canon_seg.core.prior.TEACHER`, its (N,) probabilities of the poses of the view
            as it is.
    """

    def __init__(self, loader: Iterable[list[dict[str, Any]]], teacher: Scorer) -> None:
        self.loader, self.teacher = loader, teacher
        parameters = teacher.parameters() if isinstance(teacher, torch.nn.Module) else ()
        self._device = next((own.device.type for own in parameters), "cpu")

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.loader:
            said = self._ask([example["image"] for example in batch])
            yield [{**example, TEACHER: row} for example, row in zip(batch, said, strict=True)]

    def _ask(self, images: list[torch.Tensor]) -> torch.Tensor:
        # In single precision: batches are drawn inside of the training step's autocast.
        with torch.no_grad(), torch.autocast(self._device, enabled=False):
            return self.teacher(images).probabilities.float()
