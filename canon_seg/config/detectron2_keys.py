"""Name detectron2's config keys, so that configs with them load where it is not installed."""

from fvcore.common.config import CfgNode

VERSION = 2
"""The version of detectron2's configs that is read here; its own loader converts older ones."""

DEFAULTS = {
    "VERSION": VERSION,
    "SEED": -1,
    "OUTPUT_DIR": "./output",
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.DEVICE": "cuda",
    "INPUT.FORMAT": "BGR",
}
"""Keys that mean something without detectron2 too, with its defaults."""

IGNORED = {
    "": ("CUDNN_BENCHMARK", "VIS_PERIOD"),
    "MODEL": (
        "KEYPOINT_ON",
        "LOAD_PROPOSALS",
        "MASK_ON",
        "PIXEL_MEAN",
        "PIXEL_STD",
        "WEIGHTS",
    ),
    "INPUT": (
        "MASK_FORMAT",
        "MAX_SIZE_TEST",
        "MAX_SIZE_TRAIN",
        "MIN_SIZE_TEST",
        "MIN_SIZE_TRAIN",
        "MIN_SIZE_TRAIN_SAMPLING",
        "RANDOM_FLIP",
    ),
    "DATASETS": (
        "PRECOMPUTED_PROPOSAL_TOPK_TEST",
        "PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
        "PROPOSAL_FILES_TEST",
        "PROPOSAL_FILES_TRAIN",
        "TEST",
        "TRAIN",
    ),
    "SOLVER": (
        "BASE_LR",
        "BASE_LR_END",
        "BIAS_LR_FACTOR",
        "CHECKPOINT_PERIOD",
        "GAMMA",
        "IMS_PER_BATCH",
        "LR_SCHEDULER_NAME",
        "MAX_ITER",
        "MOMENTUM",
        "NESTEROV",
        "NUM_DECAYS",
        "REFERENCE_WORLD_SIZE",
        "RESCALE_INTERVAL",
        "STEPS",
        "WARMUP_FACTOR",
        "WARMUP_ITERS",
        "WARMUP_METHOD",
        "WEIGHT_DECAY",
        "WEIGHT_DECAY_BIAS",
        "WEIGHT_DECAY_NORM",
    ),
}
"""Node to keys that take any value and change nothing without detectron2."""

OPEN_NODES = (
    "DATALOADER",
    "GLOBAL",
    "INPUT.CROP",
    "MODEL.ANCHOR_GENERATOR",
    "MODEL.BACKBONE",
    "MODEL.FPN",
    "MODEL.PANOPTIC_FPN",
    "MODEL.PROPOSAL_GENERATOR",
    "MODEL.RESNETS",
    "MODEL.RETINANET",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_BOX_HEAD",
    "MODEL.ROI_HEADS",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.RPN",
    "MODEL.SEM_SEG_HEAD",
    "SOLVER.AMP",
    "SOLVER.CLIP_GRADIENTS",
    "TEST",
)
"""Nodes that take any keys, which change nothing without detectron2."""


def detectron2_keys():
    """Make a config that takes detectron2's keys, on fvcore's ``CfgNode``.

    Returns:
        ``CfgNode``: ``DEFAULTS``; ``IGNORED``, whose values are None until they are given; and
        ``OPEN_NODES``, which are empty. It refuses every other key.
    """
    cfg = CfgNode()
    for name, value in DEFAULTS.items():
        _node(cfg, name.rpartition(".")[0])[name.rpartition(".")[2]] = value
    for node, names in IGNORED.items():
        _node(cfg, node).update(dict.fromkeys(names))
    for node in OPEN_NODES:
        _node(cfg, node).set_new_allowed(True)
    return cfg


def _node(cfg, path):
    for name in filter(None, path.split(".")):
        cfg = cfg.setdefault(name, CfgNode())
    return cfg
