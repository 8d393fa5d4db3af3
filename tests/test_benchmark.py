import json
import os
import sys

import benchmark
import numpy as np
import pytest
import torch
from optional import missing

from benchmarking import memory
from benchmarking.classification import time_classification
from benchmarking.parts import TRAINED_SIZE
from benchmarking.peers import Equiadapt, find_equiadapt, find_steerable
from benchmarking.points import EquiadaptPoints
from benchmarking.scoring import made_up
from benchmarking.tables import TARGETS, describe_machine, format_table, split_ratios
from benchmarking.tilts import (
    PASSES,
    TURNS,
    WEIGHTS,
    SaysAnother,
    results_in,
    so2_canonicalizers,
)
from benchmarking.timing import measure, ratio, summary
from benchmarking.ways import (
    G_WRN,
    Settings,
    box_prompts,
    build,
    canonicalize,
    picture,
    trained_canonicalizers,
    turned_inputs,
)
from canon_seg.core.group import SO2
from canon_seg.d2.config import load_config
from canon_seg.d2.models import behind
from canon_seg.errors import InputError
from canon_seg.images.soft_masks import SoftMasks
from canon_seg.networks.build import network_spec

TOY = Settings(torch.device("cpu")).toy()


def test_functions_run_in_turn_and_the_first_round_does_not_count():
    calls = []
    times = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: values.shape for name, values in times.items()} == {"a": (3,), "b": (3,)}


def test_summary():
    assert summary(np.array([5.0, 1.0, 2.0, 3.0, 4.0])) == {
        "median": 3.0,
        "quartiles": [2.0, 4.0],
        "rounds": 5,
    }


def test_ratio_is_that_of_medians():
    found = ratio([1.0, 2.0, 30.0], [4.0, 4.0, 5.0])
    assert found["value"] == 0.5
    low, high = found["interval"]
    assert 0.25 <= low < 0.5 < high <= 6.0
    assert ratio([1.0, 2.0, 30.0], [4.0, 4.0, 5.0], plus=1.0)["value"] == 1.5
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        ratio([1.0, 2.0], [1.0])


def test_a_slow_round_counts_on_both_sides():
    speed = np.random.default_rng(0).uniform(1, 10, 9)
    assert ratio(3 * speed, speed)["interval"] == pytest.approx([3.0, 3.0])


def test_wanted_ratios_are_there_even_if_not_measured():
    values, intervals = split_ratios(
        {
            "sweep4_over_sweep1": {"value": 1.1, "interval": [1.0, 1.2]},
            "coco_eval_pycocotools_over_ours": None,
        }
    )
    assert values["sweep4_over_sweep1"] == 1.1 and intervals["sweep4_over_sweep1"] == [1.0, 1.2]
    assert values["coco_eval_pycocotools_over_ours"] is None
    assert values["equiadapt_over_ours_canonicalize"] is None
    assert "canonical_over_vanilla_sam_vit_h" not in values


def test_canonicalizing_is_what_the_model_does():
    model, _ = build("sam_tiny", TOY)
    inputs = turned_inputs(picture(60, 90), box_prompts(2, 60, 90), turn=3)
    frame, image, prompts = canonicalize(model.canonicalizer, inputs)
    expected_pose, expected = model.canonicalize(inputs)
    assert frame.pose == expected_pose
    assert torch.equal(image, expected["image"])
    assert torch.equal(prompts.boxes, expected["prompts"].boxes)


def test_the_larger_network_is_that_of_the_config():
    cfg = load_config("train/canonicalizer_gwrn.yaml")
    assert network_spec(cfg) == G_WRN
    assert cfg.MODEL.CANONICALIZER.INPUT_SIZE == TRAINED_SIZE


def test_trained_canonicalizers_are_those_of_their_names():
    _, cfg = build("mask_rcnn_r50", TOY)
    built = trained_canonicalizers(cfg)
    assert list(built) == ["gcnn", "pretrained_1_pass", "pretrained_4_passes"]
    assert [one.image_format for one in built.values()] == ["BGR"] * 3
    scorers = [built[name].scorer for name in ("pretrained_1_pass", "pretrained_4_passes")]
    assert [scorer.passes for scorer in scorers] == [1, 0]
    assert not any(one.training for one in built.values())


def test_made_up_results_are_of_the_size_of_coco():
    dataset, results = made_up(50)
    assert len(dataset["images"]) == 50 and len(results) == 5000
    assert 6.2 * 50 < len(dataset["annotations"]) < 8.2 * 50
    assert max(entry["bbox"][0] + entry["bbox"][2] for entry in results) <= 640


def test_canonicalizers_of_any_angle_look_as_often_as_they_say():
    built, weights = so2_canonicalizers(torch.device("cpu"), "BGR")
    assert {name: one.scorer.passes for name, one in built.items()} == PASSES
    assert all(one.group == SO2 and one.image_format == "BGR" for one in built.values())
    assert not any(one.training for one in built.values()) and weights in ("random", WEIGHTS)


def test_a_tilt_is_timed_whatever_the_weights_find():
    model, _ = build("sam_tiny", TOY)
    inputs = turned_inputs(picture(60, 90), box_prompts(2, 60, 90))
    images = []
    for turn in TURNS:
        canonicalizer = SaysAnother(model.canonicalizer, turn)
        frame, image, _ = canonicalize(canonicalizer, inputs)
        found = model.canonicalizer.pose(inputs["image"])
        assert frame.pose.turn == turn and frame.pose.to_representative == found.to_representative
        images.append(image)
        soft = results_in(behind(canonicalizer, model), frame, inputs)
        assert isinstance(soft.pred_masks, SoftMasks) and len(soft) == 2
        assert frame.back(soft, "instances").pred_masks.shape == (2, 60, 90)
    sizes = [tuple(image.shape[1:]) for image in images]
    assert sizes == [sizes[0], sizes[0][::-1]] * 2
    assert min(sizes[0]) > 60  # corners of the canvas hold the tilted image


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells its peaks")
@pytest.mark.parametrize("way", ["canonical", "so2"])
def test_peak_memory_of_a_way(way):
    peak = memory._run(
        {
            "device": "cpu",
            "quick": True,
            "threads": torch.get_num_threads(),
            "segmenter": "sam_tiny",
            "way": way,
            "height": 50,
            "width": 70,
            "masks": 2,
        }
    )
    assert 0 < peak["before"] <= peak["peak"]


