"""Train with detectron2's trainer on this project's data, checkpoints and results."""

import logging
import os
import weakref
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from canon_seg.core.turn import Turn, compose, distance
from canon_seg.d2.capabilities import capabilities, segmenter_class
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.coco_evaluator import UprightCocoEvaluator
from canon_seg.d2.held_out_prompts import measure_sets
from canon_seg.d2.loaders import (
    build_train_loader,
    find_photos,
    known_poses,
    split_photos,
    trains_on_photos,
)
from canon_seg.d2.test_loader import build_test_loader
from canon_seg.d2.training_images import check_before_training
from canon_seg.errors import InputError, is_no_room
from canon_seg.images.arrays import turn_image
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import to_chw
from canon_seg.images.tilt import rotate_image
from canon_seg.io.files import said_where_full, save_torch
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.build import uses_backbone
from canon_seg.networks.calibration import fit_circle, fit_temperature, representative_logits
from canon_seg.networks.circle_scorer import CircleScorer
from canon_seg.networks.teacher import TaughtLoader, build_teacher

from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    hooks,
)
from detectron2.engine.train_loop import TrainerBase
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

BODY = "body"
"""The module, in a backbone's wrapper, that starts from PRETRAINED weights."""


class Trainer(DefaultTrainer):
    """Train a canonicalizer, a segmenter, or one through the other.

    A canonicalizer is built in its trainable form, from MODEL.CANONICALIZER.WEIGHTS where these
    are given, else from random weights. A segmenter whose losses have no weight is not built.

    Every checkpoint is written whole or not at all, and holds what is needed to go on: model,
    optimizer, schedule, averaged weights. What users load afterwards is written beside it:
    ``canonicalizer.pth`` and, for a segmenter that was trained, ``segmenter.pth``.
    """

    def __init__(self, cfg):
        """Set up the model, its data and its checkpoints for training.

        Args:
            cfg: config; not changed.

        Raises:
            InputError: naming the config key or the file that cannot be used.
        """
        # DefaultTrainer's own set-up with another checkpointer, which its hooks hold on to.
        TrainerBase.__init__(self)
        cfg = _training_config(DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()))
        model = self.build_model(cfg)
        scorer = getattr(getattr(model, "canonicalizer", None), "scorer", None)
        if hasattr(scorer, "input_size"):  # its weights file may have brought its own
            cfg.defrost()
            cfg.MODEL.CANONICALIZER.INPUT_SIZE = scorer.input_size
            cfg.freeze()
        optimizer = self.build_optimizer(cfg, model)
        files = find_photos(cfg) if trains_on_photos(cfg) else []
        if comm.is_main_process():
            check_before_training(cfg, files)
        comm.synchronize()
        photos, self.held_out = split_photos(cfg, files) if files else ([], [])
        self.poses = known_poses(cfg) if trains_on_photos(cfg) else {}
        loader = self.build_train_loader(cfg, photos)
        if cfg.MODEL.CANONICALIZER.TEACHER.WEIGHTS:
            loader = taught_loader(cfg, loader, getattr(model, "canonicalizer", None))
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        # Without this flag the processes would wait for ever for gradients of unused parameters.
        unused = capabilities(segmenter_class(cfg)).leaves_parameters_unused
        ddp = {"broadcast_buffers": False, "find_unused_parameters": unused}
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
        self.measured = {}
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        with said_where_full(cfg.OUTPUT_DIR):  # TensorBoard begins its file
            self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_loader(cls, cfg, photos=None):
        """Build the loader of training data."""
        return build_train_loader(cfg, photos)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        """Build the loader of a registered data set for evaluation."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        """Build the evaluator of a data set, which scores as a sweep does at 0 degrees.

        It writes below OUTPUT_DIR.
        """
        return UprightCocoEvaluator(
            dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        )

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Build the optimizer that SOLVER.OPTIMIZER names; InputError if nothing is trained."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(
                "there is nothing to train: MODEL.CANONICALIZER.NAME is "
                f"{cfg.MODEL.CANONICALIZER.NAME!r} with the scorer "
                f"{cfg.MODEL.CANONICALIZER.SCORER.NAME!r}, and MODEL.SEGMENTER.FREEZE "
                f"{cfg.MODEL.SEGMENTER.FREEZE}"
            )
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER != "ADAMW":
            raise InputError(f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; known: SGD, ADAMW")
        parameters = get_default_optimizer_params(
            model, base_lr=cfg.SOLVER.BASE_LR, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM
        )
        parameters = slow_down_pretrained(parameters, model, cfg.SOLVER.PRETRAINED_LR_FACTOR)
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        return optimizer(parameters, cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    def train(self):
        """Train as detectron2 does, but without its log of a traceback for bad input.

        Raises:
            InputError: what the user can mend; a full disk, too.
        """
        logger = logging.getLogger(TrainerBase.__module__)
        logger.addFilter(_is_no_bad_input)
        try:
            with said_where_full(self.cfg.OUTPUT_DIR):
                return super().train()
        finally:
            logger.removeFilter(_is_no_bad_input)

    def run_step(self):
        """Do one step of training, in bfloat16 where SOLVER.BFLOAT16 asks for it."""
        device = torch.device(self.cfg.MODEL.DEVICE).type
        with torch.autocast(device, torch.bfloat16, enabled=self.cfg.SOLVER.BFLOAT16):
            super().run_step()

    def state_dict(self):
        """Return the state as later versions of detectron2 do: v0.6 leaves the optimizer's out."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict):
        """Load what :meth:`state_dict` returned, the optimizer's state too."""
        super().load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])

    def build_hooks(self):
        """Build the hooks that run around the steps, in the order of their turns."""
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
        """Build what writes measurements: log, metrics.json and TensorBoard files in OUTPUT_DIR."""
        folder = self.cfg.OUTPUT_DIR
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(os.path.join(folder, "metrics.json")),
            TensorboardXWriter(folder),
        ]

    @property
    def trained(self):
        """Return the model whose weights are the result: the averaged one where there is one."""
        return _unwrapped(self.averaged)

    def _evaluate(self):
        """Evaluate all that the config asks for; return detectron2's nested dict of results."""
        results = {}
        if trains_on_photos(self.cfg):
            if self.held_out and comm.is_main_process():
                results["held_out"] = self.test_poses(self.held_out)
                logging.getLogger(TrainerBase.__module__).info(
                    "poses found of %d held-out photographs: %.1f %%",
                    len(self.held_out),
                    100 * results["held_out"]["pose_accuracy"],
                )
        elif self.cfg.DATASETS.TEST:
            results.update(self.test(self.cfg, self.trained))
        if self.cfg.DATASETS.TEST_PROMPTS and comm.is_main_process():
            results["prompts"] = measure_sets(self.trained, self.cfg)
        self._last_eval_results = self.measured = results
        return results

    @torch.no_grad()
    def test_poses(self, files):
        """Measure how well the trained canonicalizer finds the pose of upright photographs.

        Measured on the upright photographs only: the canonicalizer is equivariant, so their turned
        copies tell nothing new.

        Args:
            files: paths of at least one photograph.

        Returns:
            dict: ``pose_accuracy``, the fraction that is found upright, 0..1; ``pose_loss``, mean
            cross-entropy in nats. Of a scorer of all angles ``pose_accuracy`` is that among
            quarter turns; ``within_5``, ``within_10``, ``within_45`` (0..1) and ``median_error``
            (degrees) are of the photographs turned by an angle each, always the same, and cut to
            what lies inside. ``turning_error`` (degrees, the median) is how far these answers are
            from those to the upright photographs, turned: 0 if they turned along.
        """
        if self.trained.canonicalizer.group.elements is None:
            return self._test_angles(files)
        logits = self._upright_logits(self.trained.canonicalizer, files)
        return {
            "pose_accuracy": float((logits.argmax(dim=1) == 0).float().mean()),
            "pose_loss": float(-logits.log_softmax(dim=1)[:, 0].mean()),
        }

    def _test_angles(self, files):
        canonicalizer = self.trained.canonicalizer
        rng = np.random.default_rng(0)
        was_training = canonicalizer.training
        canonicalizer.eval()
        upright, errors, turning = [], [], []
        try:
            for file in files:
                image = self._upright(file)
                turn = Turn.by(rng.uniform(0, 360))
                turned = rotate_image(image, turn.degrees, "inscribed")
                found = canonicalizer.pose(self._tensor(image)).turn
                upright.append(found.quarters == 0 and not found.mirrored)
                angle = replace(canonicalizer.pose(self._tensor(turned)).turn, mirrored=False)
                errors.append(distance(angle, turn))
                along = compose(replace(found, mirrored=False), turn)
                turning.append(distance(angle, along))
        finally:
            canonicalizer.train(was_training)
        within = {f"within_{limit}": np.mean(np.array(errors) <= limit) for limit in (5, 10, 45)}
        measured = {
            "pose_accuracy": np.mean(upright),
            **within,
            "median_error": np.median(errors),
            "turning_error": np.median(turning),
        }
        return {name: float(value) for name, value in measured.items()}

    @torch.no_grad()
    def fit_temperatures(self):
        """Fit the temperatures of a trained backbone on held-out photographs, in place."""
        scorer = self.trained.canonicalizer.scorer
        if isinstance(scorer, CircleScorer):
            was_training = scorer.training
            images = [self._upright(file) for file in self.held_out]
            scorer.temperatures = fit_circle(scorer.eval(), images)
            scorer.train(was_training)
        if not isinstance(scorer, BackboneScorer):
            return
        fitted, passes = {}, scorer.passes
        try:
            for scorer.passes in (1, 0):
                logits = self._upright_logits(self.trained.canonicalizer, self.held_out)
                fitted[scorer.passes] = fit_temperature(logits, [0] * len(logits))
        finally:
            scorer.passes = passes
        scorer.temperatures = fitted

    def _upright_logits(self, canonicalizer, files):
        """Return (len(files), 4) logits of the photographs as they are."""
        was_training = canonicalizer.training
        canonicalizer.eval()
        try:
            if not isinstance(canonicalizer.scorer, BackboneScorer):
                # An equivariant network needs no representative to be measured.
                scores = canonicalizer.scores
                return torch.cat([scores([self._read(file)]).logits for file in files])
            scorer = canonicalizer.scorer
            return torch.stack([representative_logits(scorer, self._read(file)) for file in files])
        finally:
            canonicalizer.train(was_training)

    def _upright(self, file):
        image = read_image(file, self.cfg.INPUT.FORMAT, ReadingOptions.from_config(self.cfg))
        return turn_image(image, -self.poses.get(file, 0) % 4)

    def _read(self, file):
        return self._tensor(self._upright(file))

    def _tensor(self, image):
        return to_chw(image).to(self.cfg.MODEL.DEVICE)


