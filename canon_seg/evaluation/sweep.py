"""Run the rotated COCO evaluation: every image, at every angle, in every mode."""

import math
import secrets
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from canon_seg.coco.dataset import contiguous_ids, without_empty_masks
from canon_seg.coco.paper_protocol import BATCH_SIZE, PaperScorer
from canon_seg.core.group import C4, D4
from canon_seg.core.turn import distance
from canon_seg.d2.coco_results import coco_results
from canon_seg.d2.distributed import SharedCounter, comm
from canon_seg.d2.models import GROUP_MODES
from canon_seg.errors import InputError
from canon_seg.evaluation.angles import summarise_errors
from canon_seg.evaluation.intervals import wilson
from canon_seg.evaluation.realigned import realigned
from canon_seg.evaluation.records import Records
from canon_seg.evaluation.rotated_coco import METRICS, RotatedCOCOEvaluator
from canon_seg.evaluation.views import View
from canon_seg.images.energy import judges_by_segmenter
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import segmenter_inputs

TASKS = ("segm", "bbox")
AVERAGE = "C4-avg"
MIRROR_AVERAGE = "D4-avg"


def first_images(dataset, limit):
    """Return the data set with its first ``limit`` images in order of id.

    Args:
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`; not changed.
        limit: number of images, or None for all.

    Returns:
        dict of the same form.

    Raises:
        InputError: if ``limit`` is below 1, or leaves no annotations.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}; give the number of images, at least 1")
    images = sorted(dataset["images"], key=lambda image: image["id"])[:limit]
    kept = {image["id"] for image in images}
    annotations = [entry for entry in dataset["annotations"] if entry["image_id"] in kept]
    if not annotations:
        raise InputError(
            f"--limit {limit}: the first {limit} images have no annotations; raise the limit"
        )
    return {**dataset, "images": images, "annotations": annotations}


def run_sweep(
    models,
    dataset,
    images_dir,
    *,
    views,
    image_format,
    prompts=None,
    progress=True,
    records=None,
    paper_order=None,
    reading=ReadingOptions(),
):
    """Evaluate models on a data set whose images are rotated in memory.

    In several processes (:func:`canon_seg.d2.distributed.launch`) each takes the next image when it
    is done with one, and the next angle when it comes to scoring.

    Args:
        models: dict from mode to a function from the true pose to the model, see
            :func:`canon_seg.d2.models.build_models`.
        dataset: dict as returned by :func:`canon_seg.coco.dataset.load_coco`, images as checked by
            :func:`canon_seg.coco.dataset.check_images`.
        images_dir: folder that ``file_name`` is relative to.
        views: :class:`canon_seg.evaluation.views.View`, each once: the angles.
        image_format: "RGB" or "BGR", what the models take.
        prompts: dict from image id to :class:`canon_seg.d2.dataset_prompts.BoxPrompts`, or
            None for a segmenter that takes none.
        progress: whether to show progress bars.
        records: :class:`canon_seg.evaluation.records.Records` that has begun, whose finished images
            are not run again; needed in several processes. None for temporary ones.
        paper_order: ids of the images in the order of the annotation file, to score by the paper's
            own protocol too (:mod:`canon_seg.coco.paper_protocol`); None to leave that out.
        reading: how images are read.

    Returns:
        dict that JSON can hold, or None in all but the main process:

        - ``num_images``: int;
        - ``modes``: mode -> degrees ("0", "22.5", ...) -> "segm" and "bbox" -> ``METRICS`` ->
          value in 0..100, or None where undefined (nothing of that size to be found, or a model
          without masks). Mirrored views are at "mirrored 90" and the like. Beside the degrees
          ``AVERAGE``, the mean over the four quarter turns, where all four ran, and
          ``MIRROR_AVERAGE``, that over these and their mirrored ones, where all eight ran;
        - ``paper``: the same as ``modes`` by the paper's protocol, with ``batch_size``,
          ``num_batches`` and ``num_images`` beside it; None without ``paper_order``;
        - ``realigned``: see :func:`canon_seg.evaluation.realigned.realigned`;
        - ``over_angles``: mode -> "mean" and "min" over all angles of the sweep -> "segm" and
          "bbox" -> ``METRICS`` -> value;
        - ``angle_errors``: mode -> of the modes that look for a pose, how far it is from the true
          angle over all images and angles, see
          :func:`canon_seg.evaluation.angles.summarise_errors`;
        - ``instances_cut``: degrees -> number of annotations that the view cuts away wholly;
        - ``instances_cut_ids``: degrees -> their ids;
        - ``masks_vanished``: mode -> degrees -> number of predictions whose mask was there in a
          canonical pose with a tilt, and of which nothing is left in the image as it was given;
          they are scored as empty masks;
        - ``instances_empty``: ids of the annotations whose upright mask has no pixel, which are
          left out at all angles;
        - ``pose``: of the mode "canonical", else None. ``confusion``: 4 x 4 counts, by the pose
          nearest to the true angle, then by the pose found; ``accuracy``: fraction of images whose
          pose was found, 0..1, and ``accuracy_interval``, its 95 % interval
          (:func:`canon_seg.evaluation.intervals.wilson`) for as many trials as there are images;
          ``accuracy_by_angle``: the same by degrees; ``unclear_by_angle``: fraction whose likeliest
          pose had a probability below a half; ``distance``: mean angle between the pose
          found and the angle of the image, degrees in 0..180; ``policies``: how often
          each answer to an uncertain pose was used, and the gate; ``passes``: how often the
          segmenter has to run for an image, on average (a vote takes several runs, and so does the
          segmenter as judge). All angles are found or not whichever side of a mirror is found;
          ``mirror_accuracy``: fraction of images whose side is, None without mirrored views;
        - ``cache``: ``hits`` and ``misses`` of the mode "canonical", or None without a cache;
        - ``seconds``: mode -> ``total`` (of all processes) and ``per_image`` (one view) of
          running the model.

    Raises:
        InputError: if the finished images of other processes cannot be found.
    """
    if records is None:
        with tempfile.TemporaryDirectory() as folder:
            records = Records(Path(folder, "records"))
            records.begin({}, resume=False)
            return run_sweep(
                models,
                dataset,
                images_dir,
                views=views,
                image_format=image_format,
                prompts=prompts,
                progress=progress,
                records=records,
                paper_order=paper_order,
                reading=reading,
            )
    progress = progress and comm.is_main_process()
    dataset, empty = without_empty_masks(dataset)
    read = partial(read_image, format=image_format, options=reading)
    _segment(models, dataset, images_dir, views, read, prompts, progress, records)
    finished = records.finished()
    missing = {image["id"] for image in dataset["images"]} - set(finished)
    if missing:
        raise InputError(
            f"{records.folder}: {len(missing)} of {len(dataset['images'])} images are not there; "
            "give all machines the same folder, on a file system that they share"
        )
    scores, cut, paper, batches = _score(
        dataset, list(models), views, records, finished, progress, paper_order
    )
    if not comm.is_main_process():
        return None
    facts = [line.facts for line in finished.values()]
    result = {
        "num_images": len(finished),
        "modes": _by_mode(models, views, scores),
        "over_angles": {
            mode: over_angles({view.label: scores[index, mode] for index, view in enumerate(views)})
            for mode in models
        },
        "angle_errors": _error_summary(facts),
        "paper": None,
        "instances_cut": {view.label: len(cut[index]) for index, view in enumerate(views)},
        "instances_cut_ids": {view.label: cut[index] for index, view in enumerate(views)},
        "masks_vanished": {
            mode: {
                view.label: sum(image["vanished"][mode][index] for image in facts)
                for index, view in enumerate(views)
            }
            for mode in models
            if all("vanished" in image for image in facts)  # sweeps begun before do not say it
        },
        "instances_empty": empty,
        "pose": _pose_summary(facts, views) if "canonical" in models else None,
        "cache": _cache_summary(facts),
        "seconds": {mode: _time_summary(facts, mode, views) for mode in models},
    }
    if paper_order is not None:
        result["paper"] = {**batches[0], "modes": _by_mode(models, views, paper)}
    return {**result, "realigned": realigned(result)}


def _by_mode(models, views, scores):
    """Return scores by (index of the view, mode) as mode -> degrees -> scores."""
    return {
        mode: with_average({view.label: scores[index, mode] for index, view in enumerate(views)})
        for mode in models
    }


def _segment(models, dataset, images_dir, views, read, prompts, progress, records):
    """Run the models on all images that are not finished yet, together with other processes."""
    finished = set(records.finished()) if comm.is_main_process() else None
    # What others append from now on must change no process's list of what is left to do.
    finished, name = comm.all_gather((finished, secrets.token_hex(8)))[0]
    images = [image for image in dataset["images"] if image["id"] not in finished]
    category_ids = list(contiguous_ids(dataset))
    annotations = _annotations_of_prompts(dataset, prompts)
    taken, done = SharedCounter(f"{name}/taken"), SharedCounter(f"{name}/done")
    runs_of_image = len(models) * len(views)
    runs_before = len(finished) * runs_of_image
    with tqdm(
        total=len(dataset["images"]) * runs_of_image,
        initial=runs_before,
        desc="segmenting",
        unit="image",
        smoothing=0,
        disable=not progress,
    ) as bar:

        def show(runs_of_all):
            bar.update(runs_before + runs_of_all - bar.n)

        while (index := taken.add() - 1) < len(images):
            entry = images[index]
            pixels = read(Path(images_dir) / entry["file_name"])
            facts = {
                "seconds": dict.fromkeys(models, 0.0),
                "poses": [],
                "errors": {},
                "vanished": {mode: [] for mode in models},
                "cache": None,
            }
            results = {}
            before = _cache_counts(models)
            for view in views:
                inputs = segmenter_inputs(
                    view.image(pixels), image_id=entry["id"], file_name=entry["file_name"]
                )
                for mode, model_for in models.items():
                    model = model_for(view.turn)
                    if prompts is not None:
                        inputs["prompts"] = view.prompts(
                            prompts[entry["id"]],
                            *pixels.shape[:2],
                            model.canonicalizer.snaps,
                            annotations[entry["id"]],
                        )
                    start = _now(model.device)
                    outputs = model([inputs])
                    facts["seconds"][mode] += _now(model.device) - start
                    pose = outputs[0].get("pose")
                    if mode == "canonical":
                        runs = 1 + len(pose.others)
                        if judges_by_segmenter(model.canonicalizer):
                            runs = len(model.canonicalizer.group.elements)
                        found = [pose.turns, pose.policy, runs, pose.is_clear]
                        facts["poses"].append([*found, pose.turn.mirrored])
                    if mode == "canonical" or mode in GROUP_MODES:
                        angle = replace(pose.turn, mirrored=view.mirrored)
                        facts["errors"].setdefault(mode, []).append(distance(angle, view.turn))
                    facts["vanished"][mode].append(_count_vanished(outputs[0]))
                    results[mode, view] = coco_results(outputs[0], entry["id"], category_ids)
                    show(done.add())
            if before is not None:
                facts["cache"] = [
                    now - then for now, then in zip(_cache_counts(models), before, strict=True)
                ]
            records.append(
                entry["id"], facts, [results[mode, view] for mode in models for view in views]
            )
        comm.synchronize()
        show(done.add(0))


def _count_vanished(output):
    instances = output.get("instances")
    if instances is None or not instances.has("pred_vanished"):
        return 0
    return int(instances.pred_vanished.sum())


def _annotations_of_prompts(dataset, prompts):
    """Return annotations by image whose boxes are the prompts, or None for a detector's boxes."""
    by_image = {image["id"]: [] for image in dataset["images"]}
    for entry in dataset["annotations"]:
        by_image[entry["image_id"]].append(entry)
    if prompts is None:
        return by_image
    return {
        image_id: entries if prompts[image_id].scores is None else None
        for image_id, entries in by_image.items()
    }


