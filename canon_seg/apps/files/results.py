"""Collect the results of a run in one JSON file, and those of a video in one line."""

from collections import Counter

import pycocotools.mask as mask_util
import torch

from canon_seg.apps.files.captions import UNCLEAR
from canon_seg.io.files import write_json
from canon_seg.predictors.conversions import coco_entries


class Results:
    """Collect what was found, to write it as a COCO data set with poses.

    The file is an object with the lists ``images`` (``id``, ``file_name``, ``height``, ``width``,
    ``pose``, and ``frame``, from 0, of videos), ``annotations`` (entries of a COCO results file,
    with ``id``, ``area`` and ``iscrowd``) and ``categories`` (of what was found). Of ``pose``,
    ``degrees`` are counterclockwise, ``mirrored`` is whether left and right were exchanged before
    that, and ``probabilities`` are those of 0, 90, 180 and 270 degrees, or of the poses of another
    group.
    """

    def __init__(self):
        self.images, self.annotations, self.categories = [], [], {}

    def add(self, name, found, frame=None):
        """Add one image.

        Args:
            name: its file's.
            found: :class:`canon_seg.apps.files.segment.Segmentation`.
            frame: number, of a video.
        """
        image = {
            "id": 1 + len(self.images),
            "file_name": str(name),
            "height": found.size[0],
            "width": found.size[1],
            "pose": describe_pose(found.pose),
        }
        self.images.append(image if frame is None else {**image, "frame": frame})
        objects, classes = found.objects, found.classes
        ids = {label: classes.id(label) for label in sorted(set(objects.classes.tolist()))}
        self.categories.update({number: classes.name(label) for label, number in ids.items()})
        # Segments of a whole image have no scores; COCO's entries need one.
        scores = torch.ones(len(objects)) if objects.scores is None else objects.scores
        for entry in coco_entries(
            image["id"],
            objects.boxes,
            objects.classes,
            scores,
            masks=objects.masks,
            keypoints=objects.keypoints,
            category_ids=ids,
        ):
            number = 1 + len(self.annotations)
            self.annotations.append({"id": number, "iscrowd": 0, **entry, "area": _area(entry)})

    def extend(self, other):
        """Add all images of other results."""
        images, annotations = len(self.images), len(self.annotations)
        self.images += [{**image, "id": image["id"] + images} for image in other.images]
        self.annotations += [
            {**entry, "id": entry["id"] + annotations, "image_id": entry["image_id"] + images}
            for entry in other.annotations
        ]
        self.categories.update(other.categories)

    def write(self, path):
        """Write the file; it is complete or absent. InputError where it can't be written."""
        categories = [{"id": key, "name": name} for key, name in sorted(self.categories.items())]
        write_json(
            path,
            {"images": self.images, "annotations": self.annotations, "categories": categories},
        )


MOST_POSES = 8
"""Poses of a video that are listed one by one."""


class VideoSummary:
    """Say in words what was found in a video; its memory does not grow with the frames."""

    def __init__(self):
        self.count, self.size, self.pose, self.is_one_pose = 0, None, None, True
        self.by_pose, self.by_policy, self.unclear = Counter(), Counter(), 0
        self.vanished = 0

    def add(self, found):
        """Count one frame.

        Args:
            found: :class:`canon_seg.apps.files.segment.Segmentation`.
        """
        if self.count == 0:
            self.size, self.pose = found.size, found.pose
        self.count += 1
        self.is_one_pose = self.is_one_pose and found.pose == self.pose
        self.by_pose[found.pose.turn] += 1
        self.vanished += found.objects.vanished
        if found.pose.policy != "argmax":
            self.by_policy[found.pose.policy] += 1
        elif not found.pose.is_clear:
            self.unclear += 1

    def __str__(self):
        height, width = self.size
        text = f"{width} x {height}, {self.count} frame{'' if self.count == 1 else 's'}"
        for policy, count in sorted(self.by_policy.items()):
            text += f", uncertain in {count}: {policy}"
        unclear = f", {UNCLEAR} in {self.unclear}" if self.unclear else ""
        if self.is_one_pose:
            angle, probability = self.pose.turn.described(" degrees"), self.pose.probability
            return f"{text}, pose {angle}, probability {probability:.3f}{unclear}"
        if len(self.by_pose) > MOST_POSES:
            return f"{text}, {len(self.by_pose)} poses"
        listed = ", ".join(
            f"{turn.described(' degrees')} in {count}"
            for turn, count in sorted(self.by_pose.items(), key=_by_angle)
        )
        return f"{text}, poses: {listed}{unclear}"


def _by_angle(item):
    turn, _ = item
    return turn.mirrored, turn.degrees


def describe_pose(pose):
    """Describe a pose as a dict that JSON takes."""
    return {
        "degrees": pose.turn.degrees,
        "mirrored": pose.turn.mirrored,
        "probability": pose.probability,
        "probabilities": list(pose.probabilities),
        "uncertain": pose.policy if pose.policy != "argmax" else None,
    }


def _area(entry):
    if "segmentation" in entry:
        return float(mask_util.area(entry["segmentation"]))
    return entry["bbox"][2] * entry["bbox"][3]
