"""Canonicalizers: which pose does an image have, and what does it look like without it.

A canonicalizer is a module with two things the rest of the project relies on: ``pose(image)`` and
the flag ``snaps``. It keeps no state between calls, so that one instance can be shared.
"""

from dataclasses import dataclass, replace
from typing import Tuple

import torch
from torch import nn

from canon_seg.core.group import C4
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_maps
from canon_seg.images.representative import representative_turns, turned_copy
from canon_seg.images.resize import normalize, resize_for_network


@dataclass(frozen=True)
class Pose:
    """The pose of one image: ``image == turn(canonical, turns)``.

    Attributes:
        turns: quarter turns counterclockwise, 0..3.
        probabilities: probability of each pose 0..3; they sum to 1.
        policy: how ``turns`` was chosen, one of :attr:`UncertainPoses.POLICIES`. "argmax": it is
            the likeliest pose. "keep": the pose was uncertain and the image is left as given,
            ``turns`` is 0. "vote": the pose was uncertain, ``turns`` is the likeliest.
        others: the further poses of a vote, likeliest first. The segmenter is to be run in these
            as well; what can only run in one pose takes ``turns``.
    """

    turns: int
    probabilities: Tuple[float, float, float, float]
    policy: str = "argmax"
    others: Tuple[int, ...] = ()

    @property
    def probability(self):
        """Probability of the chosen pose, 0..1."""
        return self.probabilities[self.turns]

    def alone(self):
        """The same without a vote, for what runs in one pose only: the likeliest is taken."""
        return replace(self, policy="argmax", others=()) if self.others else self

    @property
    def turns_to_canonical(self):
        """Quarter turns that take the image to its canonical pose."""
        return C4.inverse(self.turns)


@dataclass(frozen=True)
class UncertainPoses:
    """What to do with an image whose pose is uncertain: see ``MODEL.CANONICALIZER.UNCERTAIN``.

    Attributes:
        policy: one of ``POLICIES``.
        below: poses are uncertain whose probability is below this, 0..1.
        vote_poses: how many poses vote, 2 or 4.
    """

    POLICIES = ("argmax", "keep", "vote")

    policy: str = "argmax"
    below: float = 0.5
    vote_poses: int = 2

    def __post_init__(self):
        key = "MODEL.CANONICALIZER."
        if self.policy not in self.POLICIES:
            raise InputError(
                f"{key}UNCERTAIN is {self.policy!r}; known: {', '.join(self.POLICIES)}"
            )
        if not 0 <= self.below <= 1:
            raise InputError(f"{key}UNCERTAIN_BELOW is {self.below}; give a probability, 0 to 1")
        if self.vote_poses not in (2, 4):
            raise InputError(f"{key}VOTE_POSES is {self.vote_poses}; give 2 or 4")

    def choose(self, ranking, probabilities):
        """The :class:`Pose` of an image.

        Args:
            ranking: the four poses, likeliest first.
            probabilities: of each pose 0..3.
        """
        if self.policy == "argmax" or probabilities[ranking[0]] >= self.below:
            return Pose(ranking[0], probabilities)
        if self.policy == "keep":
            return Pose(0, probabilities, "keep")
        return Pose(ranking[0], probabilities, "vote", others=ranking[1 : self.vote_poses])


class FixedPoseCanonicalizer(nn.Module):
    """Says the same pose of every image: the oracle, where the true pose is known.

    Args:
        turns: the pose, 0..3.
    """

    snaps = True

    def __init__(self, turns):
        super().__init__()
        self.turns = turns % C4.order

    def pose(self, image, prompt_key=None):
        """:class:`Pose` with all probability on the fixed one; the image is not looked at."""
        return Pose(self.turns, tuple(float(turns == self.turns) for turns in C4.elements))


class IdentityCanonicalizer(FixedPoseCanonicalizer):
    """Leaves every image as it is: the plain segmenter, to the last bit.

    Coordinates are not snapped to the dyadic grid either.
    """

    snaps = False

    def __init__(self):
        super().__init__(0)


class AllPosesCanonicalizer(nn.Module):
    """Has the segmenter run in all four poses: C4 test-time augmentation.

    Results are merged in the frame of the given image.
    """

    snaps = True

    def pose(self, image, prompt_key=None):
        """:class:`Pose` 0 with all others voting; the image is not looked at."""
        return Pose(0, (0.25,) * C4.order, "vote", others=(1, 2, 3))


