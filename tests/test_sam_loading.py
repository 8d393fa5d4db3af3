"""Weights of a SAM, however they are wrapped, through each way in."""

from pathlib import Path

import pytest
import torch

from canon_seg.apps.files.segment import build_sam_segment
from canon_seg.cli import app
from canon_seg.config.load import load_config
from canon_seg.errors import InputError
from canon_seg.sam import loading
from canon_seg.sam.loading import (
    EMBEDDED,
    build_sam,
    image_size,
    load_sam,
    load_sam_weights,
    sam_from_config,
)
from canon_seg.sam.models import build_tiny_sam

ROOT = Path(__file__).parents[1]
TINY = (64, (8, 8, 16, 64), (1, 1, 1, 1), 32)
WRAPPERS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "iteration": 7},
    "state_dict": lambda state: {"state_dict": state, "epoch": 1},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "model of state_dict": lambda state: {"model": {"state_dict": state}},
    "module in model": lambda state: {
        "model": {f"module.{name}": value for name, value in state.items()}
    },
}


def tiny_sam(seed):
    torch.manual_seed(seed)
    return build_tiny_sam(*TINY)


def toy_config(load, path):
    cfg = load("sam_tiny_c4.yaml", ["MODEL.SEGMENTER.WEIGHTS", str(path), "MODEL.DEVICE", "cpu"])
    tiny = cfg.MODEL.SAM.TINY
    tiny.BACKBONE = ""
    tiny.IMAGE_SIZE, tiny.CHANNELS, tiny.BLOCKS, tiny.EMBED_DIM = (
        list(value) if isinstance(value, tuple) else value for value in TINY
    )
    return cfg


def by_path(path):
    return load_sam(str(path), "vit_b")  # of which the fixture makes a tiny one


def by_the_page(path):
    words = ["--sam-checkpoint", str(path), "--sam-size", "vit_b", "--device", "cpu"]
    return app.build_turner(app.parse_arguments(words)).sam


def by_config(path):
    return sam_from_config(toy_config(load_config, path))


def by_the_demo(path):
    segment = build_sam_segment(toy_config(load_config, path), prompted=True)
    return segment.find.args[0].sam


def by_detectron2(path):
    pytest.importorskip("detectron2")
    from canon_seg.d2 import config
    from canon_seg.d2.segmenters import build_segmenter

    return build_segmenter(toy_config(config.load_config, path)).sam


def by_detectron2s_checkpointer(path):
    pytest.importorskip("detectron2")
    from canon_seg.d2.checkpointer import SafeCheckpointer
    from canon_seg.d2.sam import SamSegmenter

    segmenter = SamSegmenter(sam=tiny_sam(0), image_format="RGB")
    SafeCheckpointer(segmenter).load(str(path))
    return segmenter.sam


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "way",
    [
        by_path,
        by_the_page,
        by_config,
        by_the_demo,
        by_detectron2,
        by_detectron2s_checkpointer,
    ],
)
def test_every_wrapper_is_understood_by_every_way_in(tmp_path, monkeypatch, way, wrapper):
    monkeypatch.setattr(loading, "build_official_sam", lambda size: tiny_sam(0))
    wanted = tiny_sam(1).state_dict()
    torch.save(WRAPPERS[wrapper](wanted), tmp_path / "sam.pth")
    found = way(tmp_path / "sam.pth").state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("contents", [{}, [1], {"model": 3}, {"state_dict": {"a": 1}}, {"a": [1]}])
@pytest.mark.parametrize("way", [by_path, by_the_page, by_config, by_detectron2])
def test_what_holds_no_weights_is_named(tmp_path, monkeypatch, way, contents):
    monkeypatch.setattr(loading, "build_official_sam", lambda size: tiny_sam(0))
    torch.save(contents, tmp_path / "sam.pth")
    with pytest.raises(InputError, match="sam.pth .* holds no weights"):
        way(tmp_path / "sam.pth")


