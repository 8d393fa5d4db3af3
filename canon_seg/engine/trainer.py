"""Training: detectron2's trainer with this project's data, checkpoints and results."""

import logging
import os
import weakref

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from canon_seg import compat  # noqa: F401
from canon_seg.canonicalizers.weights import save_canonicalizer
from canon_seg.checkpointer import SafeCheckpointer
from canon_seg.data.images import read_image
from canon_seg.data.training import build_train_loader, split_photos
from canon_seg.errors import InputError
from canon_seg.files import write_atomically
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains a canonicalizer, a segmenter, or one through the other.

    Every checkpoint is written whole or not at all, and holds what is needed to go on: model,
    optimizer, schedule, averaged weights. What users load afterwards is written beside it:
    ``canonicalizer.pth`` and, for a segmenter that was trained, ``segmenter.pth``.
    """

    def __init__(self, cfg):
        # DefaultTrainer's own set-up with another checkpointer, which its hooks hold on to.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = create_ddp_model(model, broadcast_buffers=False)
        self._trainer = SimpleTrainer(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.averaged = build_averaged(model, cfg.SOLVER.EMA_DECAY)
        checkpointables = {"trainer": weakref.proxy(self)}
        if self.averaged is not model:
            checkpointables["averaged"] = self.averaged
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, **checkpointables)
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg)

    @classmethod
    def build_optimizer(cls, cfg, model):
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER != "ADAMW":
            raise InputError(
                f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; known: SGD, ADAMW"
            )
        parameters = get_default_optimizer_params(
            model, base_lr=cfg.SOLVER.BASE_LR, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM
        )
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return optimizer(parameters, cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    def run_step(self):
        device = torch.device(self.cfg.MODEL.DEVICE).type
        with torch.autocast(device, torch.bfloat16, enabled=self.cfg.SOLVER.BFLOAT16):
            super().run_step()

    def build_hooks(self):
        cfg = self.cfg
        built = [hooks.IterationTimer(), hooks.LRScheduler()]
        if self.averaged is not self.model:
            built.append(AverageWeights(self.averaged))
        if comm.is_main_process():
            if cfg.DATASETS.PHOTOS:
                _, held_out = split_photos(cfg.DATASETS.PHOTOS)
                built.append(hooks.EvalHook(
                    cfg.TEST.EVAL_PERIOD, lambda: {"held_out": self.test_poses(held_out)}
                ))
            built.append(hooks.PeriodicCheckpointer(
                self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=2
            ))
            built.append(WriteResults(cfg.SOLVER.CHECKPOINT_PERIOD))
            built.append(ProgressBar())
            built.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return built

    def build_writers(self):
        folder = self.cfg.OUTPUT_DIR
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(os.path.join(folder, "metrics.json")),
            TensorboardXWriter(folder),
        ]

    @property
    def trained(self):
        """The model whose weights are the result: the averaged one where there is one."""
        model = self.averaged if self.averaged is not self.model else self.model
        return getattr(model, "module", model)

    @torch.no_grad()
    def test_poses(self, files):
        """Fraction of held-out upright photographs that are found upright, and mean loss.

        Measured on the upright photographs only: the network is equivariant, so their turned
        copies tell nothing new.
        """
        model = self.trained
        if not hasattr(model, "canonicalizer"):
            return {}
        canonicalizer = model.canonicalizer
        canonicalizer.eval()
        try:
            images = [
                torch.from_numpy(read_image(file, self.cfg.INPUT.FORMAT)).permute(2, 0, 1)
                for file in files
            ]
            logits = canonicalizer.logits([image.contiguous() for image in images])
        finally:
            canonicalizer.train()
        return {
            "pose_accuracy": float((logits.argmax(dim=1) == 0).float().mean()),
            "pose_loss": float(-logits.log_softmax(dim=1)[:, 0].mean()),
        }


def build_averaged(model, decay):
    """An exponential moving average of a model's weights, or the model itself for decay 0.

    Batch statistics are not averaged but copied.
    """
    if decay == 0:
        return model
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


class AverageWeights(HookBase):
    """Moves the averaged weights a step towards the model's after every iteration."""

    def __init__(self, averaged):
        self.averaged = averaged

    def after_step(self):
        model = self.trainer.model
        self.averaged.update_parameters(model)
        for ours, theirs in zip(self.averaged.module.buffers(), model.buffers()):
            if ours.shape == theirs.shape:
                ours.copy_(theirs)


class WriteResults(HookBase):
    """Writes the weights that users load, at every checkpoint and at the end."""

    def __init__(self, period):
        self.period = period

    def after_step(self):
        if (self.trainer.iter + 1) % self.period == 0:
            self._write()

    def after_train(self):
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._write()

    def _write(self):
        cfg, model = self.trainer.cfg, self.trainer.trained
        if hasattr(model, "canonicalizer") and hasattr(model.canonicalizer, "network"):
            save_canonicalizer(
                os.path.join(cfg.OUTPUT_DIR, "canonicalizer.pth"),
                model.canonicalizer.network,
                model.canonicalizer.input_size,
            )
        segmenter = getattr(model, "segmenter", model)
        if segmenter is not None and any(p.requires_grad for p in segmenter.parameters()):
            save_segmenter(os.path.join(cfg.OUTPUT_DIR, "segmenter.pth"), segmenter)


def save_segmenter(path, segmenter):
    """Write a trained segmenter in half precision, in the format of its official checkpoints."""
    module = getattr(segmenter, "sam", segmenter)
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    with write_atomically(path) as temporary:
        torch.save(state, temporary)


class ProgressBar(HookBase):
    """A tqdm bar over the iterations, with the time left."""

    def before_train(self):
        self.bar = tqdm(
            total=self.trainer.max_iter, initial=self.trainer.start_iter, unit="it",
            desc="training", mininterval=5,
        )

    def after_step(self):
        self.bar.update()

    def after_train(self):
        self.bar.close()
