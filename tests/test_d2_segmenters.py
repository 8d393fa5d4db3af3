"""Official checkpoints, as far as they can be had offline: files of their format, names, shapes."""

import pickle
import random

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from tiny_models import tiny_config, tiny_segmenter

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.assets import resolve_asset
from canon_seg.config.keys import add_canon_seg_config
from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.d2.config import load_config
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.d2.trainer import save_segmenter
from canon_seg.errors import InputError

from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model

ZOO_MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
# What decides a result, beside the weights.
RESULT_KEYS = (
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.ANCHOR_GENERATOR",
    "MODEL.RPN",
    "MODEL.RESNETS",
    "MODEL.FPN",
    "MODEL.ROI_HEADS",
    "MODEL.ROI_BOX_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.MASK_ON",
    "MODEL.BACKBONE.NAME",
    "TEST.DETECTIONS_PER_IMAGE",
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
)


def value_of(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def toy_config(kind, weights):
    """The toy model of that kind as MODEL.SEGMENTER."""
    cfg = tiny_config(kind)
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.SEGMENTER.WEIGHTS = str(weights)
    return cfg


def toy_sam_config(weights):
    cfg = load_config("", ["MODEL.SAM.SIZE", "tiny", "MODEL.SEGMENTER.WEIGHTS", str(weights)])
    tiny = cfg.MODEL.SAM.TINY
    tiny.IMAGE_SIZE, tiny.CHANNELS, tiny.BLOCKS = 64, [8, 8, 16, 64], [1, 1, 1, 1]
    tiny.BACKBONE, tiny.EMBED_DIM = "", 32
    return cfg


def randomized(state, seed=0):
    """As many values as in a state dict, in numpy, other than any model starts with."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(1, 9, tuple(value.shape)).astype(value.numpy().dtype)
        for name, value in state.items()
    }


def write_zoo_file(path, arrays):
    """A file as those of detectron2's model zoo."""
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Someone at the zoo"}))
    return path


def assert_holds(module, arrays):
    state = module.state_dict()
    assert state.keys() == arrays.keys()
    for name, value in state.items():
        assert np.array_equal(value.numpy(), arrays[name]), name


def test_zoo_file_of_mask_rcnn(tmp_path):
    zoo = get_cfg()
    zoo.merge_from_file(model_zoo.get_config_file(ZOO_MASK_RCNN))
    zoo.MODEL.DEVICE = "cpu"
    arrays = randomized(build_model(zoo).state_dict())
    path = write_zoo_file(tmp_path / "model_final_f10217.pkl", arrays)

    cfg = load_config("configs/mask_rcnn_c4.yaml", ["MODEL.SEGMENTER.WEIGHTS", str(path)])
    segmenter = build_segmenter(cfg)
    assert_holds(segmenter, arrays)
    for key in RESULT_KEYS:
        assert value_of(cfg, key) == value_of(zoo, key), key


def test_official_file_of_sam(tmp_path):
    with torch.device("meta"):  # 375 MB are initialised once, not twice
        official = sam_model_registry["vit_b"]().state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(value.shape, generator=generator) for name, value in official.items()}
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(state, path)

    options = ["MODEL.SAM.SIZE", "vit_b", "MODEL.SEGMENTER.WEIGHTS", str(path)]
    segmenter = build_segmenter(load_config("configs/sam_c4.yaml", options))
    path.unlink()
    loaded = segmenter.sam.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert segmenter.sam.image_encoder.img_size == 1024 and segmenter.sam.mask_threshold == 0


@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet", "panoptic_fpn"])
def test_zoo_files_of_other_models(tmp_path, kind):
    arrays = randomized(tiny_segmenter(kind).state_dict())
    path = write_zoo_file(tmp_path / "model_final.pkl", arrays)
    assert_holds(build_segmenter(toy_config(kind, path)), arrays)


def test_checkpoints_of_detectron2s_own_training(tmp_path):
    model = tiny_segmenter("mask_rcnn")
    DetectionCheckpointer(model, str(tmp_path)).save("model_final", iteration=7)
    segmenter = build_segmenter(toy_config("mask_rcnn", tmp_path / "model_final.pth"))
    assert_holds(segmenter, {name: value.numpy() for name, value in model.state_dict().items()})


