"""tools/train_net.py as users call it."""

import errno
import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from commands import Command
from conftest import tiny_sam_options
from test_d2_loaders import write_photos
from tiny_models import tiny_segmenter
from toy_coco import write_toy_coco

from canon_seg.cli import train_net
from canon_seg.d2.config import load_config
from canon_seg.errors import run_main
from canon_seg.networks.weights import load_canonicalizer

ROOT = Path(__file__).parents[1]
needs_escnn = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")

TINY_CANONICALIZER = [
    "MODEL.CANONICALIZER.WEIGHTS",
    "",
    "MODEL.CANONICALIZER.INPUT_SIZE",
    "33",
    "MODEL.CANONICALIZER.NETWORK.FIELDS",
    "[2, 2]",
    "MODEL.CANONICALIZER.NETWORK.DEPTH",
    "1",
]


@pytest.fixture
def start(tmp_path):
    """Start the command with arguments, in the checkout: the running :class:`Command`."""
    number = iter(range(9))
    config = ["--config-file", "configs/sam_c4.yaml"]
    return lambda *arguments: Command(
        train_net.main, [*config, *arguments], ROOT, tmp_path / f"log_{next(number)}.txt"
    )


@pytest.fixture
def run(start):
    """Run the command to its end: (exit status, all output)."""

    def call(*arguments):
        command = start(*arguments)
        return command.wait(), command.output()

    return call


def wait_for(path, command):
    for _ in range(1200):
        if path.exists():
            return
        assert not command.ended(), command.output()
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def iterations(folder):
    return [
        json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()
    ]


@needs_escnn
def test_killed_and_resumed(tmp_path, start, run):
    photos, output = write_photos(tmp_path / "photos", 30), tmp_path / "output"
    options = [
        *TINY_CANONICALIZER,
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "SOLVER.IMS_PER_BATCH",
        "4",
        "SOLVER.CHECKPOINT_PERIOD",
        "20",
        "SOLVER.OPTIMIZER",
        "ADAMW",
        "SEED",
        "3",
        "OUTPUT_DIR",
        str(output),
    ]
    command = start(*options, "DATALOADER.NUM_WORKERS", "1", "SOLVER.MAX_ITER", "100000")
    try:
        wait_for(output / "canonicalizer.pth", command)
    finally:
        status = command.kill()
    assert status == -signal.SIGKILL
    # What is there is whole.
    last = (output / "last_checkpoint").read_text()
    checkpoint = torch.load(output / last, weights_only=True)
    done = checkpoint["iteration"] + 1
    load_canonicalizer(str(output / "canonicalizer.pth"))
    logged = len(iterations(output)) if (output / "metrics.json").exists() else 0

    total = done + 30
    status, log = run(
        "--resume", *options, "DATALOADER.NUM_WORKERS", "0", "SOLVER.MAX_ITER", str(total)
    )
    assert status == 0, log
    assert f"Starting training from iteration {done}" in log
    resumed = iterations(output)[logged:]
    assert resumed[0] >= done and resumed == sorted(resumed) and resumed[-1] >= total - 1
    final = torch.load(output / "model_final.pth", weights_only=True)
    assert final["iteration"] == total - 1
    optimizer = final["trainer"]["_trainer"]["optimizer"]["state"]
    assert {int(state["step"]) for state in optimizer.values()} == {total}
    network, input_size = load_canonicalizer(str(output / "canonicalizer.pth"))
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 33, 33)).shape == (1, 4) and input_size == 33
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert any("canonicalizer/kl" in line for line in lines)
    # The bar keeps out of logs.
    assert "training:" not in log and "it/s" not in log
    assert "eta:" in log


def test_eval_only(tmp_path, run):
    annotations, images = write_toy_coco(tmp_path / "toy")
    weights = tmp_path / "sam.pth"
    torch.save(tiny_segmenter("sam").sam.state_dict(), weights)
    status, log = run(
        "--eval-only",
        *tiny_sam_options(),
        "MODEL.SEGMENTER.WEIGHTS",
        str(weights),
        "DATASETS.COCO",
        str([["toy", str(annotations), str(images)]]),
        "DATASETS.TEST",
        "('toy',)",
        "DATALOADER.NUM_WORKERS",
        "0",
        "OUTPUT_DIR",
        str(tmp_path / "output"),
    )
    assert status == 0, log
    assert "copypaste: Task: segm" in log and "copypaste: Task: bbox" in log
    predictions = json.loads(
        (tmp_path / "output/inference/toy/coco_instances_results.json").read_text()
    )
    ground_truth = json.loads(annotations.read_text())["annotations"]
    # One for each prompt: the boxes of the ground truth, crowds left out.
    assert len(predictions) == sum(not entry["iscrowd"] for entry in ground_truth)


@needs_escnn
def test_two_processes_train_one_model(tmp_path, run):
    photos, output = write_photos(tmp_path / "photos", 6), tmp_path / "output"
    status, log = run(
        "--num-processes",
        "2",
        "--threads",
        "1",
        *TINY_CANONICALIZER,
        "DATASETS.PHOTOS",
        f"['{photos}']",
        "SOLVER.IMS_PER_BATCH",
        "4",
        "SOLVER.MAX_ITER",
        "2",
        "SOLVER.OPTIMIZER",
        "ADAMW",
        "SEED",
        "3",
        "MODEL.DEVICE",
        "cpu",
        "DATALOADER.NUM_WORKERS",
        "0",
        "OUTPUT_DIR",
        str(output),
    )
    assert status == 0, log
    assert "World size: 2" in log
    assert log.count(f"written: {output / 'canonicalizer.pth'}") == 1
    assert [path.name for path in output.glob("model_*.pth")] == ["model_final.pth"]
    assert iterations(output) == [1]  # by one process, at the end
    load_canonicalizer(output / "canonicalizer.pth")


