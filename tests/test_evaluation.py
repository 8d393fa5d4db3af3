import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy_coco import write_toy_coco

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.coco.annotations import turn_coco
from canon_seg.coco.dataset import contiguous_ids, load_coco
from canon_seg.coco.masks import decode_rle
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, IdentityCanonicalizer
from canon_seg.core.group import D4
from canon_seg.d2.catalog import register_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.d2.models import build_models, models_by_mode
from canon_seg.d2.sam import SamSegmenter
from canon_seg.errors import InputError
from canon_seg.evaluation.rotated_coco import METRICS, RotatedCOCOEvaluator
from canon_seg.evaluation.sweep import (
    AVERAGE,
    TASKS,
    first_images,
    run_sweep,
    with_average,
)
from canon_seg.evaluation.sweep_report import format_summary, format_table, plot, write_report
from canon_seg.evaluation.views import View
from canon_seg.geometry.group import C4
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.reading import read_image
from canon_seg.images.tensors import to_chw
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.scorer import NetworkScorer
from canon_seg.sam.models import build_tiny_sam

from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.model_zoo import get_config_file
from detectron2.structures import BitMasks, Boxes, Instances

COCO_VAL = Path(__file__).parents[2] / "shared" / "data" / "coco_val182"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """(annotation file, image folder, loaded data set)."""
    files = write_toy_coco(tmp_path_factory.mktemp("toy"))
    return *files, load_coco(*files)


class UpperPart(nn.Module):
    """Segments the upper part of each box, scored by its brightness: depends on the pose."""

    resizes_itself = True

    def forward(self, batched_inputs):
        results = []
        for inputs in batched_inputs:
            image, boxes = inputs["image"].float(), inputs["prompts"].boxes
            masks = torch.zeros((len(boxes), *image.shape[1:]), dtype=torch.bool)
            for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist()):
                mask[y0 : y0 + math.ceil(0.8 * (y1 - y0)), x0:x1] = True
            instances = Instances(image.shape[1:])
            instances.pred_masks = masks
            instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
            instances.scores = torch.stack([image[:, mask].mean() for mask in masks])
            instances.pred_classes = inputs["prompts"].classes
            results.append({"instances": instances})
        return results


def canonicalized(segmenter, canonicalizer):
    return CanonicalizedSegmenter(
        canonicalizer=canonicalizer,
        segmenter=segmenter,
        resize=None,
        prior=torch.eye(4)[0],
        prior_weight=1.0,
        task_weight=0.0,
    ).eval()


def random_canonicalizer(image_format="RGB", mirrors=False):
    torch.manual_seed(2)
    network = build_plain_network(NetworkSpec("GCNN", 4, (4, 8), 1, mirrors)).eval()
    return GroupCanonicalizer(NetworkScorer(network, input_size=33, image_format=image_format))


def tiny_sam():
    torch.manual_seed(1)
    sam = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32)
    return SamSegmenter(sam=sam, image_format="RGB")


def sweep(models, toy, turns=tuple(C4.elements), source="boxes"):
    return run_sweep(
        models,
        toy[2],
        toy[1],
        views=[View(90 * number) for number in turns],
        image_format="RGB",
        prompts=load_box_prompts(source, toy[2]),
        progress=False,
    )