def test_constants_of_old_files_are_no_problem(tmp_path):
    state = tiny_sam(1).state_dict()
    torch.save({**state, "pixel_mean": torch.zeros(3, 1, 1)}, tmp_path / "sam.pth")
    sam = tiny_sam(0)
    load_sam_weights(sam, str(tmp_path / "sam.pth"), "KEY")
    assert torch.equal(sam.mask_decoder.iou_token.weight, state["mask_decoder.iou_token.weight"])


def test_files_of_the_earlier_small_sam_name_the_key_that_reads_them(tmp_path):
    torch.save(tiny_sam(1).state_dict(), tmp_path / "old.pth")
    with pytest.raises(InputError, match=r"old\.pth .*earlier architecture.*BACKBONE to \"\""):
        load_sam(str(tmp_path / "old.pth"))


def test_weights_are_of_this_model(tmp_path):
    torch.save(
        build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 2), 32).state_dict(), tmp_path / "x.pth"
    )
    with pytest.raises(InputError, match="x.pth .MODEL.SEGMENTER.WEIGHTS. .*another architecture"):
        by_config(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("size", "advice"), [("tiny", "segmenter.pth"), ("vit_l", "official sam_vit_l_0b3195.pth")]
)
def test_a_missing_file_is_named_before_anything_is_built(monkeypatch, size, advice):
    monkeypatch.setattr(loading, "build_sam", lambda cfg: pytest.fail("was built"))
    options = ["MODEL.SEGMENTER.WEIGHTS", "missing.pth", "MODEL.SAM.SIZE", size]
    with pytest.raises(InputError, match=f"no file missing.pth. .*{advice}"):
        sam_from_config(load_config("sam_tiny_c4.yaml", options))


def test_an_address_that_cannot_be_fetched_is_named():
    with pytest.raises(InputError, match="KEY: http://localhost:1/sam.pth could not be fetched"):
        load_sam("http://localhost:1/sam.pth", key="KEY")


def test_the_embedded_sam_is_that_of_its_config():
    cfg = load_config("sam_tiny_c4.yaml")
    assert cfg.MODEL.SEGMENTER.WEIGHTS == EMBEDDED
    ours, theirs = load_sam().state_dict(), sam_from_config(cfg).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_names_and_sizes_of_the_embedded_model_are_kept():
    cfg = load_config(str(ROOT / "configs" / "sam_tiny_c4.yaml"), [])
    state = build_sam(cfg).state_dict()
    for name, shape in {
        "image_encoder.body.conv_stem.weight": (32, 3, 3, 3),
        "image_encoder.body.blocks.4.1.conv_dw.weight": (672, 1, 5, 5),
        "image_encoder.body.blocks.5.3.conv_pw.weight": (1152, 192, 1, 1),
        "image_encoder.context.norm1.weight": (192,),
        "image_encoder.fine.weight": (8, 16, 1, 1),
        "mask_decoder.proposing.key.weight": (32, 64, 1, 1),
        "mask_decoder.proposing.filters.1.2.bias": (16,),
        "mask_decoder.refining.mixing.3.conv1.weight": (64, 64, 3, 3),
        "mask_decoder.refining.filters.2.0.weight": (64, 64),
    }.items():
        assert tuple(state[name].shape) == shape
    assert sum(parameter.numel() for parameter in build_sam(cfg).parameters()) == 3_490_473
    assert image_size(cfg) == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.SAM.SIZE", "vit_x"], "MODEL.SAM.SIZE.*vit_x.*vit_h"),
        (["MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.IMAGE_SIZE", "250"], "IMAGE_SIZE"),
        (["MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.EMBED_DIM", "40"], "EMBED_DIM"),
        (
            [
                "MODEL.SAM.SIZE",
                "tiny",
                "MODEL.SAM.TINY.BACKBONE",
                "",
                "MODEL.SAM.TINY.BLOCKS",
                "[1, 1]",
            ],
            "BLOCKS",
        ),
    ],
)
def test_sizes_that_do_not_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_sam(load_config("", options))


def test_side_of_official_models():
    assert image_size(load_config("", ["MODEL.SAM.SIZE", "vit_l"])) == 1024