def test_two_processes_train_sam(tmp_path, run):
    """Prompts are of another kind in each process, and leave other parts of SAM unused."""
    annotations, images = write_toy_coco(tmp_path / "toy")
    output = tmp_path / "output"
    status, log = run(
        "--num-processes",
        "2",
        "--threads",
        "1",
        *tiny_sam_options(),
        "MODEL.META_ARCHITECTURE",
        "SamSegmenter",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "SOLVER.MAX_ITER",
        "8",
        "SEED",
        "3",
        "MODEL.DEVICE",
        "cpu",
        "DATALOADER.NUM_WORKERS",
        "0",
        "DATASETS.COCO",
        f"[['toy_sam', '{annotations}', '{images}']]",
        "DATASETS.TRAIN",
        "('toy_sam',)",
        "OUTPUT_DIR",
        str(output),
    )
    assert status == 0, log
    assert iterations(output) == [7]
    assert (output / "segmenter.pth").exists()


def test_a_missing_folder_ends_with_one_line(tmp_path, run):
    status, log = run(
        "DATASETS.PHOTOS", "['no/such/folder']", "OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu"
    )
    assert status == 2
    assert log.splitlines()[-1].startswith("error: DATASETS.PHOTOS: there is no folder no/such/")
    assert "Traceback" not in log


# --- in this process: what is refused before anything starts --------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL.CANONICALISER.NAME", "x"], "MODEL.CANONICALISER"),
        (["SOLVER.MAX_ITER"], "SOLVER.MAX_ITER"),
        (["--num-gpus", "64"], "--num-gpus"),
        (["--num-processes", "0"], "--num-processes"),
        (["DATASETS.COCO", "[['a', 'no_such.json', '.']]"], "no_such.json"),
        (["OUTPUT_DIR", "setup.py/below"], "setup.py"),
        (
            ["MODEL.META_ARCHITECTURE", "SamSegmenter", "MODEL.SEGMENTER.BFLOAT16", "True"],
            "MODEL.SEGMENTER.BFLOAT16",
        ),
        pytest.param(
            ["MODEL.DEVICE", "cuda"],
            "MODEL.DEVICE",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_input(monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(ROOT)
    config = ["--config-file", "configs/sam_c4.yaml"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", *config, *arguments])
    with pytest.raises(SystemExit) as ended:
        run_main(train_net.main)
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_resumed_trainings_draw_other_data(tmp_path):
    assert train_net._resumed_from(tmp_path) == 0
    numbers = set()
    for name in ("model_0000019.pth", "model_0000039.pth"):
        (tmp_path / "last_checkpoint").write_text(name)
        numbers.add(train_net._resumed_from(tmp_path))
    assert len(numbers) == 2 and 0 not in numbers and max(numbers) < 2**31


def test_results_of_a_training_go_before_the_configs_weights(tmp_path):
    cfg = load_config("configs/sam_c4.yaml", ["OUTPUT_DIR", str(tmp_path)])
    (tmp_path / "canonicalizer.pth").touch()
    found = train_net.with_results(cfg)
    assert str(tmp_path / "canonicalizer.pth") == found.MODEL.CANONICALIZER.WEIGHTS
    assert found.MODEL.SEGMENTER.WEIGHTS == cfg.MODEL.SEGMENTER.WEIGHTS


def test_results_of_an_earlier_training_are_not_replaced(tmp_path, monkeypatch, capsys):
    (tmp_path / "canonicalizer.pth").touch()
    words = ["--config-file", "sam_c4.yaml", "OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu"]
    photos = ["DATASETS.PHOTOS", "['no/such/folder']"]

    def fails(*more):
        monkeypatch.setattr(sys, "argv", ["train_net.py", *words, *photos, *more])
        with pytest.raises(SystemExit) as end:
            run_main(train_net.main)
        captured = capsys.readouterr()
        assert end.value.code == 2 and "Running with full config" not in captured.out
        return captured.err

    assert "canonicalizer.pth of an earlier training: go on with --resume" in fails()
    for more in ("--overwrite", "--resume"):
        assert "DATASETS.PHOTOS: there is no folder no/such/folder" in fails(more)
    assert "give DATASETS.PHOTOS \"['my_photos']\"" in fails("DATASETS.PHOTOS", "my_photos")
    assert [path.name for path in tmp_path.iterdir()] == ["canonicalizer.pth"]


def test_the_end_is_said(tmp_path):
    (tmp_path / "canonicalizer.pth").touch()
    measured = {"held_out": {"pose_accuracy": 0.9268, "pose_loss": 0.3}}
    said = train_net.describe_end(tmp_path, measured, 41)
    file = tmp_path / "canonicalizer.pth"
    assert said == f"written: {file}; poses found of 41 held-out photographs: 92.7 %"
    assert train_net.describe_end(tmp_path, {}, 0) == f"written: {file}"


@pytest.mark.parametrize(
    ("flags", "advice"),
    [([], "go on with --resume"), (["--eval-only"], "run the same command again")],
)
def test_a_full_disk_at_the_start_ends_with_one_message(
    tmp_path, monkeypatch, capsys, flags, advice
):
    photos = write_photos(tmp_path / "photos", 2)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train_net, "default_setup", full)  # writes the log and config.yaml
    words = [*flags, "--config-file", "sam_c4.yaml", "OUTPUT_DIR", str(tmp_path)]
    words += ["MODEL.DEVICE", "cpu"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", *words, "DATASETS.PHOTOS", f"['{photos}']"])
    with pytest.raises(SystemExit) as end:
        run_main(train_net.main)
    said = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in said
    room = f"cannot be written (No space left on device); make room, then {advice}"
    assert f"error: {tmp_path}: {room}" in said
