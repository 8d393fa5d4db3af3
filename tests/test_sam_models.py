import math
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.sam.models import (
    Comparison,
    LongestSide,
    box_features,
    box_shape,
    build_tiny_sam,
    pack,
    unpack,
)
from canon_seg.sam.windows import (
    OUTSIDE,
    cell_centres,
    whole_windows,
    windows_around,
)

ROOT = Path(__file__).parents[1]


def test_tiny_encoder_has_the_interface_of_sams():
    sam = build_tiny_sam(64, (8, 8, 16, 64), (1, 2, 1, 1), 32)
    assert isinstance(sam, Sam) and not sam.training
    assert sam.image_encoder.img_size == 64
    embedding = sam.image_encoder(torch.zeros(2, 3, 64, 64))
    assert embedding.shape == (2, 4 * 32, 8, 8)
    assert sam.prompt_encoder.get_dense_pe().shape == (1, 32, 8, 8)
    # segment_anything's own forward runs on it, with masks of any size.
    inputs = {
        "image": torch.zeros(3, 40, 64),
        "original_size": (50, 80),
        "boxes": torch.tensor([[4.0, 4.0, 30.0, 20.0]]),
    }
    result = sam([inputs], multimask_output=True)[0]
    assert result["masks"].shape == (1, 3, 50, 80)
    assert result["low_res_logits"].shape == (1, 3, 64, 64)


def test_maps_of_three_strides_in_one():
    maps = torch.randn(2, 16, 3, 5), torch.randn(2, 4, 6, 10), torch.randn(2, 2, 12, 20)
    packed = pack(*maps)
    assert packed.shape == (2, 64, 3, 5)
    assert all(torch.equal(out, given) for out, given in zip(unpack(packed), maps))
    # A window of the packed map is the packed windows.
    middle, fine = maps[1][..., 2:6, 4:8], maps[2][..., 4:12, 8:16]
    assert torch.equal(packed[..., 1:3, 2:4], pack(maps[0][..., 1:3, 2:4], middle, fine))


def test_boxes_seen_from_cells():
    boxes = torch.tensor([[10.0, 21, 31, 40], [0, 0, 64, 64]])
    windows = whole_windows(2, 64, boxes)
    features = box_features(boxes, windows, 32)
    assert features.shape == (2, 8, 32, 32)
    x, y = cell_centres(windows, 32)
    inside = (x > boxes[:, 0, None, None]) & (x < boxes[:, 2, None, None])
    inside = inside & (y > boxes[:, 1, None, None]) & (y < boxes[:, 3, None, None])
    assert torch.equal((features[:, :4] > 0).all(dim=1), inside)
    assert torch.equal(features[:, 7] < 1, inside)  # the larger of |u| and |v|
    # The squared radius is 1 on the middle of a side, here in the only cell of a window.
    window = torch.tensor([[20.0, 39, 21, 41]])
    assert box_features(boxes[:1], window, 1)[0, 6].item() == pytest.approx(1)


def test_shapes_of_boxes():
    one, twice = box_shape(torch.tensor([[0.0, 0, 8, 16], [10, 10, 26, 42]]))
    torch.testing.assert_close(twice - one, torch.tensor([math.log(2), math.log(2), 0, 0]))
    assert one[0] == 0 and one[3] > one[2]


def test_clicks_seen_from_cells():
    encoder = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32).prompt_encoder
    coords = torch.tensor([[[11.5, 19.5], [51.5, 43.5], [3.5, 3.5]]])  # centres of cells, - 0.5
    features = encoder.click_features(coords, torch.tensor([[1, 0, -1]]))
    inside, outside = features[0].split(3)
    for maps, (column, row) in ((inside, (1, 2)), (outside, (6, 5))):
        assert (maps[:, row, column] == 1).all() and (maps == 1).sum() == 3
        assert maps[0, row, column - 1].item() == pytest.approx(math.exp(-0.5))  # 8 px away
    assert not encoder.click_features(coords, torch.tensor([[-1, -1, -1]])).any()


def test_boxes_go_along_with_the_dense_embedding():
    encoder = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32).prompt_encoder
    boxes, points = torch.tensor([[8.0, 8, 40, 30]]), (torch.ones(1, 1, 2), torch.ones(1, 1))
    for given in (None, points):
        dense = encoder(points=given, boxes=boxes, masks=None)[1]
        assert dense.shape == (1, 32 + 5, 8, 8)
        assert dense[0, 32:, 3, 5].tolist() == [8, 8, 40, 30, 1]
    assert not encoder(points=points, boxes=None, masks=None)[1][:, 32:].any()


