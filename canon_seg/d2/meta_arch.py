"""Put the canonicalizer in front of any segmenter, as one detectron2 meta-architecture."""

from functools import partial

import torch
from torch import nn

from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import elements_of
from canon_seg.core.prior import (
    TEACHER,
    alignment,
    check_label_smoothing,
    check_share,
    check_vector_loss,
    circle_loss,
    prior_loss,
    vector_loss,
)
from canon_seg.core.scorer import (
    NEAR,
    CircularDistribution,
    GridDistribution,
    VonMisesDistribution,
)
from canon_seg.core.turn import Turn, distance, inverse, turned_size
from canon_seg.d2.cache import ResultCache, content_key
from canon_seg.d2.capabilities import capabilities
from canon_seg.d2.instances import snap_instances, turn_instances
from canon_seg.d2.judge import energy_of
from canon_seg.d2.merging import merge_detections, merge_prompted, with_the_same_fields
from canon_seg.d2.resizing import resize_for_model
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.d2.soft_masks import gives_soft_masks, run_with_soft_masks
from canon_seg.errors import InputError, of_key
from canon_seg.images.arrays import turn_maps
from canon_seg.images.canonicalizer import straight_through
from canon_seg.images.energy import JudgedCall, judges_by_segmenter
from canon_seg.networks.build import build_canonicalizer, prior_of
from canon_seg.networks.numerics import used_numerics
from canon_seg.sam.confidence import grid

from detectron2.config import configurable
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage


