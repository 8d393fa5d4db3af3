import contextlib
import io
import json
import sys

import numpy as np
import pytest
import torch
from optional import need
from pycocotools.coco import COCO

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg import to_coco_json, to_supervision
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances


def found(count=3, keypoints=False):
    """Instances in an image of 20 x 30 px."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 20, (count, 2, 2)), axis=1).reshape(count, 4)
    instances = Instances((20, 30))
    instances.pred_boxes = Boxes(torch.from_numpy(corners).float())
    instances.scores = torch.from_numpy(rng.random(count)).float()
    instances.pred_classes = torch.arange(count) % 2
    instances.pred_masks = torch.from_numpy(rng.random((count, 20, 30)) < 0.5)
    if keypoints:
        instances.pred_keypoints = torch.from_numpy(rng.random((count, 4, 3)) * 20).float()
    return instances


@pytest.mark.parametrize("keypoints", [False, True])
def test_entries_are_those_of_detectron2(keypoints):
    ours = to_coco_json(found(keypoints=keypoints), 7)
    theirs = instances_to_coco_json(found(keypoints=keypoints), 7)
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        assert one["segmentation"]["counts"] == other["segmentation"]["counts"]
        assert one["segmentation"]["size"] == list(other["segmentation"]["size"])
        for key in one.keys() - {"segmentation"}:
            assert one[key] == pytest.approx(other[key], abs=1e-5), key


def test_pycocotools_reads_them_with_the_ids_of_the_data_set(tmp_path):
    entries = to_coco_json(found(), 7, category_ids=[18, 90])
    assert [entry["category_id"] for entry in entries] == [18, 90, 18]
    assert to_coco_json(found(), 7, category_ids={0: 18, 1: 90}) == entries
    file = tmp_path / "results.json"
    file.write_text(json.dumps(entries))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 7, "height": 20, "width": 30}],
        "categories": [{"id": 18}, {"id": 90}],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(str(file))
    for annotation, mask in zip(loaded.anns.values(), found().pred_masks):
        assert np.array_equal(loaded.annToMask(annotation), mask.numpy())


def test_boxes_alone_and_nothing_at_all_are_converted():
    boxes = found()
    boxes.remove("pred_masks")
    assert set(to_coco_json(boxes, "a")[0]) == {"image_id", "category_id", "bbox", "score"}
    assert to_coco_json(found(0, keypoints=True), 7) == []


def test_what_is_converted_stays_as_it_is():
    instances = found(keypoints=True)
    instances.pred_boxes.tensor = instances.pred_boxes.tensor.double()
    instances.pred_keypoints = instances.pred_keypoints.double()
    boxes, keypoints = instances.pred_boxes.tensor.clone(), instances.pred_keypoints.clone()
    first = to_coco_json(instances, 7)
    assert torch.equal(instances.pred_boxes.tensor, boxes)
    assert torch.equal(instances.pred_keypoints, keypoints)
    assert to_coco_json(instances, 7) == first


def test_a_class_without_id_is_refused():
    with pytest.raises(InputError, match="class 1"):
        to_coco_json(found(), 7, category_ids=[18])


def test_detections_of_supervision_hold_the_same():
    supervision = need("supervision")
    instances = found()
    ours = to_supervision(instances)
    assert ours == supervision.Detections.from_detectron2({"instances": instances})
    assert ours[ours.class_id == 1].mask.shape == (1, 20, 30)
    instances.remove("pred_masks")
    assert to_supervision(instances).mask is None
    assert len(to_supervision(found(0))) == 0


def test_detections_of_supervision_name_classes_and_pose():
    need("supervision")
    ours = to_supervision(found(), ["cat", "dog"], Pose(3, (0.1, 0.1, 0.1, 0.7)))
    assert ours.data["class_name"].tolist() == ["cat", "dog", "cat"]
    assert ours.data["pose"].tolist() == [270.0] * 3
    assert ours.data["pose_probability"].tolist() == [0.7] * 3
    assert ours[ours.data["class_name"] == "dog"].class_id.tolist() == [1]
    assert to_supervision(found(), {0: "a", 1: "b"}).data["class_name"].tolist() == ["a", "b", "a"]
    assert len(to_supervision(found(0), ["cat"], Pose(0, (1, 0, 0, 0)))) == 0
    with pytest.raises(InputError, match="class 1"):
        to_supervision(found(), ["cat"])


def test_a_missing_supervision_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match="pip install supervision"):
        to_supervision(found())


def test_numbers_of_numpy_become_json():
    instances = Instances(
        (4, 5),
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 2, 2]])),
        scores=torch.tensor([0.5]),
        pred_classes=torch.tensor([1]),
    )
    for ids in (np.array([3, 8]), {1: np.int64(8)}, [torch.tensor(3), torch.tensor(8)]):
        entries = to_coco_json(instances, np.int64(7), ids)
        assert json.loads(json.dumps(entries))[0]["category_id"] == 8
        assert (type(entries[0]["image_id"]), entries[0]["image_id"]) == (int, 7)
    assert to_coco_json(instances, "a", None)[0]["image_id"] == "a"
