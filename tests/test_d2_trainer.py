import copy
import errno
import json
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_sam_options
from optional import need
from PIL import Image
from test_d2_loaders import write_photos
from tiny_models import canonicalized, random_canonicalizer, tiny_segmenter
from torch import nn
from toy_coco import write_toy_coco

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.config.assets import resolve_asset
from canon_seg.core.group import C4, D
from canon_seg.core.scorer import GridDistribution
from canon_seg.d2.catalog import register_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.loaders import find_photos
from canon_seg.d2.trainer import (
    AverageWeights,
    Trainer,
    build_averaged,
    slow_down_pretrained,
    taught_loader,
)
from canon_seg.d2.training_images import check_training_images
from canon_seg.errors import InputError
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.backbone_weights import load_pose_network, save_pose_network
from canon_seg.networks.circle_scorer import CircleScorer
from canon_seg.networks.weights import load_canonicalizer

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage, JSONWriter

needs_escnn = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    name = "toy_trainer"
    register_coco(name, *write_toy_coco(tmp_path_factory.mktemp("toy")))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 26)


def config(folder, *options):
    """A canonicalizer that trains in no time, in front of the tiny SAM."""
    cfg = load_config(
        "",
        [
            "MODEL.META_ARCHITECTURE",
            "CanonicalizedSegmenter",
            "MODEL.DEVICE",
            "cpu",
            "MODEL.CANONICALIZER.INPUT_SIZE",
            "33",
            "MODEL.CANONICALIZER.NETWORK.FIELDS",
            "[2, 2]",
            "MODEL.CANONICALIZER.NETWORK.DEPTH",
            "1",
            "MODEL.CANONICALIZER.PRIOR_WEIGHT",
            "1.0",
            *tiny_sam_options(),
            "INPUT.FORMAT",
            "RGB",
            "INPUT.MIN_SIZE_TRAIN",
            "(64,)",
            "DATALOADER.NUM_WORKERS",
            "0",
            "SOLVER.IMS_PER_BATCH",
            "2",
            "SOLVER.MAX_ITER",
            "2",
            "SOLVER.CHECKPOINT_PERIOD",
            "2",
            "SEED",
            "1",
            "OUTPUT_DIR",
            str(folder),
            *options,
        ],
    )
    cfg.freeze()
    folder.mkdir(exist_ok=True)
    return cfg


def metrics(folder):
    """All that was logged, the last value of each."""
    merged = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        merged.update(json.loads(line))
    return merged


# --- optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)]
)
def test_a_frozen_segmenter_is_not_in_the_optimizer(tmp_path, optimizer, kind):
    model = canonicalized(tiny_segmenter("sam"), random_canonicalizer(), task_weight=1.0)
    built = Trainer.build_optimizer(config(tmp_path, "SOLVER.OPTIMIZER", optimizer), model)
    assert isinstance(built, kind)
    inside = {id(p) for group in built.param_groups for p in group["params"]}
    assert inside == {id(p) for p in model.canonicalizer.parameters()}


def test_normalisation_layers_do_not_decay(tmp_path):
    model = tiny_segmenter("sam").requires_grad_(True)
    cfg = config(tmp_path, "SOLVER.OPTIMIZER", "ADAMW", "SOLVER.WEIGHT_DECAY", "0.05")
    decay = {}
    for group in Trainer.build_optimizer(cfg, model).param_groups:
        decay.update({id(p): group["weight_decay"] for p in group["params"]})
    for module in model.modules():
        norm = isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))
        if norm or isinstance(module, nn.Conv2d):
            assert decay[id(module.weight)] == (0 if norm else 0.05)


def test_unknown_optimizers(tmp_path):
    with pytest.raises(InputError, match="SOLVER.OPTIMIZER.*LION"):
        Trainer.build_optimizer(
            config(tmp_path, "SOLVER.OPTIMIZER", "LION"), random_canonicalizer()
        )


def test_nothing_to_train(tmp_path, photos):
    model = tiny_segmenter("sam").requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        Trainer.build_optimizer(config(tmp_path), model)
    cfg = config(
        tmp_path,
        "MODEL.CANONICALIZER.NAME",
        "IdentityCanonicalizer",
        "DATASETS.PHOTOS",
        f"['{photos}']",
    )
    with pytest.raises(InputError, match="IdentityCanonicalizer"):
        Trainer(cfg)


