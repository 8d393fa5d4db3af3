import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import batched_mask_to_box
from tiny_models import (
    any_angle_canonicalizer,
    canonicalized,
    random_canonicalizer,
    random_image,
    tiny_segmenter,
)

from canon_seg import CanonicalSamPredictor
from canon_seg.coco.masks import decode_rle
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, IdentityCanonicalizer
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.tilting import Tilting
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.predictors import mask_generator
from canon_seg.predictors.mask_generator import (
    CanonicalSamAutomaticMaskGenerator,
    tilt_record,
    turn_record,
)

SIZES = [(48, 48), (47, 47), (40, 61), (61, 40), (33, 80), (1, 30)]
KEEP_ALL = dict(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0)
OUTPUT_MODES = ["binary_mask", "coco_rle", "uncompressed_rle"]


@pytest.fixture(scope="module")
def sam():
    # Weights with which several masks are left of each image and of each of its crops.
    return tiny_segmenter("sam", seed=9).sam


def picture(height, width):
    """(height, width, 3) uint8 array."""
    return np.ascontiguousarray(random_image(height, width).permute(1, 2, 0).numpy())


def records_of_turns(sam, canonicalizer, image, **options):
    """(pose, records) of the four turns of an image."""
    generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **KEEP_ALL, **options)
    return [generator.generate_with_pose(turn_image(image, turns)) for turns in C4.elements]


