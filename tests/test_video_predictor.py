import numpy as np
import pytest
import torch
from optional import need
from PIL import Image
from tiny_models import random_canonicalizer, random_image
from tiny_transformers import tracker

from canon_seg import CanonicalVideoPredictor, TransformersSamVideo
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.errors import InputError
from canon_seg.images.coordinates import turn_boxes, turn_pixels

HEIGHT, WIDTH = SIZE = 40, 61
BOX = np.array([3.0, 5.5, 44.125, 30.0])
POINTS, LABELS = np.array([[20.25, 7.5], [50.0, 31.0]]), np.array([1, 0])


def clip(turns=0, length=4):
    """Frames that are moved by two pixels each."""
    image = random_image(HEIGHT, WIDTH + 8).permute(1, 2, 0).numpy()
    frames = [image[:, 2 * i : 2 * i + WIDTH] for i in range(length)]
    return [np.ascontiguousarray(np.rot90(frame, turns)) for frame in frames]


@pytest.fixture(scope="module")
def official():
    """SAM 2's video predictor at toy size, with random weights."""
    need("sam2")
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    torch.manual_seed(0)
    size, memory = 32, 16
    attention = dict(
        rope_theta=10000.0,
        feat_sizes=[8, 8],
        embedding_dim=size,
        num_heads=1,
        downsample_rate=1,
        dropout=0.0,
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        cross_attention=RoPEAttention(rope_k_repeat=True, kv_in_dim=memory, **attention),
        d_model=size,
        dim_feedforward=size,
        dropout=0.0,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(**attention),
    )
    return SAM2VideoPredictor(
        image_encoder=ImageEncoder(
            Hiera(embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_att_blocks=(4,)),
            FpnNeck(
                PositionEmbeddingSine(size),
                d_model=size,
                backbone_channel_list=[64, 32, 16, 8],
                fpn_top_down_levels=[2, 3],
            ),
            scalp=1,
        ),
        memory_attention=MemoryAttention(size, True, layer, 1),
        memory_encoder=MemoryEncoder(
            memory,
            MaskDownSampler(size, kernel_size=3, stride=2, padding=1),
            Fuser(CXBlock(size), 1),
            PositionEmbeddingSine(memory),
            in_dim=size,
        ),
        num_maskmem=3,
        image_size=128,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        use_obj_ptrs_in_encoder=True,
        pred_obj_scores=True,
        use_mask_input_as_output_without_sam=True,
    ).eval()


def track(predictor, frames, turns=0):
    """Logits of two objects in all frames, the one asked for by a box, the other by clicks."""
    state = predictor.init_state(frames)
    predictor.add_new_points_or_box(state, 0, 1, box=turn_boxes(BOX, turns, *SIZE))
    predictor.add_new_points_or_box(
        state, 0, 2, points=turn_pixels(POINTS, turns, *SIZE), labels=LABELS
    )
    return state, [
        (index, ids, logits.numpy()) for index, ids, logits in predictor.propagate_in_video(state)
    ]


def test_behind_the_identity_it_is_the_official_predictor(official, tmp_path):
    for number, frame in enumerate(clip()):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg", format="PNG")
    state = official.init_state(str(tmp_path))
    official.add_new_points_or_box(state, 0, 1, box=BOX.astype(np.float32))
    official.add_new_points_or_box(
        state, 0, 2, points=POINTS.astype(np.float32), labels=LABELS.astype(np.int32)
    )
    expected = list(official.propagate_in_video(state))
    ours = CanonicalVideoPredictor(official, IdentityCanonicalizer())
    for frames in (clip(), tmp_path):
        _, found = track(ours, frames)
        assert len(found) == len(expected) == 4
        for (index, ids, logits), (their_index, their_ids, theirs) in zip(found, expected):
            assert (index, ids) == (their_index, their_ids)
            assert np.array_equal(logits, theirs.numpy()) and np.ptp(logits) > 0


def test_masks_of_a_turned_clip_are_turned(official):
    ours = CanonicalVideoPredictor(official, random_canonicalizer())
    upright_state, upright = track(ours, clip())
    assert upright[0][2].shape == (2, 1, *SIZE)
    for turns in (1, 2, 3):
        state, found = track(ours, clip(turns), turns)
        assert (state.pose.turns - upright_state.pose.turns) % 4 == turns
        for (_, _, logits), (_, _, before) in zip(found, upright, strict=True):
            assert np.array_equal(logits, np.rot90(before, turns, (2, 3)))