@pytest.mark.parametrize("kind", ["sam", "mask_rcnn"])
def test_trained_segmenters_are_written_in_their_official_format(tmp_path, kind):
    model, path = tiny_segmenter(kind), tmp_path / "segmenter.pth"
    save_segmenter(path, model)
    cfg = toy_sam_config(path) if kind == "sam" else toy_config(kind, path)
    loaded = build_segmenter(cfg).state_dict()
    for name, value in model.state_dict().items():
        if kind == "sam" and name in dict(model.named_parameters()):
            value = value.half().float()
        assert torch.equal(loaded[name], value), name


def test_sam_is_trained_on_from_its_official_format(tmp_path):
    model, other = tiny_segmenter("sam"), tiny_segmenter("sam", seed=4)
    save_segmenter(tmp_path / "segmenter.pth", model)
    SafeCheckpointer(other).load(str(tmp_path / "segmenter.pth"))
    for name, value in model.named_parameters():
        assert torch.equal(other.get_parameter(name), value.half().float()), name
    DetectionCheckpointer(model, str(tmp_path)).save("whole")  # and from a checkpoint of training
    SafeCheckpointer(other).load(str(tmp_path / "whole.pth"))
    assert all(torch.equal(other.get_parameter(n), value) for n, value in model.named_parameters())


def test_embedded_weights_are_known_by_their_address():
    model = build_model(load_config("train/sam_tiny_turned.yaml", []))
    SafeCheckpointer(model).load("canon_seg://sam_tiny.pth")
    expected = torch.load(resolve_asset("canon_seg://sam_tiny.pth"), weights_only=True)
    name = "mask_decoder.proposing.tokens.weight"
    assert torch.equal(model.sam.get_parameter(name), expected[name].float())


@pytest.mark.parametrize(
    ("config", "name", "official"),
    [
        ("configs/mask_rcnn_c4.yaml", "model_final_f10217.pkl", "model zoo"),
        ("configs/sam_c4.yaml", "sam_vit_h_4b8939.pth", "official sam_vit_h_4b8939.pth"),
    ],
)
def test_a_missing_checkpoint_is_named(tmp_path, monkeypatch, config, name, official):
    cfg = load_config(config)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        build_segmenter(cfg)
    message = str(error.value)
    assert "MODEL.SEGMENTER.WEIGHTS" in message and name in message and official in message


def test_the_official_file_of_each_size_is_named(tmp_path):
    for size, name in {"vit_l": "sam_vit_l_0b3195.pth", "vit_b": "sam_vit_b_01ec64.pth"}.items():
        options = ["MODEL.SAM.SIZE", size, "MODEL.SEGMENTER.WEIGHTS", str(tmp_path / "x.pth")]
        with pytest.raises(InputError, match=name):
            build_segmenter(load_config("configs/sam_c4.yaml", options))


def test_checkpoints_of_another_architecture(tmp_path):
    path = write_zoo_file(
        tmp_path / "retinanet.pkl", randomized(tiny_segmenter("retinanet").state_dict())
    )
    with pytest.raises(InputError, match="retinanet.pkl.*MODEL.SEGMENTER.WEIGHTS.*another"):
        build_segmenter(toy_config("mask_rcnn", path))
    # One layer of another size is enough.
    arrays = randomized(tiny_segmenter("mask_rcnn").state_dict())
    name = random.Random(0).choice(sorted(arrays))
    arrays[name] = np.concatenate([arrays[name].reshape(-1)] * 2)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        build_segmenter(toy_config("mask_rcnn", write_zoo_file(path, arrays)))


def test_the_wrong_kind_of_sam(tmp_path):
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(tiny_segmenter("sam").sam.state_dict(), path)
    cfg = toy_sam_config(path)
    cfg.MODEL.SAM.TINY.EMBED_DIM = 48
    with pytest.raises(InputError, match="another architecture"):
        build_segmenter(cfg)


def test_unknown_segmenters():
    with pytest.raises(InputError, match="MaskRCMM.*GeneralizedRCNN"):
        build_segmenter(load_config("", ["MODEL.SEGMENTER.META_ARCHITECTURE", "MaskRCMM"]))
    with pytest.raises(InputError, match="CanonicalizedSegmenter"):
        build_segmenter(
            load_config("", ["MODEL.SEGMENTER.META_ARCHITECTURE", "CanonicalizedSegmenter"])
        )


def test_no_segmenter():
    assert build_segmenter(load_config("", ["MODEL.SEGMENTER.META_ARCHITECTURE", ""])) is None


def test_random_weights_where_no_file_is_named():
    cfg = get_cfg()
    add_canon_seg_config(cfg)
    cfg.MODEL.SAM.SIZE = "tiny"
    assert build_segmenter(cfg).resizes_itself