def _cache_counts(models):
    """Return (hits, misses) of the canonical mode's cache so far, or None where there is none."""
    cache = models["canonical"](0).cache if "canonical" in models else None
    return None if cache is None else (cache.hits, cache.misses)


def _score(dataset, modes, views, records, finished, progress, paper_order):
    """Score by (index of the view, mode), by COCO's protocol and by the paper's.

    Of use in the main process only.

    Returns:
        (scores, ids of annotations cut away by index, scores by the paper's protocol, by index how
        many images and batches it took): the last two are empty without ``paper_order``.
    """
    scores, cut, paper, batches = {}, {}, {}, {}
    own = range(comm.get_rank(), len(views), comm.get_world_size())
    for index in tqdm(own, desc="scoring", unit="angle", disable=not progress):
        evaluator = RotatedCOCOEvaluator(dataset, views[index])
        cut[index] = evaluator.cut
        if paper_order is not None:
            paper_scorer = PaperScorer(evaluator.ground_truth, paper_order)
            batches[index] = {
                "batch_size": BATCH_SIZE,
                "num_batches": paper_scorer.num_batches,
                "num_images": paper_scorer.num_images,
            }
        for number, mode in enumerate(modes):
            evaluator.reset()
            every = []
            for results in records.view(finished, number * len(views) + index):
                every.extend(results)
            evaluator.extend(every)
            scores[index, mode] = _defined(evaluator.evaluate())
            if paper_order is not None:
                paper[index, mode] = _defined(paper_scorer.score(every))
    return [
        {key: value for part in comm.gather(own) for key, value in part.items()}
        for own in (scores, cut, paper, batches)
    ]


