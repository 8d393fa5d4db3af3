"""Train a classifier, its canonicalizer, or the two together, on images with one class each."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from canon_seg.classification.build import KEY as CLASSIFIER_KEY
from canon_seg.classification.build import SCORER_KEY, build_model
from canon_seg.classification.classifier import CanonicalizedClassifier, random_turns
from canon_seg.classification.data import LabelledImages, hold_out, read_images
from canon_seg.classification.turning import turn_squares
from canon_seg.core.canonicalizer import Canonicalizer
from canon_seg.core.group import PlanarGroup, group_named
from canon_seg.core.prior import alignment
from canon_seg.errors import InputError, of_key
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.io.checkpoint import load_torch_file
from canon_seg.io.files import check_output_dir, save_torch, write_json
from canon_seg.networks.square import SquareNetwork, SquareScorer, freeze_stages, save_square

CHECKPOINT = "last.pth"
RESULTS = {"canonicalizer": "canonicalizer.pth", "classifier": "classifier.pth"}
SHIFT = 4
"""Pixels of 32 by which training images are shifted at most, with their edges repeated."""

EVAL_BATCH = 250
CLIP = 1.0


class Training:
    """Hold a training that can be stopped after any step and gone on with.

    Attributes:
        model, data, held_out: what is trained, on what, and what watches it.
        step: how many steps are done.

    Args:
        cfg: config, see ``configs/cifar10_c8.yaml``.
        data: training images, a part of which is held out; None to read DATASETS.CLASSES.

    Raises:
        InputError: naming the key that cannot be used.
    """

    def __init__(self, cfg: Any, data: "LabelledImages | None" = None) -> None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.CANONICALIZER.TRAINABLE = True
        if data is None:
            data = read_images(
                cfg.DATASETS.CLASSES, "train", cfg.INPUT.IMAGE_SIDE, "DATASETS.CLASSES"
            )
        if not 0 <= cfg.INPUT.CUTOUT < 1:
            raise InputError(f"INPUT.CUTOUT is {cfg.INPUT.CUTOUT}; give at least 0 and less than 1")
        if not 0 <= cfg.SOLVER.EMA_DECAY < 1:
            raise InputError(
                f"SOLVER.EMA_DECAY is {cfg.SOLVER.EMA_DECAY}; give at least 0 and less than 1"
            )
        held_out = min(cfg.DATASETS.HELD_OUT_IMAGES, len(data) // 2)
        if cfg.SOLVER.IMS_PER_BATCH > len(data) - held_out:
            raise InputError(
                f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, and there are "
                f"{len(data) - held_out} images to train on; give a smaller batch"
            )
        self.cfg, self.step = cfg, 0
        self.data, self.held_out = hold_out(data, held_out)
        torch.manual_seed(max(cfg.SEED, 0))
        self.model = build_model(cfg, data.classes)
        classes = getattr(getattr(self.model.predictor, "network", None), "spec", None)
        if classes is not None and classes.outputs != len(data.classes):
            raise InputError(
                f"MODEL.CLASSIFIER.WEIGHTS are of {classes.outputs} classes, and DATASETS.CLASSES "
                f'has {len(data.classes)}; give weights of these classes, or "" to train without'
            )
        predictor, scorer = self.model.predictor, getattr(self.model.canonicalizer, "scorer", None)
        if not cfg.MODEL.CLASSIFIER.FREEZE and isinstance(predictor, SquareNetwork):
            freeze_stages(predictor, cfg.MODEL.CLASSIFIER.FREEZE_STAGES, CLASSIFIER_KEY)
        if isinstance(scorer, SquareScorer):
            freeze_stages(scorer.network, cfg.MODEL.CANONICALIZER.SCORER.FREEZE_STAGES, SCORER_KEY)
        self.turns: PlanarGroup | None = None
        if cfg.INPUT.TURNS:
            with of_key("INPUT.TURNS"):
                self.turns = group_named(cfg.INPUT.TURNS)
        elif self.model.canonicalizer.needs_turned_views:
            self.turns = self.model.group
        self.model.to(cfg.MODEL.DEVICE).train()
        # All at once: small images, which are shifted and turned where the networks are.
        self.data = self.data.to(cfg.MODEL.DEVICE)
        self.averaged: AveragedModel | None = None
        if cfg.SOLVER.EMA_DECAY:
            average = get_ema_multi_avg_fn(cfg.SOLVER.EMA_DECAY)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.groups = trained_parts(self.model)
        if not any(self.groups.values()):
            raise InputError(
                "there is nothing to train: MODEL.CLASSIFIER.FREEZE is "
                f"{cfg.MODEL.CLASSIFIER.FREEZE}, and the canonicalizer does not learn"
            )
        self.optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "lr": 1.0, "name": name}
                for name, parameters in self.groups.items()
                if parameters
            ],
            weight_decay=cfg.SOLVER.WEIGHT_DECAY or 0.0,
        )
        self.generator = torch.Generator().manual_seed(max(cfg.SEED, 0))

    def run(self, folder: "str | Path", resume: bool = False) -> dict[str, float]:
        """Train to the end, with checkpoints and measurements; return the last of these.

        Args:
            folder: where ``last.pth``, ``metrics.json`` and the results are written.
            resume: go on from ``last.pth``, if it is there.
        """
        folder, solver = Path(folder), self.cfg.SOLVER
        if resume and (folder / CHECKPOINT).is_file():
            self.load(folder / CHECKPOINT)
        measured: dict[str, float] = {}
        start, sums = time.process_time(), _Means()
        bar = tqdm(total=solver.MAX_ITER, initial=self.step, desc="training", delay=2)
        with (folder / "metrics.json").open("a", encoding="utf-8") as log:
            for batch in self._batches():
                sums.add(self._train_on(*batch))
                bar.update()
                due = self.step % (self.cfg.TEST.EVAL_PERIOD or solver.MAX_ITER) == 0
                if due or self.step == solver.MAX_ITER:
                    measured = self.measure()
                    line = {"iteration": self.step, **sums.take(), **measured}
                    line["cpu_seconds"] = time.process_time() - start
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    bar.set_postfix({k: f"{v:.3f}" for k, v in measured.items()})
                if self.step % solver.CHECKPOINT_PERIOD == 0 or self.step == solver.MAX_ITER:
                    self.save(folder / CHECKPOINT)
        bar.close()
        self.write_results(folder)
        return measured

    def measure(self) -> dict[str, float]:
        """Measure on the held-out images, upright and each turned by an element of its own.

        Returns:
            ``accuracy`` and ``turned_accuracy``, 0..1; with a canonicalizer that learns also, of
            the turned images, ``pose_accuracy`` (0..1) and ``entropy``, that of an image's poses
            in the mean, in nats; of the upright ones ``poses_entropy``, that of the poses found
            (by how many poses the classifier's images are still augmented), in nats, and the
            alignment, see :func:`canon_seg.core.prior.alignment`.
        """
        model = self.result
        model.eval()
        group = self.turns or (model.group if model.canonicalizer.finds_poses else None)
        found = measure_held_out(model, self.held_out, group)
        model.train()
        return found

    @property
    def result(self) -> CanonicalizedClassifier:
        """Return the model that is measured and written: with SOLVER.EMA_DECAY the average."""
        averaged = None if self.averaged is None else self.averaged.module
        return averaged if isinstance(averaged, CanonicalizedClassifier) else self.model

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        save_torch(
            path,
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
            },
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: naming the file, if a training with another config wrote it.
        """
        contents = load_torch_file(path, "--resume")
        try:
            self.model.load_state_dict(contents["model"])
            self.optimizer.load_state_dict(contents["optimizer"])
            self.generator.set_state(contents["generator"])
            self.step = contents["step"]
            if self.averaged is not None:
                self.averaged.load_state_dict(contents["averaged"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} was written by a training with another config; resume with that one, or "
                "give another OUTPUT_DIR"
            ) from error

    def write_results(self, folder: Path) -> None:
        """Write what users load: the parts that were trained, each to a file of its own."""
        canonicalizer, predictor = self.result.canonicalizer, self.result.predictor
        if self.groups["canonicalizer"] and isinstance(canonicalizer, GroupCanonicalizer):
            canonicalizer.save(folder / RESULTS["canonicalizer"])
        if self.groups["classifier"] and isinstance(predictor, SquareNetwork):
            path = folder / RESULTS["classifier"]
            if hasattr(predictor.network, "spec"):
                save_square(path, predictor, {"classes": list(self.data.classes)})
            else:
                save_torch(path, predictor.network.state_dict())
        write_json(folder / "config.json", {"config": self.cfg.dump()})

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give batches of images, shuffled and changed at random, to the last step."""
        size, order = self.cfg.SOLVER.IMS_PER_BATCH, torch.empty(0, dtype=torch.int64)
        side = round(self.cfg.INPUT.CUTOUT * self.cfg.INPUT.IMAGE_SIDE)
        while self.step < self.cfg.SOLVER.MAX_ITER:
            while len(order) < size:
                fresh = torch.randperm(len(self.data), generator=self.generator)
                order = torch.cat([order, fresh])
            chosen, order = order[:size], order[size:]
            chosen = chosen.to(self.data.images.device, non_blocking=True)
            images = shifted(self.data.images[chosen], self.generator)
            mirrored = torch.rand(size, generator=self.generator) < 0.5
            mirrored = mirrored.to(images.device, non_blocking=True)[:, None, None, None]
            images = torch.where(mirrored, images.flip(-1), images)
            if side:
                images = cut_out(images, side, self.generator)
            yield images, self.data.labels[chosen]

    def _train_on(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        solver, device = self.cfg.SOLVER, self.cfg.MODEL.DEVICE
        share = learning_share(self.step, solver.MAX_ITER, solver.WARMUP_ITERS or 0)
        for group in self.optimizer.param_groups:
            group["lr"] = solver.BASE_LR * share
        turns = None
        if self.turns is not None:
            turns = random_turns(self.turns, len(images), self.generator)
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16, enabled=solver.BFLOAT16):
            parts = self.model.losses(images, labels, turns)
        total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        # Each part by itself: a large prior weight must not still the classifier.
        for parameters in self.groups.values():
            nn.utils.clip_grad_norm_(parameters, CLIP)
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.step += 1
        return {f"loss_{name}": value.detach() for name, value in parts.items()}


@torch.no_grad()
def measure_held_out(
    model: CanonicalizedClassifier, data: LabelledImages, group: "PlanarGroup | None"
) -> dict[str, float]:
    """Measure a model in eval mode, see :meth:`Training.measure`.

    Args:
        model: the model.
        data: upright images.
        group: whose elements the images are turned by; None to leave them upright.
    """
    finder: Canonicalizer = model.canonicalizer
    turns = None
    if group is not None:
        turns = random_turns(group, len(data), torch.Generator().manual_seed(1))
    right: list[torch.Tensor] = []
    turned_right: list[torch.Tensor] = []
    pose_right, likely, turned_likely = [], [], []
    for start in range(0, len(data), EVAL_BATCH):
        part = slice(start, start + EVAL_BATCH)
        images, labels = data.images[part], data.labels[part]
        poses = model.poses(images)
        right.append(model.classify(images, poses).argmax(dim=1).cpu() == labels)
        if turns is None:
            continue
        likely += [pose.probabilities for pose in poses]
        turned = turn_squares(images, turns[part])
        poses = model.poses(turned)
        turned_right.append(model.classify(turned, poses).argmax(dim=1).cpu() == labels)
        pose_right += [p.turn == t for p, t in zip(poses, turns[part], strict=True)]
        turned_likely += [pose.probabilities for pose in poses]
    found = {"accuracy": _share(torch.cat(right))}
    if turns is not None:
        found["turned_accuracy"] = _share(torch.cat(turned_right))
    if turns is not None and finder.finds_poses:
        probabilities = torch.tensor(turned_likely, dtype=torch.float64)
        found["pose_accuracy"] = sum(pose_right) / len(pose_right)
        found["entropy"] = float(torch.special.entr(probabilities).sum(dim=1).mean())
        upright = torch.tensor(likely, dtype=torch.float64)
        found["poses_entropy"] = entropy_of_poses(upright)
        aligned = alignment(upright, model.prior)
        found.update({k: v for k, v in aligned.items() if math.isfinite(v)})
    return found


def entropy_of_poses(probabilities: torch.Tensor) -> float:
    """Return the entropy in nats of the poses found, the likeliest of each of (B, N) images."""
    counts = torch.bincount(probabilities.argmax(dim=1), minlength=probabilities.shape[1]).double()
    return float(torch.special.entr(counts / counts.sum()).sum())


def trained_parts(model: CanonicalizedClassifier) -> dict[str, list[nn.Parameter]]:
    """Return the parameters that a training changes, of the canonicalizer and of the classifier."""
    predictor = model.predictor
    return {
        "canonicalizer": [p for p in model.canonicalizer.parameters() if p.requires_grad],
        "classifier": [
            p
            for p in (predictor.parameters() if isinstance(predictor, nn.Module) else ())
            if p.requires_grad
        ],
    }


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images shifted at random, each by itself, with their edges repeated.

    Args:
        images: (B, 3, S, S) tensor on any device.
        generator: on the CPU.
    """
    count, _, side, _ = images.shape
    reach = max(1, round(SHIFT * side / 32))
    offsets = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
    places = (offsets[:, :, None] + torch.arange(side)).clamp(0, side - 1)
    places = places.to(images.device, non_blocking=True)
    rows, columns = places[:, 0, None, :, None], places[:, 1, None, None, :]
    each, channels = (torch.arange(n, device=images.device) for n in images.shape[:2])
    return images[each[:, None, None, None], channels[:, None, None], rows, columns]


def cut_out(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Return images with a square of middle grey each, about a random pixel (DeVries, Taylor 2017).

    Args:
        images: (B, 3, S, S) uint8 tensor on any device.
        side: of the squares in pixels; they are cut where they leave the image.
        generator: on the CPU.
    """
    count, _, size, _ = images.shape
    start = torch.randint(size, (count, 2, 1), generator=generator) - side // 2
    pixels = torch.arange(size)
    within = (pixels >= start) & (pixels < start + side)
    within = within.to(images.device, non_blocking=True)
    hidden = within[:, 0, None, :, None] & within[:, 1, None, None, :]
    return images.masked_fill(hidden, 128)


def learning_share(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate at a step: a linear start, then half a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


class _Means:
    """Average what each step says since the last line of the log; a GPU is not waited for."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, torch.Tensor]) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def take(self) -> dict[str, float]:
        means = {name: float(value) / max(1, self.count) for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean())


def train_both(
    cfg: Any, data: LabelledImages, folder: "str | Path", resume: bool = False
) -> tuple[Path, Path]:
    """Train a classifier on upright images, and then a canonicalizer for it by the prior alone.

    Args:
        cfg: config of the two, see ``configs/cifar10_c8.yaml``; weights that it names are left out.
        data: upright images.
        folder: below which both are trained, each in a folder of its own.
        resume: go on where an earlier training stopped.

    Returns:
        paths of the weights of the classifier and of the canonicalizer.
    """
    paths: list[Path] = []
    for part, changes in (
        (
            "classifier",
            {
                "MODEL.CANONICALIZER.NAME": "IdentityCanonicalizer",
                "MODEL.CANONICALIZER.WEIGHTS": "",
                "MODEL.CLASSIFIER.WEIGHTS": "",
            },
        ),
        ("canonicalizer", {"MODEL.CANONICALIZER.WEIGHTS": ""}),
    ):
        own = cfg.clone()
        own.defrost()
        own.merge_from_list([word for item in changes.items() for word in item])
        own.MODEL.CLASSIFIER.FREEZE = part == "canonicalizer"
        if paths:
            own.MODEL.CLASSIFIER.WEIGHTS = str(paths[0])
        place = check_output_dir(Path(folder, part))
        Training(own, data).run(place, resume)
        paths.append(place / RESULTS[part])
    return paths[0], paths[1]
