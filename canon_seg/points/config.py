"""Define the config keys of the experiment on point clouds, each with a comment above it."""

from typing import Any

from fvcore.common.config import CfgNode

from canon_seg.config.detectron2_keys import VERSION


def points_config() -> Any:
    """Make the config with the defaults, a ``CfgNode`` for :func:`config.load.load_config`."""
    CN = CfgNode  # noqa: N806 - the name that configs have for it everywhere
    cfg = CN()
    # Of the format of config files.
    cfg.VERSION = VERSION

    cfg.DATA = CN()
    # Procedural shapes to train on, without a folder of clouds, and TEST_SHAPES to evaluate on.
    cfg.DATA.TRAIN_SHAPES = 960
    cfg.DATA.TEST_SHAPES = 600
    # Points of each procedural shape.
    cfg.DATA.POINTS = 1024
    # Of the shapes, of the rotations and of the training.
    cfg.DATA.SEED = 1
    # Which axis is up in a folder of clouds, "y" or "z"; "" takes what its format is known for.
    cfg.DATA.UP = ""

    cfg.MODEL = CN()
    # What runs the networks: "cuda", where there is a GPU, or "cpu".
    cfg.MODEL.DEVICE = "cuda"
    cfg.MODEL.CANONICALIZER = CN()
    # Points of a cloud that it looks at.
    cfg.MODEL.CANONICALIZER.POINTS = 256
    # Channels of vectors for each point.
    cfg.MODEL.CANONICALIZER.CHANNELS = 8
    # Channels of the part that reads what rotations leave alone.
    cfg.MODEL.CANONICALIZER.HIDDEN = 64
    cfg.MODEL.POINTNET = CN()
    # Points of a cloud that PointNet looks at.
    cfg.MODEL.POINTNET.POINTS = 1024
    # Channels of its layers before pooling.
    cfg.MODEL.POINTNET.WIDTHS = [32, 32, 64, 128]
    # Channels of its layer after pooling.
    cfg.MODEL.POINTNET.HIDDEN = 64
    cfg.MODEL.DGCNN = CN()
    # Points of a cloud that DGCNN looks at.
    cfg.MODEL.DGCNN.POINTS = 512
    # Nearest points that edges lead to.
    cfg.MODEL.DGCNN.NEIGHBOURS = 8
    # Channels of its edge convolutions.
    cfg.MODEL.DGCNN.WIDTHS = [16, 32]
    # Channels that are pooled.
    cfg.MODEL.DGCNN.JOINED = 128
    # Channels of its layer after pooling.
    cfg.MODEL.DGCNN.HIDDEN = 64

    cfg.SOLVER = CN()
    # Passes over the training clouds of a classifier.
    cfg.SOLVER.EPOCHS = 8
    # Passes of a canonicalizer, alone by the prior or together with a classifier.
    cfg.SOLVER.CANONICALIZER_EPOCHS = 50
    # Points of a cloud that a step sees, drawn at random. DGCNN, whose neighbours lie farther apart
    # where there are fewer points, sees all that it looks at.
    cfg.SOLVER.POINTS = 256
    # Clouds in a step.
    cfg.SOLVER.IMS_PER_BATCH = 32
    # Largest learning rate of AdamW, after which it falls along a cosine.
    cfg.SOLVER.BASE_LR = 0.005
    # Weight decay of AdamW.
    cfg.SOLVER.WEIGHT_DECAY = 0.01
    return cfg
