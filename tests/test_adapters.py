import numpy as np
import pytest
import torch
from optional import need
from PIL import Image
from segment_anything import SamPredictor
from tiny_models import random_canonicalizer, random_image, tiny_segmenter

from canon_seg import CanonicalImagePredictor, CanonicalSamPredictor, TransformersSam
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.coordinates import turn_boxes, turn_pixels

SIZE = 40, 61
POINTS, LABELS = np.array([[20.25, 7.5], [50.0, 31.0]]), np.array([1, 0])
BOX = np.array([3.0, 5.5, 44.125, 30.0])


@pytest.fixture(scope="module")
def official():
    return SamPredictor(tiny_segmenter("sam").sam)


@pytest.fixture(scope="module")
def transformers_sam():
    transformers = need("transformers")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config=dict(
            hidden_size=16,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=128,
            window_size=4,
            global_attn_indexes=[1],
            num_pos_feats=16,
            mlp_dim=32,
            initializer_range=0.1,
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=128),
        mask_decoder_config=dict(
            hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32
        ),
        initializer_range=0.1,
    )
    image_processor = transformers.SamImageProcessor(
        size={"longest_edge": 128}, pad_size={"height": 128, "width": 128}
    )
    processor = transformers.SamProcessor(image_processor)
    return TransformersSam(transformers.SamModel(config).eval(), processor)


@pytest.fixture(scope="module")
def transformers_sam2():
    transformers = need("transformers")
    torch.manual_seed(0)
    config = transformers.Sam2Config(
        vision_config=dict(
            backbone_config=dict(
                model_type="sam2_hiera_det_model",
                hidden_size=8,
                image_size=[128, 128],
                blocks_per_stage=[1, 1, 2, 1],
                embed_dim_per_stage=[8, 16, 32, 64],
                num_attention_heads_per_stage=[1, 2, 4, 8],
                window_size_per_stage=[8, 4, 4, 4],
                global_attention_blocks=[3],
                initializer_range=0.1,
            ),
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
            fpn_hidden_size=32,
            initializer_range=0.1,
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=128),
        mask_decoder_config=dict(
            hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32
        ),
        initializer_range=0.1,
    )
    image_processor = transformers.Sam2ImageProcessor(size={"height": 128, "width": 128})
    processor = transformers.Sam2Processor(image_processor, target_size=128)
    return TransformersSam(transformers.Sam2Model(config).eval(), processor)


@pytest.fixture(scope="module")
def transformers_sam3():
    transformers = need("transformers")
    torch.manual_seed(0)
    config = transformers.Sam3TrackerConfig(
        vision_config=dict(
            backbone_config=dict(
                model_type="sam3_vit_model",
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                image_size=112,
                pretrain_image_size=56,
                patch_size=14,
                window_size=4,
                global_attn_indexes=[1],
                initializer_range=0.1,
            ),
            fpn_hidden_size=32,
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
            initializer_range=0.1,
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=112, patch_size=14),
        mask_decoder_config=dict(
            hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32
        ),
        initializer_range=0.1,
    )
    image_processor = transformers.Sam3ImageProcessor(size={"height": 112, "width": 112})
    processor = transformers.Sam3TrackerProcessor(image_processor, target_size=112)
    return TransformersSam(transformers.Sam3TrackerModel(config).eval(), processor)


@pytest.fixture(scope="module")
def sam2_predictor():
    need("sam2")
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    torch.manual_seed(0)
    neck = FpnNeck(
        PositionEmbeddingSine(32),
        d_model=32,
        backbone_channel_list=[64, 32, 16, 8],
        fpn_top_down_levels=[2, 3],
    )
    trunk = Hiera(embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_att_blocks=(4,))
    model = SAM2Base(
        ImageEncoder(trunk, neck, scalp=1),
        memory_attention=None,
        memory_encoder=None,
        num_maskmem=0,
        image_size=128,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
    ).eval()
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]  # fixed for 1024 px otherwise
    return predictor


def picture():
    return np.ascontiguousarray(random_image(*SIZE).permute(1, 2, 0).numpy())


