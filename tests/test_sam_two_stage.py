"""The SAM of two stages: segment_anything's calls, and what each stage is told."""

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from tiny_models import random_canonicalizer

from canon_seg.config.load import default_config
from canon_seg.errors import InputError
from canon_seg.predictors.sam_predictor import CanonicalSamPredictor
from canon_seg.sam.loading import build_sam, load_sam_weights
from canon_seg.sam.two_stage import build_two_stage_sam, likeness
from canon_seg.sam.windows import windows_around

SIDE, DIM = 64, 32


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    sam = build_two_stage_sam(SIDE, "tf_efficientnet_lite0", DIM)
    # Layers that start at zero would hide what is in front of them.
    for name, value in sam.mask_decoder.named_parameters():
        if "conv2" in name:
            torch.nn.init.normal_(value, std=0.05)
    return sam


@pytest.fixture(scope="module")
def predictor(sam):
    predictor = SamPredictor(sam)
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8))
    return predictor


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_clicks_that_are_nowhere_are_answered(predictor, wrong):
    for labels in ([1], [0]):
        masks, scores, _ = predictor.predict(np.array([[wrong, 3.0]]), np.array(labels))
        assert masks.shape == (3, 48, 60) and scores.shape == (3,)


def test_shapes_of_the_predictor(predictor):
    click = {"point_coords": np.array([[20, 30]]), "point_labels": np.array([1])}
    for prompt in (
        click,
        {"box": np.array([5, 6, 40, 44])},
        click | {"box": np.array([5, 6, 40, 44])},
    ):
        for several in (True, False):
            masks, scores, logits = predictor.predict(**prompt, multimask_output=several)
            assert masks.shape == (1 + 2 * several, 48, 60) and scores.shape == masks.shape[:1]
            assert logits.shape[1:] == predictor.model.prompt_encoder.mask_input_size
            again = predictor.predict(**prompt, mask_input=logits[:1])[2]
            assert np.isfinite(again).all() and not np.array_equal(again, logits)


def test_prompts_do_not_see_each_other(predictor):
    coords = torch.tensor([[[10.0, 12]], [[40, 30]], [[5, 40]]])
    labels = torch.ones(3, 1)
    together = predictor.predict_torch(coords, labels, return_logits=True)
    for n in range(3):
        alone = predictor.predict_torch(coords[n : n + 1], labels[:1], return_logits=True)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[n], part[0], rtol=1e-3, atol=1e-3)


def test_one_mask_is_the_first_of_four(sam, predictor):
    prompt = {"point_coords": torch.tensor([[[10.0, 12]]]), "point_labels": torch.ones(1, 1)}
    one = predictor.predict_torch(**prompt, multimask_output=False)
    three = predictor.predict_torch(**prompt, multimask_output=True)
    sparse, dense = sam.prompt_encoder((prompt["point_coords"], torch.ones(1, 1)), None, None)
    with torch.no_grad():
        found = sam.mask_decoder.decode(
            predictor.features,
            torch.zeros(1, dtype=torch.int64),
            sam.prompt_encoder.get_dense_pe(),
            sparse,
            dense,
        )
    torch.testing.assert_close(found.ious, torch.cat([one[1], three[1]], dim=1))
    assert found.windows.shape == (1, 4, 4) and found.logits.shape == (1, 4, 64, 64)


def test_boxes_have_one_window(sam, predictor):
    boxes = torch.tensor([[5.0, 6, 40, 44], [20, 20, 30, 28]])
    sparse, dense = sam.prompt_encoder(None, boxes, None)
    images = torch.zeros(2, dtype=torch.int64)
    pe = sam.prompt_encoder.get_dense_pe()
    with torch.no_grad():
        found = sam.mask_decoder.decode(predictor.features, images, pe, sparse, dense, [1, 3])
    assert found.ious.shape == (2, 2)
    torch.testing.assert_close(found.windows[:, 1], windows_around(boxes))


def test_windows_hold_proposals_and_clicks(sam):
    proposals = torch.full((3, 8, 8), -5.0)
    proposals[0, 2:4, 3:6] = 5
    coords = torch.tensor([[[60.0, 30]], [[60, 30]], [[60, 30]]])
    points = coords, torch.tensor([[1], [1], [0]])
    _, dense = sam.prompt_encoder(points, None, None)
    from canon_seg.sam.geometry import read_geometry

    boxes = sam.mask_decoder.boxes_around(proposals, read_geometry(dense))
    x0, y0, x1, y1 = boxes[0].tolist()
    assert (x0, y0) == (24, 16) and x1 == 60.5 and y1 >= 32  # the mask, and the click beside it
    assert x0 < x1 and y0 < y1
    for box in boxes[1:]:
        assert (box[2:] - box[:2] >= 8).all()
    assert boxes[1, 0] < 60.5 < boxes[1, 2] and boxes[1, 1] < 30.5 < boxes[1, 3]


