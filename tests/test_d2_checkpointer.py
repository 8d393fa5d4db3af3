import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("detectron2", reason="the checkpointer is detectron2's")

from canon_seg.d2.checkpointer import SafeCheckpointer
from canon_seg.errors import InputError

from detectron2.modeling.backbone import build_resnet_backbone

KEY = "MODEL.SEGMENTER.WEIGHTS"


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def parameters_equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values())
    )


def numpy_state(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def write_pickle(path, contents):
    path.write_bytes(pickle.dumps(contents, 2))
    return str(path)


def write_torch(path, contents):
    torch.save(contents, path)
    return str(path)


def test_round_trip_with_optimizer_and_schedule(tmp_path):
    first, second = model(), model()
    optimizers = [torch.optim.AdamW(module.parameters(), lr=0.1) for module in (first, second)]
    schedules = [torch.optim.lr_scheduler.StepLR(o, 2) for o in optimizers]
    first(torch.randn(4, 2)).square().sum().backward()
    optimizers[0].step()
    schedules[0].step()
    saver, loader = (
        SafeCheckpointer(module, str(tmp_path), optimizer=optimizer, schedule=schedule)
        for module, optimizer, schedule in zip((first, second), optimizers, schedules)
    )
    saver.save("model_0000004", iteration=4)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000004.pth"]
    assert loader.has_checkpoint()
    assert loader.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")
    rest = loader.resume_or_load("nowhere.pth", resume=True)
    assert rest["iteration"] == 4
    assert parameters_equal(first, second)
    assert schedules[1].state_dict() == schedules[0].state_dict()
    moments = optimizers[1].state_dict()["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizers[0].state_dict()["state"][0]["exp_avg"])


def test_not_resuming_loads_the_model_alone(tmp_path):
    first, second = model(), model()
    path = write_torch(tmp_path / "weights.pth", {"model": first.state_dict(), "optimizer": 3})
    optimizer = torch.optim.SGD(second.parameters(), lr=0.1)
    checkpointer = SafeCheckpointer(second, str(tmp_path), optimizer=optimizer)
    checkpointer.resume_or_load(path, resume=False)
    assert parameters_equal(first, second)
    assert checkpointer.load("") == {}


def half_write_and(then):
    def save(contents, file):
        file.write(b"half of a checkpoint")
        file.flush()
        then()

    return save


def fail():
    raise OSError("disk full")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_failing_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpointer = SafeCheckpointer(model(), str(tmp_path))
    checkpointer.save("model")
    before = (tmp_path / "model.pth").read_bytes()
    monkeypatch.setattr(torch, "save", half_write_and(fail))
    for name in ("model", "model_final"):
        with pytest.raises(InputError, match=f"{name}.pth: cannot be written .disk full"):
            checkpointer.save(name)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model.pth"]
    assert (tmp_path / "model.pth").read_bytes() == before
    assert (tmp_path / "last_checkpoint").read_text() == "model.pth"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", ["while writing", "before the pointer"])
def test_a_kill_leaves_a_checkpoint_to_resume_from(tmp_path, monkeypatch, moment):
    first, second = model(), model()
    checkpointer = SafeCheckpointer(first, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    if moment == "while writing":
        monkeypatch.setattr(torch, "save", half_write_and(die))
    else:
        monkeypatch.setattr(checkpointer, "tag_last_checkpoint", lambda name: die())
    process = multiprocessing.get_context("fork").Process(
        target=checkpointer.save, args=("model_0000002",), kwargs={"iteration": 2}
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    rest = SafeCheckpointer(second, str(tmp_path)).resume_or_load("", resume=True)
    assert rest["iteration"] == 1 and parameters_equal(first, second)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        SafeCheckpointer(model(), str(tmp_path / "file" / "folder")).save("model")


@pytest.mark.parametrize("kind", ["zoo", "zoo without an author", "d2 .pth", "bare .pth"])
def test_kinds_of_files(tmp_path, kind):
    first, second = model(), model()
    path = {
        "zoo": lambda: write_pickle(
            tmp_path / "w.pkl", {"model": numpy_state(first), "__author__": "Model Zoo"}
        ),
        "zoo without an author": lambda: write_pickle(
            tmp_path / "w.pkl", {"model": numpy_state(first)}
        ),
        "d2 .pth": lambda: write_torch(tmp_path / "w.pth", {"model": first.state_dict()}),
        "bare .pth": lambda: write_torch(tmp_path / "w.pth", first.state_dict()),
    }[kind]()
    SafeCheckpointer(second, key=KEY).load(path)
    assert parameters_equal(first, second)


def small_resnet():
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec

    cfg = get_cfg()
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2"]
    backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2)})


def test_a_backbone_under_foreign_names_leaves_the_head(tmp_path):
    module = small_resnet()
    weight = np.random.rand(*module["backbone"].stem.conv1.weight.shape).astype(np.float32)
    head = module["head"].weight.clone()
    path = write_pickle(tmp_path / "R-18.pkl", {"conv1_w": weight, "conv1_w_momentum": weight})
    SafeCheckpointer(module, key=KEY).load(path)
    np.testing.assert_array_equal(module["backbone"].stem.conv1.weight.detach().numpy(), weight)
    assert torch.equal(module["head"].weight, head)


def test_foreign_names_that_fit_nothing_are_an_error(tmp_path):
    path = write_pickle(tmp_path / "w.pkl", {"blobs": {"other_w": np.zeros(3, np.float32)}})
    with pytest.raises(InputError, match="another architecture.*0.weight is missing") as caught:
        SafeCheckpointer(model(), key=KEY).load(path)
    assert path in str(caught.value) and KEY in str(caught.value)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("0.bias"), "0.bias is missing"),
        (lambda s: s.update({"2.weight": s["0.weight"]}), "2.weight is unknown"),
        (lambda s: s.update({"0.weight": s["0.weight"][:2]}), r"0.weight has shape \(2, 2\)"),
    ],
)
def test_another_architecture(tmp_path, suffix, change, named):
    if suffix == ".pkl":
        state = numpy_state(model())
        change(state)
        path = write_pickle(tmp_path / "w.pkl", {"model": state, "__author__": "x"})
    else:
        state = dict(model().state_dict())
        change(state)
        path = write_torch(tmp_path / "w.pth", {"model": state})
    with pytest.raises(InputError, match=named) as caught:
        SafeCheckpointer(model(), key=KEY).load(path)
    assert path in str(caught.value) and KEY in str(caught.value)
    assert "another architecture" in str(caught.value)


