"""Measure how well poses of upright photographs are found: accuracy, calibration, alignment.

The photographs are upright, so the pose to be found is the identity. What counts as found is the
likeliest pose, whatever MODEL.CANONICALIZER.UNCERTAIN makes of it.

Nothing more is to be learnt from copies that are turned by index, or mirrored: the canonicalizer is
exactly equivariant, so that the pose of a photograph turns along. :func:`agrees_when_turned` tests
that on real turns.
"""

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from canon_seg.core.group import C4, elements_of, permutation
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.prior import alignment, cyclic_mmd, cyclic_wasserstein, rotations
from canon_seg.core.scorer import NEAR
from canon_seg.core.turn import IDENTITY, Turn, distance
from canon_seg.errors import InputError
from canon_seg.evaluation.angles import summarise_by_angle, summarise_errors
from canon_seg.evaluation.intervals import draw_shares, percentiles, wilson
from canon_seg.evaluation.stress import stress_image
from canon_seg.images.arrays import turn_image
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.representative import representative_turns
from canon_seg.images.tensors import to_chw
from canon_seg.images.tilt import rotate_image

BINS = 15  # of confidence, as in Guo et al. 2017


def find_poses(
    canonicalizer,
    files,
    image_format,
    *,
    angle=0.0,
    num_turned=0,
    stress=None,
    progress=True,
    reading=ReadingOptions(),
):
    """Find the pose distributions of photographs, read one by one.

    Args:
        canonicalizer: :class:`canon_seg.images.canonicalizer.GroupCanonicalizer`.
        files: paths, at least one.
        image_format: "RGB" or "BGR", what the canonicalizer takes.
        angle: degrees counterclockwise by which each is rotated first, onto a larger canvas.
        num_turned: that many photographs, spread over ``files``, are really turned, to see whether
            their poses turn along.
        stress: a kind of :mod:`canon_seg.evaluation.stress` that each photograph meets first; None
            for none.
        progress: whether to show a progress bar.
        reading: how images are read.

    Returns:
        (probabilities, agreeing): (len(files), N) float64 array, in the order of the group's
        elements, and of how many of the turned photographs all turns agreed.

    Raises:
        InputError: naming all files that could not be read.
    """
    num_turned = min(num_turned, len(files))
    turned = {len(files) * index // num_turned for index in range(num_turned)}
    probabilities, agreeing, unreadable = [], 0, []
    for index, file in enumerate(tqdm(files, unit="photo", disable=not progress)):
        try:
            image = rotate_image(read_image(file, image_format, reading), angle)
            image = stress_image(image, stress) if stress else image
        except InputError as error:
            unreadable.append(str(error))
            continue
        probabilities.append(_probabilities(canonicalizer, image))
        if index in turned:
            agreeing += agrees_when_turned(canonicalizer, image, probabilities[-1])
    _check_readable(unreadable, files)
    return np.array(probabilities), agreeing


def _check_readable(unreadable, files):
    if len(unreadable) == 1:
        raise InputError(unreadable[0])
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(files)} photographs cannot be used:\n  "
            + "\n  ".join(unreadable)
        )


def find_angles(
    canonicalizer,
    files,
    image_format,
    angles,
    canvas="expand",
    *,
    reading=ReadingOptions(),
    progress=True,
):
    """Find the angles of photographs that are rotated by each of some angles.

    Args:
        canonicalizer, files, image_format, reading, progress: see :func:`find_poses`.
        angles: degrees counterclockwise.
        canvas: what holds the rotated photograph, see :mod:`canon_seg.images.tilt`.

    Returns:
        (errors, probabilities, mirrored): (len(files), len(angles)) arrays: how far the angle found
        is from the true one in degrees, 0..180, whichever side of a mirror was found; the
        probability that was given; and whether the photograph was taken for a mirrored one. (The
        mirror image of one that is rotated by an angle is an exact turn of what is rotated by
        minus that angle, so that mirrored photographs show nothing new.)

    Raises:
        InputError: naming all files that could not be read.
    """
    errors, probabilities, mirrored, unreadable = [], [], [], []
    for file in tqdm(files, unit="photo", disable=not progress):
        try:
            image = read_image(file, image_format, reading)
        except InputError as error:
            unreadable.append(str(error))
            continue
        poses = [canonicalizer.pose(to_chw(rotate_image(image, angle, canvas))) for angle in angles]
        turns = [replace(pose.turn, mirrored=False) for pose in poses]
        errors.append(
            [distance(turn, Turn.by(angle)) for turn, angle in zip(turns, angles, strict=True)]
        )
        probabilities.append([pose.probability for pose in poses])
        mirrored.append([pose.turn.mirrored for pose in poses])
    _check_readable(unreadable, files)
    return np.array(errors), np.array(probabilities), np.array(mirrored)


