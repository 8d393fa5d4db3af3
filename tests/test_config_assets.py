"""Configs and weights that come with the package, found from anywhere."""

import os

import pytest

from canon_seg.config.assets import embedded_configs, resolve_asset, resolve_config
from canon_seg.config.device import resolve_device
from canon_seg.d2.config import load_config
from canon_seg.errors import InputError


@pytest.mark.parametrize("name", ["sam_tiny_c4.yaml", "configs/sam_tiny_c4.yaml"])
def test_a_config_is_known_by_its_name_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(name)
    resolve_device(cfg, name)  # reads the file again
    assert cfg.MODEL.SAM.SIZE == "tiny"  # from the file
    assert cfg.MODEL.META_ARCHITECTURE == "CanonicalizedSegmenter"  # from its base
    assert os.path.isfile(resolve_asset(cfg.MODEL.SEGMENTER.WEIGHTS))


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sam_tiny_c4.yaml").write_text("SEED: 77\n")
    assert resolve_config("sam_tiny_c4.yaml") == "sam_tiny_c4.yaml"
    assert load_config("sam_tiny_c4.yaml").SEED == 77
    assert load_config("configs/sam_tiny_c4.yaml").SEED != 77


def test_unknown_names_stay_and_the_error_lists_the_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_config("none.yaml") == "none.yaml"
    assert "train/canonicalizer_gcnn.yaml" in embedded_configs()
    with pytest.raises(InputError, match="no file none.yaml.* sam_tiny_c4.yaml"):
        load_config("none.yaml")
