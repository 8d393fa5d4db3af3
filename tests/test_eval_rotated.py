import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command
from conftest import TINY_SAM_YAML
from PIL import Image
from toy_coco import SIZES, write_toy_coco

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.cli import eval_rotated
from canon_seg.coco.dataset import load_coco
from canon_seg.errors import run_main
from canon_seg.evaluation.sweep import first_images
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.weights import FORMAT

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances

SCRIPT = Path(__file__).parents[1] / "tools" / "eval_rotated.py"

CONFIG = """
MODEL:
  META_ARCHITECTURE: "CanonicalizedSegmenter"
  DEVICE: "cpu"
  CANONICALIZER:
    WEIGHTS: "{weights}"
  SEGMENTER:
    META_ARCHITECTURE: "SamSegmenter"
  SAM: {tiny_sam}
INPUT:
  FORMAT: "RGB"
DATASETS:
  COCO:
    - ["toy", "{annotations}", "{images}"]
VERSION: 2
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a config, canonicalizer weights, annotations and images."""
    folder = tmp_path_factory.mktemp("toy")
    annotations, images = write_toy_coco(folder / "data")
    torch.manual_seed(0)
    spec = NetworkSpec("GCNN", 4, (2, 4), 1)
    exported = {key: value.half() for key, value in build_plain_network(spec).state_dict().items()}
    torch.save(
        {
            "format": FORMAT,
            "network": spec.to_dict(),
            "input_size": 33,
            "exported": exported,
            "trainable": {},
        },
        folder / "canonicalizer.pth",
    )
    (folder / "config.yaml").write_text(
        CONFIG.format(
            tiny_sam=TINY_SAM_YAML,
            weights=folder / "canonicalizer.pth",
            annotations=annotations,
            images=images,
        )
    )
    return folder


