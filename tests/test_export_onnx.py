"""The export to ONNX: files that onnxruntime runs as torch does, and what is refused."""

import json
import sys

import export_onnx
import numpy as np
import pytest
import torch
from conftest import tiny_sam_options
from optional import need
from PIL import Image

from canon_seg.errors import InputError
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_weights import save_pose_network


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((160, 120)).save(folder / "one.png")
    return folder


@pytest.fixture(autouse=True)
def libraries():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        need(name)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export_onnx.py", *map(str, arguments)])
    export_onnx.main()


@pytest.mark.timeout(900)  # exporting takes about half a minute of a core
def test_files_do_what_torch_does(photos, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    weights = tmp_path / "poses.pth"
    save_pose_network(weights, PoseNetwork(BackboneSpec("test_efficientnet")), 64)
    output = tmp_path / "out"
    run(
        monkeypatch,
        *["--config-file", "sam_tiny_c4.yaml", "--images", photos, "--output", output],
        *["MODEL.CANONICALIZER.WEIGHTS", weights, "MODEL.SEGMENTER.WEIGHTS", ""],
        *[*tiny_sam_options(), "MODEL.SAM.TINY.BACKBONE", "tf_efficientnet_lite0"],
    )
    found = json.loads((output / "onnx.json").read_text())
    assert found["photographs"] == found["same_pose"] == 1
    for kind in ("clicks", "boxes"):
        assert found[f"{kind}_smallest_iou"] > 0.99
        assert (output / f"{kind}.onnx").stat().st_size > 10**5
    assert "clicks_mean_iou" in capsys.readouterr().out


def test_what_is_not_exported_is_said(photos, tmp_path, monkeypatch):
    given = ["--config-file", "sam_tiny_c4.yaml", "--images", photos, "--output", tmp_path / "out"]
    with pytest.raises(InputError, match="--limit is 0"):
        run(monkeypatch, *given, "--limit", 0)
    gcnn = ["MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"]
    with pytest.raises(InputError, match="the canonicalizer is exported if it is a backbone"):
        run(monkeypatch, *given, *gcnn)
    pretrained = ["MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_pretrained.pth"]
    with pytest.raises(InputError, match="a SAM is exported if it decodes in two stages"):
        run(
            monkeypatch,
            *[*given, *pretrained, "MODEL.SAM.TINY.BACKBONE", "", "MODEL.SEGMENTER.WEIGHTS", ""],
        )
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnx" else 1)
    with pytest.raises(InputError, match="install: pip install onnx$"):
        run(monkeypatch, *given)
