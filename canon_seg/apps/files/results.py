"""All results of a run in one JSON file."""

import pycocotools.mask as mask_util

from canon_seg.geometry.group import C4
from canon_seg.io.files import write_json
from canon_seg.predictors.conversions import to_coco_json


class Results:
    """Collects what was found, to write it as a COCO data set with poses.

    The file is an object with the lists ``images`` (``id``, ``file_name``, ``height``, ``width``,
    ``pose``, and ``frame``, from 0, of videos), ``annotations`` (entries of a COCO results file,
    with ``id``, ``area`` and ``iscrowd``) and ``categories`` (of what was found). Of ``pose``,
    ``degrees`` are counterclockwise and ``probabilities`` those of 0, 90, 180 and 270 degrees.
    """

    def __init__(self):
        self.images, self.annotations, self.categories = [], [], {}

    def add(self, name, found, size, frame=None):
        """Add one image.

        Args:
            name: its file's.
            found: :class:`canon_seg.apps.files.segment.Segmentation`.
            size: (height, width) in pixels.
            frame: number, of a video.
        """
        image = {
            "id": 1 + len(self.images),
            "file_name": str(name),
            "height": size[0],
            "width": size[1],
            "pose": describe_pose(found.pose),
        }
        self.images.append(image if frame is None else {**image, "frame": frame})
        instances = found.instances
        present = sorted(set(instances.pred_classes.tolist()))
        ids = {label: found.classes.id(label) for label in present}
        self.categories.update({ids[label]: found.classes.name(label) for label in present})
        for entry in to_coco_json(_with_scores(instances), image["id"], ids):
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


def describe_pose(pose):
    """A pose as a dict that JSON takes."""
    return {
        "degrees": C4.degrees(pose.turns),
        "probability": pose.probability,
        "probabilities": list(pose.probabilities),
        "uncertain": pose.policy if pose.policy != "argmax" else None,
    }


def _with_scores(instances):
    """Segments of a whole image have no scores; COCO's entries need one."""
    if instances.has("scores"):
        return instances
    scored = type(instances)(instances.image_size, **instances.get_fields())
    scored.scores = scored.pred_boxes.tensor.new_ones(len(instances))
    return scored


def _area(entry):
    if "segmentation" in entry:
        return float(mask_util.area(entry["segmentation"]))
    return entry["bbox"][2] * entry["bbox"][3]