def test_prompts_keep_their_precision_under_autocast():
    encoder = build_tiny_sam(512, (8, 8, 16, 64), (1, 1, 1, 1), 32).prompt_encoder
    boxes = torch.tensor([[301.3, 411.7, 317.9, 425.2]])
    points, masks = (torch.rand(1, 2, 2) * 512, torch.ones(1, 2)), torch.rand(1, 1, 512, 512)
    expected = [*encoder(points, boxes, masks), encoder.get_dense_pe()]
    with torch.autocast("cpu", torch.bfloat16):
        found = [*encoder(points, boxes, masks), encoder.get_dense_pe()]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected))


def test_padding_is_no_click():
    encoder = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32).prompt_encoder
    boxes, coords = torch.tensor([[8.0, 8, 40, 30]] * 2), torch.rand(2, 2, 2) * 60
    padded = encoder((coords, torch.tensor([[-1, -1], [1, -1]])), boxes, None)[1]
    assert torch.equal(padded[0], encoder(None, boxes, None)[1][0])
    assert torch.equal(padded[1], encoder((coords[:, :1], torch.ones(2, 1)), boxes, None)[1][1])


@pytest.mark.parametrize(
    "prompts",
    [
        dict(point_coords=np.zeros((0, 2)), point_labels=np.zeros(0)),
        dict(point_coords=np.zeros((0, 2)), point_labels=np.zeros(0), box=np.array([4, 4, 30, 20])),
        dict(mask_input=np.zeros((1, 64, 64), np.float32)),
    ],
)
def test_prompts_that_sams_predictor_takes(prompts):
    predictor = SamPredictor(build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32))
    predictor.set_image(np.zeros((40, 64, 3), np.uint8))
    assert predictor.predict(**prompts)[0].shape == (3, 40, 64)


def test_one_mask_for_several_prompts():
    predictor = SamPredictor(build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32))
    predictor.set_image(np.zeros((40, 64, 3), np.uint8))
    boxes, mask = torch.tensor([[4.0, 4, 30, 20], [9, 3, 60, 33]]), torch.randn(1, 1, 64, 64)
    both = predictor.predict_torch(None, None, boxes, mask, return_logits=True)[0]
    alone = predictor.predict_torch(None, None, boxes[1:], mask, return_logits=True)[0]
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_masks_are_prompts_for_the_next_ones():
    predictor = SamPredictor(ready_sam())
    predictor.set_image(np.zeros((40, 64, 3), np.uint8))
    box = np.array([4, 4, 30, 20])
    _, _, logits = predictor.predict(box=box, multimask_output=False)
    again = predictor.predict(box=box, mask_input=logits, multimask_output=False)[2]
    assert logits.shape == again.shape == (1, 64, 64) and not np.array_equal(logits, again)


def test_forward_gives_some_of_all_masks():
    sam = ready_sam()
    inputs = encode(sam, torch.tensor([[3.0, 4, 30, 40], [10, 2, 60, 20]]))
    masks, ious = sam.mask_decoder.predict_masks(*inputs)
    for multimask, chosen in ((False, slice(0, 1)), (True, slice(1, 4))):
        some, their_ious = sam.mask_decoder(*inputs, multimask_output=multimask)
        assert torch.equal(some, masks[:, chosen]) and torch.equal(their_ious, ious[:, chosen])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embeddings_kept_in_lower_precision(dtype):
    predictor = SamPredictor(build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32))
    predictor.set_image(np.zeros((40, 64, 3), np.uint8))
    predictor.features = predictor.features.to(dtype)
    assert predictor.predict(box=np.array([4, 4, 30, 20]))[2].dtype == np.float32


def ready_sam():
    """With layers that begin at zero given something to do."""
    torch.manual_seed(0)
    sam = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32)
    for name, parameter in sam.mask_decoder.named_parameters():
        if "mixing" in name and "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return sam