def slow_down_pretrained(groups, model, factor):
    """Give the layers that start from pretrained weights a learning rate of their own.

    Args:
        groups: list of an optimizer's dicts, each with ``params`` and ``lr``.
        model: whose backbones' layers lie in modules named "body".
        factor: by which their learning rates are multiplied; 1 changes nothing.

    Returns:
        list of dicts in the same order, those with both kinds of layers split in two.
    """
    if factor == 1:
        return groups
    slow = {id(value) for name, value in model.named_parameters() if BODY in name.split(".")}
    split = []
    for group in groups:
        for is_slow in (False, True):
            chosen = [value for value in group["params"] if (id(value) in slow) == is_slow]
            if chosen:
                rate = group["lr"] * (factor if is_slow else 1)
                split.append({**group, "params": chosen, "lr": rate})
    return split


def _is_no_bad_input(record):
    """Return whether a log record is of no error that ends in a message which says it all."""
    error = record.exc_info and record.exc_info[1]
    return not (isinstance(error, InputError) or is_no_room(error))


def _training_config(cfg):
    """Return the config with what training changes about the model, frozen."""
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
            cfg.MODEL.CANONICALIZER.SCORER.PASSES = 1  # whatever looks at the orbit afterwards
        if trains_on_photos(cfg):
            cfg.MODEL.SEGMENTER.META_ARCHITECTURE = ""  # never run, so not even built
    cfg.freeze()
    return cfg


