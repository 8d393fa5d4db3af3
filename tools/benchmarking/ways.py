"""Time the ways to segment an image that is turned."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

import canon_seg.d2  # noqa: F401 - before detectron2
from benchmarking.tilts import TURNS, SaysAnother, results_in, so2_canonicalizers
from benchmarking.timing import measure, ratio, summary
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4
from canon_seg.core.turn import IDENTITY
from canon_seg.d2.capabilities import capabilities
from canon_seg.d2.config import load_config
from canon_seg.d2.instances import snap_instances
from canon_seg.d2.models import behind, models_by_mode
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.tensors import to_chw
from canon_seg.networks.build import build_canonicalizer
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.numerics import speed_up
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.sam.prompts import Prompts
from canon_seg.scenes.dataset import make_scene

from detectron2.modeling import build_model

SEGMENTERS = {
    **{
        f"sam_{size}": ("sam_c4.yaml", ["MODEL.SAM.SIZE", size, "MODEL.SEGMENTER.WEIGHTS", ""])
        for size in ("vit_b", "vit_l", "vit_h")
    },
    "sam_tiny": ("sam_tiny_c4.yaml", []),
    # Random weights need small pixel values, and no threshold to find 100 objects.
    "mask_rcnn_r50": (
        "mask_rcnn_c4.yaml",
        [
            "MODEL.SEGMENTER.WEIGHTS",
            "",
            "MODEL.PIXEL_STD",
            [58.0, 58.0, 58.0],
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
            0.0,
        ],
    ),
}
"""Config file and options of each segmenter; only ``sam_tiny`` has trained weights."""

# The same with toy sizes, to try the benchmark out.
_TOY_SAM = [
    "MODEL.SEGMENTER.WEIGHTS",
    "",
    "MODEL.SAM.SIZE",
    "tiny",
    "MODEL.SAM.TINY.IMAGE_SIZE",
    64,
    "MODEL.SAM.TINY.CHANNELS",
    [8, 8, 16, 64],
    "MODEL.SAM.TINY.BLOCKS",
    [1, 1, 1, 1],
    "MODEL.SAM.TINY.EMBED_DIM",
    32,
]
_TOY_DETECTOR = [
    "MODEL.RESNETS.DEPTH",
    18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    64,
    "MODEL.FPN.OUT_CHANNELS",
    32,
    "MODEL.RPN.PRE_NMS_TOPK_TEST",
    20,
    "MODEL.RPN.POST_NMS_TOPK_TEST",
    20,
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM",
    16,
    "TEST.DETECTIONS_PER_IMAGE",
    6,
    "INPUT.MIN_SIZE_TEST",
    64,
    "INPUT.MAX_SIZE_TEST",
    128,
]

PRETRAINED = ("MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_pretrained.pth")

CANONICALIZERS = {
    "gcnn": ("MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"),
    "pretrained_1_pass": (*PRETRAINED, "MODEL.CANONICALIZER.SCORER.PASSES", 1),
    "pretrained_4_passes": (*PRETRAINED, "MODEL.CANONICALIZER.SCORER.PASSES", 0),
}
"""Options of each trained canonicalizer that is timed before every segmenter, in the same run."""

G_WRN = NetworkSpec("GWRN", 4, (8, 16, 32, 64, 160), 1)
"""Our network of 1.99 M free parameters, that of configs/train/canonicalizer_gwrn.yaml."""


@dataclass(frozen=True)
class Settings:
    """Hold what a whole run shares.

    Attributes:
        device: torch.device.
        rounds: how often everything is timed.
        quick: toy sizes, whose times mean nothing.
        image_size: side of the square image in pixels.
        prompts: box prompts for an image.
        coco_images: images of the made-up results that are scored.
        sweep_images: images of the timed sweep.
        compiles: whether torch.compile is measured as well.
    """

    device: torch.device
    rounds: int = 7
    quick: bool = False
    image_size: int = 1024
    prompts: int = 8
    coco_images: int = 300
    sweep_images: int = 3
    compiles: bool = False

    def toy(self):
        """Return the same at toy sizes."""
        return replace(
            self, quick=True, rounds=2, image_size=160, prompts=2, coco_images=6, sweep_images=1
        )


def build(name, settings, options=()):
    """Build the :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter` of one segmenter.

    Its config is returned too.
    """
    file, own = SEGMENTERS[name]
    toy = (_TOY_DETECTOR if name.startswith("mask_rcnn") else _TOY_SAM) if settings.quick else []
    cfg = load_config(file, [*own, *toy, "MODEL.DEVICE", str(settings.device), *options])
    torch.manual_seed(0)
    return build_model(cfg).eval(), cfg


def picture(height, width, seed=0):
    """Return a (3, height, width) uint8 tensor: a drawn scene."""
    scene, _ = make_scene(np.random.default_rng(seed))
    pixels = np.asarray(Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC))
    return to_chw(pixels)


def box_prompts(count, height, width, seed=0):
    """Return boxes of a tenth to a half of the image's sides."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.1, 0.5, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1) * [width, height, width, height]
    return Prompts(boxes=torch.from_numpy(boxes).float())


def turned_inputs(image, prompts, turn=IDENTITY):
    """Return the dict that models take, of an image that was turned; ``prompts`` may be None."""
    height, width = image.shape[-2:]
    turned = turn_maps(image, turn).contiguous()
    inputs = {"image": turned, "height": turned.shape[-2], "width": turned.shape[-1]}
    if prompts is not None:
        inputs["prompts"] = prompts.turned(turn, height, width)
    return inputs


def larger_canonicalizer(settings, input_size, image_format="RGB"):
    """Build our canonicalizer with the network of 1.9 M parameters and random weights."""
    torch.manual_seed(0)
    network = build_plain_network(G_WRN).eval().to(settings.device)
    return GroupCanonicalizer(
        NetworkScorer(network, input_size=input_size, image_format=image_format)
    )


def trained_canonicalizers(cfg):
    """Build those of ``CANONICALIZERS``, for the images of a segmenter's config, by name."""
    built = {}
    for name, options in CANONICALIZERS.items():
        own = cfg.clone()
        own.merge_from_list(list(options))
        built[name] = build_canonicalizer(own).to(cfg.MODEL.DEVICE).eval()
    return built


def canonicalize(canonicalizer, inputs):
    """Find the pose and undo it: all that happens before the segmenter runs.

    Returns:
        (frame, canonical image, canonical prompts).
    """
    frame = CanonicalFrame(canonicalizer, inputs["image"], inputs.get("prompts"))
    return frame, frame.image, frame.prompts


def invert(frame, pose, instances):
    """Bring a segmenter's results back from a pose: all that happens after it has run."""
    return frame.in_pose(pose).back(snap_instances(instances), "instances")


def time_ways(name, settings, peer=None):
    """Time one segmenter in all ways.

    Args:
        name: key of ``SEGMENTERS``.
        settings: :class:`Settings`.
        peer: :class:`benchmarking.peers.Equiadapt`, or None.

    Returns:
        (dict that JSON can hold, dict from key to :func:`benchmarking.timing.ratio`).
    """
    model, cfg = build(name, settings)
    models = {
        mode: model_for(0)
        for mode, model_for in models_by_mode(model, ["vanilla", "canonical", "tta"]).items()
    }
    image = picture(settings.image_size, settings.image_size)
    prompts = None
    if capabilities(model.segmenter).takes_prompts:
        prompts = box_prompts(settings.prompts, *image.shape[-2:])
    turned = [turned_inputs(image, prompts, turns) for turns in C4.elements]
    found = models["vanilla"]([turned[0]])[0]["instances"]
    frame = CanonicalFrame(model.canonicalizer, image)
    # Poses differ in what they cost: the parts run in all four, the whole in one turned image.
    functions = {
        "vanilla": lambda: models["vanilla"]([turned[1]]),
        "canonical": lambda: models["canonical"]([turned[1]]),
        "tta": lambda: models["tta"]([turned[1]]),
        "canonicalize": lambda: [canonicalize(model.canonicalizer, one) for one in turned],
        "invert": lambda: [invert(frame, pose, found) for pose in C4.elements],
    }
    trained = trained_canonicalizers(cfg)
    for own, canonicalizer in trained.items():
        functions[f"canonicalize {own}"] = lambda own=canonicalizer: [
            canonicalize(own, one) for one in turned
        ]
    any_angle, so2_weights = so2_canonicalizers(settings.device, cfg.INPUT.FORMAT)
    functions.update(_ways_by_a_tilt(model, any_angle, image, prompts))
    if peer is not None:
        functions["equiadapt"] = lambda: peer.segment(models["vanilla"], turned[1])
    times = measure(functions, settings.rounds, settings.device)
    parts = [f"canonicalize {own}" for own in (*trained, *any_angle)]
    for part in ("canonicalize", *parts, "invert", "invert so2"):
        times[part] /= len(C4.elements)
    ratios = {
        "canonical_over_vanilla": ratio(
            times["canonicalize"] + times["invert"], times["vanilla"], plus=1.0
        ),
        "canonical_over_vanilla_measured_whole": ratio(times["canonical"], times["vanilla"]),
        "tta_over_canonical": ratio(times["tta"], times["canonical"]),
    }
    for own in (*trained, *any_angle):
        invert_own = "invert so2" if own in any_angle else "invert"
        ratios[f"{own}_over_vanilla"] = ratio(
            times[f"canonicalize {own}"] + times[invert_own], times["vanilla"], plus=1.0
        )
    ratios["so2_over_vanilla_measured_whole"] = ratio(times["so2"], times["vanilla"])
    if peer is not None:
        ratios["equiadapt_over_vanilla"] = ratio(times["equiadapt"], times["vanilla"])
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.segmenter.parameters()),
        "image": list(image.shape[-2:]),
        "objects": len(found),
        "so2_weights": so2_weights,
        "seconds": {way: summary(values) for way, values in times.items()},
    }
    return facts, {f"{key}_{name}": value for key, value in ratios.items()}


def _ways_by_a_tilt(model, any_angle, image, prompts):
    """Return what is timed of canonicalizers of any angle, as :func:`time_ways` does.

    The image is said to be turned by a tilt and all quarter turns, in turn.
    """
    given = turned_inputs(image, prompts)

    def saying(canonicalizer):
        return [SaysAnother(canonicalizer, turn) for turn in TURNS]

    functions = {
        f"canonicalize {own}": lambda own=canonicalizer: [
            canonicalize(one, given) for one in saying(own)
        ]
        for own, canonicalizer in any_angle.items()
    }
    found = []
    for one in saying(any_angle["so2"]):
        frame, _, _ = canonicalize(one, given)
        found.append((frame, results_in(behind(one, model), frame, given)))
    whole = behind(saying(any_angle["so2"])[0], model)
    return {
        **functions,
        "invert so2": lambda: [
            frame.back(snap_instances(instances), "instances") for frame, instances in found
        ],
        "so2": lambda: whole([given]),
    }


def time_numerics(name, settings):
    """Time what each key of faster numerics gains, by segmenter.

    It is the time without it over the time with it.
    """
    keys = ["BFLOAT16", "CHANNELS_LAST"] + ["COMPILE"] * settings.compiles
    model, _ = build(name, settings)
    image = picture(settings.image_size, settings.image_size)
    prompts = None
    if capabilities(model.segmenter).takes_prompts:
        prompts = box_prompts(settings.prompts, *image.shape[-2:])
    inputs = turned_inputs(image, prompts)
    functions = {"": models_by_mode(model, ["vanilla"])["vanilla"](0)}
    for key in keys:
        faster = copy.deepcopy(model)
        speed_up(faster.segmenter, [key])
        functions[key] = models_by_mode(faster, ["vanilla"])["vanilla"](0)
    with torch.no_grad():
        times = measure(
            {key: lambda run=run: run([inputs]) for key, run in functions.items()},
            settings.rounds,
            settings.device,
        )
    facts = {key or "float32": summary(values) for key, values in times.items()}
    return facts, {f"gain_{key.lower()}_{name}": ratio(times[""], times[key]) for key in keys}