# --- averaged weights -----------------------------------------------------------------------------


class Holds:
    def __init__(self, model):
        self.model = model


def test_weights_are_averaged_and_batch_statistics_copied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    averaged = build_averaged(model, 0.9)
    hook = AverageWeights(averaged)
    hook.trainer = Holds(model)
    history = []
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.normal_()
        model(torch.randn(4, 3))
        hook.after_step()
        history.append(model[0].weight.detach().clone())
    expected = 0.9 * (0.9 * history[0] + 0.1 * history[1]) + 0.1 * history[2]
    torch.testing.assert_close(averaged.module[0].weight, expected)
    assert torch.equal(averaged.module[1].running_mean, model[1].running_mean)
    assert averaged.module[1].num_batches_tracked == 3


def test_no_averaging():
    model = nn.Linear(2, 2)
    assert build_averaged(model, 0) is model


# --- whole trainings ------------------------------------------------------------------------------


@needs_escnn
def test_training_on_photos(tmp_path, photos):
    cfg = config(
        tmp_path,
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "SOLVER.EMA_DECAY",
        "0.5",
        "MODEL.SEGMENTER.WEIGHTS",
        "no_such_file.pth",
        "SOLVER.BFLOAT16",
        "True",
        "TEST.EVAL_PERIOD",
        "1",
    )
    trainer = Trainer(cfg)
    assert trainer.model.segmenter is None and trainer.averaged.module.segmenter is None
    assert cfg.MODEL.SEGMENTER.META_ARCHITECTURE == "SamSegmenter"  # the user's config is kept
    before = copy.deepcopy(trainer.model.canonicalizer.state_dict())
    trainer.resume_or_load(resume=False)
    trainer.train()
    after = trainer.model.canonicalizer.state_dict()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    logged = metrics(tmp_path)
    for name in (
        "total_loss",
        "canonicalizer/kl",
        "canonicalizer/identity_rate",
        "canonicalizer/wasserstein",
        "held_out/pose_accuracy",
        "held_out/pose_loss",
    ):
        assert np.isfinite(logged[name])
    assert any(file.name.startswith("events.out.tfevents") for file in tmp_path.iterdir())
    assert not (tmp_path / "segmenter.pth").exists()
    # The file holds the averaged weights, for training and exported.
    path = str(tmp_path / "canonicalizer.pth")
    written = dict(load_canonicalizer(path, trainable=True)[0].named_parameters())
    averaged, last = trainer.averaged.module, trainer.model
    for name, value in averaged.canonicalizer.scorer.network.named_parameters():
        assert torch.equal(written[name], value.half().float())
    assert not all(
        torch.equal(written[name], value.half().float())
        for name, value in last.canonicalizer.scorer.network.named_parameters()
    )
    network, input_size = load_canonicalizer(path)
    image = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        expected = averaged.canonicalizer.scorer.network.eval()(image)
        torch.testing.assert_close(network(image), expected, atol=2e-2, rtol=0)  # half precision
    assert input_size == 33


@needs_escnn
def test_training_with_a_teacher(tmp_path, photos):
    cfg = config(
        tmp_path,
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "MODEL.CANONICALIZER.TEACHER.WEIGHTS",
        "canon_seg://canonicalizer_gcnn.pth",
        "MODEL.CANONICALIZER.TEACHER.INPUT_SIZE",
        "33",
    )
    trainer = Trainer(cfg)
    assert trainer.model.teacher_share == 0.7
    student = sum(p.numel() for p in trainer.model.parameters())
    assert student < 5000  # the teacher is no part of what is trained and written
    trainer.train()
    logged = metrics(tmp_path)
    assert 0 <= logged["canonicalizer/teacher_agreement"] <= 1
    assert np.isfinite(logged["total_loss"])


