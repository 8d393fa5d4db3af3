import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from optional import need
from PIL import Image
from tiny_models import random_canonicalizer, random_image
from tiny_transformers import finder, video_finder

from canon_seg import CanonicalDetector, CanonicalVideoDetector
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, IdentityCanonicalizer
from canon_seg.core.group import SO2
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images.tilt import rotate_image, rotate_points

HEIGHT, WIDTH = 60, 90
BLOCKS = ((5, 8, 20, 30), (50, 10, 85, 40), (12, 35, 30, 55))  # x0, y0, x1, y1
TURNS = range(4)


@pytest.fixture
def sv():
    return need("supervision")


def picture():
    """Noise below 200, and a block of one bright colour for each of three objects."""
    image = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for index, (x0, y0, x1, y1) in enumerate(BLOCKS):
        image[y0:y1, x0:x1] = 0
        image[y0:y1, x0:x1, index] = 255
    return image


def masks_in(image):
    return np.stack([(image[..., i] == 255) & (image.sum(axis=2) == 255) for i in range(3)])


def detect_blocks(image):
    """A detector without any error: what it must say of any image is seen in the pixels."""
    import supervision as sv

    masks = masks_in(image)
    boxes = sv.mask_to_xyxy(masks).astype(np.float32)
    boxes[:, 2:] += 1  # supervision counts pixels, and edges are wanted
    corners = np.stack([boxes[:, [i, j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3))], axis=1)
    return sv.Detections(
        xyxy=boxes,
        mask=masks,
        confidence=np.array([0.9, 0.8, 0.7], np.float32),
        class_id=np.arange(3),
        data={
            "class_name": np.array(["red", "green", "blue"]),
            "xyxyxyxy": corners,
            "middle": (boxes[:, :2] + boxes[:, 2:]) / 2,
        },
        metadata={"camera": "left"},
    )


@pytest.mark.parametrize("degrees", [20, 110])
def test_between_quarter_turns_boxes_are_around_the_masks(sv, degrees):
    """What is seen in the canonical image lies where it lay: in the image given, turned."""
    plain = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for index, (x0, y0, x1, y1) in enumerate(BLOCKS[:2]):
        plain[y0:y1, x0:x1, index] = 255
    image = rotate_image(plain, degrees)
    canonicalizer = FixedPoseCanonicalizer(Turn.by(degrees), SO2)

    def detect_bright(canonical):
        masks = np.stack([canonical[..., index] > 127 for index in range(2)])
        masks &= canonical.astype(int).sum(axis=2) < 300  # not the grey around it
        boxes = sv.mask_to_xyxy(masks).astype(np.float32)
        boxes[:, 2:] += 1
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        return sv.Detections(xyxy=boxes, mask=masks, data={"middle": middle})

    detect = CanonicalDetector(detect_bright, canonicalizer, data_kinds={"middle": "points"})
    pose, found = detect.detect_with_pose(image)
    assert pose.turn == Turn.by(degrees) and found.mask.shape[1:] == image.shape[:2]
    for index, (x0, y0, x1, y1) in enumerate(BLOCKS[:2]):
        wanted = (image[..., index] > 127) & (image.astype(int).sum(axis=2) < 300)
        mask = found.mask[index]
        assert (mask & wanted).sum() / (mask | wanted).sum() > 0.9
        middle = rotate_points(np.array([(x0 + x1) / 2, (y0 + y1) / 2]), degrees, HEIGHT, WIDTH)
        assert np.allclose(found.data["middle"][index], middle, atol=1.5)
    tight = sv.mask_to_xyxy(found.mask)
    tight[:, 2:] += 1
    assert np.array_equal(found.xyxy, tight)


@pytest.mark.parametrize("turns", TURNS)
def test_what_is_found_is_what_is_seen_in_the_image_given(sv, turns):
    image = np.ascontiguousarray(np.rot90(picture(), turns))
    detect = CanonicalDetector(
        detect_blocks, random_canonicalizer(), data_kinds={"middle": "points"}
    )
    pose, found = detect.detect_with_pose(image)
    expected = detect_blocks(image)
    assert isinstance(found, sv.Detections)
    assert np.array_equal(found.xyxy, expected.xyxy) and found.xyxy.dtype == np.float32
    assert np.array_equal(found.mask, expected.mask) and found.mask.any(axis=(1, 2)).all()
    assert np.array_equal(found.data["middle"], expected.data["middle"])
    for one, other in zip(found.data["xyxyxyxy"], expected.data["xyxyxyxy"]):
        # The same corners; which is the first belongs to the object and turns with it.
        assert sorted(map(tuple, one)) == sorted(map(tuple, other))
        assert cv2.contourArea(one) == cv2.contourArea(other) > 0
    assert found.data["class_name"].tolist() == ["red", "green", "blue"]
    assert found.class_id.tolist() == [0, 1, 2] and found.metadata == {"camera": "left"}
    assert found.data["pose"].tolist() == [pose.turn.degrees] * 3
    assert found.data["pose_probability"].tolist() == [pose.probability] * 3
    assert np.array_equal(detect(Image.fromarray(image)).xyxy, found.xyxy)


