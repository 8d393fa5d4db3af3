import numpy as np
import pytest
import torch

from canon_seg.apps.files.classes import OBJECTS
from canon_seg.apps.files.results import Results, VideoSummary
from canon_seg.apps.files.segment import Objects, Segmentation
from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn

LIKELY, OTHER = (0.7, 0.1, 0.1, 0.1), (0.1, 0.2, 0.6, 0.1)


def found(pose=Pose(0, LIKELY), scores=None, masks=True):
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[:, 2:5, 3:9] = True
    objects = Objects(
        torch.tensor([[3.0, 2.0, 9.0, 5.0]]), torch.tensor([0]), scores, mask if masks else None
    )
    return Segmentation(pose, objects, OBJECTS, np.zeros((20, 30, 3), np.uint8), (20, 30))


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([Pose(0, LIKELY)], "30 x 20, 1 frame, pose 0 degrees, probability 0.700"),
        (
            [Pose(Turn(1, mirrored=True), (0.1, 0.0, 0.0, 0.0, 0.1, 0.8, 0.0, 0.0))],
            "30 x 20, 1 frame, pose mirrored, 90 degrees, probability 0.800",
        ),
        ([Pose(2, OTHER)] * 3, "30 x 20, 3 frames, pose 180 degrees, probability 0.600"),
        (
            [Pose(2, OTHER), Pose(0, LIKELY), Pose(2, OTHER)],
            "30 x 20, 3 frames, poses: 0 degrees in 1, 180 degrees in 2",
        ),
        # One pose throughout, but not of one probability.
        ([Pose(0, LIKELY), Pose(0, OTHER)], "30 x 20, 2 frames, poses: 0 degrees in 2"),
        (
            [Pose(0, OTHER, "vote", (1,)), Pose(0, LIKELY, "keep"), Pose(0, LIKELY, "keep")],
            "30 x 20, 3 frames, uncertain in 2: keep, uncertain in 1: vote, poses: 0 degrees in 3",
        ),
    ],
)
def test_a_video_is_summed_up_in_a_line(frames, text):
    summary = VideoSummary()
    for pose in frames:
        summary.add(found(pose))
    assert str(summary) == text


def test_objects_become_entries_and_files_are_joined():
    first, second = Results(), Results()
    first.add("a.png", found(scores=torch.tensor([0.5])))
    second.add("b.mp4", found(masks=False), frame=3)
    first.extend(second)
    assert [image["id"] for image in first.images] == [1, 2]
    assert first.images[1]["frame"] == 3 and first.images[1]["height"] == 20
    one, other = first.annotations
    assert (one["score"], one["area"], one["bbox"]) == (0.5, 18.0, [3.0, 2.0, 6.0, 3.0])
    assert (other["id"], other["image_id"], other["score"]) == (2, 2, 1.0)
    assert other["area"] == 18.0 and "segmentation" not in other
    assert first.categories == {1: "object"}