def check_that_masks_turn(predictor, **prompts):
    """In all four turns of the picture, with low-resolution logits fed back."""
    ours, upright = CanonicalImagePredictor(predictor, random_canonicalizer()), None
    for turns in C4.elements:
        ours.set_image(turn_image(picture(), turns))
        turned = dict(prompts)
        if "point_coords" in prompts:
            turned["point_coords"] = turn_pixels(prompts["point_coords"], turns, *SIZE)
        if "box" in prompts:
            turned["box"] = turn_boxes(prompts["box"], turns, *SIZE)
        first = ours.predict(**turned, return_logits=True)
        results = first, ours.predict(**turned, mask_input=first[2][..., :1, :, :])
        upright = results if upright is None else upright
        for result, (masks, scores, logits) in zip(results, upright):
            assert np.array_equal(result[0], turn_maps(masks, turns))
            assert np.array_equal(result[1], scores)
            assert np.array_equal(result[2], turn_maps(logits, turns))
    assert upright[0][0].shape[-3:] == (3, *SIZE) and np.ptp(upright[0][0]) > 0


def test_around_the_official_predictor_it_is_the_drop_in(official):
    canonicalizer = random_canonicalizer()
    ours = CanonicalImagePredictor(official, canonicalizer)
    theirs = CanonicalSamPredictor(official.model, canonicalizer)
    ours.set_image(Image.fromarray(picture()))
    theirs.set_image(picture())
    assert ours.pose == theirs.pose
    for prompts in (dict(point_coords=POINTS, point_labels=LABELS), dict(box=BOX)):
        for one, other in zip(ours.predict(**prompts), theirs.predict(**prompts)):
            assert np.array_equal(one, other)


def test_transformers_pair_gives_what_their_own_code_gives(transformers_sam):
    ours = CanonicalImagePredictor(transformers_sam, IdentityCanonicalizer())
    ours.set_image(picture())
    masks, scores, _ = ours.predict(POINTS, LABELS, BOX)
    model, processor = transformers_sam.model, transformers_sam.processor
    inputs = processor(
        Image.fromarray(picture()),
        input_points=[[POINTS.tolist()]],
        input_labels=[[LABELS.tolist()]],
        input_boxes=[[BOX.tolist()]],
        return_tensors="pt",
    )
    sizes = inputs["original_sizes"], inputs.pop("reshaped_input_sizes")
    inputs.pop("original_sizes")
    with torch.no_grad():
        outputs = model(**inputs)
    expected = processor.post_process_masks(outputs.pred_masks, sizes[0], sizes[1])[0][0].numpy()
    assert np.array_equal(masks, expected) and masks.any() and not masks.all()
    assert np.array_equal(scores, outputs.iou_scores[0, 0].numpy())


def test_masks_of_transformers_turn_with_the_image(transformers_sam):
    check_that_masks_turn(transformers_sam, point_coords=POINTS, point_labels=LABELS)
    check_that_masks_turn(transformers_sam, box=BOX)


@pytest.mark.parametrize("version", ["transformers_sam2", "transformers_sam3"])
def test_later_sams_of_transformers_give_what_their_own_code_gives(version, request):
    pair = request.getfixturevalue(version)
    ours = CanonicalImagePredictor(pair, IdentityCanonicalizer())
    ours.set_image(picture())
    masks, scores, _ = ours.predict(POINTS, LABELS, BOX)
    inputs = pair.processor(
        Image.fromarray(picture()),
        input_points=[[POINTS.tolist()]],
        input_labels=[[LABELS.tolist()]],
        input_boxes=[[BOX.tolist()]],
        return_tensors="pt",
    )
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        outputs = pair.model(**inputs)
    expected = pair.processor.post_process_masks(outputs.pred_masks, sizes)[0][0].numpy()
    assert np.array_equal(masks, expected) and masks.any() and not masks.all()
    assert np.array_equal(scores, outputs.iou_scores[0, 0].numpy())


@pytest.mark.parametrize("version", ["transformers_sam2", "transformers_sam3"])
def test_masks_of_later_sams_of_transformers_turn_with_the_image(version, request):
    pair = request.getfixturevalue(version)
    check_that_masks_turn(pair, point_coords=POINTS, point_labels=LABELS)
    check_that_masks_turn(pair, box=BOX)


def test_masks_of_sam2_turn_with_the_image(sam2_predictor):
    check_that_masks_turn(sam2_predictor, point_coords=POINTS, point_labels=LABELS, box=BOX)