# Results as the documentation of these libraries describes them, which are not installed here.


def ultralytics_results(image, kind="segment"):
    """An `ultralytics.engine.results.Results` of what is in a BGR image, on a letterboxed grid."""
    found = detect_blocks(image[..., ::-1])
    names = {0: "red", 1: "green", 2: "blue"}
    scores = {"conf": torch.from_numpy(found.confidence), "cls": torch.arange(3.0), "id": None}
    boxes = SimpleNamespace(xyxy=torch.from_numpy(found.xyxy), **scores)
    results = SimpleNamespace(names=names, orig_shape=image.shape[:2], boxes=boxes, masks=None)
    if kind == "segment":
        side = max(image.shape[:2])
        top, left = ((side - have) // 2 for have in image.shape[:2])
        data = torch.zeros(3, side, side)
        data[:, top : top + image.shape[0], left : left + image.shape[1]] = torch.from_numpy(
            found.mask
        ).float()
        results.masks = SimpleNamespace(data=data, __len__=lambda: 3)
    if kind == "obb":
        corners = torch.from_numpy(found.data["xyxyxyxy"])
        results.boxes = None
        results.obb = SimpleNamespace(xyxyxyxy=corners, xyxy=boxes.xyxy, **scores)
    if kind == "pose":
        xy = torch.from_numpy(found.data["middle"])[:, None]
        results.keypoints = SimpleNamespace(xy=xy, conf=torch.full((3, 1), 0.5))
    return results


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("kind", ["detect", "segment", "obb", "pose"])
def test_results_as_ultralytics_gives_them(sv, kind, turns):
    image = np.ascontiguousarray(np.rot90(picture(), turns)[..., ::-1])  # BGR, as cv2 reads
    speak = sv.KeyPoints if kind == "pose" else sv.Detections
    detect = CanonicalDetector(
        lambda given: speak.from_ultralytics(ultralytics_results(given, kind)),
        random_canonicalizer(),
        image_format="BGR",
    )
    found, expected = detect(image), speak.from_ultralytics(ultralytics_results(image, kind))
    assert found.data["class_name"].tolist() == ["red", "green", "blue"]
    if kind == "pose":
        assert np.array_equal(found.xy, expected.xy)
        assert np.array_equal(found.keypoint_confidence, expected.keypoint_confidence)
        assert np.array_equal(found.detection_confidence, expected.detection_confidence)
        return
    assert np.array_equal(found.xyxy, expected.xyxy)
    assert np.array_equal(found.confidence, expected.confidence)
    assert (found.mask is None) == (kind != "segment")
    if kind == "segment":
        assert np.array_equal(found.mask, expected.mask) and found.mask.any(axis=(1, 2)).all()
    if kind == "obb":
        for one, other in zip(found.data["xyxyxyxy"], expected.data["xyxyxyxy"], strict=True):
            assert sorted(map(tuple, one)) == sorted(map(tuple, other))


def test_nothing_found_by_ultralytics(sv):
    nothing = SimpleNamespace(
        xyxy=torch.zeros(0, 4), conf=torch.zeros(0), cls=torch.zeros(0), id=None
    )
    results = SimpleNamespace(names={}, boxes=nothing, masks=None, orig_shape=(HEIGHT, WIDTH))
    detect = CanonicalDetector(
        lambda image: sv.Detections.from_ultralytics(results), random_canonicalizer()
    )
    assert len(detect(picture())) == 0


@pytest.mark.parametrize("turns", TURNS)
def test_results_as_rf_detr_gives_them(sv, turns):
    def predict(image):
        """Like RFDETRSeg.predict of an RGB array: it says which image it has seen, and its size."""
        found = detect_blocks(image)
        shape = np.tile(np.array(image.shape[:2], np.int64), (3, 1))
        found.data = {"class_name": found.data["class_name"], "source_shape": shape}
        found.metadata = {"source_image": image}
        return found

    image = np.ascontiguousarray(np.rot90(picture(), turns))
    found, expected = CanonicalDetector(predict, random_canonicalizer())(image), predict(image)
    assert np.array_equal(found.xyxy, expected.xyxy) and np.array_equal(found.mask, expected.mask)
    assert np.array_equal(found.data["source_shape"], expected.data["source_shape"])
    assert found.data["source_shape"].dtype == np.int64
    assert np.array_equal(found.metadata["source_image"], image)


def test_the_image_that_is_detected_in_is_the_canonical_one(sv):
    seen = []
    for turns in TURNS:
        detect = CanonicalDetector(
            lambda image: seen.append(image) or detect_blocks(image), random_canonicalizer()
        )
        detect(np.rot90(picture(), turns))
    assert all(np.array_equal(image, seen[0]) for image in seen)


def test_keypoints_turn_back(sv):
    where = np.array([[[10.5, 20.25], [0.0, 60.0]]], np.float32)

    def predict(image):
        return sv.KeyPoints(
            xy=where,
            class_id=np.array([2]),
            keypoint_confidence=np.array([[0.5, 0.25]], np.float32),
            detection_confidence=np.array([0.75], np.float32),
            data={"class_name": np.array(["person"])},
        )

    # The canonical image is 60 wide and 90 high; the given one is it after one quarter turn.
    found = CanonicalDetector(predict, FixedPoseCanonicalizer(1))(picture())
    assert found.xy.tolist() == [[[20.25, 60 - 10.5], [60.0, 60.0]]]
    assert found.keypoint_confidence.tolist() == [[0.5, 0.25]]
    assert found.detection_confidence.tolist() == [0.75] and found.class_id.tolist() == [2]
    assert found.data["class_name"].tolist() == ["person"] and found.data["pose"].tolist() == [90]
    identity = CanonicalDetector(predict, IdentityCanonicalizer())(picture())
    assert np.array_equal(identity.xy, where)


def test_colours_are_in_the_order_that_was_asked_for(sv, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    seen = []

    def predict(image):
        seen.append(image)
        return sv.Detections.empty()

    detect = CanonicalDetector(predict, FixedPoseCanonicalizer(0), image_format="BGR")
    for image in (picture()[..., ::-1], Image.fromarray(picture()), tmp_path / "photo.png"):
        assert len(detect(image)) == 0
    assert all(np.array_equal(image, picture()[..., ::-1]) for image in seen)


def test_bad_use_has_clear_errors(sv, monkeypatch):
    with pytest.raises(TypeError, match="predict is 3"):
        CanonicalDetector(3)
    with pytest.raises(ValueError, match="'lines'; known: points"):
        CanonicalDetector(detect_blocks, data_kinds={"middle": "lines"})
    fixed = FixedPoseCanonicalizer(1)
    with pytest.raises(InputError, match="predict gave a dict"):
        CanonicalDetector(lambda image: {}, fixed)(picture())
    with pytest.raises(InputError, match="90 x 60 px for an image of 60 x 90 px"):
        CanonicalDetector(lambda image: detect_blocks(picture()), fixed)(picture())
    with pytest.raises(InputError, match="np.round"):
        CanonicalDetector(detect_blocks, fixed)(picture() / 255)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match="pip install supervision"):
        CanonicalDetector(lambda image: None, fixed)(picture())


def test_mask_rcnn_of_torchvision(sv):
    """The example of docs/api.md, with random weights."""
    from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

    torch.manual_seed(1)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96
    ).eval()
    assert isinstance(model, MaskRCNN)
    model.roi_heads.score_thresh, model.roi_heads.detections_per_img = 0.0, 6

    @torch.no_grad()
    def predict(image):
        (found,) = model([torch.from_numpy(image).permute(2, 0, 1) / 255])
        return sv.Detections(
            xyxy=found["boxes"].numpy(),
            mask=(found["masks"][:, 0] > 0.5).numpy(),
            confidence=found["scores"].numpy(),
            class_id=found["labels"].numpy(),
        )

    image = random_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy()
    detect = CanonicalDetector(predict, random_canonicalizer())
    upright = detect(image)
    assert len(upright) == 6 and upright.mask.any()
    for turns in TURNS:
        turned = detect(np.ascontiguousarray(np.rot90(image, turns)))
        assert np.array_equal(turned.mask, np.rot90(upright.mask, turns, (1, 2)))
        assert np.array_equal(turned.confidence, upright.confidence)
        assert np.array_equal(turned.class_id, upright.class_id)
        x0, y0, x1, y1 = upright.xyxy.T
        expected = {
            0: (x0, y0, x1, y1),
            1: (y0, WIDTH - x1, y1, WIDTH - x0),
            2: (WIDTH - x1, HEIGHT - y1, WIDTH - x0, HEIGHT - y0),
            3: (HEIGHT - y1, x0, HEIGHT - y0, x1),
        }[turns]
        assert np.array_equal(turned.xyxy, np.stack(expected, axis=1))
    plain = predict(np.ascontiguousarray(np.rot90(image)))
    assert not np.array_equal(plain.confidence, upright.confidence)


