"""Store filters of the exported networks: most of them are exact quarter turns of a few.

An equivariant convolution holds every filter in all N orientations of the cyclic group. Those that
are whole quarter turns apart are the same numbers in another order, so that the others can be made
of the first ones, bit for bit.
"""

import math

import torch

from canon_seg.images.arrays import turn_maps


def orientations_kept(order: int) -> int:
    """Return how many of the N orientations have to be known: N / 4 if N is a multiple of 4."""
    return order // math.gcd(4, order)


def first_orientations(weight: torch.Tensor, order: int) -> torch.Tensor:
    """Return the filters that all others are quarter turns of.

    Args:
        weight: (out_fields * order, in_channels, k, k) ordinary convolution.
        order: N of the cyclic group.

    Returns:
        (out_fields * orientations_kept(order), in_channels, k, k) tensor, a copy.
    """
    kept = orientations_kept(order)
    filters = torch.unflatten(weight, 0, (-1, order))[:, :kept].flatten(0, 1)
    return filters.clone(memory_format=torch.contiguous_format)


def all_orientations(first: torch.Tensor, order: int, from_image: bool) -> torch.Tensor:
    """Build the convolution from its first orientations; what was no quarter turn becomes one.

    Args:
        first: what :func:`first_orientations` returns.
        order: N of the cyclic group.
        from_image: whether in_channels are colours, not regular fields of N channels.

    Returns:
        (out_fields * order, in_channels, k, k) tensor.
    """
    kept = orientations_kept(order)
    turns = 4 * kept // order  # the smallest quarter turn in the group (4: none)
    orientations = [torch.unflatten(first, 0, (-1, kept))]
    for _ in range(order // kept - 1):
        before = orientations[-1]
        if not from_image:  # what comes in turns too
            fields = torch.unflatten(before, 2, (-1, order))
            before = fields.roll(kept, dims=3).flatten(2, 3)
        orientations.append(turn_maps(before, turns))
    return torch.cat(orientations, dim=1).flatten(0, 1)