def measure_angles(angles, errors, probabilities, tolerance=NEAR, mirrored=None):
    """Compute all measures of angles that were found.

    Args:
        angles: degrees, A of them.
        errors, probabilities: (n, A) arrays of :func:`find_angles`, n > 0.
        tolerance: degrees within which an angle counts as found.
        mirrored: (n, A) array of :func:`find_angles`, for a group with mirrors; None without.

    Returns:
        dict that JSON can hold: ``accuracy``, fraction within the tolerance; ``num_images``;
        ``mean_error``, ``median_error`` (degrees), ``within_5``, ``within_10``, ``within_45`` over
        all images and angles; ``by_angle``, the same for each angle; ``ece`` and ``reliability`` of
        the probabilities, see :func:`reliability`; ``confusion``, None. With ``mirrored`` also
        ``mirror_accuracy``, fraction not taken for mirrored ones, and its 95 % interval for as
        many trials as there are images, in ``intervals``.
    """
    right = np.asarray(errors) <= tolerance
    ece, bins = reliability(np.asarray(probabilities).ravel(), right.ravel())
    return {
        "accuracy": float(right.mean()),
        "num_images": len(right),
        **summarise_errors(np.asarray(errors).ravel()),
        "by_angle": summarise_by_angle(angles, errors),
        "ece": ece,
        "confusion": None,
        "reliability": bins,
        **({} if mirrored is None else _mirrors(1 - float(np.mean(mirrored)), len(right))),
    }


def _mirrors(accuracy, count):
    return {"mirror_accuracy": accuracy, "intervals": {"mirror_accuracy": wilson(accuracy, count)}}


def agrees_when_turned(canonicalizer, image, probabilities):
    """Return whether the turned images have the turned pose distribution, bit for bit.

    All turns of the canonicalizer's group are tried that act by index, mirrors among them.

    Args:
        canonicalizer: see :func:`find_poses`; of a finite group.
        image: (H, W, 3) uint8.
        probabilities: its N pose probabilities.

    Returns:
        bool; True of an image that equals a turn of itself, whose poses cannot be told apart.
    """
    group = canonicalizer.group
    if len(representative_turns(image, group)) > 1:
        return True
    return all(
        np.array_equal(
            _probabilities(canonicalizer, turn_image(image, turn))[permutation(group, turn)],
            probabilities,
        )
        for turn in elements_of(group.exact)
    )


def _probabilities(canonicalizer, image):
    return np.array(canonicalizer.pose(to_chw(image)).probabilities)