class GroupCanonicalizer(nn.Module):
    """Predicts the pose with an equivariant network, exactly equivariantly.

    Args:
        network: module from (B, 3, h, w) float to logits (B, 4), see
            :mod:`canon_seg.networks.equivariant`.
        input_size: shorter side in pixels at which the network sees an image, 32 k + 1.
        image_format: "RGB" or "BGR", the channel order of the images that will be given.
        uncertain: :class:`UncertainPoses`.
    """

    snaps = True

    def __init__(self, network, *, input_size, image_format, uncertain=UncertainPoses()):
        super().__init__()
        self.network = network
        self.input_size = input_size
        self.image_format = image_format
        self.uncertain = uncertain

    def logits(self, images):
        """Pose logits of images as they are, differentiable with respect to the network.

        Args:
            images: sequence of (3, H, W) tensors, uint8 or float, values 0..255, any sizes. They
                are shrunk on their own device and then go to the network's.
        Returns:
            (len(images), 4) tensor.
        """
        small = [resize_for_network(image, self.input_size) for image in images]
        by_shape = {}
        for index, image in enumerate(small):
            by_shape.setdefault(image.shape, []).append(index)
        logits = [None] * len(small)
        for indices in by_shape.values():
            batch = self._run_network(torch.stack([small[index] for index in indices]))
            for index, image_logits in zip(indices, batch):
                logits[index] = image_logits
        return torch.stack(logits)

    @torch.no_grad()
    def pose(self, image, prompt_key=None):
        """The pose of one image.

        For a quarter turn of the same pixels the answer differs by exactly that turn, bit for bit
        in the probabilities and the poses that vote, except for an image that equals a turn of
        itself, and for one that is kept as given. In training mode the network's batch statistics
        would change: call it in eval mode.

        Args:
            image: (3, H, W) tensor as read, before any resizing.
            prompt_key: function from turns to something ordered that describes the prompts after
                that many turns; breaks the tie of an image that equals a turn of itself. Without
                it (or with prompts that are as symmetric) the smallest turn is taken: only the
                canonical result is defined then.
        Returns:
            :class:`Pose`.
        """
        candidates = representative_turns(image.permute(1, 2, 0))
        if len(candidates) > 1 and prompt_key is not None:
            to_representative = min(candidates, key=prompt_key)
        else:
            to_representative = candidates[0]
        # Always a copy: which kernels run, and so how they round, may depend on strides.
        representative = turned_copy(image, to_representative)
        probabilities = self.logits([representative])[0].double().softmax(dim=0).tolist()
        # Equal probabilities are put in order here, where all turns of the image look the same.
        ranking = sorted(C4.elements, key=lambda turns: -probabilities[turns])
        return self.uncertain.choose(
            tuple(C4.compose(turns, C4.inverse(to_representative)) for turns in ranking),
            tuple(probabilities[C4.compose(turns, to_representative)] for turns in C4.elements),
        )

    def _run_network(self, small):
        small = small.to(next(self.network.parameters(), small).device)
        if self.image_format == "BGR":
            small = small.flip(1)
        return self.network(normalize(small)).float()


def straight_through(image, logits):
    """The canonical image by the likeliest pose, with a gradient that reaches all logits.

    The value is the image turned by index. The gradient is that of the mixture of the four turned
    images weighted by the softmax of the logits (straight-through estimator, Bengio et al. 2013, as
    in Mondal et al. 2023); turned images of another shape are centred on the canonical one's canvas
    for it.

    Args:
        image: (3, H, W) float tensor.
        logits: (4,) pose logits of that image.
    Returns:
        (turns, canonical): the pose in 0..3 and the (3, h, w) canonical image.
    """
    turns = int(logits.argmax())
    canonical = turn_maps(image, C4.inverse(turns)).contiguous()
    weights = logits.softmax(dim=0)
    for other in C4.elements:
        candidate = _on_canvas(turn_maps(image, C4.inverse(other)), canonical.shape[-2:])
        # Zero in value, the candidate as derivative with respect to its weight.
        canonical = canonical + (weights[other] - weights[other].detach()) * candidate
    return turns, canonical


def _on_canvas(image, size):
    canvas = image.new_zeros((*image.shape[:-2], *size))
    theirs, ours = [], []
    for have, want in zip(image.shape[-2:], size):
        common = min(have, want)
        theirs.append(slice((have - common) // 2, (have - common) // 2 + common))
        ours.append(slice((want - common) // 2, (want - common) // 2 + common))
    canvas[(..., *ours)] = image[(..., *theirs)]
    return canvas