@META_ARCH_REGISTRY.register()
class CanonicalizedSegmenter(nn.Module):
    """Turn the image to its canonical pose, run the segmenter there, turn the results back.

    In inference it takes images **as read**: the pose is found before any resizing, and resizing
    for the segmenter happens here, on the canonical image. Results are then exactly equivariant
    under quarter turns. An image that was resized before works too, but near-exactly only.

    Attributes:
        cache: :class:`canon_seg.d2.cache.ResultCache` of the segmenter's results, which counts its
            hits and misses, or None. The model keeps nothing else between calls. It notices other
            weights (see :meth:`canon_seg.d2.cache.ResultCache.follow`); clear it after a change to
            the segmenter's settings.
    """

    @configurable
    def __init__(
        self,
        *,
        canonicalizer,
        segmenter,
        resize,
        prior,
        prior_weight,
        task_weight,
        label_smoothing=0.0,
        vector_loss="von_mises",
        teacher_share=0.0,
        freeze_segmenter=True,
        evaluation_only=False,
        cache=None,
        merge_nms_thresh=0.5,
        max_detections=100,
    ):
        """Put a canonicalizer in front of a segmenter.

        Args:
            canonicalizer: see :mod:`canon_seg.images.canonicalizer`.
            segmenter: any detectron2 meta-architecture, or None: then only the prior loss is
                trained, and only poses are found. Its attribute ``resizes_itself`` (default
                False) says that it takes images of any size.
            resize: detectron2 Augmentation that brings a canonical image to the segmenter's size,
                or None.
            prior: (N,) probabilities of the poses in the segmenter's own training data.
            prior_weight, task_weight: weights of the prior loss and of the segmenter's losses.
            label_smoothing: see :func:`canon_seg.core.prior.prior_loss`.
            vector_loss: see :func:`canon_seg.core.prior.vector_loss`, for a scorer that gives
                vectors.
            teacher_share: the share of a teacher's probabilities in the targets of the prior loss,
                where the training examples have them, 0..1.
            freeze_segmenter: keep it in eval mode and its parameters without gradients.
            evaluation_only: the segmenter was built in a way that cannot be trained through.
            cache: see the attribute.
            merge_nms_thresh, max_detections: see :func:`canon_seg.d2.merging.merge_detections`.
        """
        super().__init__()
        self.canonicalizer = canonicalizer
        self.segmenter = segmenter
        self.resize = resize
        self.register_buffer("prior", prior, persistent=False)
        self.prior_weight = prior_weight
        self.task_weight = task_weight
        self.label_smoothing = label_smoothing
        self.vector_loss = vector_loss
        self.teacher_share = teacher_share
        self.freeze_segmenter = freeze_segmenter
        self.evaluation_only = evaluation_only
        self.cache = cache
        self.merge_nms_thresh = merge_nms_thresh
        self.max_detections = max_detections
        if segmenter is not None and freeze_segmenter:
            segmenter.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, cfg):
        """Return the arguments of ``__init__`` that a config asks for."""
        segmenter = build_segmenter(cfg)
        keys = cfg.MODEL.CANONICALIZER
        if segmenter is None and keys.TASK_WEIGHT != 0:
            raise InputError(
                f"MODEL.CANONICALIZER.TASK_WEIGHT is {keys.TASK_WEIGHT}, but there is no segmenter "
                "to have losses; set MODEL.SEGMENTER.META_ARCHITECTURE, or the weight to 0"
            )
        with of_key("MODEL.CANONICALIZER."):
            label_smoothing = check_label_smoothing(keys.LABEL_SMOOTHING)
            kind = check_vector_loss(keys.VECTOR_LOSS)
            teacher_share = check_share(keys.TEACHER.SHARE)
        resize = None
        if not capabilities(segmenter).resizes_itself:
            resize = ResizeShortestEdge(
                [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
            )
        return {
            "canonicalizer": build_canonicalizer(cfg),
            "segmenter": segmenter,
            "resize": resize,
            "prior": prior_of(cfg),
            "prior_weight": keys.PRIOR_WEIGHT,
            "task_weight": keys.TASK_WEIGHT,
            "label_smoothing": label_smoothing,
            "vector_loss": kind,
            "teacher_share": teacher_share,
            "freeze_segmenter": cfg.MODEL.SEGMENTER.FREEZE,
            "evaluation_only": bool(used_numerics(cfg)),
            "cache": _build_cache(keys.CACHE),
            "merge_nms_thresh": keys.MERGE_NMS_THRESH,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def device(self):
        """Return the device of the model."""
        return self.prior.device

    def train(self, mode=True):
        """Switch as nn.Module does, but keep a frozen segmenter in eval mode.

        Raises:
            InputError: for training through a segmenter that was built for evaluation.
        """
        trains_segmenter = self.task_weight != 0 or not self.freeze_segmenter
        if mode and self.evaluation_only and self.segmenter is not None and trains_segmenter:
            raise InputError(
                "MODEL.SEGMENTER.BFLOAT16, COMPILE and CHANNELS_LAST are for evaluation; set them "
                "to False to train with a task weight (SOLVER.BFLOAT16 is training's own key)"
            )
        if self.cache is not None:
            self.cache.clear()
        super().train(mode)
        if self.segmenter is not None and self.freeze_segmenter:
            self.segmenter.eval()
        return self

    def forward(self, batched_inputs):
        """Compute the losses in training, or the results in inference.

        Args:
            batched_inputs: list of dicts, one for each image, as detectron2's. ``image``: (3, H, W)
                tensor in INPUT.FORMAT's channel order, values 0..255; in inference as read.
                ``pose`` (optional, in training): turn by which the image was turned on purpose; an
                integer stands for quarter turns; ``degrees`` for any angle, after a mirror if
                ``mirrored``. ``teacher`` (optional,
                in training): (N,) probabilities that a teacher gives the poses of ``image``.
                ``height``, ``width`` (optional): size of the results, if it is not the image's.
                ``prompts`` (optional):
                :class:`canon_seg.sam.prompts.Prompts` in the frame of ``image``, for a promptable
                segmenter. ``instances``, ``sem_seg``: ground truth, for training with a task
                weight.

        Returns:
            in training a dict of losses; in inference a list of dicts: ``pose``
            (:class:`canon_seg.images.canonicalizer.Pose`) and what the segmenter gives,
            ``instances``, ``sem_seg``, ``panoptic_seg``, in the frame of ``image``.

        Raises:
            ValueError: for inputs or results that it does not know how to turn.
        """
        if self.training:
            return self._losses(batched_inputs)
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs):
        """Canonicalize, segment, and turn back; arguments and result are as of :meth:`forward`."""
        batch = [self._framed(inputs) for inputs in batched_inputs]
        if self.segmenter is None:
            return [{"pose": frame.pose} for frame, _ in batch]
        if judges_by_segmenter(self.canonicalizer):  # which ran already
            results = [frame.canonicalizer.results[frame.pose.to_canonical] for frame, _ in batch]
        else:
            results = self._segment([_asked_softly(frame, inputs) for frame, inputs in batch])
        return [
            {"pose": frame.pose, **self._in_given_frame(result, frame, inputs)}
            for result, (frame, inputs) in zip(results, batch, strict=True)
        ]

    @torch.no_grad()
    def energy(self, image):
        """Return the energy of a (3, H, W) image by how sure the segmenter is of it.

        A segmenter that needs prompts is asked on a grid; see :mod:`canon_seg.d2.judge`.

        Raises:
            InputError: if the segmenter says nothing of how sure it is.
        """
        if not capabilities(self.segmenter).needs_prompts:
            return energy_of(self._segment([{"image": image}])[0], prompted=False)
        prompts = grid(*image.shape[-2:])
        return energy_of(self._segment([{"image": image, "prompts": prompts}])[0], prompted=True)

    @torch.no_grad()
    def canonicalize(self, inputs):
        """Find the pose of one image, and bring the segmenter's input to the canonical frame.

        Args:
            inputs: one of the dicts that :meth:`forward` takes.

        Returns:
            (pose, inputs for the segmenter).
        """
        frame, inputs = self._framed(inputs)
        return frame.pose, self._resized(_canonical_inputs(frame, inputs))

    def _framed(self, inputs):
        """Return the frame of an image, and the inputs that a segmenter may see of it."""
        inputs = _without_ground_truth(inputs)
        canonicalizer = self.canonicalizer
        if judges_by_segmenter(canonicalizer):
            canonicalizer = JudgedCall(canonicalizer, partial(self._judged, inputs))
        return CanonicalFrame(canonicalizer, inputs["image"], inputs.get("prompts")), inputs

    def _judged(self, inputs, image, turn):
        """Return the segmenter's result for inputs after a turn, and its energy."""
        if self.segmenter is None:
            raise InputError(
                "MODEL.CANONICALIZER.SCORER.NAME is SegmenterScorer, but there is no segmenter to "
                "ask; set MODEL.SEGMENTER.META_ARCHITECTURE"
            )
        size = inputs["image"].shape[-2:]
        prompts = inputs.get("prompts")
        if prompts is not None:
            on_grid = prompts.snapped() if self.canonicalizer.snaps else prompts
            prompts = on_grid.turned(turn, *size)
        height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
        posed = _posed_inputs(inputs, image, prompts, turned_size(height, width, turn))
        (result,) = self._segment([posed])
        return result, energy_of(result, prompted=prompts is not None)

    def _resized(self, inputs):
        """Return the inputs with their image at the segmenter's size."""
        if self.resize is None:
            return {**inputs, "image": inputs["image"].contiguous()}
        return {**inputs, "image": resize_for_model(inputs["image"], self.resize)}

    def _segment(self, batch):
        """Return the segmenter's results for inputs not yet resized, by way of the cache."""
        if self.cache is None:
            return self._run_segmenter(batch)
        self.cache.follow(self.segmenter)
        key = content_key(batch), self.canonicalizer.snaps, repr(self.resize)
        results = self.cache.get(key)
        if results is None:
            results = self._run_segmenter(batch)
            self.cache.put(key, results)
        return results

    def _run_segmenter(self, batch):
        resized = [self._resized(inputs) for inputs in batch]
        asks_softly = any(inputs.get("soft_masks") for inputs in batch)
        if asks_softly and gives_soft_masks(self.segmenter):
            results = run_with_soft_masks(self.segmenter, resized)
        else:
            results = self.segmenter(resized)
        return [self._on_grid(result) for result in results]

    def _on_grid(self, result):
        """Return predictions with coordinates on the grid on which turning is exact in float32."""
        return {
            key: snap_instances(value)
            if key in ("instances", "proposals") and self.canonicalizer.snaps
            else value
            for key, value in result.items()
        }

    def _in_given_frame(self, result, frame, inputs):
        """Bring a result back, merged with those of the other poses of a vote.

        What is merged, in the frame that votes meet in, is the same for all exact turns of the
        image.
        """
        results = frame.resized(*_size_of_results(frame, inputs))
        if not frame.pose.others:
            return _each(results.back, result)
        for key in result:
            if key != "instances":
                raise InputError(
                    f"the results of several poses are merged for instances, and this segmenter "
                    f"gives {key}; set MODEL.CANONICALIZER.UNCERTAIN to argmax or keep, and leave "
                    "out the mode tta"
                )
        instances = [results.to_vote(frame.pose.turn, result["instances"], "instances")]
        for other in frame.pose.others:
            if judges_by_segmenter(self.canonicalizer):
                voted = frame.canonicalizer.results[inverse(other)]
            else:
                (voted,) = self._segment([_asked_softly(frame.in_pose(other), inputs)])
            instances.append(results.to_vote(other, voted["instances"], "instances"))
        instances = with_the_same_fields(instances)
        if inputs.get("prompts") is not None:
            merged = merge_prompted(instances)
        else:
            merged = merge_detections(instances, self.merge_nms_thresh, self.max_detections)
        return _each(results.from_vote, {"instances": merged})

    def _losses(self, batched_inputs):
        group = self.canonicalizer.group
        if self.task_weight != 0 and not group.is_exact:
            raise InputError(
                f"MODEL.CANONICALIZER.TASK_WEIGHT is {self.task_weight}, and a tilt has no "
                f"gradient; set it to 0 with the group {group.name}"
            )
        if self.task_weight != 0 and self.canonicalizer.needs_turned_views:
            batched_inputs = [_turned_at_random(inputs, group) for inputs in batched_inputs]
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        seen = images
        if self.task_weight != 0:  # photographs of any size; otherwise views made for the scorer
            seen = [self.canonicalizer.training_input(image) for image in images]
        found = self.canonicalizer.scores(seen)
        if isinstance(found, CircularDistribution):
            return self._circle_losses(found, batched_inputs)
        found = _as_upright(found, batched_inputs)
        logits, taught = found.logits, _taught(found, batched_inputs)
        loss = prior_loss(logits, self.prior, self.label_smoothing, taught, self.teacher_share)
        losses = {"loss_prior": self.prior_weight * loss}
        storage = get_event_storage()
        for name, value in alignment(logits.softmax(dim=1), self.prior, group.mirrors).items():
            storage.put_scalar(f"canonicalizer/{name}", value)
        if taught is not None:
            agreeing = logits.argmax(dim=1) == taught.argmax(dim=1)
            storage.put_scalar("canonicalizer/teacher_agreement", float(agreeing.float().mean()))
            upright = (taught.argmax(dim=1) == 0).float().mean()
            storage.put_scalar("canonicalizer/teacher_identity_rate", float(upright))
        if self.task_weight == 0:
            return losses
        weight = self.task_weight / len(images)
        with _losses_in_eval_mode(self.segmenter, self.freeze_segmenter):
            # One by one: detectron2 v0.6 cannot batch images that carry gradients.
            for inputs, image, own in zip(batched_inputs, images, found, strict=True):
                pose, canonical = straight_through(image.float(), own)
                task_losses = self.segmenter(
                    [
                        {
                            **_without_ground_truth(inputs),
                            **_turned_ground_truth(inputs, inverse(pose)),
                            "image": canonical,
                            "height": canonical.shape[-2],
                            "width": canonical.shape[-1],
                        }
                    ]
                )
                for key, value in task_losses.items():
                    losses[key] = losses.get(key, 0) + weight * value
        return losses

    def _circle_losses(self, found, batched_inputs):
        """Return the loss of angles, of views that were turned by ``degrees``, or are upright."""
        true = [
            Turn.by(float(inputs.get("degrees", 0.0)), bool(inputs.get("mirrored", False)))
            for inputs in batched_inputs
        ]
        degrees = torch.tensor([float(inputs.get("degrees", 0.0)) for inputs in batched_inputs])
        mirrored = torch.tensor([turn.mirrored for turn in true])
        if isinstance(found, VonMisesDistribution):
            loss = vector_loss(
                found.vectors, degrees.to(self.device), self.label_smoothing, self.vector_loss
            )
            length = float(found.concentration.detach().mean())
            get_event_storage().put_scalar("canonicalizer/vector_length", length)
        else:
            loss = circle_loss(found, degrees.to(self.device), self.label_smoothing, mirrored)
        near = [distance(mode, turn) <= NEAR for mode, turn in zip(found.mode(), true, strict=True)]
        storage = get_event_storage()
        storage.put_scalar("canonicalizer/within_10", sum(near) / len(near))
        return {"loss_prior": self.prior_weight * loss}


class _losses_in_eval_mode:  # noqa: N801 - used as a function is
    """Let a frozen segmenter compute its losses without training any of its layers.

    detectron2's models return losses by their ``training`` flag. The flag is raised for the length
    of one call on the modules that have no state of their own to train (batch norm and dropout
    keep theirs down), and is taken back even when the call fails.
    """

    def __init__(self, segmenter, frozen):
        kept = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        self.modules = [
            module for module in segmenter.modules() if frozen and not isinstance(module, kept)
        ]

    def __enter__(self):
        for module in self.modules:
            module.training = True

    def __exit__(self, *error):
        for module in self.modules:
            module.training = False


def _as_upright(found, batched_inputs):
    """Return what is said of views that were turned, turned back: for one prior of all."""
    if not any("pose" in inputs for inputs in batched_inputs):
        return found
    rows = [
        one.act(found.group.inverse(inputs.get("pose", 0))).logits
        for one, inputs in zip(found, batched_inputs, strict=True)
    ]
    return GridDistribution(found.group, torch.cat(rows))


def _taught(found, batched_inputs):
    """Return a teacher's probabilities as :func:`_as_upright`, or None where there is no teacher.

    The ``act`` of a distribution permutes whatever it holds, so that probabilities do as well.
    """
    if not all(TEACHER in inputs for inputs in batched_inputs):
        return None
    rows = torch.stack([inputs[TEACHER] for inputs in batched_inputs])
    return _as_upright(GridDistribution(found.group, rows), batched_inputs).logits


def _build_cache(mebibytes):
    if mebibytes < 0:
        raise InputError(
            f"MODEL.CANONICALIZER.CACHE is {mebibytes}; give the MiB to keep, or 0 for no cache"
        )
    return ResultCache(mebibytes * 2**20) if mebibytes else None


def _canonical_inputs(frame, inputs):
    """Return the inputs of the segmenter in the canonical frame; still to be resized."""
    size = frame.resized(*_size_of_results(frame, inputs)).canonical_size
    return _posed_inputs(inputs, frame.image, frame.prompts, size)


def _asked_softly(frame, inputs):
    """Do as :func:`_canonical_inputs`, and ask for masks that are not cut yet before a tilt."""
    asked = _canonical_inputs(frame, inputs)
    return {**asked, "soft_masks": True} if frame.tilts else asked


def _size_of_results(frame, inputs):
    return inputs.get("height", frame.size[0]), inputs.get("width", frame.size[1])


def _posed_inputs(inputs, image, prompts, size):
    """Return the segmenter's inputs in another frame, with results of that (height, width)."""
    posed = {**inputs, "image": image}
    posed["height"], posed["width"] = size
    if prompts is not None:
        posed["prompts"] = prompts
    return posed


def _each(bring, result):
    """Bring all that a segmenter gave to another frame; it is of no use afterwards."""
    turned = {}
    for key, value in result.items():
        try:
            turned[key] = bring(value, key)
        except TypeError as error:
            raise ValueError(f"the segmenter returned {key!r}: {error}") from error
    return turned


def _without_ground_truth(inputs):
    """Return what a segmenter may see of its inputs in inference; the image is not turned yet."""
    if "proposals" in inputs:
        raise ValueError(
            "CanonicalizedSegmenter cannot turn precomputed 'proposals', which live in the frame "
            "of an image that was resized before; let the segmenter make its own"
        )
    return {key: value for key, value in inputs.items() if key not in ("instances", "sem_seg")}


def _turned_at_random(inputs, group):
    """Return the inputs of training, ground truth too, turned by a random element of a group."""
    if "pose" in inputs:
        return inputs
    turn = elements_of(group)[int(torch.randint(len(elements_of(group)), ()))]
    image = turn_maps(inputs["image"], turn).contiguous()
    return {**inputs, **_turned_ground_truth(inputs, turn), "image": image, "pose": turn}


def _turned_ground_truth(inputs, turns):
    turned = {}
    if "instances" in inputs:
        turned["instances"] = turn_instances(inputs["instances"], turns)
    if "sem_seg" in inputs:
        turned["sem_seg"] = turn_maps(inputs["sem_seg"], turns)
    return turned
