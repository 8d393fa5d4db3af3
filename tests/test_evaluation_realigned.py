import pytest

from canon_seg.evaluation.realigned import COLUMNS, TITLES, pose_distance, realigned


def scores(**by_angle):
    return {
        angle.removeprefix("a"): {"segm": {"AP": value}, "bbox": {"AP": None}}
        for angle, value in by_angle.items()
    }


POSE = {
    "accuracy": 0.75,
    "accuracy_by_angle": {"0": 0.75, "90": 0.75},
    # Of 8: 6 right, one a quarter turn off, one half a turn.
    "confusion": [[3, 1, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
}


def test_the_columns_by_hand():
    sweep = {
        "modes": {
            "vanilla": {**scores(a0=40.0, a90=10.0, a180=20.0, a270=60.0), "C4-avg": None},
            "canonical": scores(a0=36.0, a90=36.0, a180=36.0, a270=39.0),
        },
        "pose": POSE,
    }
    found = realigned(sweep)
    assert found["segm"] == {
        "upright": 40.0,
        "turned": 30.0,
        "turned_undone": None,
        "turned_realigned": 37.0,
        "upright_realigned": 36.0,
    }
    assert set(found["bbox"].values()) == {None}
    assert (found["pose_accuracy"], found["pose_distance"]) == (0.75, (90 + 180) / 8)
    assert list(COLUMNS) == list(TITLES)


def test_oracles_undo_turns():
    sweep = {"modes": {"oracle": scores(a0=40.0, a22=30.0, a90=50.0)}, "pose": None}
    found = realigned(sweep)
    assert found["segm"]["turned_undone"] == 40.0 and found["segm"]["upright"] is None
    assert found["pose_accuracy"] is found["pose_distance"] is None


def test_upright_images_alone():
    found = realigned({"modes": {"vanilla": scores(a0=40.0)}, "pose": None})
    assert (found["segm"]["upright"], found["segm"]["turned"]) == (40.0, None)


def test_distances_of_earlier_sweeps():
    assert pose_distance(POSE) == pytest.approx(33.75)
    assert pose_distance({**POSE, "distance": 12.0}) == 12.0
    # Between quarter turns the confusion does not say it.
    assert pose_distance({**POSE, "accuracy_by_angle": {"15": 1.0}}) is None
