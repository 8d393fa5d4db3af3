"""Time the steps of a canonicalizer, each alone."""

from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from benchmarking.peers import find_steerable
from benchmarking.tilts import TURNS, SaysAnother, frame_tilted, so2_canonicalizers
from benchmarking.timing import measure, ratio, summary
from benchmarking.ways import (
    build,
    canonicalize,
    larger_canonicalizer,
    picture,
    turned_inputs,
)
from canon_seg.coco.masks import encode_mask
from canon_seg.core.group import C4
from canon_seg.d2.soft_masks import BoxMasks
from canon_seg.images.arrays import turn_maps, turned_copy
from canon_seg.images.representative import representative_turns
from canon_seg.images.resize import normalize, resize_for_network
from canon_seg.images.soft_masks import ScoredMasks
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.sam.models import LongestSide
from canon_seg.sam.prompted import boxes_around, enlarge_logits

MEGAPIXELS = {1: (1000, 1000), 4: (2000, 2000), 12: (3000, 4000)}
MASKS = (1, 20, 100)
FAST = ["MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"]
TRAINED_SIZE = 97
"""Input size of our network of 1.9 M parameters; that of equiadapt is 128."""


def time_canonicalizers(settings, peer=None):
    """Time our canonicalizers and equiadapt's on one square image.

    From uint8 (equiadapt: from floats) to canonical.

    Returns:
        (dict that JSON can hold, dict of ratios).
    """
    image = picture(settings.image_size, settings.image_size)
    default = build("sam_tiny", settings)[0].canonicalizer
    ours = {
        "default": default,
        "fast": build("sam_tiny", settings, FAST)[0].canonicalizer,
        "1_9m": larger_canonicalizer(settings, TRAINED_SIZE),
        "1_9m_at_129": larger_canonicalizer(settings, 129),
    }
    turned = [turned_inputs(image, None, turns) for turns in C4.elements]
    functions = {
        name: lambda canonicalizer=canonicalizer: [
            canonicalize(canonicalizer, inputs) for inputs in turned
        ]
        for name, canonicalizer in ours.items()
    }
    any_angle, so2_weights = so2_canonicalizers(settings.device)
    steerable = why_not = None
    for name, canonicalizer in any_angle.items():
        functions[name] = lambda canonicalizer=canonicalizer: [
            canonicalize(SaysAnother(canonicalizer, turn), turned[0]) for turn in TURNS
        ]
    if peer is not None:
        floats = peer.floats(image)
        functions["equiadapt"] = lambda: peer.canonicalize(floats)
        steerable, why_not = find_steerable(settings)
        if steerable is not None:
            functions["equiadapt_steerable"] = lambda: steerable.canonicalize(floats)
    times = measure(functions, settings.rounds, settings.device)
    ours.update(any_angle)
    for name in ours:
        times[name] /= len(C4.elements)
    key = "equiadapt_over_ours_canonicalize"
    names = {
        key: "fast",
        f"{key}_default": "default",
        f"{key}_1_9m": "1_9m",
        f"{key}_1_9m_at_129": "1_9m_at_129",
    }
    facts = {
        "image": list(image.shape[-2:]),
        "parameters_as_plain_convolutions": {
            name: sum(p.numel() for p in canonicalizer.scorer.network.parameters())
            for name, canonicalizer in ours.items()
        },
        "so2_weights": so2_weights,
        "seconds": {name: summary(values) for name, values in times.items()},
    }
    if steerable is not None:
        facts["parameters_of_equiadapt_steerable"] = steerable.parameters
    elif why_not:
        facts["note_of_equiadapt_steerable"] = why_not
    ratios = {key: peer and ratio(times["equiadapt"], times[name]) for key, name in names.items()}
    ratios["equiadapt_steerable_over_ours_so2"] = steerable and ratio(
        times["equiadapt_steerable"], times["so2"]
    )
    return facts, ratios


