import cv2
import numpy as np
import pytest
import torch
from conftest import tiny_sam_options
from tiny_models import random_image, random_prompts, tiny_config

from canon_seg import CanonicalPredictor, load_config
from canon_seg.d2.instances import turn_instances
from canon_seg.errors import InputError
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.sam.prompts import Prompts

from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer

SIZE = 40, 61
SAM = [
    *tiny_sam_options(),
    "INPUT.FORMAT",
    "RGB",
]
CANONICAL = [
    "MODEL.META_ARCHITECTURE",
    "CanonicalizedSegmenter",
    "MODEL.CANONICALIZER.WEIGHTS",
    "canon_seg://canonicalizer_gcnn.pth",
]


def predictor_of(kind):
    torch.manual_seed(3)
    if kind == "sam":
        return CanonicalPredictor(load_config("", [*SAM, *CANONICAL, "MODEL.DEVICE", "cpu"]))
    cfg = tiny_config(kind)
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = cfg.MODEL.META_ARCHITECTURE
    cfg.merge_from_list(CANONICAL)
    return CanonicalPredictor(cfg)


@pytest.fixture(scope="module")
def sam():
    return predictor_of("sam")


def picture(size=SIZE, seed=0):
    """(H, W, 3) uint8 array, BGR."""
    return np.ascontiguousarray(random_image(*size, seed).permute(1, 2, 0).numpy())


def assert_same_instances(ours, theirs):
    assert ours.image_size == theirs.image_size
    assert ours.get_fields().keys() == theirs.get_fields().keys()
    for name, value in ours.get_fields().items():
        other = theirs.get(name)
        assert torch.equal(getattr(value, "tensor", value), getattr(other, "tensor", other)), name


@pytest.mark.parametrize("kind", ["mask_rcnn", "panoptic_fpn"])
def test_results_of_detectors_turn_with_the_image_and_can_be_drawn(kind):
    predictor, upright = predictor_of(kind), None
    for turns in C4.elements:
        image = np.ascontiguousarray(turn_image(picture(), turns))
        result = predictor(image)
        upright = result if upright is None else upright
        assert result["pose"].turns == C4.compose(upright["pose"].turns, turns)
        assert len(result["instances"]) > 0
        assert_same_instances(result["instances"], turn_instances(upright["instances"], turns))
        drawing = Visualizer(image[..., ::-1], MetadataCatalog.get("canon_seg_test_nothing"))
        drawn = drawing.draw_instance_predictions(result["instances"]).get_image()
        assert drawn.shape == image.shape and not np.array_equal(drawn, image[..., ::-1])
    if kind == "panoptic_fpn":
        segments, infos = upright["panoptic_seg"]
        assert segments.shape == SIZE and isinstance(infos, list)


def test_channels_are_those_that_the_model_was_trained_on(sam):
    assert sam.input_format == "RGB"
    image, prompts = picture(), random_prompts(*SIZE)
    tensor = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
    (expected,) = sam.model([{"image": tensor, "prompts": prompts}])
    result = sam(image, prompts)
    assert result["pose"] == expected["pose"]
    assert_same_instances(result["instances"], expected["instances"])


def test_masks_of_prompts_turn_with_the_image(sam):
    prompts = random_prompts(*SIZE, "both").snapped()
    upright = sam(picture(), prompts)["instances"]
    for turns in C4.elements:
        result = sam(turn_image(picture(), turns), prompts.turned(turns, *SIZE))["instances"]
        assert torch.equal(result.pred_masks, turn_maps(upright.pred_masks, turns))
        assert torch.equal(result.scores, upright.scores)


def test_a_batch_gives_what_single_images_give(sam):
    sizes = [(40, 61), (61, 40), (33, 50)]
    images = [picture(size, seed) for seed, size in enumerate(sizes)]
    prompts = [random_prompts(*size, count=2 + seed) for seed, size in enumerate(sizes)]
    results = sam.batch(images, prompts)
    for image, part, result in zip(images, prompts, results):
        single = sam(image, part)
        assert single["pose"] == result["pose"]
        assert_same_instances(single["instances"], result["instances"])
    assert sam.batch([]) == []


def test_no_prompts_in_an_image_give_no_masks(sam):
    result = sam(picture(), Prompts(boxes=torch.zeros(0, 4)))["instances"]
    assert result.pred_masks.shape == (0, *SIZE)


def test_the_config_is_not_changed_and_the_cpu_stands_in_for_a_default_gpu(capsys):
    cfg = load_config("", [*SAM, *CANONICAL])
    cfg.freeze()
    before = cfg.dump()
    predictor = CanonicalPredictor(cfg)
    assert cfg.dump() == before and cfg.MODEL.DEVICE == "cuda"
    if not torch.cuda.device_count():
        assert predictor.cfg.MODEL.DEVICE == "cpu" and "CPU" in capsys.readouterr().err


def test_bad_input_has_clear_errors(sam):
    box = Prompts(boxes=torch.tensor([[1.0, 2.0, 30.0, 20.0]]))
    for arguments, message in [
        ((picture().astype(float), box), "uint8"),
        ((picture()[..., 0], box), "shape"),
        ((None, box), "NoneType"),  # what cv2.imread returns for a file that is not there
        ((picture(), Prompts(boxes=torch.tensor([[70.0, 2.0, 90.0, 20.0]]))), "outside"),
        ((picture(), Prompts(boxes=torch.tensor([[5.0, 2.0, 5.0, 20.0]]))), "no area"),
        ((picture(),), "SamSegmenter needs prompts"),
        ((picture(), np.array([[1, 2, 3, 4]])), "prompts are a ndarray; give .*Prompts"),
    ]:
        with pytest.raises(InputError, match=message):
            sam(*arguments)
    with pytest.raises(InputError, match="1 prompts for 2 images"):
        sam.batch([picture()] * 2, [box])
    with pytest.raises(InputError, match="takes no prompts"):
        predictor_of("mask_rcnn")(picture(), box)
    with pytest.raises(InputError, match="MODEL.DEVICE"):
        CanonicalPredictor(load_config("", [*SAM, *CANONICAL, "MODEL.DEVICE", "cuda:99"]))
    with pytest.raises(InputError, match="META_ARCHITECTURE"):
        CanonicalPredictor(load_config("", ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]))


def test_boxes_past_the_edge_are_cut_there(sam):
    image = random_image(*SIZE).permute(1, 2, 0).numpy()
    past, cut = (
        sam(image, Prompts(boxes=torch.tensor([box])))["instances"]
        for box in ([-7.0, 5, 80, 90], [0.0, 5, 61, 40])
    )
    assert torch.equal(past.pred_masks, cut.pred_masks) and torch.equal(past.scores, cut.scores)
