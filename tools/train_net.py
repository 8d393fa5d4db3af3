#!/usr/bin/env python
"""Train a canonicalizer or a segmenter, by detectron2's conventions.

    python tools/train_net.py --config-file configs/sam_c4.yaml [--resume] [KEY VALUE ...]
    python tools/train_net.py --config-file configs/sam_c4.yaml --eval-only
"""

import os

from canon_seg import compat  # noqa: F401
from canon_seg import meta_arch  # noqa: F401  registers CanonicalizedSegmenter
from canon_seg.config import load_config
from canon_seg.data.coco import register_coco
from canon_seg.engine.trainer import Trainer
from canon_seg.errors import InputError, run_main
from canon_seg.files import check_output_dir
from detectron2.engine import default_argument_parser, default_setup, launch


def setup(args):
    """The frozen config, with data sets registered and the output folder ready."""
    cfg = load_config(args.config_file, args.opts)
    for name, annotations, images in cfg.DATASETS.COCO:
        register_coco(name, annotations, images)
    if not args.eval_only:
        cfg.MODEL.CANONICALIZER.TRAINABLE = cfg.MODEL.CANONICALIZER.NAME == "GroupCanonicalizer"
        if (
            cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter"
            and cfg.MODEL.CANONICALIZER.TASK_WEIGHT == 0
        ):
            cfg.MODEL.SEGMENTER.META_ARCHITECTURE = ""  # never run, so not even built
    cfg.freeze()
    check_output_dir(cfg.OUTPUT_DIR)
    default_setup(cfg, args)
    return cfg


def main(args):
    cfg = setup(args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def run():
    args = default_argument_parser(__doc__).parse_args()
    launch(
        main, args.num_gpus, num_machines=args.num_machines, machine_rank=args.machine_rank,
        dist_url=args.dist_url, args=(args,),
    )


if __name__ == "__main__":
    run_main(run)