def clip(turns=0, length=3):
    """The picture, moved by three pixels from frame to frame."""
    return [np.rot90(np.roll(picture(), 3 * i, axis=1), turns).copy() for i in range(length)]


@pytest.mark.parametrize("turns", TURNS)
def test_objects_in_a_clip_are_those_seen_in_its_frames(sv, turns):
    def detect_in_all(frames):
        return map(detect_blocks, frames)

    detect = CanonicalVideoDetector(detect_in_all, random_canonicalizer())
    frames = clip(turns)
    pose, found = detect.detect_with_pose(frames)
    for frame, detections in zip(frames, found, strict=True):
        expected = detect_blocks(frame)
        assert np.array_equal(detections.mask, expected.mask)
        assert np.array_equal(detections.xyxy, expected.xyxy)
        assert set(detections.data["pose"]) == {pose.turn.degrees}


def test_bad_clips_have_clear_errors(sv):
    detect = CanonicalVideoDetector(lambda frames: [None], random_canonicalizer())
    for frames, message in [
        ([], "no frames"),
        ([picture(), picture()[:9]], "frame 1 has the shape"),
        ([picture() / 255], "uint8"),
    ]:
        with pytest.raises(InputError, match=message):
            detect(frames)
    with pytest.raises(InputError, match="gave a NoneType"):
        list(detect(clip()))
    detect.predict = lambda frames: map(detect_blocks, [*frames, frames[0]])
    with pytest.raises(InputError, match="more than one result for 3 frames"):
        list(detect(clip()))


