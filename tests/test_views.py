"""Views of a data set: what angles may be asked for, and what a model is then shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from toy_coco import write_toy_coco

from canon_seg.coco.dataset import load_coco
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import D4, SO2
from canon_seg.core.turn import Turn
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.errors import InputError
from canon_seg.evaluation.views import MAX_ANGLES, View, parse_angles, split_label
from canon_seg.geometry import turn_coco, turn_image
from canon_seg.images.reading import read_image
from canon_seg.images.tilt import rotate_boxes

SCORED_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    annotations, images = write_toy_coco(tmp_path_factory.mktemp("toy"))
    dataset = load_coco(annotations, images)
    dataset["annotations"] = [
        {key: entry[key] for key in SCORED_KEYS} for entry in dataset["annotations"]
    ]
    return dataset, images


def of_image(dataset, image):
    return [entry for entry in dataset["annotations"] if entry["image_id"] == image["id"]]


# Angles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0", "90", "180", "270"], [0, 90, 180, 270]),
        (["0:360:15"], [15 * i for i in range(24)]),
        (["-90", "450", "375", "90", "22.5"], [270, 90, 15, 22.5]),
        (["0:1:0.1"], [i / 10 for i in range(10)]),
        (["-30:31:30", "0"], [330, 0, 30]),
        (["90:0:-45"], [90, 45]),
        (["90.0000001"], [90.0000001]),
        (["-1e-30", "359.99999999999999999999"], [0]),
    ],
)
def test_angles(words, expected):
    assert parse_angles(words) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("0:360:0", "step is 0"),
        ("360:0:15", "empty"),
        ("5:5:1", "empty"),
        ("0:360", "START:STOP:STEP"),
        ("0:90:15:2", "START:STOP:STEP"),
        ("0:360:0.1", f"more than {MAX_ANGLES}"),
        ("0:10:1e-999999", f"more than {MAX_ANGLES}"),
        ("nan", "not finite"),
        ("inf", "'inf'"),
        ("1e9999", "'1e9999'"),
        ("ninety", "'ninety' is not a number"),
        ("", "''"),
    ],
)
def test_what_is_no_angle(word, message):
    with pytest.raises(InputError, match=f"--angles: .*{message}"):
        parse_angles(["0", word])


def test_none_and_too_many_angles():
    with pytest.raises(InputError, match="--angles: none"):
        parse_angles([])
    with pytest.raises(InputError, match=f"--angles: 1440 angles; {MAX_ANGLES}"):
        parse_angles(["0:360:0.5", "0.25:360:0.5"])


@pytest.mark.parametrize(
    ("angle", "label", "pose", "remainder"),
    [
        (0, "0", 0, 0),
        (450, "90", 1, 0),
        (15, "15", 0, 15),
        (22.5, "22.5", 0, 22.5),
        (45, "45", 0, 45),
        (315, "315", 3, 45),
        (-30, "330", 0, -30),
        (285.0, "285", 3, 15),
    ],
)
def test_the_pose_is_the_nearest_quarter_turn(angle, label, pose, remainder):
    view = View(angle)
    assert (view.label, view.pose, view.remainder) == (label, pose, remainder)
    assert view == View(float(label))


def test_close_angles_have_labels_of_their_own():
    assert View(90.0000001).label == "90.0000001"


def test_unknown_canvas():
    with pytest.raises(InputError, match="--canvas: 'grow'.*expand, crop"):
        View(15, "grow")


# What a model is shown ---------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", ["expand", "crop"])
@pytest.mark.parametrize("angle", [-90, 0, 45, 100, 263.5])
def test_images_and_ground_truth_have_the_same_frame(toy, angle, canvas):
    dataset, images = toy
    view = View(angle, canvas)
    rotated, _ = view.dataset(dataset)
    for image, upright in zip(rotated["images"], dataset["images"]):
        pixels = view.image(read_image(images / upright["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        assert view.size(upright["height"], upright["width"]) == pixels.shape[:2]
        for entry in of_image(rotated, image):
            assert entry["segmentation"]["size"] == [image["height"], image["width"]]


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_exact(toy, turns):
    dataset, images = toy
    view = View(90 * turns)
    assert view.dataset(dataset) == (turn_coco(dataset, turns), 0)
    image = dataset["images"][0]
    pixels = read_image(images / image["file_name"])
    np.testing.assert_array_equal(view.image(pixels), turn_image(pixels, turns))
    boxes = load_box_prompts("boxes", dataset)[image["id"]]
    size = image["height"], image["width"]
    for snapped in (False, True):
        ours = view.prompts(boxes, *size, snapped, of_image(dataset, image))
        theirs = boxes.turned(turns, *size, snapped)
        assert torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.classes, theirs.classes)


@pytest.mark.parametrize("turn", D4.elements[4:])
def test_mirrored_quarter_turns_are_exact(toy, turn):
    dataset, images = toy
    view = View(turn.degrees, mirrored=True)
    assert (view.turn, view.label) == (turn, f"mirrored {turn.degrees:g}")
    assert split_label(view.label) == (turn.degrees, True)
    assert view.dataset(dataset) == (turn_coco(dataset, turn), 0)
    image = dataset["images"][0]
    pixels = read_image(images / image["file_name"])
    np.testing.assert_array_equal(view.image(pixels), turn_image(pixels, turn))
    boxes = load_box_prompts("boxes", dataset)[image["id"]]
    size = image["height"], image["width"]
    ours = view.prompts(boxes, *size, True, of_image(dataset, image))
    assert torch.equal(ours.boxes, boxes.turned(turn, *size, True).boxes)


def test_mirrored_and_tilted_views_are_tilted_views_of_the_mirror_image(toy):
    dataset, images = toy
    mirror, view, plain = Turn(mirrored=True), View(30, mirrored=True), View(30)
    mirrored = turn_coco(dataset, mirror)
    assert view.dataset(dataset) == plain.dataset(mirrored)
    image = dataset["images"][0]
    pixels, size = read_image(images / image["file_name"]), (image["height"], image["width"])
    np.testing.assert_array_equal(view.image(pixels), plain.image(turn_image(pixels, mirror)))
    ours = view.prompts(
        load_box_prompts("boxes", dataset)[image["id"]], *size, False, of_image(dataset, image)
    )
    theirs = plain.prompts(
        load_box_prompts("boxes", mirrored)[image["id"]], *size, False, of_image(mirrored, image)
    )
    assert torch.equal(ours.boxes, theirs.boxes)


@pytest.mark.parametrize("canvas", ["expand", "crop"])
@pytest.mark.parametrize("angle", [30, 120, 315])
def test_prompts_from_the_ground_truth_are_the_boxes_of_the_rotated_masks(toy, angle, canvas):
    dataset, _ = toy
    view = View(angle, canvas)
    rotated, _ = view.dataset(dataset)
    upright_boxes = load_box_prompts("boxes", dataset)
    rotated_boxes = load_box_prompts("boxes", rotated)
    for image in dataset["images"]:
        size = image["height"], image["width"]
        prompts = view.prompts(upright_boxes[image["id"]], *size, True, of_image(dataset, image))
        expected = rotated_boxes[image["id"]].turned(0, *view.size(*size), True)
        assert len(prompts) > 0 and torch.equal(prompts.boxes, expected.boxes)
        assert torch.equal(prompts.classes, expected.classes)
    [tight] = coco_mask.toBbox([rotated["annotations"][0]["segmentation"]])
    assert rotated["annotations"][0]["bbox"] == tight.tolist()


def test_prompts_of_a_detector_are_rotated_boxes_cut_to_the_canvas(toy):
    dataset, _ = toy
    boxes = load_box_prompts("boxes", dataset)[11]
    boxes = type(boxes)(
        boxes=np.array([[30.0, 20, 20, 15], [0, 0, 3, 2], [2.0, 25, 30, 5]]),
        classes=np.array([1, 0, 2]),
        scores=np.float32([0.9, 0.5, 0.25]),
    )
    prompts = View(30, "crop").prompts(boxes, 60, 83, True)
    edges = boxes.boxes.copy()
    edges[:, 2:] += edges[:, :2]
    expected = np.clip(rotate_boxes(edges, 30, 60, 83, "crop"), 0, [83, 60, 83, 60])[[0, 2]]
    np.testing.assert_allclose(prompts.boxes, expected, atol=1 / 256)
    assert prompts.classes.tolist() == [1, 2]
    assert torch.equal(prompts.scores, torch.tensor([0.9, 0.25]))
    assert torch.equal(prompts.boxes * 256, (prompts.boxes * 256).round())
    assert len(View(30).prompts(boxes, 60, 83, True)) == 3


def test_instances_cut_away_have_no_prompts(toy):
    dataset, _ = toy
    corner = {
        "id": 99,
        "image_id": 11,
        "category_id": 3,
        "iscrowd": 0,
        "area": 6.0,
        "bbox": [0.0, 0.0, 3.0, 2.0],
        "segmentation": [[0.0, 0, 3, 0, 3, 2, 0, 2]],
    }
    kept = [entry for entry in dataset["annotations"] if entry["image_id"] == 11]
    few = {**dataset, "annotations": [corner, *kept]}
    view = View(45, "crop")
    assert view.dataset(few)[1] == 1
    boxes = load_box_prompts("boxes", few)[11]
    prompts = view.prompts(boxes, 60, 83, True, few["annotations"])
    assert prompts.classes.tolist() == boxes.classes[1:].tolist()
    alone = load_box_prompts("boxes", {**few, "annotations": [corner]})[11]
    assert len(view.prompts(alone, 60, 83, True, [corner])) == 0


# Tight boxes -------------------------------------------------------------------------------------


def test_tight_boxes_are_the_objects_own_where_they_lie_upright_again(toy):
    """By the true angle the corners come back to the upright boxes; drawn boxes are larger."""
    dataset, _ = toy
    prompts = load_box_prompts("boxes", dataset)
    looser = 0
    for image in dataset["images"]:
        size = image["height"], image["width"]
        view = View(33, "expand", tight_boxes=True)
        own = view.prompts(prompts[image["id"]], *size, True, of_image(dataset, image))
        if not len(own):
            continue
        canvas = torch.zeros(3, *view.size(*size), dtype=torch.uint8)
        canvas[:, 0, 0] = 255  # nothing is trimmed, and the corners do not agree
        frame = CanonicalFrame(FixedPoseCanonicalizer(view.turn, SO2), canvas, own)
        x, y = frame._way.tilting.target_centre
        shift = torch.tensor([x - size[1] / 2, y - size[0] / 2] * 2)
        wanted = torch.from_numpy(prompts[image["id"]].boxes).float()
        wanted = torch.cat([wanted[:, :2], wanted[:, :2] + wanted[:, 2:]], dim=1) + shift
        assert (
            torch.allclose(frame.prompts.boxes, wanted, atol=0.02) and frame.prompts.drawn is None
        )
        drawn = CanonicalFrame(
            FixedPoseCanonicalizer(view.turn, SO2), canvas, replace(own, corners=None)
        ).prompts
        assert drawn.drawn is not None
        area = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (drawn.boxes, frame.prompts.boxes)]
        looser += int((area[0] > 1.1 * area[1]).sum())
    assert looser > 1
