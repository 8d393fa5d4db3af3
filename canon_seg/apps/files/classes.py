"""What the class numbers of a model stand for: names, ids in the data set, colours."""

from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Tuple

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.coco.dataset import load_coco
from canon_seg.d2.config import load_config
from canon_seg.d2.detector_sam import detector_config_file

from detectron2.data import MetadataCatalog

COCO = "coco_2017_val"


@dataclass(frozen=True)
class Classes:
    """Classes 0, 1, ... of a model, as far as they are known.

    Attributes:
        names: of the first classes.
        ids: of the first classes in their data set; others have their number + 1.
        colors: RGB, 0..255, of the first classes.
    """

    names: Tuple[str, ...] = ()
    ids: Tuple[int, ...] = ()
    colors: Tuple[Tuple[int, int, int], ...] = ()

    def name(self, label):
        return self.names[label] if label < len(self.names) else f"class {label}"

    def id(self, label):
        return self.ids[label] if label < len(self.ids) else label + 1

    def color(self, label):
        """The class's colour, or None; that of a single class would tell nothing."""
        return self.colors[label] if 1 < len(self.colors) > label else None

    def followed_by(self, other, start):
        """These classes up to ``start``, and those of ``other`` from that number on."""
        both = (self, range(start)), (other, range(len(other.names)))
        colors = [one.color(label) for one, labels in both for label in labels]
        ids = [self.id(label) for label in range(start)]
        ids += other.ids or range(start + 1, start + 1 + len(other.names))
        return Classes(
            tuple(one.name(label) for one, labels in both for label in labels),
            tuple(ids),
            () if None in colors else tuple(colors),
        )


OBJECTS = Classes(("object",))


def known_classes(cfg):
    """:class:`Classes` of the things and of the stuff that a config's model finds.

    They are MODEL.SEGMENTER.CLASSES; else those of the first data set that the config names and
    whose files or metadata are there; else, for detectors of 80 classes without one, COCO's.

    Returns:
        (things, stuff); things have a name for each class of the model.
    """
    things, stuff = _known(cfg)
    missing = range(len(things.names), cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    names = things.names + tuple(things.name(label) for label in missing)
    return replace(things, names=names), stuff


def _known(cfg):
    keys = cfg.MODEL
    if keys.SEGMENTER.META_ARCHITECTURE == "SamSegmenter" and keys.SAM.PROMPTS == "detector":
        name = keys.SAM.DETECTOR.CONFIG_FILE
        return _known(load_config(detector_config_file(name)))
    if keys.SEGMENTER.CLASSES:
        return Classes(tuple(keys.SEGMENTER.CLASSES)), Classes()
    own = {name: files for name, *files in cfg.DATASETS.COCO}
    for name in [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]:
        if name in own and all(Path(file).exists() for file in own[name]):
            categories = sorted(load_coco(*own[name])["categories"], key=itemgetter("id"))
            names, ids = (tuple(map(itemgetter(key), categories)) for key in ("name", "id"))
            return Classes(names, ids), Classes()
        if name not in own and name in MetadataCatalog.list():
            metadata = MetadataCatalog.get(name)
            return _classes(metadata, "thing"), _classes(metadata, "stuff")
    if not own and keys.ROI_HEADS.NUM_CLASSES == 80:
        return _classes(MetadataCatalog.get(COCO), "thing"), Classes()
    return Classes(), Classes()


def _classes(metadata, kind):
    names = metadata.get(f"{kind}_classes", [])
    by_id = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
    ids = {label: number for number, label in by_id.items()}
    # Stuff 0 of COCO's panoptic sets, "things", is no category of theirs.
    ids.setdefault(0, 0)
    known = len(by_id) and all(label in ids for label in range(len(names)))
    return Classes(
        tuple(names),
        tuple(ids[label] for label in range(len(names))) if known else (),
        tuple(map(tuple, metadata.get(f"{kind}_colors", []))),
    )