def encode(sam, boxes):
    """Image embedding, positional encoding, sparse and dense embedding."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    return torch.randn(1, 128, 8, 8), sam.prompt_encoder.get_dense_pe(), sparse, dense


def test_prompts_that_cannot_be_decoded_at_once():
    sam = ready_sam()
    embedding, pe, sparse, dense = encode(sam, torch.tensor([[3.0, 4, 30, 40], [1, 2, 30, 40]]))
    with pytest.raises(ValueError, match="one image embedding"):
        sam.mask_decoder.predict_masks(embedding.expand(2, -1, -1, -1), pe, sparse, dense)
    dense[0, 32:] = 0
    with pytest.raises(ValueError, match="all have a box"):
        sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)


@pytest.mark.parametrize("box", [[-900.0, -900, 900, 900], [float("nan"), 2, 30, 40]])
def test_boxes_from_afar(box):
    sam = ready_sam()
    embedding, pe, sparse, dense = encode(sam, torch.tensor([box]))
    masks, ious = sam.mask_decoder.predict_masks(embedding, pe, sparse.nan_to_num(), dense)
    assert masks.isfinite().all() and ious.isfinite().all()


def test_the_decoder_treats_prompts_alone():
    sam = ready_sam()
    boxes = torch.tensor([[3.0, 4, 30, 40], [10, 2, 60, 20]])
    embedding, pe, sparse, dense = encode(sam, boxes)
    masks, ious = sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)
    assert masks.shape == (2, 4, 64, 64) and ious.shape == (2, 4)
    for n in range(2):
        one = sam.mask_decoder.predict_masks(embedding, pe, sparse[n : n + 1], dense[n : n + 1])
        torch.testing.assert_close(one[0][0], masks[n], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one[1][0], ious[n], rtol=1e-4, atol=1e-5)


def test_masks_lie_in_the_windows_of_their_boxes():
    sam = ready_sam()
    boxes = torch.tensor([[8.0, 8, 24, 40]])
    masks, _ = sam.mask_decoder.predict_masks(*encode(sam, boxes))
    ((x0, y0, x1, y1),) = (windows_around(boxes)).round().int().tolist()
    shown = torch.zeros(64, 64, dtype=torch.bool)
    shown[max(y0, 0) : y1, max(x0, 0) : x1] = True
    assert torch.equal(masks[0, 0] != OUTSIDE, shown)


@pytest.mark.parametrize("box", [True, False])
def test_details_of_all_strides_are_used(box):
    sam = ready_sam()
    embedding, pe, sparse, dense = encode(sam, torch.tensor([[3.0, 4, 30, 40]]))
    if not box:
        dense = torch.cat([dense[:, :32], torch.zeros_like(dense[:, 32:])], dim=1)
    embedding.requires_grad_()
    masks, _ = sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)
    masks[..., 20, 16].sum().backward()
    assert all(maps.any() for maps in unpack(embedding.grad))
    *_, fine = unpack(embedding.grad)
    if box:  # what no window shows has no say
        assert not fine[0, :, 26:].any() and not fine[0, :, :, 20:].any()


def test_comparison_knows_what_is_alike():
    comparison = Comparison(4, 4)
    torch.nn.init.eye_(comparison.key.weight[:, :, 0, 0])
    torch.nn.init.zeros_(comparison.key.bias)
    seen = []
    comparison.mlp.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    maps = torch.zeros(1, 4, 16, 16)
    maps[:, 0], maps[:, 0, 4:12, 4:12], maps[:, 1, 4:12, 4:12] = 1, 0, 1  # one thing on another
    comparison(maps)
    likeness = seen[0].unflatten(1, (8, 8))[0] / Comparison.SCALE  # raster rows, columns, cells
    assert likeness.shape == (8, 8, 16, 16)
    inside = maps[0, 1] > 0
    torch.testing.assert_close(likeness[3, 4], inside.float())  # raster cell inside
    torch.testing.assert_close(likeness[0, 7], (~inside).float())  # raster cell outside


@pytest.mark.parametrize("size", [(480, 640), (1, 300), (333, 17), (1024, 1024)])
def test_resizing_is_sams(size):
    expected = ResizeLongestSide.get_preprocess_shape(*size, 1024)
    assert LongestSide.get_preprocess_shape(*size, 1024) == expected


def test_resizing_leaves_a_pixel_of_very_long_images():
    assert LongestSide.get_preprocess_shape(1, 3000, 256) == (1, 256)
    assert LongestSide.get_preprocess_shape(3000, 1, 256) == (256, 1)
