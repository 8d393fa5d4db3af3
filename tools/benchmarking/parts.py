"""Time the steps of a canonicalizer, each alone."""

import numpy as np
import torch

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
from canon_seg.images.arrays import turn_maps, turned_copy
from canon_seg.images.representative import representative_turns
from canon_seg.images.resize import normalize, resize_for_network
from canon_seg.networks.backbone_scorer import BackboneScorer

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
    if peer is not None:
        floats = peer.floats(image)
        functions["equiadapt"] = lambda: peer.canonicalize(floats)
    times = measure(functions, settings.rounds, settings.device)
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
        "seconds": {name: summary(values) for name, values in times.items()},
    }
    return facts, {
        key: peer and ratio(times["equiadapt"], times[name]) for key, name in names.items()
    }


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
    for name in (f"encode {count} masks", f"encode {count} turned masks"):
        times[name] *= count / len(first)
    return times


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