def test_a_mask_as_prompt_turns_along(official):
    ours, mask = CanonicalVideoPredictor(official, random_canonicalizer()), np.zeros(SIZE, bool)
    mask[5:30, 3:44] = True
    results = []
    for turns in range(4):
        state = ours.init_state(clip(turns))
        _, _, logits = ours.add_new_mask(state, 0, 7, np.rot90(mask, turns))
        results.append(np.rot90(logits.numpy(), -turns, (2, 3)))
        assert np.array_equal(results[-1], results[0])
    assert ((results[0][0, 0] > 0) == mask).mean() > 0.9


def test_bad_input_has_clear_errors(official, tmp_path):
    ours = CanonicalVideoPredictor(official, random_canonicalizer())
    (tmp_path / "first.jpg").write_bytes(b"")
    for frames, message in [
        ([], "no frames"),
        (tmp_path / "none", "is no folder of frames"),
        (tmp_path, "first.jpg: names of frames are numbers"),
        ([clip()[0], clip(1)[0]], "frame 1 has the shape"),
        ([clip()[0] / 255], "uint8"),
    ]:
        with pytest.raises(InputError, match=message):
            ours.init_state(frames)
    state = ours.init_state(clip()[:1])
    for prompts, message in [
        (dict(box=[70, 5, 90, 9]), "outside the image"),
        (dict(points=[[5, 5]]), "labels must be given"),
        (dict(points=[[5, 5]], labels=[3]), "labels are"),
    ]:
        with pytest.raises(InputError, match=message):
            ours.add_new_points_or_box(state, 0, 1, **prompts)
    with pytest.raises(InputError, match="mask has the shape"):
        ours.add_new_mask(state, 0, 1, np.zeros((3, 4), bool))


@pytest.fixture(scope="module", params=["Sam2Video", "Sam3TrackerVideo"])
def pair(request):
    """A model and its processor of transformers."""
    return tracker(request.param)


def test_behind_the_identity_it_is_what_the_code_of_transformers_gives(pair):
    model, processor = pair
    session = processor.init_video_session(video=[Image.fromarray(frame) for frame in clip()[:2]])

    def theirs(output):
        (logits,) = processor.post_process_masks([output.pred_masks], [[*SIZE]], binarize=False)
        return output.frame_idx, logits.numpy()

    ours = CanonicalVideoPredictor(TransformersSamVideo(*pair), IdentityCanonicalizer())
    state = ours.init_state(clip()[:2])
    processor.add_inputs_to_inference_session(session, 0, 1, input_boxes=[[BOX.tolist()]])
    found = ours.add_new_points_or_box(state, 0, 1, box=BOX)
    assert np.array_equal(found[2].numpy(), theirs(model(session, frame_idx=0))[1])
    processor.add_inputs_to_inference_session(
        session, 0, 2, input_points=[[POINTS.tolist()]], input_labels=[[LABELS.tolist()]]
    )
    found = ours.add_new_points_or_box(state, 0, 2, points=POINTS, labels=LABELS)
    assert np.array_equal(found[2].numpy(), theirs(model(session, frame_idx=0))[1])
    with torch.no_grad():
        expected = [theirs(output) for output in model.propagate_in_video_iterator(session)]
    assert len(expected) == 2
    for (index, ids, logits), their in zip(ours.propagate_in_video(state), expected, strict=True):
        assert (index, ids) == (their[0], [1, 2])
        assert np.array_equal(logits.numpy(), their[1]) and logits.min() < 0 < logits.max()
    ours.reset_state(state)
    found = ours.add_new_points_or_box(state, 1, 9, box=BOX)
    assert found[1] == [9] and found[2].shape == (1, 1, *SIZE)


def test_masks_of_a_clip_turn_with_it_for_transformers(pair):
    ours = CanonicalVideoPredictor(TransformersSamVideo(*pair), random_canonicalizer())
    mask = np.zeros(SIZE, bool)
    mask[5:30, 3:44] = True
    upright = None
    for turns in range(4):
        state, found = track(ours, clip(turns, 2), turns)
        *_, logits = ours.add_new_mask(state, 1, 3, np.rot90(mask, turns))
        results = [result for *_, result in found] + [logits.numpy()]
        results = [np.rot90(result, -turns, (2, 3)) for result in results]
        upright = results if upright is None else upright
        for result, before in zip(results, upright, strict=True):
            assert np.array_equal(result, before)
    assert [result.shape for result in upright] == [(2, 1, *SIZE)] * 2 + [(3, 1, *SIZE)]
    assert ((upright[2][2, 0] > 0) == mask).mean() > 0.9
