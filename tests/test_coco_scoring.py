"""The scores against pycocotools on made-up sets; more of them: tools/score_parity.py."""

import copy
import multiprocessing
import os

import numpy as np
import pytest
from score_parity import IDS, TASKS, differences, random_set, reference_curves, same_bytes

from canon_seg.coco.scoring import METRICS, Scorer

# All kinds of ids, more than 1,000 detections, no objects, no detections.
SEEDS = [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_are_those_of_pycocotools_to_the_last_bit(seed):
    different, values = differences(seed)
    assert different == [] and values > 50_000


def test_the_sets_have_what_is_hard():
    special = {name for seed in SEEDS for name in random_set(seed)[2]}
    assert special == {
        *(f"ids {kind}" for kind in IDS),
        "crowds",
        "more than 1,000 detections of one class in an image",
        "no detections",
        "no objects",
        "ties of scores",
    }


def test_the_curves_are_neither_empty_nor_all_the_same():
    dataset, results, _ = random_set(0)
    curves = {task: Scorer(dataset).curves(results, task) for task in TASKS}
    for arrays in curves.values():
        assert np.unique(arrays["precision"]).size > 5
        assert {name: array.shape for name, array in arrays.items()} == {
            "precision": (10, 101, len(dataset["categories"]), 4, 3),
            "recall": (10, len(dataset["categories"]), 4, 3),
            "scores": (10, 101, len(dataset["categories"]), 4, 3),
        }
    # What the comparison would find: another task, or one score that is the next larger number.
    assert not same_bytes(curves["segm"]["precision"], curves["bbox"]["precision"])
    changed = curves["segm"]["scores"].copy()
    changed.flat[0] = np.nextafter(changed.flat[0], 2)
    assert not same_bytes(curves["segm"]["scores"], changed)


def test_scores_that_are_no_numbers_come_last_as_in_pycocotools():
    dataset, results, _ = random_set(0)
    for entry in results[::3]:
        entry["score"] = float("nan")
    for task in TASKS:
        ours = Scorer(dataset).curves(results, task)
        expected = reference_curves(dataset, results, task)
        for name in ("precision", "recall"):
            assert same_bytes(ours[name], expected[name])
        np.testing.assert_array_equal(
            np.where(np.isneginf(ours["scores"]), np.nan, ours["scores"]), expected["scores"]
        )


def test_nothing_given_is_changed_or_said(capfd):
    dataset, results, _ = random_set(1)
    before = copy.deepcopy((dataset, results))
    scores = Scorer(dataset).score(results, by_class=True)
    assert (dataset, results) == before
    assert capfd.readouterr() == ("", "")
    classes = [f"AP-{category['name']}" for category in dataset["categories"]]
    assert sorted(scores["segm"]) == sorted([*METRICS, *classes])


def test_a_set_without_images_of_any_object_has_no_figures():
    dataset, results, special = random_set(4)
    assert "no objects" in special and results
    scores = Scorer(dataset).score(results)
    assert all(np.isnan(value) for task in TASKS for value in scores[task].values())


def _score_in_child(seed):
    dataset, results, _ = random_set(seed)
    return Scorer(dataset).score(results)["segm"]["AP50"]


def test_a_process_that_is_forked_after_scoring_says_so_and_a_spawned_one_scores():
    expected = _score_in_child(0)
    child = os.fork()
    if child == 0:  # without what ends a test's process
        try:
            _score_in_child(0)
        except RuntimeError as error:
            os._exit(40 if "spawn" in str(error) else 41)
        os._exit(42)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 40
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_score_in_child, (0,)) == expected