@needs_escnn
def test_held_out_photos_are_brought_upright_too(tmp_path, photos):
    first = sorted(os.listdir(photos))[0]
    poses = tmp_path / "poses.json"
    poses.write_text(json.dumps([{"file": first, "degrees": 90}]))
    trainer = Trainer(
        config(
            tmp_path,
            "DATASETS.PHOTOS",
            f"['{photos}']",
            "DATASETS.POSES",
            f"[['{poses}', '{photos}']]",
        )
    )
    read = trainer._read(f"{photos}/{first}")
    stored = torch.from_numpy(np.array(Image.open(f"{photos}/{first}"))).permute(2, 0, 1)
    assert torch.equal(torch.rot90(read, 1, (1, 2)), stored)


@needs_escnn
def test_a_teacher_without_photographs_to_teach_on(tmp_path, toy, photos):
    teacher = ["MODEL.CANONICALIZER.TEACHER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"]
    toys = ["DATASETS.TRAIN", f"('{toy}',)"]
    for options in (
        ["MODEL.CANONICALIZER.TASK_WEIGHT", "0.1"],
        ["MODEL.META_ARCHITECTURE", "SamSegmenter"],
    ):
        with pytest.raises(InputError, match="TEACHER.WEIGHTS is for a canonicalizer"):
            Trainer(config(tmp_path, *options, *toys, *teacher))


def test_a_teacher_of_another_group(tmp_path, photos):
    student = random_canonicalizer()
    student.group = D(4)
    cfg = config(
        tmp_path,
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "MODEL.CANONICALIZER.TEACHER.WEIGHTS",
        "canon_seg://canonicalizer_gcnn.pth",
    )
    with pytest.raises(InputError, match="for poses of C4.*for poses of D4; give a teacher"):
        taught_loader(cfg, [], student)


@needs_escnn
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photo_ends_training_with_one_message(tmp_path, workers):
    photos = write_photos(tmp_path / "photos", 2)
    Path(photos, "bad.jpg").write_bytes(b"no image")
    trainer = Trainer(
        config(
            tmp_path,
            "DATASETS.PHOTOS",
            f"['{photos}']",
            "SOLVER.IMS_PER_BATCH",
            "64",
            "DATALOADER.NUM_WORKERS",
            str(workers),
            "DATASETS.CHECK_IMAGES",
            "False",
        )
    )
    logger, records = logging.getLogger("detectron2.engine.train_loop"), []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        with pytest.raises(InputError) as caught:
            trainer.train()
    finally:
        logger.removeHandler(handler)
    assert str(caught.value).startswith(f"{photos}/bad.jpg: is not an image")
    assert "Traceback" not in str(caught.value)
    assert not any(record.exc_info for record in records)
    assert not logger.filters


def _full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@needs_escnn
@pytest.mark.parametrize("checkpoint_fails", [False, True])
def test_a_full_disk_ends_training_with_one_message(
    tmp_path, photos, monkeypatch, caplog, checkpoint_fails
):
    trainer = Trainer(config(tmp_path, "DATASETS.PHOTOS", f"['{photos}']"))
    monkeypatch.setattr(JSONWriter, "write", _full)  # as closing the logs ends in any case
    message = f"{tmp_path}: cannot be written (No space left on device); make room"
    if checkpoint_fails:
        monkeypatch.setattr(torch, "save", _full)
        message = f"{tmp_path}/model_0000001.pth: cannot be written (No space left on device)"
    with pytest.raises(InputError) as caught:
        trainer.train()
    assert str(caught.value).startswith(message)
    assert not any(record.exc_info for record in caplog.records)


