"""Turn square images of one size: the protocol by which classifiers are tested and canonicalized.

A turn is applied about the centre of the image, onto a canvas of the same size: a mirror by index,
then a tilt, bilinear between pixel centres with the edges of the image repeated around it, rounded
to 8 bits, then quarter turns by index. What a tilt moves out of the square is lost; nothing is
masked. All that is measured, and all that a canonicalizer does to undo a turn, goes this one way.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from canon_seg.core.group import PlanarGroup, elements_of
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn, inverse
from canon_seg.images.arrays import turn_maps
from canon_seg.images.tilt import warp_to


def check_square(images: torch.Tensor) -> None:
    """Raise ValueError unless images are a (B, 3, S, S) uint8 tensor."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"square images (B, 3, S, S) are needed, got the shape {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8:
        raise ValueError(f"8-bit images (uint8, 0..255) are needed, got {images.dtype}")


def turn_squares(images: torch.Tensor, turn: "Turn | Sequence[Turn]") -> torch.Tensor:
    """Turn square images, see the module.

    >>> image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    >>> turn_squares(image, Turn(1))[0, 0]
    tensor([[1, 3],
            [0, 2]], dtype=torch.uint8)

    Args:
        images: (B, 3, S, S) uint8 tensor.
        turn: one for all, or one for each.

    Returns:
        (B, 3, S, S) uint8 tensor; for the identity the images themselves.

    Raises:
        ValueError: for images of another form.
    """
    check_square(images)
    if isinstance(turn, Turn):
        return _turn_all(images, turn)
    turned = torch.empty_like(images)
    for one in dict.fromkeys(turn):
        places = torch.tensor([k for k, other in enumerate(turn) if other == one])
        turned[places] = _turn_all(images[places], one)
    return turned


def all_canonical(images: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Return what images would be in their canonical form for each pose that they may have.

    Args:
        images: (B, 3, S, S) uint8 tensor.
        group: of N poses.

    Returns:
        (B, N, 3, S, S) uint8 tensor, in the order of the group's elements.
    """
    turns = [inverse(pose) for pose in elements_of(group)]
    # Each tilt is done once; its quarter turns are copies of it.
    starts = {Turn(tilt=t.tilt, mirrored=t.mirrored): None for t in turns}
    tilted = {start: _turn_all(images, start) for start in starts}
    candidates = [
        turn_maps(tilted[Turn(tilt=t.tilt, mirrored=t.mirrored)], t.quarters) for t in turns
    ]
    return torch.stack(candidates, dim=1)


def unique_images(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find images that occur more than once, byte for byte.

    Args:
        images: (B, 3, S, S) uint8 tensor.

    Returns:
        (images, places): the (U, 3, S, S) different ones in the order of their first appearance,
        and (B,) where each of those given is among them.
    """
    known: dict[bytes, int] = {}
    rows = images.cpu().contiguous().numpy()
    places = [known.setdefault(row.tobytes(), len(known)) for row in rows]
    first = [places.index(k) for k in range(len(known))]
    return images[first], torch.tensor(places, dtype=torch.int64)


def _turn_all(images: torch.Tensor, turn: Turn) -> torch.Tensor:
    if turn.mirrored:
        images = images.flip(-1)
    if turn.tilt:
        side = int(images.shape[-1])
        centre = (side / 2, side / 2)
        tilting = Tilting(turn.tilt, (side, side), (side, side), centre, centre)
        tilted = [
            warp_to(pixels, tilting, cv2.INTER_LINEAR, None)
            for pixels in images.permute(0, 2, 3, 1).cpu().numpy()
        ]
        stacked = np.stack(tilted) if tilted else np.zeros((0, side, side, 3), np.uint8)
        images = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(images.device)
    return turn_maps(images, turn.quarters)
