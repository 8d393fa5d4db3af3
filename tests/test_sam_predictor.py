import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from tiny_models import (
    any_angle_canonicalizer,
    canonicalized,
    random_canonicalizer,
    random_image,
    tiny_segmenter,
)

from canon_seg import (
    CanonicalSamAutomaticMaskGenerator,
    CanonicalSamPredictor,
    load_default_canonicalizer,
    load_default_sam,
)
from canon_seg.core import frame
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, IdentityCanonicalizer
from canon_seg.d2.config import load_config
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.coordinates import turn_boxes, turn_pixels
from canon_seg.predictors import defaults
from canon_seg.sam.prompts import Prompts

ROOT = Path(__file__).resolve().parents[1]
SIZES = [(48, 48), (47, 47), (40, 61), (61, 40), (33, 80)]
LABELS = np.array([1, 0, 1])


@pytest.fixture(scope="module")
def segmenter():
    return tiny_segmenter("sam")


@pytest.fixture(scope="module")
def sam(segmenter):
    return segmenter.sam


def picture(height, width, seed=0):
    """(height, width, 3) uint8 array."""
    return np.ascontiguousarray(random_image(height, width, seed).permute(1, 2, 0).numpy())


def clicks(height, width):
    """Three clicks off every grid, in float32, where turning them rounds."""
    clicks = np.array([[0.3, 0.7], [0.25, 0.2], [0.8, 0.5]]) * (width - 1, height - 1)
    return clicks.astype(np.float32)


def box(height, width):
    return np.float32([0.11, 0.23, 0.78, 0.91]) * np.float32([width, height, width, height])


def prompts_of(kind, height, width):
    """Arguments of `predict`."""
    prompts = {}
    if kind in ("points", "all"):
        prompts.update(point_coords=clicks(height, width), point_labels=LABELS)
    if kind in ("box", "all"):
        prompts.update(box=box(height, width))
    if kind in ("mask", "all"):
        rng = np.random.default_rng(5)
        prompts.update(mask_input=rng.normal(size=(1, 64, 64)).astype(np.float32))
    return prompts


def turned(prompts, turns, height, width):
    """The same arguments for the turned image."""
    how = {
        "point_coords": lambda value: turn_pixels(value, turns, height, width),
        "box": lambda value: turn_boxes(value, turns, height, width),
        "mask_input": lambda value: turn_maps(value, turns),
    }
    return {name: how.get(name, lambda value: value)(value) for name, value in prompts.items()}


def assert_same(ours, theirs):
    """Equal to the last bit, types and shapes included."""
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs):
        assert type(one) is type(other)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.array_equal(np.asarray(one), np.asarray(other))


def assert_turned(ours, upright, turns):
    masks, scores, logits = upright
    assert_same(ours, (turn_maps(masks, turns), scores, turn_maps(logits, turns)))


# ---- any angle


@pytest.mark.parametrize("kind", ["points", "box", "mask", "all"])
def test_between_quarter_turns_four_turns_of_a_photograph_agree(sam, kind):
    predictor = CanonicalSamPredictor(sam, any_angle_canonicalizer())
    image, prompts = picture(40, 61), prompts_of(kind, 40, 61)
    results = []
    for turns in C4.elements:
        predictor.set_image(np.ascontiguousarray(turn_image(image, turns)))
        assert not predictor.pose.turn.exact
        assert predictor.original_size == ((61, 40) if turns % 2 else (40, 61))
        result = predictor.predict(**turned(prompts, turns, 40, 61))
        assert_turned(result, results[0] if results else result, turns)
        assert result[0].shape[1:] == predictor.original_size and result[0].dtype == bool
        # Logits serve again, and masks are their cut.
        logits = predictor.predict(**turned(prompts, turns, 40, 61), return_logits=True)[0]
        assert np.array_equal(logits > sam.mask_threshold, result[0])
        predictor.predict(mask_input=result[2][:1])
        results.append(result)