@needs_escnn
def test_a_full_disk_before_training_ends_with_one_message(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(Trainer, "build_writers", _full)
    with pytest.raises(InputError, match="cannot be written .No space left on device.; make room"):
        Trainer(config(tmp_path, "DATASETS.PHOTOS", f"['{photos}']"))


@needs_escnn
def test_other_failures_of_files_keep_their_traceback(tmp_path, photos, monkeypatch):
    trainer = Trainer(config(tmp_path, "DATASETS.PHOTOS", f"['{photos}']"))

    def broken():
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(trainer, "run_step", broken)
    with pytest.raises(OSError, match="broken"):
        trainer.train()


@needs_escnn
def test_resuming_restores_everything(tmp_path, photos):
    options = [
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "SOLVER.EMA_DECAY",
        "0.5",
        "SOLVER.OPTIMIZER",
        "ADAMW",
    ]
    first = Trainer(config(tmp_path, *options))
    first.resume_or_load(resume=True)  # nothing there yet: a fresh start
    assert first.start_iter == 0
    first.train()
    second = Trainer(config(tmp_path, *options, "SOLVER.MAX_ITER", "3"))
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    for part in ("model", "averaged"):
        theirs = getattr(first, part).state_dict()
        for name, value in getattr(second, part).state_dict().items():
            assert torch.equal(value, theirs[name]), (part, name)
    ours, theirs = second.optimizer.state_dict(), first.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys() and len(ours["state"]) > 0
    for index, state in theirs["state"].items():
        for name, value in state.items():
            assert torch.equal(ours["state"][index][name], value)
    second.train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


@needs_escnn
def test_training_through_the_segmenter(tmp_path, toy):
    cfg = config(
        tmp_path,
        "DATASETS.TRAIN",
        f"('{toy}',)",
        "MODEL.CANONICALIZER.TASK_WEIGHT",
        "0.1",
    )
    trainer = Trainer(cfg)
    before = copy.deepcopy(trainer.model.segmenter.state_dict())
    trainer.train()
    for name, value in trainer.model.segmenter.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert {"loss_prior", "loss_mask", "loss_dice", "loss_iou"} <= metrics(tmp_path).keys()
    assert (tmp_path / "canonicalizer.pth").exists()
    assert not (tmp_path / "segmenter.pth").exists()


def test_training_sam_alone(tmp_path, toy):
    cfg = config(
        tmp_path,
        "MODEL.META_ARCHITECTURE",
        "SamSegmenter",
        "DATASETS.TRAIN",
        f"('{toy}',)",
        "DATASETS.TEST",
        f"('{toy}',)",
        "SOLVER.OPTIMIZER",
        "ADAMW",
        "SOLVER.EMA_DECAY",
        "0.9",
    )
    trainer = Trainer(cfg)
    trainer.train()
    logged = metrics(tmp_path)
    assert {"loss_mask", "loss_dice", "loss_iou", "segm/AP", "bbox/AP"} <= logged.keys()
    assert not (tmp_path / "canonicalizer.pth").exists()
    state = torch.load(tmp_path / "segmenter.pth", weights_only=True)
    assert state.keys() == trainer.model.sam.state_dict().keys()
    assert trainer.model.training  # testing gave the mode back


@pytest.mark.parametrize("backbone", ["", "test_efficientnet"])
def test_sam_is_measured_by_prompts(tmp_path, toy, backbone):
    cfg = config(
        tmp_path,
        *["MODEL.META_ARCHITECTURE", "SamSegmenter", "MODEL.SAM.TINY.BACKBONE", backbone],
        *["DATASETS.TRAIN", f"('{toy}',)", "DATASETS.TEST_PROMPTS", f"('{toy}',)"],
        *["SOLVER.OPTIMIZER", "ADAMW", "SOLVER.EMA_DECAY", "0.9"],
    )
    trainer = Trainer(cfg)
    trainer.train()
    logged = metrics(tmp_path)
    names = [
        f"{prompt}_{kind}"
        for prompt in ("clicks_1", "clicks_5", "box", "box_click")
        for kind in ("best_scored", "best")
    ]
    found = {name: logged[f"prompts/{name}"] for name in names}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["box_best"] >= found["box_best_scored"]
    assert ("loss_proposals" in logged) == bool(backbone)
    assert trainer.model.training  # measuring gave the mode back


def test_pretrained_layers_are_slower():
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["body"].bias.requires_grad = False
    groups = [
        {"params": [model["head"].weight, model["body"].weight], "lr": 0.1, "weight_decay": 0.2},
        {"params": [model["head"].bias], "lr": 0.3},
    ]
    assert slow_down_pretrained(groups, model, 1.0) is groups
    head, body, bias = slow_down_pretrained(groups, model, 0.5)
    assert head["params"][0] is model["head"].weight and head["lr"] == 0.1
    assert body["params"][0] is model["body"].weight
    assert body["lr"] == 0.05 and body["weight_decay"] == 0.2
    assert bias["params"][0] is model["head"].bias and bias["lr"] == 0.3


@needs_escnn
def test_weights_are_a_start(tmp_path, photos):
    options = ["DATASETS.PHOTOS", f"['{photos}']"]
    first = Trainer(config(tmp_path / "first", *options))
    first.train()
    weights = str(tmp_path / "first" / "canonicalizer.pth")
    options += ["MODEL.CANONICALIZER.WEIGHTS", weights]
    # Network and input size are the file's, whatever the config says.
    second = Trainer(
        config(
            tmp_path / "second",
            *options,
            "MODEL.CANONICALIZER.NETWORK.FIELDS",
            "[4, 4]",
            "MODEL.CANONICALIZER.INPUT_SIZE",
            "65",
        )
    )
    assert second.cfg.MODEL.CANONICALIZER.INPUT_SIZE == 33
    for (name, ours), theirs in zip(
        second.model.canonicalizer.named_parameters(), first.model.canonicalizer.parameters()
    ):
        assert torch.equal(ours, theirs.half().float()), name  # what the file holds


def test_the_config_for_sam_trains_on_photos_without_its_checkpoint(tmp_path, photos):
    cfg = load_config(
        "configs/sam_c4.yaml",
        [
            "DATASETS.PHOTOS",
            f"['{photos}']",
            "MODEL.DEVICE",
            "cpu",
            "SOLVER.MAX_ITER",
            "1",
            "SOLVER.IMS_PER_BATCH",
            "2",
            "DATALOADER.NUM_WORKERS",
            "0",
            "OUTPUT_DIR",
            str(tmp_path),
        ],
    )
    assert not os.path.exists(cfg.MODEL.SEGMENTER.WEIGHTS)
    trainer = Trainer(cfg)
    embedded, *_ = load_pose_network(resolve_asset(cfg.MODEL.CANONICALIZER.WEIGHTS))
    ours = dict(trainer.model.canonicalizer.scorer.network.named_parameters())
    for name, value in embedded.named_parameters():
        assert torch.equal(ours[name], value), name
    trainer.train()
    assert (tmp_path / "canonicalizer.pth").exists()


@needs_escnn
def test_poses_of_upright_photos(tmp_path, photos):
    trainer = Trainer(config(tmp_path, "DATASETS.PHOTOS", f"['{photos}']"))
    assert len(trainer.held_out) == 1
    canonicalizer = trainer.model.canonicalizer
    canonicalizer.scores = lambda images: GridDistribution(C4, torch.tensor([[0.0, 9.0, 0.0, 0.0]]))
    result = trainer.test_poses(trainer.held_out * 3)
    assert result["pose_accuracy"] == 0 and result["pose_loss"] == pytest.approx(9, abs=0.01)
    assert canonicalizer.training


def backbone_config(folder, photos, *options):
    """timm's smallest network in place of an equivariant one."""
    scorer = "MODEL.CANONICALIZER.SCORER"
    return config(
        folder,
        *["DATASETS.PHOTOS", f"['{photos}']", "MODEL.CANONICALIZER.INPUT_SIZE", "64"],
        *["INPUT.VIEW_SIDES", "[32, 64]", "SOLVER.OPTIMIZER", "ADAMW"],
        *[f"{scorer}.BACKBONE", "test_efficientnet", f"{scorer}.FREEZE_STAGES", "1"],
        *["SOLVER.EMA_DECAY", "0.5", "MODEL.CANONICALIZER.LABEL_SMOOTHING", "0.1"],
        *options,
    )


def test_training_a_backbone(tmp_path, photos):
    need("timm")
    cfg = backbone_config(
        tmp_path,
        photos,
        *["MODEL.CANONICALIZER.SCORER.PASSES", "0", "TEST.EVAL_PERIOD", "1"],
        *["DATASETS.HELD_OUT", "BY_CONTENT", "SOLVER.IMS_PER_BATCH", "4"],
    )
    trainer = Trainer(cfg)
    assert trainer.held_out and trainer.model.canonicalizer.scorer.passes == 1
    before = copy.deepcopy(trainer.model.canonicalizer.scorer.network.state_dict())
    trainer.resume_or_load(resume=False)
    trainer.train()
    after = trainer.model.canonicalizer.scorer.network.state_dict()
    assert torch.equal(before["body.conv_stem.weight"], after["body.conv_stem.weight"])
    assert not torch.equal(before["body.conv_head.weight"], after["body.conv_head.weight"])
    logged = metrics(tmp_path)
    for name in ("total_loss", "canonicalizer/identity_rate", "held_out/pose_accuracy"):
        assert np.isfinite(logged[name])
    network, input_size, temperatures = load_pose_network(str(tmp_path / "canonicalizer.pth"))
    assert input_size == 64 and temperatures.keys() == {0, 1}
    averaged = trainer.averaged.module.canonicalizer.scorer.network
    for name, value in averaged.named_parameters():
        assert torch.equal(network.get_parameter(name), value.half().float())


@pytest.mark.parametrize(
    ("group", "outputs", "served"),
    [("SO2", 72, ("C4", "C8", "SO2")), ("O2", 144, ("D4", "D8", "O2"))],
)
def test_training_any_angle_from_a_network_of_quarter_turns(
    tmp_path, photos, group, outputs, served
):
    need("timm")
    start = tmp_path / "quarters.pth"
    save_pose_network(start, PoseNetwork(BackboneSpec("test_efficientnet")), 64)
    scorer = "MODEL.CANONICALIZER.SCORER"
    cfg = backbone_config(
        tmp_path / "output",
        photos,
        *["MODEL.CANONICALIZER.GROUP", group, f"{scorer}.PRETRAINED", str(start)],
        *["DATASETS.HELD_OUT", "BY_CONTENT", "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "1"],
    )
    trainer = Trainer(cfg)
    trained = trainer.model.canonicalizer.scorer
    assert isinstance(trained, CircleScorer) and trained.network.spec.num_poses == outputs
    quarters = load_pose_network(str(start))[0].state_dict()
    assert torch.equal(quarters["body.conv_head.weight"], trained.network.body.conv_head.weight)
    trainer.resume_or_load(resume=False)
    trainer.train()
    logged = metrics(tmp_path / "output")
    for name in ("canonicalizer/within_10", "held_out/pose_accuracy", "held_out/within_45"):
        assert 0 <= logged[name] <= 1
    assert np.isfinite(logged["total_loss"]) and 0 <= logged["held_out/median_error"] <= 180
    network, input_size, temperatures = load_pose_network(
        str(tmp_path / "output" / "canonicalizer.pth")
    )
    assert (network.spec.num_poses, input_size) == (outputs, 64)
    assert {name: set(by) for name, by in temperatures.items()} == {name: {0, 1} for name in served}


def test_a_tilt_has_no_gradient_of_the_segmenter(tmp_path, photos, toy):
    need("timm")
    options = ["MODEL.CANONICALIZER.TASK_WEIGHT", "0.1", "DATASETS.TRAIN", f"('{toy}',)"]
    options += ["MODEL.CANONICALIZER.GROUP", "SO2"]
    trainer = Trainer(backbone_config(tmp_path, photos, *options))
    with pytest.raises(InputError, match="TASK_WEIGHT is 0.1, and a tilt has no gradient"):
        trainer.train()


@pytest.mark.parametrize("group", ["C8", "SO2"])
def test_tilts_of_equivariant_networks_are_refused_by_name(tmp_path, toy, group):
    need("escnn")
    options = ["MODEL.CANONICALIZER.TASK_WEIGHT", "0.1", "DATASETS.TRAIN", f"('{toy}',)"]
    trainer = Trainer(config(tmp_path, *options, "MODEL.CANONICALIZER.GROUP", group))
    with pytest.raises(InputError, match=f"set it to 0 with the group {group}"):
        trainer.train()


def test_mirrors_are_trained_through_a_segmenter(tmp_path, toy):
    need("escnn")
    options = ["MODEL.CANONICALIZER.TASK_WEIGHT", "0.1", "DATASETS.TRAIN", f"('{toy}',)"]
    trainer = Trainer(config(tmp_path, *options, "MODEL.CANONICALIZER.GROUP", "D4"))
    trainer.train()
    assert load_canonicalizer(str(tmp_path / "canonicalizer.pth"))[0].spec.group.name == "D4"


@pytest.mark.parametrize("group", ["D4", "C8", "SO2"])
def test_training_equivariant_networks_of_other_groups(tmp_path, photos, group):
    need("escnn")
    options = ["DATASETS.PHOTOS", f"['{photos}']", "DATASETS.HELD_OUT", "BY_CONTENT"]
    options += ["TEST.EVAL_PERIOD", "1", "MODEL.CANONICALIZER.LABEL_SMOOTHING", "0.1"]
    trainer = Trainer(config(tmp_path, *options, "MODEL.CANONICALIZER.GROUP", group))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    logged = metrics(tmp_path)
    names = ["total_loss", "held_out/pose_accuracy"]
    names += {"D4": ["canonicalizer/mirror_rate"], "C8": ["canonicalizer/identity_rate"]}.get(
        group, ["canonicalizer/vector_length", "held_out/within_10", "held_out/turning_error"]
    )
    for name in names:
        assert np.isfinite(logged[name]), name
    assert any(not torch.equal(before[n], v) for n, v in trainer.model.named_parameters())
    network, size = load_canonicalizer(str(tmp_path / "canonicalizer.pth"))
    assert network.spec.group.name == group and size == 33


def test_poses_turn_the_prior_along(tmp_path, photos):
    """The loss is small exactly where the network says by how much each view was turned."""
    need("timm")
    model = Trainer(backbone_config(tmp_path, photos)).model
    views = [{"image": torch.zeros(3, 32, 32), "pose": pose} for pose in (3, 0, 2)]
    for shift, low in ((0, True), (1, False)):
        said = torch.stack([20 * torch.eye(4)[(v["pose"] + shift) % 4] for v in views])
        model.canonicalizer.scorer.logits = lambda images, said=said: said
        with EventStorage() as storage:
            loss = float(model(views)["loss_prior"])
            assert storage.latest()["canonicalizer/identity_rate"][0] == float(low)
        assert (loss < 2) == low


def test_a_backbone_trains_through_the_segmenter(tmp_path, photos, toy):
    need("timm")
    options = ["MODEL.CANONICALIZER.TASK_WEIGHT", "0.1", "DATASETS.TRAIN", f"('{toy}',)"]
    trainer = Trainer(backbone_config(tmp_path, photos, *options, "SOLVER.EMA_DECAY", "0.0"))
    segmenter = copy.deepcopy(trainer.model.segmenter.state_dict())
    before = copy.deepcopy(trainer.model.canonicalizer.scorer.network.state_dict())
    trainer.train()
    for name, value in trainer.model.segmenter.state_dict().items():
        assert torch.equal(value, segmenter[name]), name
    after = trainer.model.canonicalizer.scorer.network.state_dict()
    assert not torch.equal(before["body.conv_head.weight"], after["body.conv_head.weight"])
    assert {"loss_prior", "loss_mask", "loss_dice", "loss_iou"} <= metrics(tmp_path).keys()
    assert load_pose_network(str(tmp_path / "canonicalizer.pth"))[1] == 64


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.VIEW_SIDES", "[8]", "INPUT.VIEW_SIDES is .8.; give sides of 32 pixels or more"),
        ("INPUT.VIEW_SIDES", "[]", "INPUT.VIEW_SIDES is ..; give"),
        ("INPUT.CANVAS_FRACTION", "0.5", "INPUT.CANVAS_FRACTION is for equivariant networks"),
        ("DATASETS.HELD_OUT", "SOME", "DATASETS.HELD_OUT is 'SOME'; known: EVERY_25TH, BY_CONTENT"),
    ],
)
def test_bad_keys_of_backbone_training(tmp_path, photos, key, value, message):
    need("timm")
    with pytest.raises(InputError, match=message):
        Trainer(backbone_config(tmp_path, photos, key, value))