def measure_poses(probabilities, prior, group=C4):
    """Compute all measures of pose distributions that were predicted for upright photographs.

    Args:
        probabilities: (n, N) array, n > 0, in the order of the group's elements.
        prior: (N,) tensor of probabilities, see :func:`canon_seg.core.prior.alignment`.
        group: finite one of the poses.

    Returns:
        dict that JSON can hold: ``accuracy``, fraction found upright; ``num_images``; ``ece``, see
        :func:`reliability`; ``identity_rate``, ``wasserstein``, ``mmd`` and ``kl`` (None where
        infinite) of :func:`canon_seg.core.prior.alignment`;
        ``accuracy_without_least_certain_tenth``; ``confusion``, see :func:`confusion`;
        ``reliability``, the bins; ``intervals``: dict from the names of the numbers to their 95 %
        intervals [low, high], those of shares by Wilson's score, others by
        :func:`canon_seg.evaluation.intervals.draw_shares`. With mirrors ``turn_accuracy`` and
        ``mirror_accuracy``: fraction of the photographs whose rotation, and whose side of the
        mirror, is found; each whatever the other is.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    poses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = poses == 0
    # Of an upright prior the identity rate is the accuracy: both are there, since both are asked.
    aligned = alignment(torch.from_numpy(probabilities), prior, group.mirrors)
    ece, bins = reliability(confidence, right)
    kept = np.argsort(confidence, kind="stable")[len(right) // 10 :]
    accuracy, without_tenth = float(right.mean()), float(right[kept].mean())
    parts = _parts_found(poses, group) if group.mirrors else {}
    return {
        "accuracy": accuracy,
        **parts,
        "num_images": len(right),
        "ece": ece,
        "identity_rate": aligned["identity_rate"],
        "wasserstein": aligned["wasserstein"],
        "mmd": aligned["mmd"],
        "kl": aligned["kl"] if np.isfinite(aligned["kl"]) else None,
        "accuracy_without_least_certain_tenth": without_tenth,
        "confusion": confusion(poses, group).tolist(),
        "reliability": bins,
        "intervals": {
            "accuracy": wilson(accuracy, len(right)),
            "identity_rate": wilson(aligned["identity_rate"], len(right)),
            "accuracy_without_least_certain_tenth": wilson(without_tenth, len(kept)),
            **{name: wilson(share, len(right)) for name, share in parts.items()},
            **_drawn_intervals(probabilities, prior, group),
        },
    }


def _parts_found(poses, group):
    """Return the share of poses (n,) of upright photographs that are right in either part."""
    found = [elements_of(group)[pose] for pose in poses]
    return {
        "turn_accuracy": float(np.mean([turn.degrees == 0 for turn in found])),
        "mirror_accuracy": float(np.mean([not turn.mirrored for turn in found])),
    }


def measure_gate(probabilities, gate, group=C4):
    """Measure what a gate does to images as they are, upright, and to the same turned.

    Args:
        probabilities: (n, N) array of upright photographs, n > 0.
        gate: margin, see :class:`canon_seg.core.pose.UncertainPoses`.
        group: finite one of the poses.

    Returns:
        dict that JSON can hold: ``margin``; ``upright``, and ``turned``, of all other exact turns:
        ``accuracy``, fraction of the poses that are right with the gate, and ``gated``, fraction of
        the images that the gate leaves as given.
    """
    policy, right, gated = UncertainPoses(gate=gate), {}, {}
    for true in elements_of(group.exact):
        name = "upright" if true == IDENTITY else "turned"
        to = [elements_of(group)[place] for place in permutation(group, true)]
        for row in np.asarray(probabilities):
            moved = dict(zip(to, row.tolist(), strict=True))
            turned = {element: moved[element] for element in elements_of(group)}
            ranking = sorted(turned.items(), key=lambda item: -item[1])
            pose = policy.choose(ranking, list(turned.values()))
            right.setdefault(name, []).append(pose.turn == true)
            gated.setdefault(name, []).append(pose.policy == "gate")
    return {
        "margin": gate,
        **{
            name: {"accuracy": float(np.mean(right[name])), "gated": float(np.mean(gated[name]))}
            for name in right
        },
    }


def _drawn_intervals(probabilities, prior, group):
    """Return intervals by the bootstrap of ``ece``, ``wasserstein``, ``mmd`` and ``kl``."""
    poses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    shares, prior = draw_shares(len(poses)), prior.double().cpu()
    off = ((poses == 0) - confidence)[:, None]
    errors = np.abs(shares @ (off * np.eye(BINS)[_bins(confidence)])).sum(axis=1)
    found = torch.from_numpy(shares @ np.eye(probabilities.shape[1])[poses])
    mean = torch.from_numpy(shares @ probabilities)
    support = prior > 0
    turns, expected = rotations(found, group.mirrors), rotations(prior, group.mirrors)
    drawn = {
        "ece": errors,
        "wasserstein": np.array([cyclic_wasserstein(row, expected) for row in turns]),
        "mmd": np.array([cyclic_mmd(row, expected) for row in turns]),
        "kl": (prior * (prior / mean).log())[:, support].sum(dim=1).numpy(),
    }
    return {name: percentiles(values) for name, values in drawn.items()}


def reliability(confidence, right, num_bins=BINS):
    """Return the expected calibration error, and the bins of the reliability diagram.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017): bins of
    equal width over the confidence (0, 1], open on the left; the error is the mean over the images
    of |accuracy - mean confidence| of their bin.

    Args:
        confidence: (n,) probability of the likeliest pose of each image.
        right: (n,) whether that pose is the true one.
        num_bins: how many bins.

    Returns:
        (error, bins): float in 0..1, and for each bin a dict of ``count``, ``accuracy`` and
        ``confidence`` (means over the bin; None where it is empty).
    """
    confidence, right = np.asarray(confidence), np.asarray(right)
    members = _bins(confidence, num_bins)
    error, bins = 0.0, []
    for index in range(num_bins):
        inside = members == index
        count = int(inside.sum())
        accuracy = float(right[inside].mean()) if count else None
        mean = float(confidence[inside].mean()) if count else None
        if count:
            error += count / len(right) * abs(accuracy - mean)
        bins.append({"count": count, "accuracy": accuracy, "confidence": mean})
    return error, bins


def _bins(confidence, num_bins=BINS):
    """Return the bin of each confidence, 0..num_bins - 1; bins are open on the left."""
    return np.searchsorted(np.arange(1, num_bins) / num_bins, confidence, side="left")


def confusion(poses, group=C4):
    """Count true poses (rows) and poses found (columns) over all turns of upright images.

    By equivariance every row is the first one, in the order in which the turn permutes the poses:
    for C(n) each is the one above, moved on by one. Of turns with a tilt that is nearly so.

    Args:
        poses: (n,) numbers of the elements found for the upright images.
        group: finite one of the poses, with N elements.

    Returns:
        (N, N) int array with sum N n.
    """
    counts = np.bincount(poses, minlength=len(elements_of(group)))
    matrix = np.zeros((len(counts), len(counts)), counts.dtype)
    for row, turn in zip(matrix, elements_of(group), strict=True):
        row[permutation(group, turn)] = counts
    return matrix


def choose_mistakes(probabilities, count):
    """Choose the photographs to look at: wrong poses, surest first, then right ones, least sure.

    Args:
        probabilities: (n, N) array.
        count: how many at most.

    Returns:
        list of up to ``count`` indices.
    """
    probabilities = np.asarray(probabilities)
    wrong, confidence = probabilities.argmax(axis=1) != 0, probabilities.max(axis=1)
    order = np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))
    return order[:count].tolist()
