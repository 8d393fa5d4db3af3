import pytest
import torch

from canon_seg.config.device import check_device, resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError

ABSENT = "cuda:99"


def test_a_device_that_is_there_is_kept(capsys):
    options = ["MODEL.DEVICE", "cpu"]
    cfg = load_config("", options)
    resolve_device(cfg, "", options)
    assert cfg.MODEL.DEVICE == "cpu" and capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [ABSENT, "abacus"])
def test_a_device_asked_for_on_the_command_line_must_be_there(name):
    options = ["SEED", "1", "MODEL.DEVICE", name]
    with pytest.raises(InputError, match=f"MODEL.DEVICE is '{name}'.*give MODEL.DEVICE cpu"):
        resolve_device(load_config("", options), "", options)


def test_a_device_asked_for_in_a_file_or_its_base_must_be_there(tmp_path):
    base, derived = tmp_path / "base.yaml", tmp_path / "derived.yaml"
    base.write_text(f'MODEL:\n  DEVICE: "{ABSENT}"\n')
    derived.write_text('_BASE_: "base.yaml"\nSEED: 1\n')
    for file in (base, derived):
        with pytest.raises(InputError, match="MODEL.DEVICE"):
            resolve_device(load_config(str(file)), str(file))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_default_is_the_cpu(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("SEED: 1\n")
    for config_file in ("", str(file)):
        cfg = load_config(config_file)
        resolve_device(cfg, config_file)
        assert cfg.MODEL.DEVICE == "cpu"
        assert capsys.readouterr().err == "no GPU found: running on the CPU\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_configs_of_the_model_zoo_run_on_the_cpu_too():
    pytest.importorskip("detectron2")
    from canon_seg.d2.config import load_config

    from detectron2 import model_zoo

    # A RetinaNet's config computes its anchors with a tag that runs code.
    file = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    cfg = load_config(file)
    resolve_device(cfg, file)
    assert cfg.MODEL.DEVICE == "cpu"


def test_a_device_of_an_option_must_be_there():
    check_device("cpu", "--device")
    with pytest.raises(InputError, match=f"--device {ABSENT} cannot be used here"):
        check_device(ABSENT, "--device")