def test_the_image_is_tilted_once_for_all_prompts(sam, monkeypatch):
    predictor = CanonicalSamPredictor(sam, any_angle_canonicalizer())
    predictor.set_image(picture(40, 61))
    calls = []
    tilt = frame.tilt
    monkeypatch.setattr(frame, "tilt", lambda *args: (calls.append(args[2]), tilt(*args))[1])
    predictor.predict(**prompts_of("all", 40, 61))
    assert calls and "image" not in calls


def test_pixels_that_were_resized_before_have_no_tilt(sam):
    predictor = CanonicalSamPredictor(sam, any_angle_canonicalizer())
    resized = predictor.transform.apply_image(picture(40, 61))
    with pytest.raises(InputError, match="call set_image"):
        predictor.set_torch_image(torch.from_numpy(resized).permute(2, 0, 1)[None], (40, 61))
    assert not predictor.is_image_set


# ---- the identity


@pytest.mark.parametrize("kind", ["points", "box", "mask", "all", "none"])
def test_with_the_identity_every_output_is_the_official_one(sam, kind):
    official, ours = SamPredictor(sam), CanonicalSamPredictor(sam, IdentityCanonicalizer())
    image = picture(40, 61)
    for image_format in ("RGB", "BGR"):
        official.set_image(image, image_format)
        ours.set_image(image, image_format)
        assert torch.equal(ours.get_image_embedding(), official.get_image_embedding())
        for options in ({}, {"multimask_output": False}, {"return_logits": True}):
            prompts = prompts_of(kind, 40, 61)
            result = ours.predict(**prompts, **options)
            assert_same(result, official.predict(**prompts, **options))
            again = dict(prompts, mask_input=result[2][:1])
            assert_same(ours.predict(**again), official.predict(**again))
    # Everything that SamPredictor has is there, with the same value.
    for name, value in vars(official).items():
        if name not in ("features", "transform"):
            assert getattr(ours, name) == value, name
    assert ours.device == official.device and isinstance(ours, SamPredictor)


def torch_prompts(predictor, kind, height, width, count=2):
    """Arguments of `predict_torch`: ``count`` times one prompt, the later ones shifted."""
    prompts = dict.fromkeys(("point_coords", "point_labels", "boxes", "mask_input"))
    shift = np.arange(count)
    if kind in ("points", "all"):
        points = torch.from_numpy(clicks(height, width) + shift[:, None, None])
        prompts["point_coords"] = predictor.transform.apply_coords_torch(points, (height, width))
        prompts["point_labels"] = torch.from_numpy(LABELS).expand(count, 3)
    if kind in ("boxes", "all"):
        boxes = torch.from_numpy(box(height, width) + shift[:, None])
        prompts["boxes"] = predictor.transform.apply_boxes_torch(boxes, (height, width))
    if kind in ("mask", "all"):
        prompts["mask_input"] = torch.randn(count, 1, 64, 64, generator=torch.manual_seed(1))
    return prompts


@pytest.mark.parametrize("kind", ["points", "boxes", "mask", "all"])
def test_with_the_identity_tensors_are_the_official_ones(sam, kind):
    official, ours = SamPredictor(sam), CanonicalSamPredictor(sam, IdentityCanonicalizer())
    size = (40, 61)
    resized = official.transform.apply_image(picture(*size))
    tensor = torch.from_numpy(resized).permute(2, 0, 1)[None]
    prompts = torch_prompts(official, kind, *size)
    for predictor in (official, ours):
        predictor.set_torch_image(tensor, size)
    assert ours.original_size == official.original_size and ours.input_size == official.input_size
    for options in ({}, {"multimask_output": False}, {"return_logits": True}):
        assert_same(
            ours.predict_torch(**prompts, **options), official.predict_torch(**prompts, **options)
        )


# ---- turned images


@pytest.mark.parametrize("size", SIZES)
def test_masks_turn_with_the_image(sam, size):
    ours = CanonicalSamPredictor(sam, random_canonicalizer())
    upright = {}
    for turns in C4.elements:
        image = turn_image(picture(*size), turns)
        ours.set_image(image)
        assert ours.original_size == image.shape[:2]
        assert ours.input_size == ours.transform.get_preprocess_shape(*image.shape[:2], 64)
        for kind in ("points", "box", "mask", "all"):
            prompts = turned(prompts_of(kind, *size), turns, *size)
            result = ours.predict(**prompts, return_logits=kind == "box")
            assert result[0].shape == (3, *image.shape[:2])
            # Low-resolution logits are exact as the next input.
            again = ours.predict(**dict(prompts, mask_input=result[2][1:2]))
            if turns == 0:
                upright[kind] = ours.pose, result, again
            pose, *results = upright[kind]
            assert ours.pose.turns == C4.compose(pose.turns, turns)
            assert_turned(result, results[0], turns)
            assert_turned(again, results[1], turns)
    assert len(np.unique(upright["box"][1][0])) > 100  # logits that tell something


