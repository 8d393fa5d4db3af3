import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from tiny_models import random_canonicalizer, random_image, tiny_segmenter

from canon_seg import segment_everything
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.errors import InputError
from canon_seg.images.coordinates import turn_boxes_xywh

OPTIONS = dict(
    points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)
IMAGE = np.ascontiguousarray(random_image(40, 61).permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def sam():
    return tiny_segmenter("sam", seed=9).sam


def same(ours, theirs):
    assert len(ours) == len(theirs) > 3
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        for key in one:
            assert np.array_equal(one[key], other[key]), key


def test_with_a_sam_it_is_the_official_generator(sam):
    theirs = SamAutomaticMaskGenerator(sam, **OPTIONS).generate(IMAGE)
    same(segment_everything(IMAGE, sam, IdentityCanonicalizer(), **OPTIONS), theirs)


def test_any_predictor_with_the_pair_gives_what_the_sam_behind_it_gives(sam):
    options = {**OPTIONS, "crop_n_layers": 1}
    ours = segment_everything(IMAGE, SamPredictor(sam), random_canonicalizer(), **options)
    theirs = segment_everything(IMAGE, sam, random_canonicalizer(), **options)
    assert len(ours) == len(theirs) > 3
    for one, other in zip(ours, theirs):  # one prompt at a time rounds otherwise than many
        assert np.count_nonzero(one["segmentation"] ^ other["segmentation"]) <= 3
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert one["point_coords"] == other["point_coords"]


def test_everything_of_a_turned_image_is_everything_turned(sam):
    (first, *_) = upright = segment_everything(
        IMAGE, SamPredictor(sam), random_canonicalizer(), **OPTIONS
    )
    for turns in (1, 2, 3):
        turned = segment_everything(
            np.rot90(IMAGE, turns), SamPredictor(sam), random_canonicalizer(), **OPTIONS
        )
        assert len(turned) == len(upright) and first["segmentation"].shape == (40, 61)
        for one, other in zip(turned, upright):
            assert np.array_equal(one["segmentation"], np.rot90(other["segmentation"], turns))


def test_the_embedded_sam_finds_a_block_in_any_turn():
    image = np.full((120, 200, 3), (90, 140, 220), np.uint8)
    image[70:] = (80, 130, 60)
    image[60:100, 30:90] = (200, 60, 50)
    block = (image == (200, 60, 50)).all(axis=2)
    upright = segment_everything(image, points_per_side=4)
    best = max(upright, key=lambda record: iou(record["segmentation"], block))
    assert iou(best["segmentation"], block) > 0.9
    assert best["area"] == best["segmentation"].sum() and best["crop_box"] == [0, 0, 200, 120]
    rows, columns = (np.flatnonzero(best["segmentation"].any(axis=axis)) for axis in (1, 0))
    size = columns[-1] - columns[0], rows[-1] - rows[0]  # as segment_anything counts
    assert best["bbox"] == [columns[0], rows[0], *size]
    turned = segment_everything(np.rot90(image), points_per_side=4)
    assert len(turned) == len(upright)
    for one, other in zip(turned, upright):
        assert np.array_equal(one["segmentation"], np.rot90(other["segmentation"]))
        expected = turn_boxes_xywh(np.array(other["bbox"]), 1, 119, 199)
        assert one["bbox"] == expected.tolist()


def test_bad_images_are_refused():
    with pytest.raises(InputError, match="transpose"):
        segment_everything(torch.zeros(3, 20, 30).numpy())


def iou(one, other):
    return (one & other).sum() / (one | other).sum()
