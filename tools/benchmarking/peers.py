"""Run equiadapt's canonicalizer, configured as its own segmentation example configures it.

Its images are floats in 0..1 and square; its G-WRN has 1.86 M parameters with the values below.
"""

import importlib
import warnings
from importlib.metadata import version
from types import SimpleNamespace

import torch
from torch import nn

from canon_seg.core.group import C4

HYPERPARAMETERS = {"beta": 1.0, "input_crop_ratio": 0.8, "resize_shape": 128}
NETWORK = {"out_channels": 64, "kernel_size": 5, "num_layers": 12}
STEERABLE = {"out_channels": 16, "kernel_size": 7, "num_layers": 3}
_TOY_NETWORK = {"out_channels": 4, "kernel_size": 3, "num_layers": 3}
NEEDED = ("equiadapt", "kornia", "e2cnn")


def find_equiadapt():
    """Return (True, versions as text), or (False, why equiadapt cannot be used)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in NEEDED:
                importlib.import_module(name)
    except ImportError as error:
        return False, f"not installed ({error}); pip install -e .[benchmark]"
    return True, ", ".join(f"{name} {version(name)}" for name in NEEDED)


class Equiadapt:
    """Hold equiadapt's canonicalizer around a network, its own G-WRN or another.

    Args:
        settings: :class:`benchmarking.ways.Settings`.
        network: module from (B, 3, s, s) to (B, 4) activations, or None for its own.
        input_size: side of what the network sees.
    """

    def __init__(self, settings, network=None, input_size=None):
        from equiadapt.images import (
            ESCNNWRNEquivariantNetwork,
            GroupEquivariantImageCanonicalization,
        )

        input_size = input_size or (32 if settings.quick else HYPERPARAMETERS["resize_shape"])
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if network is None:
                network = ESCNNWRNEquivariantNetwork(
                    (3, input_size, input_size),
                    group_type="rotation",
                    num_rotations=len(C4.elements),
                    **(_TOY_NETWORK if settings.quick else NETWORK),
                )
            else:
                network = _AsItsOwn(network)
            self.parameters = sum(parameter.numel() for parameter in network.parameters())
            self.module = (
                GroupEquivariantImageCanonicalization(
                    network,
                    SimpleNamespace(**{**HYPERPARAMETERS, "resize_shape": input_size}),
                    (3, settings.image_size, settings.image_size),
                )
                .to(settings.device)
                .eval()
            )
        self.device = settings.device

    def floats(self, image):
        """Return (1, 3, H, W) floats in 0..1 of a (3, H, W) uint8 image."""
        return image.to(self.device)[None].float() / 255

    @torch.no_grad()
    def canonicalize(self, floats):
        """Return the canonical image, floats as well."""
        return self.module(floats)

    @torch.no_grad()
    def segment(self, model, inputs):
        """Canonicalize, segment with one of our models, turn the masks back as features.

        Prompts are given as they are, and boxes are not turned back: the least that it costs.
        """
        canonical = self.canonicalize(self.floats(inputs["image"]))
        pixels = (canonical[0] * 255).round().to(torch.uint8)
        instances = model([{**inputs, "image": pixels}])[0]["instances"]
        if not len(instances):
            return instances.pred_masks
        return (
            self.module.invert_canonicalization(
                instances.pred_masks[None].float(), induced_rep_type="scalar"
            )[0]
            > 0.5
        )

    def training_step(self, optimizer, batch):
        """Do the example's training step for a task weight of 0, without targets.

        Args:
            batch: (B, 3, H, W) floats.
        """
        self.module(batch)
        loss = 100 * self.module.get_prior_regularization_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class EquiadaptSteerable:
    """Hold equiadapt's steerable canonicalizer, of all rotations, as its example configures it.

    Args:
        settings: :class:`benchmarking.ways.Settings`.
    """

    def __init__(self, settings):
        from equiadapt.images import ESCNNSteerableNetwork, SteerableImageCanonicalization

        size = 32 if settings.quick else HYPERPARAMETERS["resize_shape"]
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = ESCNNSteerableNetwork(
                (3, size, size), **(_TOY_NETWORK if settings.quick else STEERABLE)
            )
            self.parameters = sum(parameter.numel() for parameter in network.parameters())
            self.module = (
                SteerableImageCanonicalization(
                    network,
                    SimpleNamespace(**{**HYPERPARAMETERS, "resize_shape": size}),
                    (3, settings.image_size, settings.image_size),
                )
                .to(settings.device)
                .eval()
            )

    @torch.no_grad()
    def canonicalize(self, floats):
        """Return the canonical image of (1, 3, H, W) floats in 0..1, floats as well."""
        return self.module(floats)


def find_steerable(settings):
    """Return (:class:`EquiadaptSteerable`, None), or (None, why it cannot be built here)."""
    try:
        return EquiadaptSteerable(settings), None
    except Exception as error:  # whatever it fails by is not ours
        asked = " ".join(str(error).split()) or "no message"
        versions = ", ".join(f"{name} {version(name)}" for name in NEEDED)
        return None, f"its steerable network fails with {versions}: {type(error).__name__}, {asked}"


class _AsItsOwn(nn.Module):
    """Give another network the two attributes that equiadapt asks its networks for."""

    group_type, num_rotations = "rotation", len(C4.elements)

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)
