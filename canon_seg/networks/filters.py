"""Store filters of the exported networks: most of them are exact turns of a few.

An equivariant convolution holds every filter in the orientations of all elements of its group.
Those that are whole quarter turns, or mirrors, apart are the same numbers in another order, so that
the others can be made of the first ones, bit for bit.
"""

import torch

from canon_seg.core.group import PlanarGroup, elements_of, permutation
from canon_seg.images.arrays import turn_maps


def orientations_kept(group: PlanarGroup) -> int:
    """Return how many orientations have to be known; the rest are exact turns of these.

    >>> from canon_seg.core.group import C, D
    >>> orientations_kept(C(4)), orientations_kept(C(6)), orientations_kept(D(8))
    (1, 3, 2)
    """
    return len(elements_of(group)) // len(elements_of(group.exact))


def first_orientations(weight: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Return the filters that all others are exact turns of.

    Args:
        weight: (out_fields * N, in_channels, k, k) ordinary convolution, N elements in the group.
        group: C(n) or D(n).

    Returns:
        (out_fields * orientations_kept(group), in_channels, k, k) tensor, a copy.
    """
    kept = orientations_kept(group)
    filters = torch.unflatten(weight, 0, (-1, len(elements_of(group))))[:, :kept].flatten(0, 1)
    return filters.clone(memory_format=torch.contiguous_format)


def all_orientations(first: torch.Tensor, group: PlanarGroup, from_image: bool) -> torch.Tensor:
    """Build the convolution from its first orientations; what was no exact turn becomes one.

    Args:
        first: what :func:`first_orientations` returns.
        group: C(n) or D(n).
        from_image: whether in_channels are colours, not regular fields of N channels.

    Returns:
        (out_fields * N, in_channels, k, k) tensor.
    """
    kept, size = orientations_kept(group), len(elements_of(group))
    known = torch.unflatten(first, 0, (-1, kept))
    whole = known.new_empty((known.shape[0], size, *known.shape[2:]))
    for turn in elements_of(group.exact):
        places = permutation(group, turn)
        turned = turn_maps(known, turn)
        if not from_image:  # what comes in turns too
            fields = torch.unflatten(turned, 2, (-1, size))
            # What was at an element comes to lie at the one that the turn leads to.
            came_from = [places.index(place) for place in range(size)]
            turned = fields[:, :, :, came_from].flatten(2, 3)
        whole[:, places[:kept]] = turned
    return whole.flatten(0, 1)
