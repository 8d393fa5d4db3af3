"""Sweeps in several processes, and what a killed one leaves. Scores: test_evaluation.py."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from test_d2_distributed import options
from tiny_models import (
    any_angle_canonicalizer,
    canonicalized,
    random_canonicalizer,
    tiny_segmenter,
)
from torch import nn
from toy_coco import SIZES, write_toy_coco

from canon_seg.coco.dataset import load_coco, without_empty_masks
from canon_seg.coco.paper_protocol import PaperScorer
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.group import SO2
from canon_seg.core.turn import Turn
from canon_seg.d2.config import load_config
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.distributed import launch
from canon_seg.d2.models import models_by_mode
from canon_seg.errors import InputError
from canon_seg.evaluation.intervals import wilson
from canon_seg.evaluation.realigned import pose_distance, realigned
from canon_seg.evaluation.records import Records, describe_sweep
from canon_seg.evaluation.rotated_coco import RotatedCOCOEvaluator
from canon_seg.evaluation.sweep import _pose_summary, run_sweep
from canon_seg.evaluation.sweep_report import format_summary
from canon_seg.evaluation.views import View
from canon_seg.images.reading import ReadingOptions
from canon_seg.io.files import write_json

from detectron2.structures import BitMasks, Boxes, Instances

RESULTS = [{"image_id": 3, "category_id": 7, "bbox": [0.1, 2, 3, 4], "score": 1 / 3}]


def sweep(annotations, images, records=None):
    dataset = load_coco(annotations, images)
    models = models_by_mode(
        canonicalized(tiny_segmenter("sam"), random_canonicalizer()), ["vanilla", "canonical"]
    )
    return run_sweep(
        models,
        dataset,
        images,
        views=[View(angle) for angle in (0, 90, 270)],
        image_format="RGB",
        progress=False,
        prompts=load_box_prompts("boxes", dataset),
        records=records,
    )


class RedSegmenter:
    """Finds what is red."""

    device = torch.device("cpu")

    def __call__(self, batch):
        mask = batch[0]["image"][0] > 128  # RGB
        masks = BitMasks(mask[None])
        found = Instances(
            mask.shape,
            pred_masks=mask[None],
            pred_boxes=masks.get_bounding_boxes(),
            scores=torch.ones(1),
            pred_classes=torch.zeros(1, dtype=torch.int64),
        )
        return [{"instances": found}]


@pytest.mark.parametrize(("exif", "ap"), [(False, 100.0), (True, 0.0)])
def test_annotations_of_raw_frames_have_the_figures_of_raw_frames(tmp_path, exif, ap):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:15, 10:30] = 255, 0, 0
    turned = Image.Exif()
    turned[0x0112] = 3  # no size shows it
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    polygon = [10, 5, 30, 5, 30, 15, 10, 15]
    write_json(
        tmp_path / "a.json",
        {
            "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 1,
                    "category_id": 1,
                    "bbox": [10, 5, 20, 10],
                    "segmentation": [polygon],
                }
            ],
            "categories": [{"id": 1, "name": "red"}],
        },
    )
    result = run_sweep(
        {"vanilla": lambda pose: RedSegmenter()},
        load_coco(tmp_path / "a.json", tmp_path),
        tmp_path,
        views=[View(0)],
        image_format="RGB",
        progress=False,
        reading=ReadingOptions(exif),
    )
    assert result["modes"]["vanilla"]["0"]["segm"]["AP"] == pytest.approx(ap)
    assert result["modes"]["vanilla"]["0"]["bbox"]["AP"] == pytest.approx(ap)


def test_modes_of_any_angle(tmp_path):
    """Means, minima and errors are those of the angles; exact turns of one angle score alike."""
    annotations, images = write_toy_coco(tmp_path)
    dataset = load_coco(annotations, images)
    model = canonicalized(tiny_segmenter("sam"), random_canonicalizer())
    found = {"SO2": any_angle_canonicalizer(min_tilt=1.0)}
    views = [View(angle) for angle in (0, 90, 30, 120)]
    result = run_sweep(
        models_by_mode(model, ["vanilla", "SO2", "oracle_any"], found),
        dataset,
        images,
        views=views,
        image_format="RGB",
        progress=False,
        prompts=load_box_prompts("boxes", dataset),
    )
    for mode, by_angle in result["modes"].items():
        for task in ("segm", "bbox"):
            values = [by_angle[view.label][task]["AP"] for view in views]
            summary = result["over_angles"][mode]
            assert summary["mean"][task]["AP"] == pytest.approx(sum(values) / 4)
            assert summary["min"][task]["AP"] == min(values)
    for mode in ("SO2", "oracle_any"):
        assert result["modes"][mode]["30"] == result["modes"][mode]["120"]
        assert result["modes"][mode]["0"] == result["modes"][mode]["90"]
    assert result["modes"]["vanilla"]["30"] != result["modes"]["vanilla"]["120"]
    assert list(result["angle_errors"]) == ["SO2"]
    assert 0 < result["angle_errors"]["SO2"]["mean_error"] < 180


class CornerSegmenter(nn.Module):
    """Find one thing, in the upper left corner of the canonical image."""

    resizes_itself = True

    def forward(self, batch):
        masks = torch.zeros(1, batch[0]["height"], batch[0]["width"], dtype=torch.bool)
        masks[:, 0, 0] = True
        found = {"pred_masks": masks, "pred_boxes": Boxes(torch.tensor([[0.0, 0, 1, 1]]))}
        found |= {"scores": torch.tensor([0.9]), "pred_classes": torch.tensor([0])}
        return [{"instances": Instances(tuple(masks.shape[1:]), **found)}]


def test_masks_that_vanish_are_counted(tmp_path):
    """By a tilt the corners of the canonical image lie outside of the given one."""
    annotations, images = write_toy_coco(tmp_path)
    model = canonicalized(CornerSegmenter(), FixedPoseCanonicalizer(Turn.by(30), SO2))
    result = run_sweep(
        models_by_mode(model, ["vanilla", "canonical"]),
        load_coco(annotations, images),
        images,
        views=[View(0), View(90)],
        image_format="RGB",
        progress=False,
    )
    count = result["num_images"]
    assert result["masks_vanished"] == {
        "vanilla": {"0": 0, "90": 0},
        "canonical": {"0": count, "90": count},
    }
    assert f"scored as empty ones: {2 * count}" in format_summary(result)


def sweep_in_process(annotations, images, folder):
    result = sweep(annotations, images, Records(folder / "records"))
    if result is not None:
        assert not (folder / "result.json").exists()  # one process has the result
        write_json(folder / "result.json", result)


def without_seconds(result):
    return {key: value for key, value in result.items() if key != "seconds"}


@pytest.mark.parametrize(("num_images", "numbers_of_processes"), [(1, [3]), (4, [2, 3])])
def test_processes_share_the_images_and_change_no_bit(tmp_path, num_images, numbers_of_processes):
    files = write_toy_coco(tmp_path / "data", SIZES[:num_images])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = json.loads(json.dumps(without_seconds(sweep(*files))))
    finally:
        torch.set_num_threads(threads)
    assert alone["modes"]["canonical"]["0"] == alone["modes"]["canonical"]["90"]
    for processes in numbers_of_processes:
        folder = tmp_path / str(processes)
        records = Records(folder / "records")
        records.begin({}, resume=False)
        launch(
            sweep_in_process,
            (*files, folder),
            options("--num-processes", processes, "--threads", 1),
        )
        together = json.loads((folder / "result.json").read_text())
        assert without_seconds(together) == alone
        lines = [
            json.loads(line)
            for path in records.folder.glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        # Every image once.
        assert sorted(line["image_id"] for line in lines) == list(range(11, 11 + num_images))
        for mode in ("vanilla", "canonical"):
            assert together["seconds"][mode]["total"] == pytest.approx(
                sum(line["facts"]["seconds"][mode] for line in lines)
            )


def test_the_papers_protocol_beside_cocos(tmp_path):
    files = write_toy_coco(tmp_path / "data")
    dataset = load_coco(*files)
    models = models_by_mode(
        canonicalized(tiny_segmenter("sam"), random_canonicalizer()), ["vanilla", "canonical"]
    )
    order = [image["id"] for image in dataset["images"]][::-1]
    records = Records(tmp_path / "records")
    records.begin({}, resume=False)
    views = [View(angle) for angle in (0, 90, 180, 270)]
    settings = {"views": views, "image_format": "RGB", "progress": False, "records": records}
    prompts = load_box_prompts("boxes", dataset)
    plain = run_sweep(models, dataset, files[1], prompts=prompts, **settings)
    assert plain["paper"] is None
    both = run_sweep(models, dataset, files[1], prompts=prompts, paper_order=order, **settings)
    assert {**both, "paper": None} == plain
    paper = both["paper"]
    assert (paper["batch_size"], paper["num_batches"], paper["num_images"]) == (12, 1, 4)
    # Scored from what was predicted, which the records hold.
    finished = records.finished()
    for number, mode in enumerate(models):
        results = [entry for part in records.view(finished, 4 * number + 1) for entry in part]
        evaluator = RotatedCOCOEvaluator(without_empty_masks(dataset)[0], View(90))
        expected = PaperScorer(evaluator.ground_truth, order).score(results)
        assert paper["modes"][mode]["90"]["segm"]["AP"] == expected["segm"]["AP"]
        quarters = [
            paper["modes"][mode][angle]["segm"]["AP"] for angle in ("0", "90", "180", "270")
        ]
        average = paper["modes"][mode]["C4-avg"]["segm"]["AP"]
        assert average == pytest.approx(sum(quarters) / 4)
    assert both["realigned"] == realigned(both)
    pose = both["pose"]
    assert pose["accuracy_interval"] == wilson(pose["accuracy"], 4)
    without = {key: value for key, value in pose.items() if key != "distance"}
    assert pose["distance"] == pytest.approx(pose_distance(without))


def test_distances_between_quarter_turns():
    views = [View(30), View(350), View(100)]
    facts = [{"poses": [[0, "argmax", 1], [1, "argmax", 1], [3, "argmax", 1]]}]
    pose = _pose_summary(facts, views)
    # 30 from 0; 350 from 90 is 100; 100 from 270 is 170.
    assert pose["distance"] == pytest.approx((30 + 100 + 170) / 3)


def test_only_images_that_are_not_finished_are_run(tmp_path):
    files = write_toy_coco(tmp_path / "data")
    records = Records(tmp_path / "records")
    records.begin({}, resume=False)
    whole = sweep(*files, records)
    (path,) = records.folder.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    # Killed while it wrote the third image; the first two have times that no computer reaches.
    for number in (0, 1):
        line = json.loads(lines[number])
        line["facts"]["seconds"] = {"vanilla": 1000.0, "canonical": 0.0}
        lines[number] = json.dumps(line).encode() + b"\n"
    path.write_bytes(lines[0] + lines[1] + lines[2][:-9])
    records = Records(records.folder)
    records.begin({}, resume=True)
    resumed = sweep(*files, records)
    changing = {"seconds": None}
    assert {**resumed, **changing} == {**whole, **changing}
    assert 2000 < resumed["seconds"]["vanilla"]["total"] < 3000


def test_records_find_each_view_and_remove_only_themselves(tmp_path):
    records = Records(tmp_path / "records")
    records.begin({"modes": ("a",)}, resume=False)
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.append(1, {}, [[{"score": float("nan")}]])  # nothing is written
    records.append(3, {"of": "3"}, [[], RESULTS, []])
    records.append(2, {"of": "2"}, [RESULTS, [], 2 * RESULTS])
    finished = records.finished()
    assert [line.facts for line in finished.values()] == [{"of": "2"}, {"of": "3"}]
    views = [list(records.view(finished, index)) for index in range(3)]
    assert views == [[RESULTS, []], [[], RESULTS], [2 * RESULTS, []]]
    records.write(finished, tmp_path / "all.jsonl")
    header, *lines = map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())
    assert header == {"modes": ["a"]}
    assert [line["views"] for line in lines] == [[RESULTS, [], 2 * RESULTS], [[], RESULTS, []]]
    (records.folder / "mine.txt").touch()
    records.remove()
    assert [path.name for path in records.folder.iterdir()] == ["mine.txt"]


def test_records_begin_anew_unless_told_otherwise(tmp_path):
    def begun(header, resume):
        records = Records(tmp_path)
        records.begin(header, resume)
        return records

    begun({"a": 1}, True).append(1, {}, [])
    assert list(begun({"a": 1}, True).finished()) == [1]
    with pytest.raises(InputError, match="had another a, b; .*without --resume"):
        begun({"a": 2, "b": 0}, True)
    assert list(begun({"a": 1}, True).finished()) == [1]
    assert list(begun({"a": 1}, False).finished()) == []


def test_a_record_of_too_few_keys_is_named(tmp_path):
    records = Records(tmp_path)
    records.begin({}, False)
    (tmp_path / "x.jsonl").write_bytes(b'{"image_id": 1}\n')
    with pytest.raises(InputError, match="x.jsonl: is damaged at byte 0"):
        records.finished()


def test_what_results_depend_on(tmp_path):
    annotations, images = write_toy_coco(tmp_path)
    dataset = load_coco(annotations, images)
    prompts = load_box_prompts("boxes", dataset)

    def describe(options=(), seed=3, dataset=dataset, prompts=prompts, modes=("vanilla",)):
        cfg = load_config("configs/sam_c4.yaml", list(options))
        model = canonicalized(tiny_segmenter("sam", seed), random_canonicalizer())
        return describe_sweep(
            cfg, models_by_mode(model, modes), dataset, images, prompts, [View(0)]
        )

    first = describe(["OUTPUT_DIR", "elsewhere", "SOLVER.MAX_ITER", 3])
    assert describe() == first and json.loads(json.dumps(first))["angles"] == ["0"]
    fewer = {**dataset, "annotations": dataset["annotations"][1:]}
    for changed, keys in [
        (describe(["MODEL.SAM.PROMPTS_PER_BATCH", 3]), {"MODEL.SAM.PROMPTS_PER_BATCH"}),
        (describe(seed=4), {"weights"}),
        (describe(dataset=fewer), {"data set"}),
        (describe(prompts=load_box_prompts("boxes", fewer)), {"prompts"}),
        (describe(modes=["vanilla", "canonical"]), {"modes", "weights"}),
    ]:
        assert {key for key in first if first[key] != changed[key]} == keys
    name = dataset["images"][0]["file_name"]
    with open(images / name, "ab") as file:
        file.write(b"\0")
    assert describe()["data set"] != first["data set"]


def test_a_line_that_finds_no_room_leaves_the_others_whole(tmp_path, monkeypatch):
    """A write may take a part and say so: what it took is taken back."""
    records = Records(tmp_path / "records")
    records.begin({}, resume=False)
    records.append(1, {}, [[{"score": 1.0}]])
    room = 10

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            nonlocal room
            if not room:
                raise OSError(28, "No space left on device")
            taken, room = bytes(data[:room]), 0
            return self.file.write(taken)

    whole, records._file = records._file, Full(records._file)
    with pytest.raises(InputError, match="No space left"):
        records.append(2, {}, [[{"score": 0.5}]])
    records._file = whole
    records.append(3, {}, [[{"score": 0.25}]])
    assert list(records.finished()) == [1, 3]
    assert list(records.view(records.finished(), 0)) == [[{"score": 1.0}], [{"score": 0.25}]]


def test_damaged_records_are_named(tmp_path):
    records = Records(tmp_path)
    records.begin({}, resume=False)
    records.append(1, {}, [[{"score": 1.0}], []])
    [file] = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"score": 1.0', b'"score": 1.'))
    with pytest.raises(InputError, match="damaged at byte 0"):
        records.finished()
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(InputError, match="header.json: is damaged"):
        Records.begin(records, {}, resume=True)


@pytest.mark.skipif(find_spec("fcntl") is None, reason="no locks of files here")
def test_two_sweeps_cannot_share_a_folder(tmp_path):
    first, second = Records(tmp_path / "records"), Records(tmp_path / "records")
    first.begin({}, resume=False)
    first.append(1, {}, [[]])
    for resume in (False, True):
        with pytest.raises(InputError, match="another sweep is at work"):
            second.begin({}, resume)
    assert list(first.finished()) == [1]
    first.remove()
    assert not (tmp_path / "records").exists()
    second.begin({}, resume=False)
