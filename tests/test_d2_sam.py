import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from tiny_models import canonicalized, random_image, random_prompts, tiny_segmenter

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.core.canonicalizer import IdentityCanonicalizer
from canon_seg.d2 import sam as sam_meta_arch
from canon_seg.d2.sam import SamSegmenter
from canon_seg.sam import prompted
from canon_seg.sam.models import build_tiny_sam
from canon_seg.sam.prompted import PromptedSam
from canon_seg.sam.prompts import Prompts

from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

SIZES = [(40, 61), (61, 40), (48, 48), (100, 37), (1, 30)]


@pytest.fixture(scope="module")
def sam():
    return tiny_segmenter("sam")


def array_of(image):
    return image.permute(1, 2, 0).contiguous().numpy()


# --- inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["boxes", "points", "both"])
@pytest.mark.parametrize("size", SIZES)
def test_equal_to_sam_predictor_behind_the_identity(sam, size, kind, multimask):
    image, prompts = random_image(*size), random_prompts(*size, kind, count=3)
    segmenter = SamSegmenter(
        sam=sam.sam, image_format="RGB", multimask=multimask, prompts_per_batch=1
    ).eval()
    model = canonicalized(segmenter, IdentityCanonicalizer())
    instances = model([{"image": image, "prompts": prompts}])[0]["instances"]
    predictor = SamPredictor(sam.sam)
    predictor.set_image(array_of(image))
    for index in range(len(prompts)):
        masks, scores, _ = predictor.predict(
            box=None if prompts.boxes is None else prompts.boxes[index].numpy(),
            point_coords=None if prompts.points is None else prompts.points[index].numpy(),
            point_labels=(None if prompts.points is None else prompts.point_labels[index].numpy()),
            multimask_output=multimask,
        )
        best = int(np.argmax(scores))
        assert instances.scores[index].item() == scores[best]
        assert np.array_equal(instances.pred_masks[index].numpy(), masks[best])


def test_equal_to_sam_predictor_for_many_prompts_at_once(sam):
    image, prompts = random_image(40, 61), random_prompts(40, 61, count=20)
    instances = sam([{"image": image, "prompts": prompts}])[0]["instances"]
    predictor = SamPredictor(sam.sam)
    predictor.set_image(array_of(image))
    boxes = predictor.transform.apply_boxes(prompts.boxes.numpy(), (40, 61))
    masks, scores, _ = predictor.predict_torch(
        None, None, boxes=torch.as_tensor(boxes, dtype=torch.float)
    )
    best = scores.argmax(dim=1)
    assert torch.equal(instances.scores, scores[torch.arange(20), best])
    assert torch.equal(instances.pred_masks, masks[torch.arange(20), best])


def test_prompts_go_through_the_decoder_in_parts(sam):
    image, prompts = random_image(40, 61), random_prompts(40, 61, "both", count=7)
    parts = SamSegmenter(sam=sam.sam, image_format="RGB", prompts_per_batch=3).eval()
    ours = parts([{"image": image, "prompts": prompts}])[0]["instances"]
    whole = sam([{"image": image, "prompts": prompts}])[0]["instances"]
    torch.testing.assert_close(ours.scores, whole.scores)
    assert torch.equal(ours.pred_masks, whole.pred_masks)


def test_bgr_images_are_given_to_sam_as_rgb(sam):
    image, prompts = random_image(40, 61), random_prompts(40, 61)
    bgr = SamSegmenter(sam=sam.sam, image_format="BGR").eval()
    ours = bgr([{"image": image.flip(0), "prompts": prompts}])[0]["instances"]
    theirs = sam([{"image": image, "prompts": prompts}])[0]["instances"]
    assert torch.equal(ours.pred_masks, theirs.pred_masks)
    assert torch.equal(ours.scores, theirs.scores)
    wrong = sam([{"image": image.flip(0), "prompts": prompts}])[0]["instances"]
    assert not torch.equal(ours.scores, wrong.scores)


def test_fields_of_the_result(sam):
    image = random_image(40, 61)
    prompts = replace(random_prompts(40, 61), scores=torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1]))
    instances = sam([{"image": image, "prompts": prompts}])[0]["instances"]
    assert torch.equal(instances.scores, prompts.scores)  # a detector's go before predicted IoU
    assert torch.equal(instances.pred_classes, prompts.classes)
    for mask, box in zip(instances.pred_masks, instances.pred_boxes.tensor):
        y, x = np.nonzero(mask.numpy())
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    without = Prompts(boxes=prompts.boxes)
    instances = sam([{"image": image, "prompts": without}])[0]["instances"]
    assert instances.pred_classes.tolist() == [0] * 5


def test_results_of_another_size(sam):
    inputs = {
        "image": random_image(40, 61),
        "prompts": random_prompts(40, 61),
        "height": 81,
        "width": 99,
    }
    instances = sam([inputs])[0]["instances"]
    assert instances.image_size == (81, 99) and instances.pred_masks.shape == (5, 81, 99)


def test_no_prompts_no_encoder(sam):
    class Fails(torch.nn.Module):
        img_size = 64

    model = copy.copy(sam)
    model._modules = {"sam": copy.copy(sam.sam)}
    model.sam._modules = {**sam.sam._modules, "image_encoder": Fails()}
    inputs = {"image": random_image(40, 61), "prompts": Prompts(boxes=torch.zeros(0, 4))}
    instances = model([inputs])[0]["instances"]
    assert len(instances) == 0 and instances.pred_masks.shape == (0, 40, 61)


