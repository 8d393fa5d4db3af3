"""Read what a segmenter can do from what its meta-architecture declares.

A meta-architecture in detectron2's registry declares the attributes of :class:`Capabilities` as
class attributes of the same names, and whatever it leaves out has the default. These methods may be
there too, the first three as class methods:

- ``build_train_loader(cfg)``: the loader of its training data; default: detectron2's own;
- ``describe(cfg)``: dict of what a report should say of it, which JSON can hold; default: nothing;
- ``weights_advice(cfg)``: a sentence about where its weights are to be had;
- ``load_weights(path, key)``: reads a weights file into the built model, and names the config key
  in messages; default: detectron2's checkpointer, safely.

Before a pose with a tilt the inputs hold ``soft_masks``, True: the ``pred_masks`` of instances may
then be a :class:`canon_seg.images.soft_masks.SoftMasks`, which is interpolated once and then cut.
Masks that are cut already are sampled at the nearest pixels.

For example::

    @META_ARCH_REGISTRY.register()
    class MySegmenter(nn.Module):
        takes_prompts = needs_prompts = resizes_itself = True
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import canon_seg.d2.sam  # noqa: F401 - registers SamSegmenter

from detectron2.modeling import META_ARCH_REGISTRY

CANONICALIZED = "CanonicalizedSegmenter"
"""The meta-architecture that puts a canonicalizer before another one, its segmenter."""


@dataclass(frozen=True)
class Capabilities:
    """Say what a segmenter can do.

    Attributes:
        takes_prompts: its inputs may hold ``prompts``, a :class:`canon_seg.sam.prompts.Prompts` in
            the frame of the image; its ``instances`` are then one for each prompt, in order.
        needs_prompts: it does nothing without them.
        resizes_itself: it takes images of any size, and gives results of their size.
        checkpoint_module: dotted name of the submodule that files with its weights hold, "" where
            they hold the whole model.
        leaves_parameters_unused: a training step may leave parameters without a gradient, others
            in each process.
    """

    takes_prompts: bool = False
    needs_prompts: bool = False
    resizes_itself: bool = False
    checkpoint_module: str = ""
    leaves_parameters_unused: bool = False


def capabilities(segmenter: Any) -> Capabilities:
    """Return the capabilities that a segmenter declares.

    Args:
        segmenter: a meta-architecture's class, a built model, or None for no segmenter.

    Raises:
        TypeError: if it declares one in another way than as a bool or str, or ``takes_prompts``
            without ``resizes_itself``: prompts are in the frame of an image as it was read.
    """
    name = segmenter.__name__ if inspect.isclass(segmenter) else type(segmenter).__name__
    declared: dict[str, Any] = {}
    for field in fields(Capabilities):
        value = getattr(segmenter, field.name, field.default)
        if not isinstance(value, type(field.default)):
            raise TypeError(
                f"{name}.{field.name} is a {type(value).__name__}; declare a class attribute that "
                f"is a {type(field.default).__name__}"
            )
        declared[field.name] = value
    found = Capabilities(**declared)
    if found.takes_prompts and not found.resizes_itself:
        raise TypeError(
            f"{name} declares takes_prompts without resizes_itself; prompts are in the frame of "
            "the image as read, so let it take such images and declare both"
        )
    return found


def registered(name: str) -> Any:
    """Return the meta-architecture of a name in detectron2's registry, or None."""
    return META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None


def segmenter_class(cfg) -> Any:
    """Return the meta-architecture of the segmenter that a config describes, not yet built.

    Returns:
        That of MODEL.SEGMENTER behind a canonicalizer, else that of MODEL; None where there is no
        segmenter, or none of that name in detectron2's registry.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    return registered(cfg.MODEL.SEGMENTER.META_ARCHITECTURE if name == CANONICALIZED else name)


def hook(segmenter: Any, name: str) -> Callable | None:
    """Return a method that a segmenter declares, or None; see this module's text."""
    return getattr(segmenter, name, None)


def prompted_by_detector(cfg) -> bool:
    """Tell whether the segmenter of a config is prompted by a detector (MODEL.SAM.DETECTOR)."""
    return capabilities(segmenter_class(cfg)).takes_prompts and cfg.MODEL.SAM.PROMPTS == "detector"


def prompted_from_outside(cfg) -> bool:
    """Tell whether prompts are given to the segmenter of a config together with the images."""
    return capabilities(segmenter_class(cfg)).takes_prompts and cfg.MODEL.SAM.PROMPTS != "detector"
