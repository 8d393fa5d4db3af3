"""Segment by any model of detectron2, name its classes: the part of the demo that needs it."""

from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.apps.drawing import colors, zoom_factor
from canon_seg.apps.files.classes import Classes
from canon_seg.apps.files.segment import (
    Objects,
    Segment,
    Segmentation,
    image_tensor,
    objects_of_masks,
)
from canon_seg.coco.dataset import load_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.detector_sam import detector_config_file
from canon_seg.d2.judge import bound_to_model
from canon_seg.d2.models import behind, build_models
from canon_seg.errors import InputError
from canon_seg.images.energy import judges_by_segmenter

from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer

COCO = "coco_2017_val"


def takes_prompts(cfg):
    """Say whether the segmenter that a config names takes prompts; it is not built for that."""
    name = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
    return name in META_ARCH_REGISTRY and getattr(
        META_ARCH_REGISTRY.get(name), "takes_prompts", False
    )


def build_detector_segment(cfg, score_threshold=0.5):
    """Build the :class:`Segment` for a config of detectron2's, on ``cfg.MODEL.DEVICE``.

    Args:
        cfg: config of :func:`canon_seg.d2.config.load_config`; not changed.
        score_threshold: least score of an instance.

    Raises:
        InputError: naming the config key or the file that cannot be used.
    """
    model = build_models(cfg, ["canonical"])["canonical"](0)
    return detector_segment(model, cfg.INPUT.FORMAT, known_classes(cfg), score_threshold)


def detector_segment(model, image_format, classes, score_threshold):
    """Make the :class:`Segment` of a :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`.

    Args: as :func:`segment_by_detectron2`.
    """
    find = partial(segment_by_detectron2, model, image_format, classes, score_threshold)
    return Segment(find, bound_to_model(model))


def segment_by_detectron2(
    model, image_format, classes, threshold, canonicalizer, image, prompts=()
):
    """Find instances, segments or regions.

    Args:
        model: :class:`canon_seg.d2.meta_arch.CanonicalizedSegmenter`.
        image_format: channel order that it takes.
        classes: (things, stuff), see :func:`known_classes`.
        threshold: least score.
        canonicalizer, image, prompts: see :class:`Segment`; prompts for segmenters that take them.
    """
    if canonicalizer is not model.canonicalizer and not judges_by_segmenter(canonicalizer):
        model = behind(canonicalizer, model)
    inputs = model_inputs(image, image_format)
    batch = [{**inputs, "prompts": part} for part in prompts] or [inputs]
    results = model(batch)
    if len(results) > 1:
        joined = Instances.cat([result["instances"].to("cpu") for result in results])
        results[0] = {**results[0], "instances": joined}
    objects, found, picture = objects_of(image, results[0], classes, threshold)
    return Segmentation(results[0]["pose"], objects, found, picture, image.shape[:2])


def model_inputs(image, image_format):
    """Make the inputs of a detectron2 model of that channel order of an (H, W, 3) RGB image."""
    tensor = image_tensor(image, image_format)
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


def objects_of(image, result, classes, threshold):
    """Choose what to show of a model's result, and draw it.

    Args:
        image: (H, W, 3) RGB array.
        result: dict, of a detectron2 model.
        classes, threshold: see :func:`segment_by_detectron2`.

    Returns:
        (:class:`Objects`, the :class:`Classes` of these, picture).

    Raises:
        InputError: for results without instances and segments.
    """
    things, stuff = classes
    if "panoptic_seg" in result:
        ids, segments = result["panoptic_seg"]
        ids = ids.cpu().numpy()
        start = len(things.names)  # the numbers of stuff follow those of things
        labels = [s["category_id"] + (0 if s["isthing"] else start) for s in segments]
        masks = [ids == segment["id"] for segment in segments]
        found = things.followed_by(stuff, start)
        objects = objects_of_masks(masks, labels, ids.shape)
    elif "sem_seg" in result and "instances" not in result:
        regions = result["sem_seg"].argmax(dim=0).cpu().numpy()
        labels = np.unique(regions).tolist()
        masks = [regions == label for label in labels]
        objects, found = objects_of_masks(masks, labels, regions.shape), stuff
    elif "instances" in result:
        instances = result["instances"].to("cpu")
        instances, found = instances[instances.scores >= threshold], things
        objects = objects_of_instances(instances)
    else:
        raise InputError(
            f"MODEL.SEGMENTER.META_ARCHITECTURE: a model that gives only {', '.join(result)} has "
            "nothing to draw; take one that gives instances or segments"
        )
    return objects, found, draw_objects(image, objects, found)