def test_tensors_turn_with_the_image(sam):
    ours, size, count = CanonicalSamPredictor(sam, random_canonicalizer()), (40, 61), 2
    points = torch.tensor([[[20.25, 7.5]], [[60.0, 39.0]]])
    boxes = torch.tensor([[3.0, 5.5, 44.125, 30.0], [0, 0, 61, 40]])
    masks = torch.randn(count, 1, 64, 64, generator=torch.manual_seed(1))
    results = []
    for turns in C4.elements:
        image = turn_image(picture(*size), turns)
        ours.set_image(image)
        results.append(
            ours.predict_torch(
                ours.transform.apply_coords_torch(
                    turn_pixels(points, turns, *size), image.shape[:2]
                ),
                torch.ones(count, 1),
                ours.transform.apply_boxes_torch(turn_boxes(boxes, turns, *size), image.shape[:2]),
                turn_maps(masks, turns),
            )
        )
        assert_turned(results[-1], results[0], turns)


def test_both_ways_in_agree_with_each_other_and_with_the_meta_architecture(segmenter):
    canonicalizer, size = random_canonicalizer(), (40, 61)
    model = canonicalized(segmenter, canonicalizer)
    ours = CanonicalSamPredictor(segmenter.sam, canonicalizer)
    edges = torch.tensor([[3.0, 5.5, 44.125, 30.0]])
    click, label = torch.tensor([[[20.25, 7.5]]]), torch.ones(1, 1, dtype=torch.int64)
    for turns in C4.elements:
        image = np.ascontiguousarray(turn_image(picture(*size), turns))
        prompts = Prompts(boxes=edges, points=click, point_labels=label).turned(turns, *size)
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        (result,) = model([{"image": tensor, "prompts": prompts}])
        ours.set_image(image)
        assert ours.pose == result["pose"]
        masks, scores, _ = ours.predict(prompts.points[0].numpy(), [1], prompts.boxes[0].numpy())
        assert np.array_equal(masks[scores.argmax()], result["instances"].pred_masks[0].numpy())
        assert scores.max() == result["instances"].scores[0]
        frame = image.shape[:2]
        masks_torch, scores_torch, _ = ours.predict_torch(
            ours.transform.apply_coords_torch(prompts.points, frame),
            label,
            ours.transform.apply_boxes_torch(prompts.boxes, frame),
        )
        assert torch.allclose(scores_torch[0], torch.from_numpy(scores), atol=1e-5)
        assert (masks_torch[0].numpy() == masks).mean() > 0.999


def test_resized_images_turn_to_a_tolerance(sam):
    ours, size = CanonicalSamPredictor(sam, FixedPoseCanonicalizer(0)), (40, 61)
    results = []
    for turns in C4.elements:
        ours.canonicalizer = FixedPoseCanonicalizer(turns)
        image = turn_image(picture(*size), turns)
        resized = ours.transform.apply_image(np.ascontiguousarray(image))
        ours.set_torch_image(torch.from_numpy(resized).permute(2, 0, 1)[None], image.shape[:2])
        assert ours.original_size == image.shape[:2] and ours.input_size == resized.shape[:2]
        prompts = turned(prompts_of("all", *size), turns, *size)
        masks, *_ = ours.predict(**prompts, return_logits=True)
        results.append(turn_maps(masks, -turns % 4))
    spread = np.ptp(results, axis=0).max() / np.ptp(results[0])
    assert spread < 0.05


