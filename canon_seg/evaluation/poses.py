"""Measure how well poses of upright photographs are found: accuracy, calibration, alignment.

The photographs are upright, so the pose to be found is 0. What counts as found is the likeliest
pose, whatever MODEL.CANONICALIZER.UNCERTAIN makes of it.

Nothing more is to be learnt from turned copies: the canonicalizer is exactly equivariant, so that
the pose p of a photograph becomes p + a for the photograph turned by a. :func:`agrees_when_turned`
tests that on real turns.
"""

import numpy as np
import torch
from tqdm import tqdm

from canon_seg.core.group import C4, permutation
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.prior import alignment, cyclic_mmd, cyclic_wasserstein
from canon_seg.core.scorer import NEAR
from canon_seg.core.turn import Turn, distance
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
        (probabilities, agreeing): (len(files), 4) float64 array, and of how many of the turned
        photographs all turns agreed.

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
        (errors, probabilities): (len(files), len(angles)) float64 arrays: how far the angle found
        is from the true one in degrees, 0..180, and the probability that was given.

    Raises:
        InputError: naming all files that could not be read.
    """
    errors, probabilities, unreadable = [], [], []
    for file in tqdm(files, unit="photo", disable=not progress):
        try:
            image = read_image(file, image_format, reading)
        except InputError as error:
            unreadable.append(str(error))
            continue
        poses = [canonicalizer.pose(to_chw(rotate_image(image, angle, canvas))) for angle in angles]
        errors.append(
            [distance(pose.turn, Turn.by(angle)) for pose, angle in zip(poses, angles, strict=True)]
        )
        probabilities.append([pose.probability for pose in poses])
    _check_readable(unreadable, files)
    return np.array(errors), np.array(probabilities)


def measure_angles(angles, errors, probabilities, tolerance=NEAR):
    """Compute all measures of angles that were found.

    Args:
        angles: degrees, A of them.
        errors, probabilities: (n, A) arrays of :func:`find_angles`, n > 0.
        tolerance: degrees within which an angle counts as found.

    Returns:
        dict that JSON can hold: ``accuracy``, fraction within the tolerance; ``num_images``;
        ``mean_error``, ``median_error`` (degrees), ``within_5``, ``within_10``, ``within_45`` over
        all images and angles; ``by_angle``, the same for each angle; ``ece`` and ``reliability`` of
        the probabilities, see :func:`reliability`; ``confusion``, None.
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
    }


def agrees_when_turned(canonicalizer, image, probabilities):
    """Return whether the turned images have the turned pose distribution, bit for bit.

    Args:
        canonicalizer: see :func:`find_poses`.
        image: (H, W, 3) uint8.
        probabilities: its 4 pose probabilities.

    Returns:
        bool; True of an image that equals a turn of itself, whose poses cannot be told apart.
    """
    if len(representative_turns(image)) > 1:
        return True
    return all(
        np.array_equal(
            _probabilities(canonicalizer, turn_image(image, turn))[permutation(C4, turn)],
            probabilities,
        )
        for turn in C4.elements
    )


def _probabilities(canonicalizer, image):
    return np.array(canonicalizer.pose(to_chw(image)).probabilities)


def measure_poses(probabilities, prior):
    """Compute all measures of pose distributions that were predicted for upright photographs.

    Args:
        probabilities: (n, 4) array, n > 0.
        prior: (4,) tensor of probabilities, see :func:`canon_seg.core.prior.alignment`.

    Returns:
        dict that JSON can hold: ``accuracy``, fraction found upright; ``num_images``; ``ece``, see
        :func:`reliability`; ``identity_rate``, ``wasserstein``, ``mmd`` and ``kl`` (None where
        infinite) of :func:`canon_seg.core.prior.alignment`;
        ``accuracy_without_least_certain_tenth``; ``confusion``, see :func:`confusion`;
        ``reliability``, the bins; ``intervals``: dict from the names of the numbers to their 95 %
        intervals [low, high], those of shares by Wilson's score, others by
        :func:`canon_seg.evaluation.intervals.draw_shares`.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    poses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = poses == 0
    # Of an upright prior the identity rate is the accuracy: both are there, since both are asked.
    aligned = alignment(torch.from_numpy(probabilities), prior)
    ece, bins = reliability(confidence, right)
    kept = np.argsort(confidence, kind="stable")[len(right) // 10 :]
    accuracy, without_tenth = float(right.mean()), float(right[kept].mean())
    return {
        "accuracy": accuracy,
        "num_images": len(right),
        "ece": ece,
        "identity_rate": aligned["identity_rate"],
        "wasserstein": aligned["wasserstein"],
        "mmd": aligned["mmd"],
        "kl": aligned["kl"] if np.isfinite(aligned["kl"]) else None,
        "accuracy_without_least_certain_tenth": without_tenth,
        "confusion": confusion(poses).tolist(),
        "reliability": bins,
        "intervals": {
            "accuracy": wilson(accuracy, len(right)),
            "identity_rate": wilson(aligned["identity_rate"], len(right)),
            "accuracy_without_least_certain_tenth": wilson(without_tenth, len(kept)),
            **_drawn_intervals(probabilities, prior),
        },
    }


def measure_gate(probabilities, gate):
    """Measure what a gate does to images as they are, upright, and to the same turned.

    Args:
        probabilities: (n, 4) array of upright photographs, n > 0.
        gate: margin, see :class:`canon_seg.core.pose.UncertainPoses`.

    Returns:
        dict that JSON can hold: ``margin``; ``upright``, and ``turned``, of the three other turns:
        ``accuracy``, fraction of the poses that are right with the gate, and ``gated``, fraction of
        the images that the gate leaves as given.
    """
    policy, right, gated = UncertainPoses(gate=gate), {}, {}
    for true in C4.elements:
        name = "turned" if true.quarters else "upright"
        for row in np.asarray(probabilities):
            turned = dict(zip(C4.elements, np.roll(row, true.quarters).tolist(), strict=True))
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


def _drawn_intervals(probabilities, prior):
    """Return intervals by the bootstrap of ``ece``, ``wasserstein``, ``mmd`` and ``kl``."""
    poses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    shares, prior = draw_shares(len(poses)), prior.double().cpu()
    off = ((poses == 0) - confidence)[:, None]
    errors = np.abs(shares @ (off * np.eye(BINS)[_bins(confidence)])).sum(axis=1)
    found = torch.from_numpy(shares @ np.eye(probabilities.shape[1])[poses])
    mean = torch.from_numpy(shares @ probabilities)
    support = prior > 0
    drawn = {
        "ece": errors,
        "wasserstein": np.array([cyclic_wasserstein(row, prior) for row in found]),
        "mmd": np.array([cyclic_mmd(row, prior) for row in found]),
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


def confusion(poses):
    """Count true poses (rows) and poses found (columns) over all four turns of upright images.

    By equivariance every row is the one above, moved on by one: the matrix is a circulant.

    Args:
        poses: (n,) poses 0..3 found for the upright images.

    Returns:
        (4, 4) int array with sum 4 n.
    """
    counts = np.bincount(poses, minlength=len(C4.elements))
    return np.stack([np.roll(counts, place) for place in range(len(counts))])


def choose_mistakes(probabilities, count):
    """Choose the photographs to look at: wrong poses, surest first, then right ones, least sure.

    Args:
        probabilities: (n, 4) array.
        count: how many at most.

    Returns:
        list of up to ``count`` indices.
    """
    probabilities = np.asarray(probabilities)
    wrong, confidence = probabilities.argmax(axis=1) != 0, probabilities.max(axis=1)
    order = np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))
    return order[:count].tolist()