def test_boxes_in_batches_turn_with_the_image_for_sam2(sam2_predictor):
    ours = CanonicalImagePredictor(sam2_predictor, random_canonicalizer())
    boxes = np.stack([BOX] * 2)
    boxes[1, 2] = 60
    results = []
    for turns in C4.elements:
        ours.set_image(turn_image(picture(), turns))
        masks, *_ = ours.predict(box=turn_boxes(boxes, turns, *SIZE), return_logits=True)
        results.append(turn_maps(masks, -turns % 4))
        assert np.array_equal(results[-1], results[0])
    assert results[0].shape == (2, 3, *SIZE) and not np.array_equal(*results[0])


def test_bad_input_has_clear_errors(official):
    ours = CanonicalImagePredictor(official, random_canonicalizer())
    with pytest.raises(RuntimeError, match="set_image"):
        ours.predict(box=BOX)
    with pytest.raises(InputError, match="uint8"):
        ours.set_image(picture().astype(float))
    ours.set_image(picture())
    for prompts, message in [
        (dict(box=[70, 5, 90, 9]), "outside the image, 61 wide and 40 high"),
        (dict(box=[5, 5, 5, 9]), "no area"),
        (dict(point_coords=[[5, 50]], point_labels=[1]), "outside"),
        (dict(point_coords=[[5, 5]]), "point_labels"),
        (dict(point_coords=[[5, 5]], point_labels=[3]), "labels"),
        (dict(box=BOX, mask_input=np.zeros((1, 16, 15), np.float32)), "give \\(1, 15, 15\\)"),
        (dict(box=BOX, mask_input=np.zeros((3, 16, 16), np.float32)), "give \\(1, 16, 16\\)"),
    ]:
        with pytest.raises(InputError, match=message):
            ours.predict(**prompts)
    *_, logits = ours.predict(box=BOX, multimask_output=False)
    ours.predict(box=BOX, mask_input=logits)
    with pytest.raises(InputError, match=f"give \\(1, {logits.shape[1]}, {logits.shape[1]}\\)"):
        ours.predict(box=BOX, mask_input=np.zeros((1, 8, 8), np.float32))


def test_several_prompts_for_transformers(transformers_sam):
    transformers_sam.set_image(picture())
    boxes = np.stack([BOX, BOX + 7, BOX - 2])
    together = transformers_sam.predict(box=boxes)
    assert [part.shape[:2] for part in together] == [(3, 3)] * 3
    for index, box in enumerate(boxes):
        for one, all_of_them in zip(transformers_sam.predict(box=box), together):
            np.testing.assert_allclose(one, all_of_them[index], atol=1e-4)
    clicks = np.stack([POINTS, POINTS[::-1]])
    masks, scores, _ = transformers_sam.predict(clicks, np.stack([LABELS, LABELS]))
    assert masks.shape == (2, 3, *SIZE) and scores.shape == (2, 3)
    with pytest.raises(InputError, match="mask_input goes with one prompt"):
        transformers_sam.predict(box=boxes, mask_input=np.zeros((1, 32, 32), np.float32))
    with pytest.raises(InputError, match=r"of \[2, 3\] prompts"):
        transformers_sam.predict(clicks, np.stack([LABELS, LABELS]), box=boxes)


def test_boxes_in_batches_turn_with_the_image_for_transformers(transformers_sam):
    ours, boxes = CanonicalImagePredictor(transformers_sam, random_canonicalizer()), None
    expected = None
    for turns in C4.elements:
        ours.set_image(turn_image(picture(), turns))
        boxes = turn_boxes(np.stack([BOX, BOX + 7]), turns, *SIZE)
        masks, scores, _ = ours.predict(box=boxes)
        expected = (masks, scores) if expected is None else expected
        assert np.array_equal(masks, turn_maps(expected[0], turns))
        assert np.array_equal(scores, expected[1])


@pytest.mark.parametrize("size", [(40, 1), (1, 40), (1, 1)])
def test_images_one_pixel_wide(sam2_predictor, official, size):
    for predictor in (sam2_predictor, official):
        ours = CanonicalImagePredictor(predictor, random_canonicalizer())
        image = np.ascontiguousarray(random_image(*size).permute(1, 2, 0).numpy())
        expected = None
        for turns in C4.elements:
            turned = turn_image(image, turns)  # with negative strides
            ours.set_image(turned)
            masks, _, _ = ours.predict(box=np.array([0, 0, *turned.shape[1::-1]]))
            torch.from_numpy(masks)
            expected = masks if expected is None else expected
            assert np.array_equal(masks, turn_maps(expected, turns))