def _time_summary(facts, mode, views):
    total = math.fsum(image["seconds"][mode] for image in facts)
    return {"total": total, "per_image": total / (len(facts) * len(views))}


def _pose_summary(facts, views):
    confusion = np.zeros((len(C4.elements),) * 2, np.int64)
    found, unclear = dict.fromkeys(views, 0), dict.fromkeys(views, 0)
    policies, passes, distances, sides = {}, 0, [], []
    for image in facts:
        for view, (pose, policy, runs, *more) in zip(views, image["poses"], strict=True):
            confusion[view.pose, pose] += 1
            found[view] += view.pose == pose
            distances.append(abs((view.angle - 90 * pose + 180) % 360 - 180))
            unclear[view] += more[:1] == [False]  # sweeps begun before do not say it
            sides.append(more[1:2] == [view.mirrored])
            policies[policy] = policies.get(policy, 0) + 1
            passes += runs
    accuracy = float(np.trace(confusion) / confusion.sum())
    return {
        "accuracy": accuracy,
        "accuracy_interval": wilson(accuracy, len(facts)),
        "mirror_accuracy": sum(sides) / len(sides) if any(v.mirrored for v in views) else None,
        "accuracy_by_angle": {view.label: n / len(facts) for view, n in found.items()},
        "unclear_by_angle": {view.label: n / len(facts) for view, n in unclear.items()},
        "distance": math.fsum(distances) / len(distances),
        "confusion": confusion.tolist(),
        "policies": dict(sorted(policies.items())),
        "passes": passes / (len(facts) * len(views)),
    }