@pytest.fixture
def evaluate(toy, monkeypatch, capsys):
    """Call the script with arguments, in the toy's folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(toy)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_main(eval_rotated.main)
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def fails(toy, evaluate):
    """Call the script with what must be refused: its message."""

    def call(*arguments):
        output = toy / "refused"
        code, _, message = evaluate("--config-file", "config.yaml", "--output", output, *arguments)
        assert code == 2
        assert "segmenting" not in message  # found before the model runs
        assert not (output / "sweep.json").exists()
        return message

    return call


def test_a_sweep_from_files(toy):
    process = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            SCRIPT,
            "--config-file",
            "config.yaml",
            "--annotations",
            "data/instances.json",
            "--images",
            "data/images",
            "--limit",
            "3",
            "--output",
            "out",
            "MODEL.SAM.PROMPTS_PER_BATCH",
            "4",
        ],
        capture_output=True,
        text=True,
        cwd=toy,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    sweep = json.loads((toy / "out" / "sweep.json").read_text())
    assert list(sweep) == [
        "config",
        "dataset",
        "num_images",
        "modes",
        "over_angles",
        "angle_errors",
        "paper",
        "instances_cut",
        "instances_cut_ids",
        "masks_vanished",
        "instances_empty",
        "pose",
        "cache",
        "seconds",
        "realigned",
    ]
    assert sweep["num_images"] == 3 and sweep["paper"] is None
    assert sweep["realigned"]["segm"]["upright"] == sweep["modes"]["vanilla"]["0"]["segm"]["AP"]
    assert "turned and re-aligned" in process.stdout
    assert sweep["dataset"] == "data/instances.json"
    assert sweep["config"]["options"] == ["MODEL.SAM.PROMPTS_PER_BATCH", "4"]
    assert str(toy) not in json.dumps(sweep).replace(str(toy / "canonicalizer.pth"), "")
    assert list(sweep["modes"]) == ["vanilla", "canonical"]
    canonical = sweep["modes"]["canonical"]
    assert list(canonical) == ["0", "90", "180", "270", "C4-avg"]
    assert all(scores == canonical["0"] for scores in canonical.values())
    assert sum(map(sum, sweep["pose"]["confusion"])) == 12
    with Image.open(toy / "out" / "sweep.png") as image:
        image.load()
    assert len([line for line in process.stdout.splitlines() if "C4-avg" in line]) == 4
    assert "random weights" in process.stderr
    assert "24/24" in process.stderr  # the progress bar
    assert sorted(path.name for path in (toy / "out").iterdir()) == ["sweep.json", "sweep.png"]


def test_the_papers_protocol(toy, evaluate):
    """Batches are made in the order of the annotation file, not of the ids."""
    whole = json.loads((toy / "data" / "instances.json").read_text())
    whole["images"].reverse()
    (toy / "reversed.json").write_text(json.dumps(whole))
    options = ["--config-file", "config.yaml", "--images", "data/images", "--angles", "0"]
    options += ["--annotations", "reversed.json", "--limit", "3", "--modes", "vanilla"]
    status, said, message = evaluate(*options, "--protocol", "paper", "--output", "paper")
    assert status == 0, message
    sweep = json.loads((toy / "paper" / "sweep.json").read_text())
    assert sweep["config"]["protocol"] == "paper"
    assert sweep["paper"]["num_images"] == 3 and "paper's mAP" in said
    assert sweep["paper"]["modes"]["vanilla"]["0"].keys() == {"segm", "bbox"}
    loaded = load_coco(toy / "reversed.json", toy / "data" / "images")
    kept = first_images(loaded, 3)
    assert [image["id"] for image in kept["images"]] == [11, 12, 13]
    assert eval_rotated._order(loaded, kept) == [13, 12, 11]


def wait_for_finished_images(folder, command, count):
    for _ in range(10_000):
        lines = [path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl")]
        if sum(lines) >= count:
            return
        assert not command.ended(), command.output()
        time.sleep(0.02)
    raise AssertionError(f"no image was finished in {folder}")


def test_killed_and_resumed_in_another_number_of_processes(toy, evaluate):
    annotations, images = write_toy_coco(toy / "many", 5 * SIZES)
    options = ["--config-file", "config.yaml", "--annotations", annotations, "--images", images]
    options += ["--angles", 0, 90]
    partial = toy / "resumed" / "sweep.partial"

    def start(*arguments):
        words = [*options, "--output", "resumed", "--threads", "1", *arguments]
        return Command(eval_rotated.main, words, toy, toy / "resumed.log")

    command = start("--num-processes", "2")
    try:
        wait_for_finished_images(partial, command, 2)
    finally:
        command.kill()
    part = sorted(partial.glob("*.jsonl"))[0]
    finished = {
        json.loads(line)["image_id"]: line
        for path in partial.glob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    }
    assert 2 <= len(finished) < 20
    with open(part, "ab") as file:
        file.write(b'{"image_id": 11, "fac')

    code, _, message = evaluate(*options, "--output", "resumed")
    assert code == 2 and "go on with --resume, or give --overwrite to throw it away" in message
    code, _, message = evaluate(*options, "--output", "resumed", "--resume", "--overwrite")
    assert code == 2 and "give one of them" in message
    code, _, message = evaluate(
        *options, "--output", "resumed", "--resume", "MODEL.SAM.PROMPTS_PER_BATCH", 3
    )
    assert code == 2 and "had another MODEL.SAM.PROMPTS_PER_BATCH;" in message

    command = start("--num-processes", "3", "--resume", "--keep-predictions")
    assert command.wait() == 0, command.output()
    assert "80/80" in command.output()
    assert not partial.exists()
    resumed = json.loads((toy / "resumed" / "sweep.json").read_text())
    header, *lines = (toy / "resumed" / "predictions.jsonl").read_bytes().splitlines(True)
    assert json.loads(header)["angles"] == ["0", "90"]
    found = {json.loads(line)["image_id"]: line for line in lines}
    assert list(found) == list(range(11, 31)) and len(lines) == 20
    # With the times that were taken before: they were not run again.
    assert all(found[image_id] == line for image_id, line in finished.items())

    threads = torch.get_num_threads()
    try:
        code, _, message = evaluate(*options, "--output", "alone", "--threads", 1)
    finally:
        torch.set_num_threads(threads)
    assert code == 0, message
    alone = json.loads((toy / "alone" / "sweep.json").read_text())
    for key in ("num_images", "modes", "pose"):
        assert resumed[key] == alone[key]


def test_a_sweep_of_a_named_set_in_one_mode_needs_no_canonicalizer(toy, evaluate):
    code, _, message = evaluate(
        "--config-file",
        "config.yaml",
        "--dataset",
        "toy",
        "--modes",
        "vanilla",
        "--angles",
        0,
        -90,
        30,
        "--limit",
        1,
        "--output",
        "named",
        "MODEL.CANONICALIZER.WEIGHTS",
        "nowhere.pth",
    )
    assert code == 0, message
    sweep = json.loads((toy / "named" / "sweep.json").read_text())
    assert sweep["dataset"] == "toy" and sweep["pose"] is None
    assert {mode: list(angles) for mode, angles in sweep["modes"].items()} == {
        "vanilla": ["0", "270", "30"]
    }
    assert sweep["instances_cut"] == {"0": 0, "270": 0, "30": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "toy", "--angles", "0", "east"], "--angles: 'east'"),
        (["--dataset", "toy", "--modes", "upright"], "--modes: 'upright'"),
        (["--dataset", "toy", "--angles", "0", "nan"], "--angles: 'nan': 'nan' is not finite"),
        (["--dataset", "toy", "--modes", "C8"], "--modes C8: MODEL.CANONICALIZER.GROUP is C8"),
        (["--tight-boxes", "--box-prompts", "hull"], "--tight-boxes is --box-prompts tight"),
        (["--dataset", "toy", "--limit", "0"], "--limit is 0"),
        (["--dataset", "toy", "--num-processes", "0"], "--num-processes is 0"),
        (["--dataset", "nobody"], "--dataset: 'nobody' is neither in DATASETS.COCO (toy)"),
        (["--dataset", "coco_2017_val"], "instances_val2017.json"),
        (["--dataset", "toy", "--images", "data/images"], "either --dataset or --annotations"),
        (["--images", "data/images"], "--annotations and --images belong together"),
        (["--dataset", "toy", "MODEL.NOTHING", "1"], "MODEL.NOTHING"),
        (["--dataset", "toy", "MODEL.DEVICE", "cuda:99"], "MODEL.DEVICE is 'cuda:99'"),
        (["--dataset", "toy", "MODEL.CANONICALIZER.WEIGHTS", "none.pth"], "none.pth"),
        (["--dataset", "toy", "MODEL.SEGMENTER.WEIGHTS", "none.pth"], "none.pth"),
        (["--dataset", "toy", "MODEL.SAM.PROMPTS", "none.json"], "none.json"),
        (["--annotations", "cut.json", "--images", "data/images"], "cut.json: is not valid JSON"),
    ],
)
def test_bad_input_is_named_before_anything_runs(toy, fails, arguments, message):
    whole = (toy / "data" / "instances.json").read_text()
    (toy / "cut.json").write_text(whole[: len(whole) // 2])
    assert message in fails(*arguments)


@pytest.mark.parametrize(
    ("words", "found", "refines"),
    [
        ([], "refined", True),
        (["MODEL.SAM.REFINE_BOXES", "False"], "hull", False),
        (["--box-prompts", "hull"], "hull", False),
        (["--box-prompts", "refined", "MODEL.SAM.REFINE_BOXES", "False"], "refined", True),
        (["--box-prompts", "tight"], "tight", True),
        (["--tight-boxes"], "tight", True),
    ],
)
def test_what_becomes_of_boxes_has_a_name(toy, monkeypatch, words, found, refines):
    file = str(toy / "config.yaml")
    command = ["eval", "--config-file", file, "--output", str(toy / "rows"), *words]
    monkeypatch.setattr(sys, "argv", command)
    args = eval_rotated.parse_arguments()
    cfg = eval_rotated.load_config(file, args.options)
    args.box_prompts = eval_rotated.choose_box_prompts(args, cfg)
    assert args.box_prompts == found and cfg.MODEL.SAM.REFINE_BOXES == refines
    described = eval_rotated.describe(args, cfg)
    assert described["box_prompts"] == found and described["tight_boxes"] == (found == "tight")
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "GeneralizedRCNN"
    if not words or words[0].startswith("MODEL"):
        args.box_prompts = None
        assert eval_rotated.choose_box_prompts(args, cfg) is None
    else:
        with pytest.raises(ValueError, match="GeneralizedRCNN takes no prompts"):
            eval_rotated.choose_box_prompts(args, cfg)


def test_an_output_folder_that_is_a_file_is_named_first(toy, evaluate):
    (toy / "file").write_text("")
    code, _, message = evaluate("--config-file", "none.yaml", "--output", "file")
    assert code == 2 and message.startswith("error: file: ")


def test_nothing_to_evaluate_on_but_the_scenes(evaluate, toy):
    code, _, message = evaluate(
        "--config-file", "config.yaml", "--limit", 1, "--modes", "oracle", "--output", "scenes"
    )
    assert code == 0, message
    assert json.loads((toy / "scenes" / "sweep.json").read_text())["dataset"] == (
        "procedural scenes, seed 7"
    )
    assert (toy / "scenes" / "scenes" / "annotations" / "instances.json").is_file()


def test_one_bad_image_is_named_at_the_start(fails, tmp_path):
    annotations, images = write_toy_coco(tmp_path / "data")
    last = sorted(images.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-200])
    message = fails("--annotations", annotations, "--images", images)
    assert last.name in message and "cut short" in message


@META_ARCH_REGISTRY.register()
class BoxFiller(torch.nn.Module):
    """Somebody else's segmenter: its masks are the boxes that it is prompted with."""

    takes_prompts = needs_prompts = resizes_itself = True

    def __init__(self, cfg):
        super().__init__()
        self.register_buffer("anything", torch.zeros(1), persistent=False)

    def forward(self, batched_inputs):
        return [{"instances": self._fill(inputs)} for inputs in batched_inputs]

    def _fill(self, inputs):
        prompts, size = inputs["prompts"], inputs["image"].shape[-2:]
        assert size == (inputs["height"], inputs["width"])
        y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
        x0, y0, x1, y1 = prompts.boxes[:, :, None, None].unbind(dim=1)
        return Instances(
            tuple(size),
            pred_masks=(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1),
            pred_boxes=Boxes(prompts.boxes),
            pred_classes=prompts.classes,
            scores=torch.ones(len(prompts)) if prompts.scores is None else prompts.scores,
        )


