"""Training: detectron2's trainer with this project's data, checkpoints and results."""

import logging
import os
import weakref
from contextlib import ExitStack

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.loaders import (
    build_train_loader,
    has_sam,
    split_photos,
    trains_on_photos,
)
from canon_seg.d2.test_loader import build_test_loader
from canon_seg.errors import InputError
from canon_seg.images.reading import read_image
from canon_seg.io.files import save_torch
from canon_seg.networks.backbone import PoseNetwork
from canon_seg.networks.backbone_weights import save_pose_network
from canon_seg.networks.build import uses_backbone
from canon_seg.networks.calibration import fit_temperature, representative_logits
from canon_seg.networks.weights import save_canonicalizer

from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    hooks,
)
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter


class Trainer(DefaultTrainer):
    """Trains a canonicalizer, a segmenter, or one through the other.

    A canonicalizer is built in its trainable form, from MODEL.CANONICALIZER.WEIGHTS where these
    are given, else from random weights. A segmenter whose losses have no weight is not built.

    Every checkpoint is written whole or not at all, and holds what is needed to go on: model,
    optimizer, schedule, averaged weights. What users load afterwards is written beside it:
    ``canonicalizer.pth`` and, for a segmenter that was trained, ``segmenter.pth``.
    """

    def __init__(self, cfg):
        """
        Args:
            cfg: config; not changed.
        Raises:
            InputError: naming the config key or the file that cannot be used.
        """
        # DefaultTrainer's own set-up with another checkpointer, which its hooks hold on to.
        TrainerBase.__init__(self)
        cfg = _training_config(DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()))
        model = self.build_model(cfg)
        if hasattr(model, "canonicalizer"):  # its weights file may have brought its own
            cfg.defrost()
            cfg.MODEL.CANONICALIZER.INPUT_SIZE = model.canonicalizer.input_size
            cfg.freeze()
        optimizer = self.build_optimizer(cfg, model)
        photos, self.held_out = split_photos(cfg) if trains_on_photos(cfg) else ([], [])
        loader = self.build_train_loader(cfg, photos)
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        # The prompts drawn by a process may leave parts of SAM unused, others in each process:
        # without this flag the processes would wait for each other's gradients for ever.
        ddp = {"broadcast_buffers": False, "find_unused_parameters": has_sam(cfg)}
        if torch.device(cfg.MODEL.DEVICE).type == "cpu":
            ddp["device_ids"] = None  # v0.6 would name GPUs
        self._trainer = trainer(create_ddp_model(model, **ddp), loader, optimizer)
        # Not before the model is in training mode: until then escnn's layers have more buffers.
        self.averaged = build_averaged(model, cfg.SOLVER.EMA_DECAY)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        checkpointables = {"trainer": weakref.proxy(self)}
        if self.averaged is not model:
            checkpointables["averaged"] = self.averaged
        self.checkpointer = SafeCheckpointer(self.model, cfg.OUTPUT_DIR, **checkpointables)
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_loader(cls, cfg, photos=None):
        return build_train_loader(cfg, photos)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        return COCOEvaluator(dataset_name, output_dir=folder, use_fast_impl=False)

    @classmethod
    def build_optimizer(cls, cfg, model):
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(
                "there is nothing to train: MODEL.CANONICALIZER.NAME is "
                f"{cfg.MODEL.CANONICALIZER.NAME!r}, and MODEL.SEGMENTER.FREEZE "
                f"{cfg.MODEL.SEGMENTER.FREEZE}"
            )
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER != "ADAMW":
            raise InputError(f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; known: SGD, ADAMW")
        parameters = get_default_optimizer_params(
            model, base_lr=cfg.SOLVER.BASE_LR, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM
        )
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return optimizer(parameters, cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    def train(self):
        """As detectron2's, which would log bad input with a traceback before it raises it."""
        logger = logging.getLogger(TrainerBase.__module__)
        logger.addFilter(_is_no_bad_input)
        try:
            return super().train()
        finally:
            logger.removeFilter(_is_no_bad_input)

    def run_step(self):
        device = torch.device(self.cfg.MODEL.DEVICE).type
        with torch.autocast(device, torch.bfloat16, enabled=self.cfg.SOLVER.BFLOAT16):
            super().run_step()

    def state_dict(self):
        """As later versions of detectron2: v0.6 leaves the optimizer's state out."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])

    def build_hooks(self):
        cfg = self.cfg
        built = [hooks.IterationTimer(), hooks.LRScheduler()]
        if self.averaged is not _unwrapped(self.model):
            built.append(AverageWeights(self.averaged))
        if comm.is_main_process():
            built.append(
                hooks.PeriodicCheckpointer(
                    self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=2
                )
            )
            built.append(WriteResults(cfg.SOLVER.CHECKPOINT_PERIOD))
        # After the checkpoint, which is there then if the evaluation fails; in all processes.
        built.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():
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
        return _unwrapped(self.averaged)

    def _evaluate(self):
        """All that the config asks for, as detectron2's nested dict of results."""
        results = {}
        if trains_on_photos(self.cfg):
            if self.held_out and comm.is_main_process():
                results["held_out"] = self.test_poses(self.held_out)
        elif self.cfg.DATASETS.TEST:
            results.update(self.test(self.cfg, self.trained))
        self._last_eval_results = results
        return results

    @torch.no_grad()
    def test_poses(self, files):
        """How well the trained canonicalizer finds the pose of upright photographs.

        Measured on the upright photographs only: the canonicalizer is equivariant, so their turned
        copies tell nothing new.

        Args:
            files: paths of at least one photograph.
        Returns:
            dict: ``pose_accuracy``, the fraction that is found upright, 0..1; ``pose_loss``, mean
            cross-entropy in nats.
        """
        logits = self._upright_logits(self.trained.canonicalizer, files)
        return {
            "pose_accuracy": float((logits.argmax(dim=1) == 0).float().mean()),
            "pose_loss": float(-logits.log_softmax(dim=1)[:, 0].mean()),
        }

    @torch.no_grad()
    def fit_temperatures(self):
        """The temperature of a trained backbone for each number of passes, from held-out photographs.

        Returns:
            dict for :func:`canon_seg.networks.backbone_weights.save_pose_network`.
        """
        scorer, temperatures = self.trained.canonicalizer.scorer, {}
        passes = scorer.passes
        try:
            for scorer.passes in (1, 0):
                logits = self._upright_logits(scorer, self.held_out)
                temperatures[scorer.passes] = fit_temperature(logits, [0] * len(logits))
        finally:
            scorer.passes = passes
        return temperatures

    def _upright_logits(self, scorer, files):
        """(len(files), 4) logits of the photographs as they are."""
        was_training = scorer.training
        scorer.eval()
        try:
            if not isinstance(scorer.network, PoseNetwork):  # an equivariant one needs no more
                return torch.cat([scorer.logits([self._read(file)]) for file in files])
            return torch.stack([representative_logits(scorer, self._read(file)) for file in files])
        finally:
            scorer.train(was_training)

    def _read(self, file):
        image = torch.from_numpy(read_image(file, self.cfg.INPUT.FORMAT)).permute(2, 0, 1)
        return image.contiguous().to(self.cfg.MODEL.DEVICE)


def _is_no_bad_input(record):
    """Whether a log record is of anything but an :class:`InputError`, whose message says it all."""
    return not (record.exc_info and isinstance(record.exc_info[1], InputError))


def _training_config(cfg):
    """The config with what training changes about the model, frozen."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter":
        if cfg.MODEL.CANONICALIZER.NAME == "IdentityCanonicalizer":
            raise InputError(
                "MODEL.CANONICALIZER.NAME is 'IdentityCanonicalizer', which has nothing to train; "
                "set GroupCanonicalizer, or train the segmenter itself as MODEL.META_ARCHITECTURE"
            )
        cfg.MODEL.CANONICALIZER.TRAINABLE = True
        if uses_backbone(cfg):
            if not trains_on_photos(cfg):
                raise InputError(
                    "MODEL.CANONICALIZER.SCORER.BACKBONE is trained on turned views of photographs "
                    "alone; set MODEL.CANONICALIZER.TASK_WEIGHT to 0"
                )
            cfg.MODEL.CANONICALIZER.SCORER.PASSES = 1  # whatever looks at the orbit afterwards
        if trains_on_photos(cfg):
            cfg.MODEL.SEGMENTER.META_ARCHITECTURE = ""  # never run, so not even built
    cfg.freeze()
    return cfg


def _unwrapped(model):
    """The model inside of detectron2's or torch's wrappers."""
    return getattr(model, "module", model)


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
        self.averaged.update_parameters(_unwrapped(self.trainer.model))


class WriteResults(HookBase):
    """Writes the weights that users load, at every checkpoint and at the end."""

    def __init__(self, period):
        self.period = period

    def after_step(self):
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self._write(at_end=done == self.trainer.max_iter)

    def _write(self, at_end):
        cfg, model = self.trainer.cfg, self.trainer.trained
        if hasattr(model, "canonicalizer"):
            path = os.path.join(cfg.OUTPUT_DIR, "canonicalizer.pth")
            network, size = model.canonicalizer.network, model.canonicalizer.input_size
            if not isinstance(network, PoseNetwork):
                save_canonicalizer(path, network, size)
            else:
                fits = at_end and self.trainer.held_out
                temperatures = self.trainer.fit_temperatures() if fits else None
                save_pose_network(path, network, size, temperatures)
        segmenter = getattr(model, "segmenter", model)
        if segmenter is not None and any(p.requires_grad for p in segmenter.parameters()):
            save_segmenter(os.path.join(cfg.OUTPUT_DIR, "segmenter.pth"), segmenter)


def save_segmenter(path, segmenter):
    """Write a trained segmenter in the format of its official checkpoints.

    Weights of a SAM, and of models without batch normalisation, are stored in half precision, which
    their normalisation layers bear. Buffers, and models whose batch statistics can leave its range,
    are stored as they are.
    """
    module = getattr(segmenter, "sam", segmenter)
    state = module.state_dict()
    if module is not segmenter or not any(name.endswith("running_var") for name in state):
        for name, _ in module.named_parameters():
            state[name] = state[name].half()
    save_torch(path, state)


class ProgressBar(HookBase):
    """A bar over the iterations with the time left, on terminals; log lines appear above it."""

    def __init__(self):
        self._contexts = ExitStack()

    def before_train(self):
        self._contexts.enter_context(logging_redirect_tqdm([logging.getLogger("detectron2")]))
        self.bar = self._contexts.enter_context(
            tqdm(
                total=self.trainer.max_iter,
                initial=self.trainer.start_iter,
                unit="it",
                desc="training",
                mininterval=1,
                disable=None,
            )
        )

    def after_step(self):
        self.bar.update()

    def after_train(self):
        self._contexts.close()
