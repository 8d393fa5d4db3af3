"""Time image classification behind a C8 canonicalizer, beside equiadapt's for the same task."""

import warnings
from types import SimpleNamespace

import torch

from benchmarking.timing import measure, ratio, summary
from canon_seg.classification.classifier import CanonicalizedClassifier
from canon_seg.classification.evaluation import count_parameters
from canon_seg.classification.procedural import draw_images
from canon_seg.core.group import C
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.networks.square import SquareNetwork, SquareScorer, SquareSpec, build_body

ORDER = 8
BATCH = 32
BACKBONE = "tf_efficientnet_lite0"
LARGE = "vit_large_patch16_224"
"""A classifier of 304 M parameters, with random weights: only its time matters."""

HYPERPARAMETERS = {"beta": 1.0, "input_crop_ratio": 0.8, "resize_shape": 32}
NETWORK = {"out_channels": 32, "kernel_size": 5, "num_layers": 3}
"""Of equiadapt's example for CIFAR-10, which has four rotations where we ask for eight."""


@torch.no_grad()
def time_classification(settings, has_peer):
    """Time classifiers alone and behind canonicalizers, on a batch of images of 32 px.

    Args:
        settings: :class:`benchmarking.ways.Settings`.
        has_peer: whether equiadapt can be used.

    Returns:
        (dict that JSON can hold, dict of ratios).
    """
    torch.manual_seed(0)
    images, _ = draw_images(4 if settings.quick else BATCH, 32, seed=0)
    images = images.to(settings.device)
    blocks = (1, 1) if settings.quick else (8, 10)
    scorer = SquareScorer(_network(blocks[0], ORDER, 64, settings), group=C(ORDER))
    finder = GroupCanonicalizer(scorer).eval()
    small = _network(blocks[1], 10, 64, settings)
    canonical = CanonicalizedClassifier(small, finder).eval()
    functions = {"vanilla": lambda: small(images), "canonical": lambda: canonical(images)}
    parameters = {"classifier": count_parameters(small), "canonicalizer": count_parameters(scorer)}
    one = images[:1]
    if not settings.quick:
        large = (
            SquareNetwork(build_body(SquareSpec(LARGE, 0, 10), LARGE), input_size=224)
            .eval()
            .to(settings.device)
        )
        behind = CanonicalizedClassifier(large, finder).eval()
        functions |= {
            "vanilla, ViT-L, one image": lambda: large(one),
            "canonical, ViT-L, one image": lambda: behind(one),
        }
        parameters["ViT-L"] = count_parameters(large)
    if has_peer:
        peer = _peer().to(settings.device)
        floats = images.float() / 255
        functions["canonicalize"] = lambda: canonical.canonical(images, canonical.poses(images))
        functions["canonicalize, equiadapt"] = lambda: peer(floats)
        parameters["canonicalizer, equiadapt"] = count_parameters(peer)
    times = measure(functions, settings.rounds, settings.device)
    ratios = {
        "canonical_over_vanilla_cifar10": ratio(times["canonical"], times["vanilla"]),
        "canonical_over_vanilla_vit_l": None
        if settings.quick
        else ratio(times["canonical, ViT-L, one image"], times["vanilla, ViT-L, one image"]),
        "equiadapt_over_ours_cifar10_canonicalize": ratio(
            times["canonicalize, equiadapt"], times["canonicalize"]
        )
        if has_peer
        else None,
    }
    facts = {
        "images": len(images),
        "parameters": parameters,
        "seconds": {name: summary(values) for name, values in times.items()},
    }
    return facts, ratios


def _network(blocks, outputs, size, settings):
    body = build_body(SquareSpec(BACKBONE, blocks, outputs), BACKBONE)
    return SquareNetwork(body, input_size=size).eval().to(settings.device)


def _peer():
    from equiadapt.images import ESCNNEquivariantNetwork, GroupEquivariantImageCanonicalization

    side = HYPERPARAMETERS["resize_shape"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = ESCNNEquivariantNetwork(
            (3, side, side), group_type="rotation", num_rotations=ORDER, **NETWORK
        )
        return GroupEquivariantImageCanonicalization(
            network, SimpleNamespace(**HYPERPARAMETERS), (3, 32, 32)
        ).eval()