def write_rectangles(folder):
    """A COCO data set whose objects fill their boxes; returns (annotations, images folder)."""
    rng, annotations = np.random.default_rng(0), []
    sizes = {1: (60, 90), 2: (80, 50)}
    (folder / "images").mkdir(parents=True)
    for image_id, (height, width) in sizes.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{image_id}.png")
        for category_id, (x, y, w, h) in ((1, (4, 6, 30, 20)), (2, (10, 30, 16, 22))):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "iscrowd": 0,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    dataset = {
        "images": [
            {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
            for image_id, (height, width) in sizes.items()
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "wide"}, {"id": 2, "name": "high"}],
    }
    (folder / "instances.json").write_text(json.dumps(dataset))
    return folder / "instances.json", folder / "images"


def test_a_third_partys_promptable_segmenter(toy, evaluate, tmp_path):
    annotations, images = write_rectangles(tmp_path)

    def sweep_with(prompts):
        code, _, message = evaluate(
            "--config-file",
            "config.yaml",
            "--annotations",
            annotations,
            "--images",
            images,
            "--output",
            tmp_path / "out",
            "MODEL.SEGMENTER.META_ARCHITECTURE",
            "BoxFiller",
            "MODEL.SAM.PROMPTS",
            prompts,
        )
        assert code == 0, message
        return json.loads((tmp_path / "out" / "sweep.json").read_text())

    sweep = sweep_with("boxes")
    assert sweep["config"]["segmenter"] == "BoxFiller" and sweep["config"]["prompts"] == "boxes"
    assert "sam_size" not in sweep["config"]
    for mode in ("vanilla", "canonical"):
        for angle, scores in sweep["modes"][mode].items():
            assert scores["segm"]["AP"] == scores["bbox"]["AP"] == pytest.approx(100), (mode, angle)

    # Boxes with an IoU of 0.75: found at six of the ten thresholds, 0.5 to 0.75.
    results = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": [*entry["bbox"][:2], 0.75 * entry["bbox"][2], entry["bbox"][3]],
            "score": 0.5,
        }
        for entry in json.loads(annotations.read_text())["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    sweep = sweep_with(tmp_path / "results.json")
    for scores in (sweep["modes"]["vanilla"]["90"], sweep["modes"]["canonical"]["C4-avg"]):
        assert scores["bbox"]["AP50"] == scores["segm"]["AP50"] == pytest.approx(100)
        assert scores["bbox"]["AP"] == pytest.approx(60)
        assert scores["bbox"]["AP75"] == pytest.approx(100)