def _cache_summary(facts):
    counts = [image["cache"] for image in facts if image["cache"] is not None]
    if not counts:
        return None
    return {"hits": sum(hits for hits, _ in counts), "misses": sum(m for _, m in counts)}


def _error_summary(facts):
    modes = list(dict.fromkeys(mode for image in facts for mode in image["errors"]))
    return {
        mode: summarise_errors([error for image in facts for error in image["errors"][mode]])
        for mode in modes
    }


def over_angles(by_angle):
    """Return the mean and the minimum over the angles of one mode's scores.

    What is undefined at one angle is undefined in both.
    """
    return {
        name: {
            task: {
                metric: how([scores[task][metric] for scores in by_angle.values()])
                for metric in METRICS
            }
            for task in TASKS
        }
        for name, how in (("mean", _mean), ("min", _least))
    }


def with_average(by_angle):
    """Return one mode's scores with the averages over quarter turns added.

    That is ``AVERAGE``, if all four quarter turns are there, and ``MIRROR_AVERAGE``, if their
    mirrored ones are there too. A metric that is undefined at one of them is undefined on the
    average.
    """
    averages = {}
    for name, group in ((AVERAGE, C4), (MIRROR_AVERAGE, D4)):
        labels = [View(turn.degrees, mirrored=turn.mirrored).label for turn in group.elements]
        if set(labels) <= set(by_angle):
            averages[name] = {
                task: {
                    metric: _mean([by_angle[label][task][metric] for label in labels])
                    for metric in METRICS
                }
                for task in TASKS
            }
    return {**by_angle, **averages}


def _mean(values):
    if None in values:
        return None
    return math.fsum(values) / len(values)  # of equal values exactly that value


def _least(values):
    return None if None in values else min(values)


def _now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _defined(scores):
    """Return the scores of both tasks, with None for what is undefined or was not scored."""
    return {
        task: {
            metric: value if math.isfinite(value) else None
            for metric in METRICS
            for value in [scores.get(task, {}).get(metric, math.nan)]
        }
        for task in TASKS
    }