def taught_loader(cfg, loader, student):
    """Return a loader whose examples have what MODEL.CANONICALIZER.TEACHER says of them.

    Args:
        cfg: config.
        loader: of upright photographs.
        student: the canonicalizer that is trained on them, or None if it is none.

    Raises:
        InputError: naming the key, if nothing is trained that the teacher could teach.
    """
    if student is None or not trains_on_photos(cfg):
        raise InputError(
            "MODEL.CANONICALIZER.TEACHER.WEIGHTS is for a canonicalizer that is trained on "
            "photographs alone; set MODEL.META_ARCHITECTURE to CanonicalizedSegmenter and "
            "MODEL.CANONICALIZER.TASK_WEIGHT to 0, or the teacher to ''"
        )
    teacher = build_teacher(cfg)
    if teacher.group != student.group:
        raise InputError(
            f"MODEL.CANONICALIZER.TEACHER.WEIGHTS: {cfg.MODEL.CANONICALIZER.TEACHER.WEIGHTS} is "
            f"for poses of {teacher.group.name}, and what is to be trained for poses of "
            f"{student.group.name}; give a teacher of the same group"
        )
    return TaughtLoader(loader, teacher)


def _unwrapped(model):
    """Return the model inside of detectron2's or torch's wrappers."""
    return getattr(model, "module", model)