def assert_same_records(ours, theirs):
    """Equal to the last bit, types included."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        masks = one["segmentation"], other["segmentation"]
        if isinstance(masks[0], np.ndarray):
            assert masks[0].dtype == masks[1].dtype == bool
            assert np.array_equal(*masks)
        else:
            assert masks[0] == masks[1]
        for key in one.keys() - {"segmentation"}:
            assert one[key] == other[key], key
            assert type(one[key]) is type(other[key]), key


def test_turns_of_one_image_are_segmented_once_where_the_last_is_kept(sam, monkeypatch):
    image, canonicalizer, last = picture(40, 61), random_canonicalizer(), {}
    generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **KEEP_ALL)
    expected = [generator.generate_with_pose(turn_image(image, n)) for n in C4.elements]
    runs, generate = [], SamAutomaticMaskGenerator.generate
    monkeypatch.setattr(
        SamAutomaticMaskGenerator, "generate", lambda *args: runs.append(1) or generate(*args)
    )
    for turns, (pose, records) in enumerate(expected):
        found = generator.generate_with_pose(turn_image(image, turns), last=last)
        assert found[0].turn == pose.turn
        assert_same_records(found[1], records)
        for record in found[1]:  # is the caller's own
            record["segmentation"][:] = False
    assert len(runs) == 1
    other = picture(61, 41)
    assert_same_records(
        generator.generate_with_pose(other, last=last)[1], generator.generate(other)
    )
    assert len(runs) == 3


@pytest.mark.parametrize("mode", OUTPUT_MODES)
@pytest.mark.parametrize("crops", [0, 1])
def test_the_identity_canonicalizer_gives_the_official_records(sam, mode, crops):
    options = dict(KEEP_ALL, output_mode=mode, crop_n_layers=crops)
    image = picture(40, 61)
    official = SamAutomaticMaskGenerator(sam, **options).generate(image)
    generator = CanonicalSamAutomaticMaskGenerator(sam, IdentityCanonicalizer(), **options)
    assert len(official) > 3
    assert_same_records(generator.generate(image), official)


@pytest.mark.parametrize("mode", OUTPUT_MODES)
def test_records_between_quarter_turns(sam, mode):
    """Four turns of a tilted photograph have the turned records, each true to its own mask."""
    size = 40, 61
    found = records_of_turns(sam, any_angle_canonicalizer(), picture(*size), output_mode=mode)
    _, upright = found[0]
    assert len(upright) > 1
    for turns, (pose, records) in zip(C4.elements, found):
        assert not pose.turn.exact
        assert_same_records(records, [turn_record(record, turns, *size) for record in upright])
    for record in upright:
        mask = record["segmentation"]
        mask = mask if mode == "binary_mask" else decode_rle(mask).astype(bool)
        assert mask.shape == size and record["area"] == mask.sum()
        x0, y0, x1, y1 = batched_mask_to_box(torch.from_numpy(mask)[None])[0].tolist()
        assert record["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        x, y, w, h = record["crop_box"]
        assert 0 <= x and 0 <= y and x + w <= size[1] and y + h <= size[0]


@pytest.mark.parametrize("size", SIZES)
def test_records_of_turned_images_are_the_turned_records(sam, size):
    found = records_of_turns(sam, random_canonicalizer(), picture(*size))
    upright_pose, upright = found[0]
    assert len(upright) > 0
    for turns, (pose, records) in zip(C4.elements, found):
        assert pose.turns == C4.compose(upright_pose.turns, turns)
        assert_same_records(records, [turn_record(record, turns, *size) for record in upright])


@pytest.mark.parametrize("mode", OUTPUT_MODES)
def test_crops_and_encodings_turn_along(sam, mode):
    options = dict(output_mode=mode, crop_n_layers=1)
    (_, upright), *others = records_of_turns(
        sam, random_canonicalizer(), picture(50, 71), **options
    )
    assert len({tuple(record["crop_box"]) for record in upright}) > 1
    for turns, (_, records) in zip((1, 2, 3), others):
        assert_same_records(records, [turn_record(record, turns, 50, 71) for record in upright])


def test_without_a_canonicalizer_the_turns_differ(sam):
    (_, upright), (_, turned), *_ = records_of_turns(sam, IdentityCanonicalizer(), picture(40, 61))
    with pytest.raises(AssertionError):
        assert_same_records(turned, [turn_record(record, 1, 40, 61) for record in upright])


@pytest.mark.parametrize("turns", C4.elements)
def test_turned_records_keep_the_conventions_of_segment_anything(sam, turns):
    height, width = 40, 61
    image = picture(height, width)
    records = SamAutomaticMaskGenerator(sam, **KEEP_ALL).generate(image)
    assert any(record["area"] for record in records)
    turned_height, turned_width = turn_image(image, turns).shape[:2]
    for record in records:
        turned = turn_record(record, turns, height, width)
        mask = turned["segmentation"]
        assert mask.shape == (turned_height, turned_width)
        x0, y0, x1, y1 = batched_mask_to_box(torch.from_numpy(mask)[None])[0].tolist()
        assert turned["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert turned["area"] == mask.sum()
        assert turned["crop_box"] == [0, 0, turned_width, turned_height]
        # The pixel under the click is the same one.
        (x, y), (turned_x, turned_y) = record["point_coords"][0], turned["point_coords"][0]
        clicked = np.zeros((height, width), bool)
        clicked[round(y), round(x)] = True
        assert turn_maps(clicked, turns)[round(turned_y), round(turned_x)]


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(C4.elements),
    st.sampled_from(C4.elements),
    st.integers(0, 2**32 - 1),
)
def test_turning_records_is_a_group_action(height, width, a, b, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < 0.5
    x0, y0, x1, y1 = batched_mask_to_box(torch.from_numpy(mask)[None])[0].tolist()
    record = {
        "segmentation": mask,
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "point_coords": (rng.integers(0, 2**20, (1, 2)) / 2**20 * (width, height)).tolist(),
        "crop_box": [0, 0, width, height],
    }
    once = turn_record(record, a, height, width)
    twice = turn_record(once, b, *once["segmentation"].shape)
    direct = turn_record(record, C4.compose(a, b), height, width)
    assert_same_records([twice], [direct])


def test_the_two_kinds_of_rle_hold_the_turned_mask():
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    record = {
        "area": int(mask.sum()),
        "bbox": [0, 0, 6, 4],
        "point_coords": [[1.5, 2.5]],
        "crop_box": [0, 0, 7, 5],
    }
    compressed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    compressed["counts"] = compressed["counts"].decode()
    runs = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=not mask[-1, -1]))
    counts = np.diff(runs, prepend=0).tolist()
    for rle in (compressed, {"size": [5, 7], "counts": counts}):
        turned = turn_record({**record, "segmentation": rle}, 1, 5, 7)["segmentation"]
        assert type(turned["counts"]) is type(rle["counts"])
        if isinstance(turned["counts"], list):
            turned = coco_mask.frPyObjects(turned, *turned["size"])
        assert np.array_equal(coco_mask.decode(turned), turn_maps(mask, 1))


def test_the_pose_is_that_of_the_meta_architecture_in_either_channel_order(sam):
    image = picture(40, 61)
    for image_format in ("RGB", "BGR"):
        canonicalizer = random_canonicalizer(image_format, seed=5)
        generator = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **KEEP_ALL)
        model = canonicalized(None, canonicalizer)
        pixels = image if image_format == "RGB" else image[..., ::-1]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        assert generator.generate_with_pose(image)[0] == model([{"image": tensor}])[0]["pose"]


def test_an_oracle_gives_the_upright_records_at_all_angles(sam):
    image = picture(40, 61)
    official = SamAutomaticMaskGenerator(sam, **KEEP_ALL).generate(image)
    for turns in C4.elements:
        generator = CanonicalSamAutomaticMaskGenerator(
            sam, FixedPoseCanonicalizer(turns), **KEEP_ALL
        )
        records = generator.generate(turn_image(image, turns))
        assert len(records) == len(official)
        for ours, theirs in zip(records, official):
            assert np.array_equal(ours["segmentation"], turn_maps(theirs["segmentation"], turns))


def test_images_that_equal_a_turn_of_themselves_have_one_canonical_result(sam):
    quarter = picture(24, 24)
    half = np.concatenate([picture(12, 31), turn_image(picture(12, 31), 2)])
    symmetric = np.maximum.reduce([turn_image(quarter, turns) for turns in C4.elements])
    for image in (np.full((20, 20, 3), 7, np.uint8), symmetric, half):
        found = records_of_turns(sam, random_canonicalizer(), image)
        canonical = [
            [
                turn_record(record, pose.turns_to_canonical, *turn_image(image, turns).shape[:2])
                for record in records
            ]
            for turns, (pose, records) in zip(C4.elements, found)
        ]
        for records in canonical[1:]:
            assert_same_records(records, canonical[0])


def test_strict_thresholds_leave_no_records(sam):
    generator = CanonicalSamAutomaticMaskGenerator(
        sam, random_canonicalizer(), points_per_side=2, pred_iou_thresh=0.999
    )
    assert generator.generate(picture(30, 40)) == []


def test_no_vote_is_claimed_where_one_pose_runs(sam):
    image = picture(40, 61)
    vote = random_canonicalizer(uncertain=UncertainPoses("vote", 1.0, 4))
    pose, _ = CanonicalSamAutomaticMaskGenerator(sam, vote, **KEEP_ALL).generate_with_pose(image)
    assert vote.pose(torch.from_numpy(image).permute(2, 0, 1)).others
    assert pose.policy == "argmax" and not pose.others
    predictor = CanonicalSamPredictor(sam, vote)
    predictor.set_image(image)
    assert predictor.pose == pose


def test_a_record_of_which_a_tilt_leaves_nothing_says_so():
    canvas = Tilting.expanding(30, (40, 60))
    mask = np.zeros(canvas.target, bool)
    mask[0, 0] = True
    record = {
        "segmentation": mask,
        "bbox": [0, 0, 0, 0],
        "area": 1,
        "predicted_iou": 0.9,
        "point_coords": [[0.0, 0.0]],
        "crop_box": [0, 0, canvas.target[1], canvas.target[0]],
    }
    back = tilt_record(record, canvas.inverse())
    assert back["vanished"] is True and back["area"] == 0 and back["predicted_iou"] == 0.9
    mask[30:40, 30:50] = True
    assert "vanished" not in tilt_record({**record, "area": 201}, canvas.inverse())
    mask[:] = False
    assert "vanished" not in tilt_record({**record, "area": 0}, canvas.inverse())


@pytest.mark.parametrize("crops", [0, 1])
def test_the_bar_counts_the_batches(sam, crops, monkeypatch):
    bars = []

    class Bar(mask_generator.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})
            bars.append((self, options["disable"]))

    monkeypatch.setattr(mask_generator, "tqdm", Bar)
    generator = CanonicalSamAutomaticMaskGenerator(
        sam, random_canonicalizer(), points_per_batch=5, crop_n_layers=crops, **KEEP_ALL
    )
    generator.generate_with_pose(picture(40, 61), progress=True)
    generator.generate(picture(40, 61))
    # 16 clicks in batches of 5, and again in each of four crops; a bar on terminals if asked for.
    assert [(bar.n, bar.total, disable) for bar, disable in bars] == [
        (4 + 16 * crops, 4 + 16 * crops, None),
        (4 + 16 * crops, 4 + 16 * crops, True),
    ]