def test_pixel_statistics_of_old_files_are_no_problem(tmp_path):
    first, second = model(), model()
    state = {**first.state_dict(), "pixel_mean": torch.zeros(3), "pixel_std": torch.ones(3)}
    SafeCheckpointer(second).load(write_torch(tmp_path / "w.pth", state))
    assert parameters_equal(first, second)


@pytest.mark.parametrize(("suffix", "write"), [(".pkl", write_pickle), (".pth", write_torch)])
@pytest.mark.parametrize(
    "contents",
    [
        [1, 2],
        "text",
        None,
        {},
        {"model": 3},
        {"model": {"0.weight": "text"}},
        {"model": {}},
        {1: 2},
        {"0.weight": 3.5},
        {"model": [1]},
    ],
)
def test_other_contents_are_named(tmp_path, suffix, write, contents):
    path = write(tmp_path / f"w{suffix}", contents)
    with pytest.raises(InputError, match="holds no weights") as caught:
        SafeCheckpointer(model(), key=KEY).load(path)
    assert path in str(caught.value) and KEY in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere.pth", "nowhere.pkl", "/nowhere/w.pth", "."])
def test_missing_files_are_named(path):
    with pytest.raises(InputError, match=KEY) as caught:
        SafeCheckpointer(model(), key=KEY).load(path)
    assert path in str(caught.value)


def test_a_file_that_cannot_be_fetched_is_named(monkeypatch):
    checkpointer = SafeCheckpointer(model(), key=KEY)
    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", lambda path: fail())
    with pytest.raises(InputError, match=f"{KEY}: detectron2://w.pkl could not be fetched"):
        checkpointer.load("detectron2://w.pkl")


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_malicious_files_run_nothing(tmp_path, suffix):
    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    path = tmp_path / f"w{suffix}"
    path.write_bytes(pickle.dumps({"model": Exploit(), "__author__": "x"}, 2))
    with pytest.raises(InputError, match="more than weights"):
        SafeCheckpointer(model(), key=KEY).load(str(path))
    assert not (tmp_path / "marker").exists()
