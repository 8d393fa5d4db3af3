"""Time classifiers of point clouds behind canonicalizers, ours and equiadapt's."""

import warnings
from types import SimpleNamespace

import torch

from benchmarking.timing import measure, ratio, summary
from canon_seg.points.canonicalizer import (
    CanonicalizedPointClassifier,
    PrincipalAxesCanonicalizer,
)
from canon_seg.points.config import points_config
from canon_seg.points.experiment import Model, build, num_points
from canon_seg.points.group import SO3, rotate_points
from canon_seg.points.shapes import FAMILIES, make_shapes

EQUIADAPT_NETWORK = {"n_knn": 20, "pooling": "mean"}
"""Of its VNSmall, as its own example of point clouds configures it."""


def time_points(settings, with_equiadapt):
    """Time a batch of clouds through each classifier, alone and behind canonicalizers.

    Args:
        settings: :class:`benchmarking.ways.Settings`.
        with_equiadapt: whether equiadapt can be imported.

    Returns:
        (result, ratios). Of each classifier: its ``parameters``, its ``points``, and ``seconds``
        for ``vanilla``, ``canonical`` and ``principal axes``; under ``canonicalizers`` the same of
        the canonicalizers alone, all on 1,024 points, with ``reflections``, the share of clouds for
        which what is found is a reflection and no rotation.
    """
    torch.manual_seed(0)
    cfg = points_config()
    cfg.MODEL.DEVICE = str(settings.device)
    count, batch = (64, 2) if settings.quick else (cfg.DATA.POINTS, 32)
    clouds = make_shapes(batch, count, seed=0).points
    clouds = rotate_points(clouds, SO3.sample(batch)).to(settings.device)
    result, ratios = {"clouds": batch}, {}
    for name in ("PointNet", "DGCNN"):
        canonical = build(Model(name, "prior", "z", ()), cfg, len(FAMILIES)).to(settings.device)
        classifier = canonical.classifier
        principal = CanonicalizedPointClassifier(PrincipalAxesCanonicalizer(), classifier).eval()
        shown = clouds[:, : num_points(cfg, name)].contiguous()
        times = _times({"vanilla": classifier, "canonical": canonical}, shown, settings)
        times |= _times({"principal axes": principal}, shown, settings)
        result[name] = {
            "parameters": _parameters(classifier),
            "points": shown.shape[1],
            "seconds": {way: summary(values) for way, values in times.items()},
        }
        key = f"points_canonical_over_vanilla_{name.lower()}"
        ratios[key] = ratio(times["canonical"], times["vanilla"])
    ours = build(Model("PointNet", "prior", "z", ()), cfg, len(FAMILIES)).canonicalizer
    ways = {"ours": ours, "principal axes": PrincipalAxesCanonicalizer()}
    if with_equiadapt:
        ways["equiadapt"] = EquiadaptPoints()
    ways = {name: module.to(settings.device).eval() for name, module in ways.items()}
    times = _times(ways, clouds, settings)
    result["canonicalizers"] = {
        name: {
            "parameters": _parameters(module),
            "seconds": summary(times[name]),
            "reflections": _reflections(module, clouds),
        }
        for name, module in ways.items()
    }
    ratios["equiadapt_over_ours_points"] = (
        ratio(times["equiadapt"], times["ours"]) if with_equiadapt else None
    )
    return result, ratios


class EquiadaptPoints(torch.nn.Module):
    """Hold equiadapt's canonicalizer of point clouds, with random weights."""

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from equiadapt.pointcloud.canonicalization import EquivariantPointcloudCanonicalization
            from equiadapt.pointcloud.canonicalization_networks import VNSmall
        super().__init__()
        network = VNSmall(SimpleNamespace(**EQUIADAPT_NETWORK))
        self.module = EquivariantPointcloudCanonicalization(network, None)

    def forward(self, points):
        """Return the (B, N, 3) canonical forms of (B, N, 3) clouds."""
        return self.module(points.transpose(1, 2)).transpose(1, 2)

    def frames(self, points):
        """Return the (B, 3, 3) orthogonal matrices that it finds."""
        return self.module.get_groupelement(points.transpose(1, 2))["rotation"]


@torch.no_grad()
def _reflections(module, clouds):
    frames = module.frames(clouds) if hasattr(module, "frames") else module(clouds).mode()
    return float((torch.linalg.det(frames) < 0).double().mean())


def _times(ways, clouds, settings):
    @torch.no_grad()
    def run(module):
        found = module(clouds)
        return found.canonical(clouds) if hasattr(found, "canonical") else found

    functions = {name: lambda module=module: run(module) for name, module in ways.items()}
    return measure(functions, settings.rounds, settings.device)


def _parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())