def test_prompts_are_needed(sam):
    with pytest.raises(ValueError, match="prompts"):
        sam([{"image": random_image(40, 61)}])


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_very_thin_images(sam, size):
    inputs = {"image": random_image(*size), "prompts": random_prompts(*size)}
    assert sam([inputs])[0]["instances"].pred_masks.shape[1:] == size


# --- training -------------------------------------------------------------------------------------


def example(height=48, width=64):
    """An image of two bright rectangles, and their masks."""
    image = torch.full((3, height, width), 40, dtype=torch.uint8)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 8:40, 6:26] = masks[1, 12:30, 34:60] = True
    image[:, masks[0]] = 220
    image[0, masks[1]] = 200
    instances = Instances((height, width))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return {"image": image, "instances": instances}


def trainable_sam():
    torch.manual_seed(0)
    sam = build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32)
    return SamSegmenter(sam=sam, image_format="RGB", warmup_steps=0).train()


def test_training_on_one_image_lowers_the_loss():
    model, batch = trainable_sam(), [example()]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    with EventStorage():
        for _ in range(40):
            losses = model(batch)
            assert losses.keys() == {"loss_mask", "loss_dice", "loss_iou"}
            total = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            totals.append(total.item())
    assert np.mean(totals[-5:]) < 0.75 * np.mean(totals[:5])


def test_every_part_learns_over_many_steps():
    model = trainable_sam()
    for parameter in model.parameters():
        if not parameter.any():  # layers that begin at zero, before which nothing would learn
            torch.nn.init.normal_(parameter, std=0.1)
    with EventStorage():
        for _ in range(30):  # boxes, clicks and corrections all come up
            sum(model([example()]).values()).backward()
    unused = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() == 0
    }
    # An ambiguity token may never have been the best, a prompt's kind never have come up.
    may_be = (
        "mask_decoder.output_hypernetworks_mlps",
        "prompt_encoder.point_embeddings",
        "prompt_encoder.not_a_point_embed",
    )
    assert not {name for name in unused if not any(part in name for part in may_be)}


def test_polygons_train_as_bitmasks_do():
    inputs = example()
    boxes = inputs["instances"].gt_boxes.tensor.double().numpy()
    polygons = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]
    drawn = Instances(inputs["instances"].image_size)
    drawn.gt_masks, drawn.gt_boxes = PolygonMasks(polygons), inputs["instances"].gt_boxes
    model = trainable_sam().eval()
    model.training = True
    losses = []
    for instances in (inputs["instances"], drawn):
        torch.manual_seed(5)
        with EventStorage():
            losses.append(model([{**inputs, "instances": instances}]))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_images_without_instances_cost_nothing():
    empty = {"image": random_image(40, 61), "instances": Instances((40, 61))}
    empty["instances"].gt_masks = BitMasks(torch.zeros(0, 40, 61, dtype=torch.bool))
    empty["instances"].gt_boxes = Boxes(torch.zeros(0, 4))
    model = trainable_sam()
    with EventStorage():
        losses = model([empty, empty])
        assert all(value.item() == 0 for value in losses.values())
        sum(losses.values()).backward()
        losses = model([example(), empty])
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())


def test_warmup_ends(monkeypatch):
    model, seen = trainable_sam(), []
    model.warmup_steps = 5
    original = sam_meta_arch.training_losses

    def record(sam, embeddings, batch, **options):
        seen.append(options["warmup"])
        return original(sam, embeddings, batch, **options)

    monkeypatch.setattr(sam_meta_arch, "training_losses", record)
    for step in (0, 4, 5):
        with EventStorage(step):
            model([example()])
    assert seen == [True, True, False]


def test_masks_are_the_same_however_few_are_upsampled_at_once(monkeypatch):
    model, image = trainable_sam().eval(), random_image(60, 80)
    corners = 40 * torch.rand(7, 2, generator=torch.Generator().manual_seed(1))
    inputs = [{"image": image, "prompts": Prompts(boxes=torch.cat([corners, corners + 15], dim=1))}]
    at_once = model(inputs)[0]["instances"].pred_masks
    monkeypatch.setattr(prompted, "MAX_UPSAMPLED", 2 * 60 * 80)
    assert torch.equal(model(inputs)[0]["instances"].pred_masks, at_once) and at_once.any()


def test_small_objects_are_drawn_more_often_and_one_always():
    instances = Instances((100, 200))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 0, 20, 20], [0, 0, 200, 100]]))
    instances.number = torch.arange(2)
    drawn = [sam_meta_arch._draw(instances, 2, 0.2).number.tolist() for _ in range(200)]
    assert all(0 in numbers for numbers in drawn)
    assert 1 <= sum(1 in numbers for numbers in drawn) < 40
    large = instances[1:]
    assert all(len(sam_meta_arch._draw(large, 2, 0.2)) == 1 for _ in range(50))
    assert len(sam_meta_arch._draw(instances[:0], 2, 0.2)) == 0


def test_training_and_inference_see_nearly_the_same_pixels():
    model = trainable_sam()
    image = random_image(150, 200)
    ours = model._resize_for_training({"image": image})
    model.image_format = "BGR"
    assert torch.equal(model._resize_for_training({"image": image.flip(0)}), ours)
    model.image_format = "RGB"
    theirs = model.sam.preprocess(PromptedSam(model.sam).resize(image))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.05  # Pillow rounds to 8 bits: one level is 0.017