@pytest.mark.parametrize("order", [2, 4])
def test_the_prompts_break_the_ties_of_symmetric_images(segmenter, order):
    quarter = picture(24, 24)
    image = np.maximum.reduce([turn_image(quarter, turns) for turns in range(0, 4, 4 // order)])
    canonicalizer = random_canonicalizer()
    ours = CanonicalSamPredictor(segmenter.sam, canonicalizer)
    model = canonicalized(segmenter, canonicalizer)
    for kind in ("points", "box", "mask"):
        prompts, upright = prompts_of(kind, 24, 24), None
        for turns in C4.elements:
            ours.set_image(turn_image(image, turns))
            result = ours.predict(**turned(prompts, turns, 24, 24))
            upright = result if upright is None else upright
            assert_turned(result, upright, turns)
    edges = torch.from_numpy(box(24, 24)).float()[None]
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    (result,) = model([{"image": tensor, "prompts": Prompts(boxes=edges)}])
    ours.set_image(image)
    masks, scores, _ = ours.predict(box=edges[0].numpy())
    assert np.array_equal(masks[scores.argmax()], result["instances"].pred_masks[0].numpy())


def test_threads_share_the_models(sam):
    canonicalizer = random_canonicalizer()

    def predict(seed):
        predictor = CanonicalSamPredictor(sam, canonicalizer)
        results = []
        for turns in C4.elements:
            predictor.set_image(turn_image(picture(40, 61, seed), turns))
            results.append(predictor.predict(**turned(prompts_of("all", 40, 61), turns, 40, 61)))
        return results

    sequential = [predict(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(sequential, pool.map(predict, range(4))):
            for ours, theirs in zip(one, other):
                assert_same(ours, theirs)
    assert not np.array_equal(sequential[0][0][2], sequential[1][0][2])


# ---- bad input


def bad_prompts():
    point, label = np.array([[5.0, 5.0]]), np.array([1])
    mask = np.zeros((1, 64, 64), np.float32)
    return {
        "no labels": dict(point_coords=point),
        "points of three": dict(point_coords=np.zeros((1, 3)), point_labels=label),
        "points without axis": dict(point_coords=point[0], point_labels=label),
        "points as list": dict(point_coords=[[5.0, 5.0]], point_labels=label),
        "other number of labels": dict(point_coords=point, point_labels=np.array([1, 1])),
        "no points": dict(point_coords=np.zeros((0, 2)), point_labels=np.zeros(0)),
        "point outside": dict(point_coords=np.array([[61.0, 5.0]]), point_labels=label),
        "point before": dict(point_coords=np.array([[5.0, -1.0]]), point_labels=label),
        "point nowhere": dict(point_coords=np.array([[np.nan, 5.0]]), point_labels=label),
        "label 2": dict(point_coords=point, point_labels=np.array([2])),
        "label 0.5": dict(point_coords=point, point_labels=np.array([0.5])),
        "box of three": dict(box=np.zeros(3)),
        "box as list": dict(box=[1, 2, 3, 4]),
        "two boxes": dict(box=np.array([[1, 2, 3, 4], [1, 2, 3, 4]])),
        "no box": dict(box=np.zeros((0, 4))),
        "box without area": dict(box=np.array([5, 5, 5, 9])),
        "swapped corners": dict(box=np.array([9, 5, 5, 9])),
        "box outside": dict(box=np.array([70, 5, 90, 9])),
        "box without end": dict(box=np.array([5, 5, np.inf, 9])),
        "mask of another size": dict(mask_input=np.zeros((1, 16, 16), np.float32)),
        "mask that would be spread": dict(mask_input=np.zeros((1, 4, 4), np.float32)),
        "mask without axis": dict(mask_input=mask[0]),
        "two masks": dict(mask_input=np.concatenate([mask, mask])),
    }


def error_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("canonicalizer", [IdentityCanonicalizer(), FixedPoseCanonicalizer(1)])
@pytest.mark.parametrize("name", bad_prompts())
def test_bad_prompts_have_the_official_error_or_a_clear_one(sam, canonicalizer, name):
    official, ours = SamPredictor(sam), CanonicalSamPredictor(sam, canonicalizer)
    prompts, image = bad_prompts()[name], picture(40, 61)
    before = error_of(official.predict, **prompts)
    assert type(error_of(ours.predict, **prompts)) is type(before) is RuntimeError
    for predictor in (official, ours):
        predictor.set_image(image)
    expected, error = error_of(official.predict, **prompts), error_of(ours.predict, **prompts)
    if expected is None:
        assert isinstance(error, InputError) and str(error)
    else:
        assert type(error) is type(expected) and str(error) == str(expected)
    assert ours.predict(box=np.array([[5, 5, 9, 9]]))[0].shape == (3, 40, 61)  # still of use


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.full((1, 1, 2), 70.0), torch.ones(1, 1), None, None),
        (torch.full((1, 1, 2), 5.0), torch.full((1, 1), 3), None, None),
        (torch.full((1, 2), 5.0), torch.ones(1), None, None),
        (None, None, torch.tensor([[5.0, 5.0, 5.0, 9.0]]), None),
        (None, None, torch.zeros(0, 4), None),
        (None, None, torch.zeros(2, 3), None),
        (None, None, None, torch.zeros(1, 1, 4, 4)),
        (torch.full((1, 1, 2), 5.0), None, None, None),
    ],
)
def test_bad_tensors_have_the_official_error_or_a_clear_one(sam, arguments):
    official, ours = SamPredictor(sam), CanonicalSamPredictor(sam, FixedPoseCanonicalizer(1))
    assert type(error_of(ours.predict_torch, *arguments)) is RuntimeError
    for predictor in (official, ours):
        predictor.set_image(picture(40, 61))
    expected, error = (error_of(p.predict_torch, *arguments) for p in (official, ours))
    assert type(error) is (InputError if expected is None else type(expected))


def test_padding_clicks_count_for_nothing_wherever_they_are(sam):
    ours = CanonicalSamPredictor(sam, FixedPoseCanonicalizer(1))
    ours.set_image(picture(40, 61))
    results = [
        ours.predict(np.array([[20.0, 7.0], [x, 0.0]]), np.array([1, -1])) for x in (0.0, -500.0)
    ]
    assert_same(*results)


def test_bad_images_are_refused_and_the_one_before_is_forgotten_by_nobody(sam):
    ours = CanonicalSamPredictor(sam, FixedPoseCanonicalizer(1))
    generator = CanonicalSamAutomaticMaskGenerator(sam, FixedPoseCanonicalizer(1))
    ours.set_image(picture(20, 30))
    for image, message in [
        (np.zeros((40, 61), np.uint8), "np.stack"),
        (np.zeros((0, 61, 3), np.uint8), "shape"),
        ("photo.jpg", "photo.jpg: no such image file"),
    ]:
        for take in (ours.set_image, generator.generate):
            with pytest.raises(InputError, match=message):
                take(image)
    assert ours.predict(box=np.array([3, 4, 9, 9]))[0].shape == (3, 20, 30)


def test_other_misuse_has_the_official_error(sam):
    ours = CanonicalSamPredictor(sam, FixedPoseCanonicalizer(1))
    with pytest.raises(RuntimeError, match="set_image"):
        ours.get_image_embedding()
    with pytest.raises(AssertionError, match="GBR"):
        ours.set_image(picture(20, 30), "GBR")
    with pytest.raises(AssertionError, match="long side"):
        ours.set_torch_image(torch.zeros(1, 3, 20, 30), (20, 30))
    with pytest.raises(InputError, match="one image"):
        ours.set_torch_image(torch.zeros(2, 3, 64, 30), (64, 30))
    ours.set_image(picture(20, 30))
    ours.reset_image()
    assert ours.pose is None and ours.features is None
    with pytest.raises(RuntimeError, match="set_image"):
        ours.predict(box=np.array([1, 2, 3, 4]))
    for cls in (CanonicalSamPredictor, CanonicalSamAutomaticMaskGenerator):
        with pytest.raises(TypeError, match="canonicalizer is 32"):
            cls(sam, 32)


# ---- defaults


def test_the_embedded_models_give_turned_masks_for_turned_images():
    sam = load_default_sam()
    predictor, size = CanonicalSamPredictor(sam), (60, 91)
    generator = CanonicalSamAutomaticMaskGenerator(
        sam, points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0
    )
    results, areas = [], []
    for turns in C4.elements:
        image = turn_image(picture(*size), turns)
        predictor.set_image(image)
        results.append(predictor.predict(**turned(prompts_of("points", *size), turns, *size)))
        assert_turned(results[-1], results[0], turns)
        areas.append([record["area"] for record in generator.generate(image)])
    assert areas[0] and areas == [areas[0]] * 4


def test_the_embedded_models_are_those_of_the_configs():
    cfg = load_config(str(ROOT / "configs" / "sam_tiny_c4.yaml"))
    sam = build_segmenter(cfg).sam.state_dict()
    ours = load_default_sam().state_dict()
    assert ours.keys() == sam.keys() and all(torch.equal(ours[name], sam[name]) for name in sam)
    assert defaults.CANONICALIZER == cfg.MODEL.CANONICALIZER.WEIGHTS
    ours = load_default_canonicalizer("BGR")
    assert (
        ours.image_format == "BGR" and ours.scorer.passes == cfg.MODEL.CANONICALIZER.SCORER.PASSES
    )
    fast = load_default_canonicalizer(weights="canon_seg://canonicalizer_gcnn.pth")
    assert fast.scorer.network.spec.name == "GCNN"


def test_importing_is_light_and_detectron2_is_said_to_be_missing():
    code = """
import sys
import canon_seg
assert "torch" not in sys.modules and "CanonicalSamPredictor" in dir(canon_seg)
for name in ("detectron2", "escnn", "supervision", "transformers", "sam2"):
    sys.modules[name] = None
names = set(canon_seg.__all__) - {"CanonicalPredictor", "load_config"}
for name in names:
    getattr(canon_seg, name)
from canon_seg import CanonicalSamPredictor
try:
    canon_seg.CanonicalPredictor
except ModuleNotFoundError as error:
    assert "canon-seg-install-detectron2" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_from_outside_are_refused(sam):
    """`SamPredictor` would take them, but they do not say the pose of their image."""
    first, second = (picture(40, 61, seed) for seed in (0, 1))
    predictor = CanonicalSamPredictor(sam, random_canonicalizer())
    predictor.set_image(first)
    saved = predictor.features
    predictor.set_image(second)
    predictor.features = saved
    with pytest.raises(InputError, match="keep one predictor for each image"):
        predictor.predict(box=np.array([3.0, 4.0, 30.0, 35.0]))
    new = CanonicalSamPredictor(sam, random_canonicalizer())
    new.features, new.is_image_set = saved, True
    new.original_size, new.input_size = (40, 61), (42, 64)
    with pytest.raises(RuntimeError, match="set_image"):  # segment_anything's own
        new.predict(box=np.array([3.0, 4.0, 30.0, 35.0]))


def test_tensors_that_want_gradients_are_taken_as_they_are(sam):
    predictor = CanonicalSamPredictor(sam, random_canonicalizer())
    predictor.set_image(picture(40, 61))
    points = torch.tensor([[[10.0, 12.0]]], requires_grad=True)
    masks, scores, _ = predictor.predict_torch(points, torch.tensor([[1]]))
    assert not scores.requires_grad and masks.dtype == torch.bool


def test_boxes_end_where_the_image_ends(sam):
    """As in the demo and on the page; behind the identity a box stays as it was given."""
    image = picture(40, 61)
    beyond, inside = np.array([-5.0, -3.0, 70.0, 45.0]), np.array([0.0, 0.0, 61.0, 40.0])
    predictor = CanonicalSamPredictor(sam, random_canonicalizer())
    predictor.set_image(image)
    for ours, theirs in zip(
        predictor.predict(box=beyond), predictor.predict(box=inside), strict=True
    ):
        assert np.array_equal(ours, theirs)
    with pytest.raises(InputError, match="outside the image"):
        predictor.predict(box=np.array([62.0, 3.0, 70.0, 20.0]))
    plain, official = CanonicalSamPredictor(sam, IdentityCanonicalizer()), SamPredictor(sam)
    plain.set_image(image)
    official.set_image(image)
    for ours, theirs in zip(plain.predict(box=beyond), official.predict(box=beyond), strict=True):
        assert np.array_equal(ours, theirs)