def test_equiadapt_turns_the_image():
    found, versions = find_equiadapt()
    if not found:
        missing(versions)
    peer, image = Equiadapt(TOY), picture(TOY.image_size, TOY.image_size)
    canonical = (peer.canonicalize(peer.floats(image))[0] * 255).round()
    turned = [torch.rot90(image, turns, (1, 2)).float() for turns in range(4)]
    assert min(float((canonical - other).abs().mean()) for other in turned) < 2


def test_equiadapt_rotates_some_clouds_and_mirrors_others():
    found, versions = find_equiadapt()
    if not found:
        missing(versions)
    torch.manual_seed(0)
    peer, clouds = EquiadaptPoints().eval(), torch.randn(4, 64, 3)
    frames, forms = peer.frames(clouds), peer(clouds)
    assert torch.allclose(forms, clouds @ frames.transpose(1, 2), atol=1e-5)
    # Nothing makes its frames right-handed.
    assert {round(value) for value in torch.linalg.det(frames).tolist()} == {-1, 1}


def test_equiadapt_s_steerable_canonicalizer_runs_or_says_why_not():
    found, versions = find_equiadapt()
    if not found:
        missing(versions)
    peer, why_not = find_steerable(TOY)
    if peer is None:  # as version 0.1.2 with e2cnn 0.2.3
        assert why_not.startswith("its steerable network fails with equiadapt ")
    else:
        image = picture(TOY.image_size, TOY.image_size)[None].float() / 255
        assert why_not is None and peer.canonicalize(image).shape == image.shape
    key, note = "equiadapt_steerable_over_ours_so2", "it fails"
    result = {"machine": describe_machine(TOY.device), "ratios": {key: None, "equiadapt_x": None}}
    result["canonicalize"] = {"note_of_equiadapt_steerable": note}
    table = format_table({**result, "ratio_intervals": {}})
    assert f"| {key} | - | equiadapt: it fails | {TARGETS[key]} |" in table
    assert "| equiadapt_x | - | - |  |" in table


def test_classification_beside_equiadapt():
    found, _ = find_equiadapt()
    facts, ratios = time_classification(TOY, found)
    assert facts["images"] == 4 and facts["parameters"]["classifier"] > 0
    assert ratios["canonical_over_vanilla_cifar10"]["value"] > 1
    assert (ratios["equiadapt_over_ours_cifar10_canonicalize"] is not None) == found


def test_a_run_without_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "equiadapt", None)  # as if it were not installed
    sections = ["ways", "canonicalize", "parts", "sweep", "scoring", "numerics", "points"]
    sections.append("classification")
    words = ["--output", tmp_path, "--quick", "--segmenters", "sam_vit_b", "--sections", *sections]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, words)])
    benchmark.main()
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert result["quick"] and "not installed" in result["equiadapt"]["note"]
    assert set(sections) <= set(result) and "memory" not in result
    assert set(result["machine"]) == {
        "cpu",
        "cores",
        "threads",
        "device",
        "torch",
        "python",
        "system",
    }
    values = result["ratios"]
    measured = {
        "canonical_over_vanilla_sam_vit_b",
        "tta_over_canonical_sam_vit_b",
        "gcnn_over_vanilla_sam_vit_b",
        "pretrained_1_pass_over_vanilla_sam_vit_b",
        "pretrained_4_passes_over_vanilla_sam_vit_b",
        "so2_over_vanilla_sam_vit_b",
        "so2_1_pass_over_vanilla_sam_vit_b",
        "so2_over_vanilla_measured_whole_sam_vit_b",
        "sweep4_over_sweep1",
        "coco_eval_pycocotools_over_ours",
        "gain_bfloat16_sam_vit_b",
        "points_canonical_over_vanilla_pointnet",
        "points_canonical_over_vanilla_dgcnn",
        "canonical_over_vanilla_cifar10",
    }
    assert all(values[key] > 0 for key in measured)
    assert set(values) >= set(TARGETS) - {"canonical_over_vanilla_sam_vit_h"}
    assert all(value is None for key, value in values.items() if "equiadapt" in key)
    assert values["canonical_over_vanilla_mask_rcnn_r50"] is None  # not asked for
    for key, value in values.items():
        assert (result["ratio_intervals"][key] is None) == (value is None)
    assert result["scoring"]["largest_difference"] < 1e-9
    assert result["sweep"]["cache_of_4_angles"] == {"hits": 3, "misses": 1}
    (parts,) = result["parts"].values()
    assert "warp image there" in parts
    for what in ("", " of logits", " in boxes"):
        assert all(f"warp back {count} masks{what}" in parts for count in (1, 3))
    (row,) = [
        line for line in format_table(result).splitlines() if "steerable_over_ours_so2" in line
    ]
    assert "| - | equiadapt: not installed" in row
    assert (tmp_path / "benchmark.md").read_text() == format_table(result) + "\n"
    assert format_table(result) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--device", "nonsense"], "--device nonsense cannot be used here"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--output", str(tmp_path), *arguments])
    with pytest.raises(InputError, match=message):
        benchmark.main()