def test_everything_runs_on_it(sam):
    generator = SamAutomaticMaskGenerator(
        sam, points_per_side=3, pred_iou_thresh=-10.0, stability_score_thresh=0.0
    )
    image = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
    for record in generator.generate(image):
        assert record["segmentation"].shape == (40, 64)


def test_several_embeddings_are_refused(sam):
    sparse, dense = sam.prompt_encoder(None, torch.tensor([[5.0, 6, 40, 44]]), None)
    with pytest.raises(ValueError, match="one image embedding at a time"):
        sam.mask_decoder(torch.zeros(2, 4 * DIM, 8, 8), None, sparse, dense, True)


def test_likeness():
    keys = torch.nn.functional.normalize(torch.randn(1, 4, 3, 3), dim=1)
    weights = torch.zeros(1, 1, 3, 3)
    assert not likeness(keys, weights).any()
    weights[0, 0, 1, 2] = 0.3
    expected = torch.einsum("khw,k->hw", keys[0], keys[0, :, 1, 2])
    torch.testing.assert_close(likeness(keys, weights)[0, 0], expected)


def test_from_config(tmp_path):
    cfg = default_config()
    keys = cfg.MODEL.SAM
    keys.SIZE, keys.TINY.IMAGE_SIZE, keys.TINY.EMBED_DIM = "tiny", SIZE_OF_CONFIG, DIM
    keys.TINY.BACKBONE = "tf_efficientnet_lite0"
    sam = build_sam(cfg)
    assert sam.image_encoder.img_size == SIZE_OF_CONFIG
    # Files of the architecture before are refused, and say so.
    keys.TINY.BACKBONE = ""
    before = build_sam(cfg)
    path = str(tmp_path / "before.pth")
    torch.save(before.state_dict(), path)
    with pytest.raises(InputError, match=r"before\.pth"):
        load_sam_weights(sam, path, "MODEL.SEGMENTER.WEIGHTS")
    keys.TINY.BACKBONE = "resnet18"
    with pytest.raises(InputError, match=r"MODEL\.SAM\.TINY\.BACKBONE is 'resnet18'"):
        build_sam(cfg)
    keys.TINY.BACKBONE = "no_such_model"
    with pytest.raises(InputError, match="does not know"):
        build_sam(cfg)


SIZE_OF_CONFIG = 64


UNUSUAL = {
    "a box without area": {"box": np.array([20, 20, 20, 20])},
    "a box of one pixel": {"box": np.array([59, 47, 60, 48])},
    "a box larger than the image": {"box": np.array([-300, -50, 900, 700])},
    "a box inside out": {"box": np.array([40, 30, 10, 5])},
    "background clicks alone": {
        "point_coords": np.array([[3, 4], [30, 20]]),
        "point_labels": np.array([0, 0]),
    },
    "padding clicks alone": {"point_coords": np.zeros((2, 2)), "point_labels": np.array([-1, -1])},
    "a click far outside": {"point_coords": np.array([[900, -70]]), "point_labels": np.array([1])},
    "a click twice": {"point_coords": np.full((2, 2), 9), "point_labels": np.array([1, 0])},
}


@pytest.mark.parametrize("prompt", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_prompts(predictor, prompt):
    """As segment_anything's own models: masks of the image's size, and numbers for scores."""
    masks, scores, logits = predictor.predict(**prompt)
    assert masks.shape == (3, 48, 60) and masks.dtype == bool
    assert np.isfinite(scores).all() and np.isfinite(logits).all()


@pytest.mark.parametrize("value", [0, 127, 255])
def test_images_of_one_colour(sam, value):
    predictor = SamPredictor(sam)
    predictor.set_image(np.full((30, 40, 3), value, np.uint8))
    masks, scores, _ = predictor.predict(np.array([[20, 10]]), np.array([1]))
    assert masks.shape == (3, 30, 40) and np.isfinite(scores).all()


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_masks_before_that_are_all_one_value(predictor, value):
    before = np.full((1, *predictor.model.prompt_encoder.mask_input_size), value, np.float32)
    click = np.array([[20, 10]]), np.array([1])
    _, scores, logits = predictor.predict(*click, mask_input=before)
    assert np.isfinite(scores).all() and np.isfinite(logits).all()


def test_masks_of_another_size_are_refused_behind_a_canonicalizer(sam):
    predictor = CanonicalSamPredictor(sam, random_canonicalizer())
    predictor.set_image(np.random.default_rng(2).integers(0, 256, (30, 40, 3), np.uint8))
    click = np.array([[20, 10]]), np.array([1])
    with pytest.raises(InputError, match="mask_input"):
        predictor.predict(*click, mask_input=np.zeros((1, 9, 9), np.float32))