@torch.no_grad()
def time_parts(settings):
    """Return seconds of each step for each size of image, and for each number of masks."""
    canonicalizer = build("sam_tiny", settings)[0].canonicalizer
    sizes = {1: (100, 100)} if settings.quick else MEGAPIXELS
    results = {}
    for megapixels, (height, width) in sizes.items():
        image = picture(height, width)
        copy = turned_copy(image, 1)
        shrink, run = _steps(canonicalizer.scorer)
        batch = shrink(copy)[None].to(settings.device)
        rows = image.permute(1, 2, 0)
        times = measure(
            {
                "pose": lambda: canonicalizer.pose(image),
                "pose: representative": lambda: representative_turns(rows),
                "pose: copy of it": lambda: turned_copy(image, 1),
                "pose: shrink": lambda: shrink(copy),
                "pose: network": lambda: run(batch),
                "turn image": lambda: [turned_copy(image, turns) for turns in (1, 2, 3)],
                "warp image there": lambda: frame_tilted(image).image,
            },
            3 * settings.rounds,
            settings.device,
        )
        times["turn image"] /= 3
        for count in (1, 3) if settings.quick else MASKS:
            times.update(_mask_times(count, height, width, settings))
        results[f"{megapixels} megapixels"] = {
            name: summary(values) for name, values in times.items()
        }
    return results


def _steps(scorer):
    """Return what a scorer does to an image, and to the batch of what comes out."""
    if isinstance(scorer, BackboneScorer):
        return scorer.prepare, scorer.logits_of_inputs
    return (
        lambda image: resize_for_network(image, scorer.input_size),
        lambda batch: scorer.network(normalize(batch)),
    )


def _mask_times(count, height, width, settings):
    masks = torch.from_numpy(blobs(count, height, width)).to(settings.device)
    first = masks[: min(count, 20)].cpu()  # codes of the others take as long each
    turned = turn_maps(first, 1)
    times = measure(
        {
            f"invert {count} masks": lambda: [turn_maps(masks, turns) for turns in (1, 2, 3)],
            f"encode {count} masks": lambda: [encode_mask(mask.numpy()) for mask in first],
            f"encode {count} turned masks": lambda: [encode_mask(mask.numpy()) for mask in turned],
        },
        min(settings.rounds, 5),
        settings.device,
    )
    times[f"invert {count} masks"] /= 3
    times.update(_warp_times(masks, settings))
    for name in (f"encode {count} masks", f"encode {count} turned masks"):
        times[name] *= count / len(first)
    return times


def _warp_times(masks, settings):
    """Time the warp back of masks by a tilt: cut before, and as SAM and detectors have them."""
    count, *size = masks.shape
    frame = frame_tilted(torch.zeros(3, *size, dtype=torch.uint8))
    canonical = tuple(frame.canonical_size)
    placed = torch.zeros(count, *canonical, dtype=torch.bool, device=masks.device)
    high, wide = (min(ours, theirs) for ours, theirs in zip(canonical, size, strict=True))
    placed[:, :high, :wide] = masks[:, :high, :wide]
    side = 64 if settings.quick else 1024
    resized = LongestSide.get_preprocess_shape(*canonical, side)
    small = [max(1, length // 4) for length in resized]
    logits = torch.full((count, side // 4, side // 4), -4.0, device=masks.device)
    boxes, regions = boxes_around(placed), torch.zeros(count, 28, 28, device=masks.device)
    for row, (x0, y0, x1, y1) in enumerate(boxes.long().tolist()):  # one by one: they are large
        mask = placed[row, None, None].float()
        logits[row, : small[0], : small[1]] = 8 * F.interpolate(mask, small)[0, 0] - 4
        regions[row] = F.interpolate(mask[..., y0:y1, x0:x1], (28, 28), mode="bilinear")[0, 0]
    enlarge = partial(enlarge_logits, side, resized, canonical)
    of_sam = ScoredMasks(logits, 0.0, canonical, enlarge)
    of_detector = BoxMasks(regions, boxes, canonical)
    functions = {
        f"warp back {count} masks": lambda: frame.back(placed, "masks"),
        f"warp back {count} masks of logits": lambda: frame.back(of_sam, "masks"),
        f"cut {count} masks of logits": of_sam.filled,
        f"warp back {count} masks in boxes": lambda: frame.back(of_detector, "masks"),
        f"paste {count} masks in boxes": of_detector.cut,
    }
    return measure(functions, min(settings.rounds, 3), settings.device)


def blobs(count, height, width, seed=0):
    """Return a (count, height, width) bool array of ellipses."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        centre_y, centre_x = rng.uniform(0.2, 0.8, 2) * (height, width)
        radius_y, radius_x = rng.uniform(0.05, 0.25, 2) * (height, width)
        np.less(((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2, 1, out=mask)
    return masks