def objects_of_instances(instances):
    """Make :class:`Objects` of detectron2's `Instances` on the CPU."""
    fields = instances.get_fields()
    return Objects(
        instances.pred_boxes.tensor,
        instances.pred_classes,
        instances.scores,
        masks=fields.get("pred_masks"),
        keypoints=fields.get("pred_keypoints"),
        vanished=int(fields["pred_vanished"].sum()) if "pred_vanished" in fields else 0,
    )


def draw_objects(image, objects, classes):
    """Draw masks, boxes and keypoints with the names of their classes, and with scores if any.

    Args:
        image: (H, W, 3) uint8 array, RGB.
        objects: :class:`Objects`; boxes of those without scores, the segments of an image, are not
            drawn.
        classes: :class:`Classes`.

    Returns:
        new array, enlarged by :func:`canon_seg.apps.drawing.zoom_factor`.
    """
    labels = [classes.name(label) for label in objects.classes.tolist()]
    drawn = {}
    if objects.scores is not None:
        scores = objects.scores.tolist()
        labels = [f"{label} {score:.0%}" for label, score in zip(labels, scores, strict=True)]
        drawn["boxes"] = objects.boxes.numpy()
    if objects.masks is not None:
        drawn["masks"] = list(objects.masks.numpy())
    if objects.keypoints is not None:
        drawn["keypoints"] = objects.keypoints
    palette = [
        np.array(classes.color(label) or other) / 255
        for label, other in zip(
            objects.classes.tolist(), colors(len(objects)).tolist(), strict=True
        )
    ]
    visualizer = Visualizer(image, scale=zoom_factor(*image.shape[:2]))
    return visualizer.overlay_instances(
        labels=labels, assigned_colors=[tuple(color) for color in palette], **drawn
    ).get_image()


def known_classes(cfg):
    """Name the classes of the things and of the stuff that a config's model finds.

    They are MODEL.SEGMENTER.CLASSES; else those of the first data set that the config names and
    whose files or metadata are there; else, for detectors of 80 classes without one, COCO's.

    Returns:
        (things, stuff), two :class:`Classes`; things have a name for each class of the model.
    """
    things, stuff = _known(cfg)
    missing = range(len(things.names), cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    names = things.names + tuple(things.name(label) for label in missing)
    return replace(things, names=names), stuff


def _known(cfg):
    keys = cfg.MODEL
    if takes_prompts(cfg) and keys.SAM.PROMPTS == "detector":
        name = keys.SAM.DETECTOR.CONFIG_FILE
        return _known(load_config(detector_config_file(name)))
    if keys.SEGMENTER.CLASSES:
        return Classes(tuple(keys.SEGMENTER.CLASSES)), Classes()
    own = {name: files for name, *files in cfg.DATASETS.COCO}
    for name in [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]:
        if name in own and all(Path(file).exists() for file in own[name]):
            categories = sorted(load_coco(*own[name])["categories"], key=itemgetter("id"))
            names, ids = (tuple(map(itemgetter(key), categories)) for key in ("name", "id"))
            return Classes(names, ids), Classes()
        if name not in own and name in MetadataCatalog.list():
            metadata = MetadataCatalog.get(name)
            return _classes(metadata, "thing"), _classes(metadata, "stuff")
    if not own and keys.ROI_HEADS.NUM_CLASSES == 80:
        return _classes(MetadataCatalog.get(COCO), "thing"), Classes()
    return Classes(), Classes()


def _classes(metadata, kind):
    names = metadata.get(f"{kind}_classes", [])
    by_id = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
    ids = {label: number for number, label in by_id.items()}
    # Stuff 0 of COCO's panoptic sets, "things", is no category of theirs.
    ids.setdefault(0, 0)
    known = len(by_id) and all(label in ids for label in range(len(names)))
    return Classes(
        tuple(names),
        tuple(ids[label] for label in range(len(names))) if known else (),
        tuple(map(tuple, metadata.get(f"{kind}_colors", []))),
    )
