import json
from pathlib import Path

import pytest
from toy_coco import CATEGORIES, write_toy_coco

from canon_seg.d2.catalog import check_registered, register_coco
from canon_seg.errors import InputError

from detectron2.data import DatasetCatalog, MetadataCatalog


def test_register(tmp_path):
    annotations, images = write_toy_coco(tmp_path)
    name = f"test_register_{tmp_path.name}"
    try:
        register_coco(name, annotations, images)
        register_coco(name, str(annotations), str(images))
        examples = DatasetCatalog.get(name)
        assert len(examples) == 4 and Path(examples[0]["file_name"]).is_file()
        assert [len(example["annotations"]) for example in examples] == [7] * 4
        assert MetadataCatalog.get(name).thing_classes == [label for _, label in CATEGORIES]
        with pytest.raises(InputError, match=f"{name}.*choose another name"):
            register_coco(name, annotations, tmp_path)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_register_refuses_what_detectron2_would_drop(tmp_path):
    annotations, images = write_toy_coco(tmp_path)
    dataset = json.loads(annotations.read_text())
    dataset["annotations"][0]["image_id"] = 99
    annotations.write_text(json.dumps(dataset))
    with pytest.raises(InputError, match="image_id 99"):
        register_coco("never_registered", annotations, images)
    assert "never_registered" not in DatasetCatalog.list()


def test_the_key_of_an_unknown_set_is_named():
    with pytest.raises(InputError, match="MY.KEY.*nowhere"):
        check_registered("MY.KEY", ["nowhere"])