@needs_escnn
def test_log_lines_and_the_bar_share_the_terminal(tmp_path, photos):
    # While the bar is there, lines go through it and not to the terminal directly.
    trainer = Trainer(config(tmp_path, "DATASETS.PHOTOS", f"['{photos}']"))
    bar = next(hook for hook in trainer._hooks if type(hook).__name__ == "ProgressBar")
    log = logging.getLogger("detectron2")
    console, before = logging.StreamHandler(sys.stdout), list(log.handlers)
    log.handlers = [console]
    try:
        trainer.iter = trainer.start_iter
        bar.before_train()
        assert all("Tqdm" in type(handler).__name__ for handler in log.handlers)
        bar.after_step()
        bar.after_train()
        assert log.handlers == [console]
    finally:
        log.handlers = before


# --- images are checked before a training begins --------------------------------------------------


def cut(file):
    whole = Path(file).read_bytes()
    Path(file).write_bytes(whole[: len(whole) * 3 // 4])


@pytest.mark.parametrize("kind", ["photos", "regions", "pasted", "detector"])
def test_cut_images_are_named_before_training(tmp_path, kind):
    """All of them, of every kind of training data."""
    name = f"cut_{kind}"
    annotations, images = write_toy_coco(tmp_path / "toy")
    files = sorted(images.iterdir())
    options = ["MODEL.DEVICE", "cpu", "DATASETS.CHECK_CACHE", str(tmp_path / "checked.json")]
    options += ["MODEL.SAM.SIZE", "tiny", "OUTPUT_DIR", str(tmp_path)]
    if kind == "photos":
        options += ["DATASETS.PHOTOS", f"['{images}']"]
        options += ["MODEL.META_ARCHITECTURE", "CanonicalizedSegmenter"]
    else:
        register_coco(name, annotations, images)
        options += ["DATASETS.TRAIN" if kind != "pasted" else "DATASETS.PASTE", f"('{name}',)"]
        architecture = "GeneralizedRCNN" if kind == "detector" else "SamSegmenter"
        options += ["MODEL.META_ARCHITECTURE", architecture]
    cfg = load_config("", options)
    try:
        photos = find_photos(cfg) if kind == "photos" else ()
        assert check_training_images(cfg, photos) is None
        cut(files[1])
        cut(files[3])
        with pytest.raises(InputError, match="2 of 4 training images") as caught:
            check_training_images(cfg, photos)
        assert "12.png: cannot be decoded" in str(caught.value) and "14.png" in str(caught.value)
        cfg.DATASETS.CHECK_IMAGES = False
        assert check_training_images(cfg, photos) is None
    finally:
        if kind != "photos":
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_sizes_and_orientations_are_checked_before_training(tmp_path):
    annotations, images = write_toy_coco(tmp_path)
    register_coco("sizes", annotations, images)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = images / "11.png"
    Image.open(path).save(path, exif=exif)
    options = ["DATASETS.TRAIN", "('sizes',)", "DATASETS.CHECK_CACHE", ""]
    try:
        with pytest.raises(InputError, match=r"11.png: is 83 x 60 .*INPUT.EXIF False would"):
            check_training_images(load_config("", options))
        line = check_training_images(load_config("", [*options, "INPUT.EXIF", "False"]))
        assert "6 (turned by 90 degrees) in 1; not applied" in line
    finally:
        DatasetCatalog.remove("sizes")
        MetadataCatalog.remove("sizes")


def test_trainings_begin_with_the_check(tmp_path, monkeypatch):
    photos = write_photos(tmp_path / "photos", 3)
    cut(tmp_path / "photos" / "001.png")
    options = ["MODEL.META_ARCHITECTURE", "CanonicalizedSegmenter", "MODEL.DEVICE", "cpu"]
    options += ["DATASETS.PHOTOS", f"['{photos}']", "OUTPUT_DIR", str(tmp_path / "out")]
    options += ["MODEL.CANONICALIZER.SCORER.BACKBONE", "test_efficientnet"]
    options += ["DATASETS.CHECK_CACHE", ""]
    with pytest.raises(InputError, match="1 of 3 training images .*\n.*001.png: cannot be decoded"):
        Trainer(load_config("", options))