def test_what_sam3_finds_by_a_text_turns_with_the_image(sv):
    model, processor = finder()

    def predict(image):
        inputs = processor(images=Image.fromarray(image), text="block", return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        (found,) = processor.post_process_instance_segmentation(
            outputs, threshold=0.0, target_sizes=inputs["original_sizes"].tolist()
        )
        return sv.Detections(
            xyxy=found["boxes"].numpy(),
            mask=found["masks"].numpy() > 0,
            confidence=found["scores"].numpy(),
        )

    detect, image = CanonicalDetector(predict, random_canonicalizer()), picture()
    upright = detect(image)
    assert len(upright) == 3 and 0 < upright.mask.mean() < 1
    for turns in TURNS[1:]:
        found = detect(np.rot90(image, turns).copy())
        assert np.array_equal(found.mask, np.rot90(upright.mask, turns, (1, 2)))
        assert np.array_equal(found.confidence, upright.confidence)


def test_what_sam3_tracks_by_a_text_turns_with_the_clip(sv):
    model, processor = video_finder()

    def track(frames):
        session = processor.init_video_session(video=frames)
        processor.add_text_prompt(session, "block")
        for output in model.propagate_in_video_iterator(session):
            found = processor.postprocess_outputs(session, output)
            yield sv.Detections(
                xyxy=found["boxes"].numpy(),
                mask=found["masks"].numpy(),
                confidence=found["scores"].numpy(),
                tracker_id=found["object_ids"].numpy(),
            )

    detect = CanonicalVideoDetector(track, random_canonicalizer())
    upright = list(detect(clip(length=2)))
    assert [list(found.tracker_id) for found in upright] == [[0, 1, 2]] * 2
    assert any(found.mask.any() for found in upright)
    for turns in TURNS[1:]:
        for found, before in zip(detect(clip(turns, 2)), upright, strict=True):
            assert np.array_equal(found.mask, np.rot90(before.mask, turns, (1, 2)))
            assert np.array_equal(found.confidence, before.confidence)
            assert np.array_equal(found.tracker_id, before.tracker_id)