def ground_truth_instances(dataset, image):
    """The ground truth of one image, crowds left out, as a model would predict it."""
    entries = [
        entry
        for entry in dataset["annotations"]
        if entry["image_id"] == image["id"] and not entry["iscrowd"]
    ]
    boxes = torch.tensor([entry["bbox"] for entry in entries]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = contiguous_ids(dataset)
    instances = Instances((image["height"], image["width"]))
    instances.pred_boxes = Boxes(boxes)
    instances.pred_masks = torch.from_numpy(
        np.array([decode_rle(entry["segmentation"]) for entry in entries], bool)
    )
    instances.scores = torch.linspace(1, 0.5, len(entries))
    instances.pred_classes = torch.tensor([classes[entry["category_id"]] for entry in entries])
    return instances


def score_ground_truth(dataset, turns_of_images, turns_of_detections):
    evaluator = RotatedCOCOEvaluator(dataset, View(90 * turns_of_images))
    detected = turn_coco(_without_attributes(dataset), turns_of_detections)
    for image in detected["images"]:
        instances = ground_truth_instances(detected, image)
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    return evaluator.evaluate()


def _without_attributes(dataset):
    annotations = [
        {key: value for key, value in entry.items() if key != "attributes"}
        for entry in dataset["annotations"]
    ]
    return {**dataset, "annotations": annotations}


# The evaluator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", C4.elements)
def test_ground_truth_as_detections_is_perfect(toy, turns):
    results = score_ground_truth(toy[2], turns, turns)
    for task in TASKS:
        for metric, value in results[task].items():
            # A class of one object has precision 1 / (1 + eps) in pycocotools.
            assert value == pytest.approx(100, abs=1e-9) or math.isnan(value), (task, metric)
        assert results[task]["AP"] == pytest.approx(100, abs=1e-9)


def test_ground_truth_that_was_not_turned_is_not_perfect(toy):
    square = {**toy[2], "images": [image for image in toy[2]["images"] if image["id"] == 13]}
    square["annotations"] = [e for e in toy[2]["annotations"] if e["image_id"] == 13]
    assert score_ground_truth(square, 1, 0)["bbox"]["AP"] < 50
    assert score_ground_truth(square, 1, 3)["bbox"]["AP"] < 50


@pytest.mark.skipif(not COCO_VAL.is_dir(), reason="needs ../shared/data/coco_val182")
@pytest.mark.parametrize("turns", C4.elements)
def test_ground_truth_as_detections_is_perfect_on_coco(turns):
    dataset = load_coco(COCO_VAL / "annotations" / "instances_val.json", COCO_VAL / "images")
    results = score_ground_truth(first_images(dataset, 12), turns, turns)
    for task in TASKS:
        assert results[task]["AP"] == pytest.approx(100, abs=1e-9), task


def test_reset_forgets_predictions_but_not_the_ground_truth(toy):
    evaluator = RotatedCOCOEvaluator(toy[2], View(0))
    image = toy[2]["images"][0]
    instances = ground_truth_instances(turn_coco(_without_attributes(toy[2]), 0), image)
    evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    first = evaluator.evaluate()
    assert first["segm"]["AP"] > 0
    evaluator.reset()
    assert evaluator.evaluate() == {}
    evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    assert evaluator.evaluate()["segm"]["AP"] == first["segm"]["AP"]


def test_predictions_of_no_use_are_named(toy):
    evaluator = RotatedCOCOEvaluator(toy[2], View(0))
    with pytest.raises(InputError, match="sem_seg but no instances"):
        evaluator.process([{"image_id": 11}], [{"sem_seg": torch.zeros(1)}])
    instances = Instances(
        (60, 83),
        pred_boxes=Boxes(torch.zeros(1, 4)),
        scores=torch.ones(1),
        pred_classes=torch.tensor([3]),
    )
    with pytest.raises(InputError, match="class 3, but the data set has only 3 categories"):
        evaluator.process([{"image_id": 11}], [{"instances": instances}])


def test_keypoints_are_left_out(toy):
    evaluator = RotatedCOCOEvaluator(toy[2], View(0))
    image = toy[2]["images"][0]
    instances = ground_truth_instances(turn_coco(_without_attributes(toy[2]), 0), image)
    instances.pred_keypoints = torch.zeros(len(instances), 17, 3)
    evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    assert set(evaluator.evaluate()) == {"segm", "bbox"}
    assert instances.has("pred_keypoints")


# Prompts -----------------------------------------------------------------------------------------


def test_ground_truth_boxes_leave_crowds_out_and_turn_with_the_annotations(toy):
    prompts = load_box_prompts("boxes", toy[2])
    for turns in C4.elements:
        turned = turn_coco(_without_attributes(toy[2]), turns)
        for image in toy[2]["images"]:
            boxes = [
                entry["bbox"]
                for entry in turned["annotations"]
                if entry["image_id"] == image["id"] and not entry["iscrowd"]
            ]
            expected = np.array(boxes)
            expected[:, 2:] += expected[:, :2]
            ours = prompts[image["id"]].turned(turns, image["height"], image["width"], False)
            np.testing.assert_array_equal(ours.boxes.numpy(), expected.astype(np.float32))
            assert ours.classes.tolist() == [
                {3: 0, 7: 1}[entry["category_id"]]
                for entry in turned["annotations"]
                if entry["image_id"] == image["id"] and not entry["iscrowd"]
            ]
            assert ours.scores is None


def test_snapped_prompts_of_all_turns_are_turns_of_each_other(toy):
    for image in toy[2]["images"]:
        size = image["height"], image["width"]
        boxes = load_box_prompts("boxes", toy[2])[image["id"]]
        upright = boxes.turned(0, *size, snapped=True)
        for turns in C4.elements:
            ours = boxes.turned(turns, *size, snapped=True)
            torch.testing.assert_close(
                ours.boxes, upright.turned(turns, *size).boxes, rtol=0, atol=0
            )
            torch.testing.assert_close(ours.boxes, ours.snapped().boxes, rtol=0, atol=0)


def test_prompts_of_a_results_file(toy, tmp_path):
    results = [
        {"image_id": 12, "category_id": 7, "bbox": [1.5, 2, 10, 20.25], "score": 0.75},
        {"image_id": 99, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    prompts = load_box_prompts(str(path), toy[2], ignored_image_ids=[99])
    turned = prompts[12].turned(1, 96, 64, snapped=False)
    assert turned.boxes.tolist() == [[2, 52.5, 22.25, 62.5]]
    assert turned.classes.tolist() == [1]
    assert turned.scores.tolist() == [0.75]
    assert len(prompts[11].turned(1, 60, 83, snapped=True)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, -1, 1]}, "entry 1: bbox .* negative"),
        ({"bbox": [0, 0, 1]}, "entry 1: bbox"),
        ({"bbox": [0, 0, 1, float("nan")]}, "entry 1: bbox"),
        ({"score": "high"}, "entry 1: score"),
        ({"score": None}, "entry 1: score"),
        ({"image_id": 99}, "entry 1: image_id 99 is not in the data set"),
        ({"category_id": 1}, "entry 1: category_id 1 is not in the data set"),
        ({"image_id": [11]}, "entry 1: image_id"),
    ],
)
def test_bad_entries_of_a_results_file_are_named(toy, tmp_path, change, message):
    good = {"image_id": 11, "category_id": 3, "bbox": [0, 0, 5, 5], "score": 1}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([good, {**good, **change}]))
    with pytest.raises(InputError, match=message) as error:
        load_box_prompts(str(path), toy[2])
    assert "MODEL.SAM.PROMPTS" in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not valid JSON"),
        ("[" * 10**5, "not valid JSON"),
        ('{"images": []}', "a dict where .*an annotation file"),
        ("[1]", "entry 0: 1 is not an object"),
        ('[{"image_id": 11, "category_id": 3, "score": 1}]', "entry 0: has no bbox"),
    ],
)
def test_files_that_hold_no_results_are_named(toy, tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_box_prompts(str(path), toy[2])


def test_a_missing_results_file_is_named(toy, tmp_path):
    with pytest.raises(InputError, match='nowhere.json: cannot be read .*"boxes"'):
        load_box_prompts(str(tmp_path / "nowhere.json"), toy[2])


# The sweep ---------------------------------------------------------------------------------------


def test_canonical_scores_of_all_angles_are_equal_to_the_last_bit(toy):
    model = canonicalized(UpperPart(), random_canonicalizer())
    result = sweep(models_by_mode(model, ["vanilla", "canonical", "oracle"]), toy)
    for mode in ("canonical", "oracle"):
        scores = result["modes"][mode]
        assert list(scores) == ["0", "90", "180", "270", AVERAGE]
        assert all(scores[angle] == scores["0"] for angle in scores), mode
    # Nothing of that holds by itself.
    for task in TASKS:
        assert 0 < result["modes"]["oracle"]["0"][task]["AP"] < 100
    vanilla = [result["modes"]["vanilla"][angle]["segm"]["AP"] for angle in ("0", "90", "180")]
    assert len(set(vanilla)) == 3


def test_scores_of_all_eight_elements_are_equal_to_the_last_bit(toy):
    model = canonicalized(UpperPart(), random_canonicalizer(mirrors=True))
    result = run_sweep(
        models_by_mode(model, ["vanilla", "canonical", "oracle"]),
        toy[2],
        toy[1],
        views=[View(turn.degrees, mirrored=turn.mirrored) for turn in D4.elements],
        image_format="RGB",
        prompts=load_box_prompts("boxes", toy[2]),
        progress=False,
    )
    for mode in ("canonical", "oracle"):
        scores = result["modes"][mode]
        assert list(scores)[3:6] == ["270", "mirrored 0", "mirrored 90"]
        assert list(scores)[-2:] == [AVERAGE, "D4-avg"] and len(scores) == 10
        assert all(scores[angle] == scores["0"] for angle in scores), mode
    assert 0 < result["modes"]["oracle"]["0"]["segm"]["AP"] < 100
    vanilla = {label: scores["segm"]["AP"] for label, scores in result["modes"]["vanilla"].items()}
    assert vanilla["mirrored 180"] != vanilla["0"]
    # All eight are found, or none: mirrored photographs turn along.
    sides = [
        model.canonicalizer.pose(
            to_chw(read_image(toy[1] / image["file_name"], "RGB"))
        ).turn.mirrored
        for image in toy[2]["images"]
    ]
    assert result["pose"]["mirror_accuracy"] == 1 - sum(sides) / len(sides)
    assert "side of the mirror found:" in format_summary(result)
    assert plot(result, "toy").get_axes()
    assert "mirrored 90" in format_table(result)


def test_the_random_canonicalizer_says_different_poses(toy):
    model = canonicalized(UpperPart(), random_canonicalizer())
    pose = sweep(models_by_mode(model, ["canonical"]), toy)["pose"]
    confusion = np.array(pose["confusion"])
    assert (confusion.sum(axis=1) == len(toy[2]["images"])).all()
    assert pose["accuracy"] == np.trace(confusion) / confusion.sum()
    for true in C4.elements:  # an equivariant answer: right or wrong by the same turn at all angles
        np.testing.assert_array_equal(np.roll(confusion[true], -true), confusion[0])


def test_sam_predicts_the_turned_masks_and_boxes_at_every_angle(toy):
    model = canonicalized(tiny_sam(), random_canonicalizer())
    prompts = load_box_prompts("boxes", toy[2])
    for image in toy[2]["images"]:
        size = image["height"], image["width"]
        pixels = np.array(Image.open(toy[1] / image["file_name"]))
        found = []
        for turns in C4.elements:
            turned = np.ascontiguousarray(np.rot90(pixels, turns).transpose(2, 0, 1))
            inputs = {
                "image": torch.from_numpy(turned),
                "prompts": prompts[image["id"]].turned(turns, *size, snapped=True),
            }
            instances = model([inputs])[0]["instances"]
            masks = torch.rot90(instances.pred_masks, -turns, (1, 2))
            found.append((masks, instances.scores))
        for masks, scores in found:
            assert torch.equal(masks, found[0][0]) and torch.equal(scores, found[0][1])
        assert found[0][0].any() and not found[0][0].all()


def test_the_sweep_runs_sam_and_keeps_time(toy):
    model = canonicalized(tiny_sam(), random_canonicalizer())
    result = sweep(models_by_mode(model, ["canonical", "vanilla"]), toy, turns=(1, 3))
    assert result["num_images"] == 4
    assert list(result["modes"]["vanilla"]) == ["90", "270"]  # no average of two angles
    assert result["modes"]["canonical"]["90"] == result["modes"]["canonical"]["270"]
    assert set(result["seconds"]) == {"vanilla", "canonical"}
    for seconds in result["seconds"].values():
        assert seconds["total"] == pytest.approx(8 * seconds["per_image"]) and seconds["total"] > 0
    confusion = result["pose"]["confusion"]
    assert [sum(row) for row in confusion] == [0, 4, 0, 4]
    json.dumps(result, allow_nan=False)


def test_the_sweep_is_quiet(toy, capfd):
    model = canonicalized(UpperPart(), IdentityCanonicalizer())
    sweep(models_by_mode(model, ["vanilla"]), toy, turns=(0,))
    assert capfd.readouterr() == ("", "")


def test_an_image_without_prompts_is_segmented_into_nothing(toy, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps([{"image_id": 11, "category_id": 3, "bbox": [1, 2, 60, 50], "score": 0.5}])
    )
    model = canonicalized(tiny_sam(), random_canonicalizer())
    result = sweep(models_by_mode(model, ["canonical"]), toy, source=str(path))
    assert result["modes"]["canonical"]["0"]["segm"]["AP"] is not None


def test_undefined_scores_are_none(toy):
    class Nothing:
        canonicalizer, device = SimpleNamespace(snaps=False), torch.device("cpu")

        def __call__(self, inputs):
            empty = Instances(
                (inputs[0]["height"], inputs[0]["width"]),
                pred_boxes=Boxes(torch.zeros(0, 4)),
                scores=torch.zeros(0),
                pred_classes=torch.zeros(0, dtype=torch.int64),
            )
            return [{"instances": empty}]

    result = sweep({"vanilla": lambda turns: Nothing()}, toy)
    undefined = dict.fromkeys(METRICS)
    assert all(
        scores[task] == undefined
        for scores in result["modes"]["vanilla"].values()
        for task in TASKS
    )
    assert result["pose"] is None
    assert "-" in format_table(result)


def test_the_average_is_that_of_four_angles_where_all_are_defined():
    def scores(value, small):
        return {task: {**dict.fromkeys(METRICS, value), "APs": small} for task in TASKS}

    by_angle = {"0": scores(10.0, 1.0), "90": scores(20.0, None), "180": scores(30.0, 1.0)}
    assert with_average(by_angle) == by_angle
    average = with_average({**by_angle, "270": scores(40.0, 1.0)})[AVERAGE]
    assert average["segm"]["AP"] == 25 and average["bbox"]["APs"] is None
    same = {angle: scores(0.1, 0.7) for angle in ("0", "90", "180", "270")}
    assert with_average(same)[AVERAGE] == same["0"]
    # Other angles do not count.
    assert with_average({**same, "45": scores(50.0, 50.0)})[AVERAGE] == same["0"]


def test_first_images(toy):
    shuffled = {**toy[2], "images": toy[2]["images"][::-1]}
    first = first_images(shuffled, 2)
    assert [image["id"] for image in first["images"]] == [11, 12]
    assert {entry["image_id"] for entry in first["annotations"]} == {11, 12}
    assert len(first_images(shuffled, None)["images"]) == 4
    with pytest.raises(InputError, match="--limit is 0"):
        first_images(shuffled, 0)
    late = [entry for entry in toy[2]["annotations"] if entry["image_id"] == 14]
    with pytest.raises(InputError, match="no annotations; raise the limit"):
        first_images({**toy[2], "annotations": late}, 2)


# Modes, and the way through detectron2's own model -----------------------------------------------


def mask_rcnn_config():
    """detectron2's Mask R-CNN, small, with random weights that predict something everywhere."""
    cfg = load_config(get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.META_ARCHITECTURE = "CanonicalizedSegmenter"
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def test_vanilla_at_angle_0_equals_detectron2s_own_evaluation(toy):
    annotations, images_dir, dataset = toy
    cfg = mask_rcnn_config()
    torch.manual_seed(0)
    models = build_models(cfg, ["vanilla", "oracle"])
    name = "toy of test_evaluation"
    register_coco(name, annotations, images_dir)
    try:
        plain = inference_on_dataset(
            models["vanilla"](0).segmenter,
            build_detection_test_loader(cfg, name),
            COCOEvaluator(name, distributed=False, use_fast_impl=False),
        )
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    result = run_sweep(
        models,
        dataset,
        images_dir,
        views=[View(90 * turns) for turns in C4.elements],
        image_format=cfg.INPUT.FORMAT,
        progress=False,
    )
    upright = result["modes"]["vanilla"]["0"]
    for task in TASKS:
        assert upright[task] == {
            metric: None if math.isnan(plain[task][metric]) else plain[task][metric]
            for metric in METRICS
        }
        assert upright[task]["AP"] > 0
    oracle = result["modes"]["oracle"]
    assert all(scores == oracle["0"] for scores in oracle.values())
    assert result["modes"]["vanilla"]["90"] != upright


def test_modes_share_the_segmenter(toy):
    models = build_models(mask_rcnn_config(), ["vanilla", "oracle", "vanilla"])
    assert list(models) == ["vanilla", "oracle"]
    built = [models["vanilla"](0), *(models["oracle"](turns) for turns in C4.elements)]
    assert len({id(model.segmenter) for model in built}) == 1
    assert isinstance(built[0].canonicalizer, IdentityCanonicalizer)
    assert [model.canonicalizer.turn.quarters for model in built[1:]] == [0, 1, 2, 3]
    assert all(type(model.canonicalizer) is FixedPoseCanonicalizer for model in built[1:])
    assert not any(model.training for model in built)


@pytest.mark.parametrize(
    ("change", "modes", "message"),
    [
        (
            {},
            ["upright"],
            "--modes: 'upright' is not a mode; known: vanilla, canonical, C4, C8, SO2, D4, O2,",
        ),
        ({}, ["canonical"], "MODEL.CANONICALIZER.WEIGHTS is empty"),
        ({"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"}, ["vanilla"], "MODEL.META_ARCHITECTURE is"),
        ({"MODEL.SEGMENTER.META_ARCHITECTURE": ""}, ["vanilla"], "nothing to evaluate"),
    ],
)
def test_configs_that_cannot_be_evaluated(change, modes, message):
    cfg = mask_rcnn_config()
    cfg.merge_from_list([item for pair in change.items() for item in pair])
    with pytest.raises(InputError, match=message):
        build_models(cfg, modes)


# The report --------------------------------------------------------------------------------------


@pytest.fixture
def result():
    def scores(value):
        return {
            "segm": {**dict.fromkeys(METRICS, value), "APs": None},
            "bbox": dict.fromkeys(METRICS, value + 1),
        }

    angles = ("0", "90", "180", "270")
    return {
        "num_images": 3,
        "modes": {
            "vanilla": with_average(dict(zip(angles, map(scores, (60.0, 40.0, 30.0, 41.25))))),
            "canonical": with_average(dict(zip(angles, map(scores, (59.0,) * 4)))),
        },
        "pose": {"accuracy": 11 / 12, "confusion": (np.eye(4, dtype=int) * 3).tolist()},
        "seconds": {"vanilla": {"total": 1.2, "per_image": 0.1}},
    }


def test_the_table_has_a_row_for_each_task_mode_and_angle(result):
    lines = format_table(result).splitlines()
    assert lines[0].split() == ["task", "mode", "angle", *METRICS]
    assert len(lines) == 2 + 2 * 2 * 5
    assert lines[2].split() == [
        "segm",
        "vanilla",
        "0",
        "60.00",
        "60.00",
        "60.00",
        "-",
        "60.00",
        "60.00",
    ]
    assert lines[6].split()[:4] == ["segm", "vanilla", AVERAGE, "42.81"]
    assert lines[-1].split()[:4] == ["bbox", "canonical", AVERAGE, "60.00"]
    assert all(len(line) <= 80 for line in lines)


def test_the_summary_tells_poses_and_time(result):
    result["pose"]["confusion"][1] = [1, 2, 0, 0]
    summary = format_summary(result)
    assert "11 of 12 (91.7 %)" in summary and "vanilla: 100 ms for each image" in summary


def test_the_report_is_written_whole(result, tmp_path):
    config = {"config_file": "configs/x.yaml"}
    json_path, png_path = write_report(result, tmp_path / "new", config, "a set")
    written = json.loads(json_path.read_text())
    assert written == {"config": config, "dataset": "a set", **result}
    with Image.open(png_path) as image:
        assert image.format == "PNG" and min(image.size) > 400
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["sweep.json", "sweep.png"]