def build_averaged(model, decay):
    """Build a moving average of a model's weights, or return the model itself for decay 0.

    The average is exponential.

    Batch statistics are not averaged but copied.
    """
    if decay == 0:
        return model
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


class AverageWeights(HookBase):
    """Move the averaged weights a step towards the model's after every iteration."""

    def __init__(self, averaged):
        self.averaged = averaged

    def after_step(self):
        """Move the averaged weights."""
        self.averaged.update_parameters(_unwrapped(self.trainer.model))


class WriteResults(HookBase):
    """Write the weights that users load, at every checkpoint and at the end."""

    def __init__(self, period):
        self.period = period

    def after_step(self):
        """Write the weights where a checkpoint is due."""
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self._write(at_end=done == self.trainer.max_iter)

    def _write(self, at_end):
        cfg, model = self.trainer.cfg, self.trainer.trained
        if hasattr(model, "canonicalizer"):
            if at_end and self.trainer.held_out:
                self.trainer.fit_temperatures()
            model.canonicalizer.save(os.path.join(cfg.OUTPUT_DIR, "canonicalizer.pth"))
        segmenter = getattr(model, "segmenter", model)
        if segmenter is not None and any(p.requires_grad for p in segmenter.parameters()):
            save_segmenter(os.path.join(cfg.OUTPUT_DIR, "segmenter.pth"), segmenter)


def save_segmenter(path, segmenter):
    """Write a trained segmenter in the format of its official checkpoints.

    Weights of a SAM, and of models without batch normalisation, are stored in half precision, which
    their normalisation layers bear. Buffers, and models whose batch statistics can leave its range,
    are stored as they are.
    """
    name = capabilities(segmenter).checkpoint_module
    module = segmenter.get_submodule(name)
    state = module.state_dict()
    if module is not segmenter or not any(name.endswith("running_var") for name in state):
        for name, _ in module.named_parameters():
            state[name] = state[name].half()
    save_torch(path, state)


class ProgressBar(HookBase):
    """Show a bar over the iterations with the time left, on terminals.

    Log lines appear above it.
    """

    def __init__(self):
        self._contexts = ExitStack()

    def before_train(self):
        """Open the bar."""
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
        """Move the bar by a step."""
        self.bar.update()

    def after_train(self):
        """Close the bar."""
        self._contexts.close()
