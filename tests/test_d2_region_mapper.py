import numpy as np
import pytest
from PIL import Image

from canon_seg.d2.region_mapper import RegionMapper
from canon_seg.errors import InputError

from detectron2.structures import BitMasks, BoxMode


def labelled(folder, size=(60, 90), boxes=((10, 8, 40, 30),), crowd=False, masks=True):
    """One image in detectron2's standard format, its instances painted brighter than the rest."""
    height, width = size
    pixels = np.full((height, width, 3), 40, np.uint8)
    annotations = []
    for x, y, w, h in boxes:
        pixels[y : y + h, x : x + w] = 230
        annotation = {
            "bbox": [x, y, w, h],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "iscrowd": int(crowd),
        }
        if masks:
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(annotation)
    path = folder / "labelled.png"
    Image.fromarray(pixels).save(path)
    return {
        "file_name": str(path),
        "image_id": 1,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def undisturbed(monkeypatch):
    monkeypatch.setattr(
        "canon_seg.d2.region_mapper.disturb_pixels", lambda view, rng: view.astype(np.uint8)
    )


def test_masks_move_with_the_image(tmp_path, monkeypatch):
    undisturbed(monkeypatch)
    np.random.seed(0)
    mapper, example = RegionMapper(64, "RGB"), labelled(tmp_path)
    for _ in range(40):
        view = mapper(example)
        bright = view["image"][0] > 135
        mask = view["instances"].gt_masks.tensor[0]
        assert isinstance(view["instances"].gt_masks, BitMasks)
        assert (bright == mask).float().mean() > 0.985  # but for interpolated edges
        assert max(view["image"].shape[1:]) == 64
        y, x = np.nonzero(mask.numpy())
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert view["instances"].gt_boxes.tensor[0].tolist() == box


def test_views_are_mirrored_but_never_turned(tmp_path, monkeypatch):
    undisturbed(monkeypatch)
    np.random.seed(0)
    example = labelled(tmp_path)
    y, x = np.mgrid[0:60, 0:90]
    gradient = np.stack([4 * y, 2 * x, 0 * x], axis=2).astype(np.uint8)
    Image.fromarray(gradient).save(example["file_name"])
    directions = set()
    for _ in range(30):
        red, green, _ = RegionMapper(64, "RGB")(example)["image"].float()
        assert (red.diff(dim=0) >= 0).all() and red[-1].mean() > red[0].mean() + 20
        assert red.diff(dim=1).abs().max() <= 1
        directions.add(bool(green[:, -1].mean() > green[:, 0].mean()))
    assert directions == {True, False}


def test_views_are_turned_where_that_is_asked_for(tmp_path, monkeypatch):
    undisturbed(monkeypatch)
    np.random.seed(0)
    mapper, example = RegionMapper(64, "RGB", quarter_turns=True), labelled(tmp_path)
    for _ in range(40):
        view = mapper(example)
        bright, mask = view["image"][0] > 135, view["instances"].gt_masks.tensor[0]
        assert mask.shape == bright.shape and (bright == mask).float().mean() > 0.985
        y, x = np.nonzero(mask.numpy())
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert view["instances"].gt_boxes.tensor[0].tolist() == box
    y, x = np.mgrid[0:60, 0:90]
    Image.fromarray(np.stack([4 * y, 2 * x, 0 * x], axis=2).astype(np.uint8)).save(
        example["file_name"]
    )
    directions = set()
    for _ in range(40):
        red, _, _ = mapper(example)["image"].float()
        assert min(red.diff(dim=0).abs().max(), red.diff(dim=1).abs().max()) <= 1  # along one axis
        down, right = red[-1].mean() - red[0].mean(), red[:, -1].mean() - red[:, 0].mean()
        steep = [abs(down) > 20, abs(right) > 20]
        assert steep[0] != steep[1]
        directions.add((bool(steep[0]), bool(down + right > 0)))
    assert len(directions) == 4  # red grows downwards, upwards, rightwards, leftwards


def test_image_format(tmp_path, monkeypatch):
    undisturbed(monkeypatch)
    example = labelled(tmp_path)
    Image.new("RGB", (90, 60), (200, 100, 0)).save(example["file_name"])
    assert RegionMapper(64, "RGB")(example)["image"][:, 5, 5].tolist() == [200, 100, 0]
    assert RegionMapper(64, "BGR")(example)["image"][:, 5, 5].tolist() == [0, 100, 200]


@pytest.mark.parametrize(
    ("kwargs", "count"),
    [
        ({"boxes": ()}, 0),
        ({"crowd": True}, 0),
        ({"masks": False}, 0),
        ({"boxes": ((3, 4, 2, 2),)}, 1),
        ({"boxes": ((0, 0, 1, 1),), "size": (600, 900)}, None),
        ({"size": (1, 90), "boxes": ((10, 0, 60, 1),)}, None),
        ({"size": (90, 1), "boxes": ((0, 10, 1, 60),)}, None),
        ({"boxes": ((80, 50, 40, 30),)}, None),
    ],
)
def test_unusual_images(tmp_path, kwargs, count):
    np.random.seed(0)
    example = labelled(tmp_path, **kwargs)
    for _ in range(10):
        view = RegionMapper(64, "RGB")(example)
        masks = view["instances"].gt_masks.tensor
        assert masks.shape[1:] == view["image"].shape[1:] == view["instances"].image_size
        assert len(masks) == len(view["instances"].gt_boxes)
        assert (masks.flatten(1).sum(dim=1) > 0).all()
        assert count is None or len(masks) == count
        assert example["annotations"] or count == 0  # the data set's own dict is left alone


def test_many_instances_are_bounded(tmp_path):
    boxes = [(x, y, 8, 8) for x in range(0, 80, 10) for y in range(0, 50, 9)]
    view = RegionMapper(640, "RGB")(labelled(tmp_path, boxes=boxes))
    assert 1 <= len(view["instances"]) <= RegionMapper.MAX_INSTANCES


def test_an_image_of_another_size_is_named(tmp_path):
    example = labelled(tmp_path)
    example["height"] = 61
    with pytest.raises(InputError, match="labelled.png.*height 60.*61"):
        RegionMapper(64, "RGB")(example)


def test_pasted_objects_hide_what_is_behind_them(tmp_path, monkeypatch):
    (tmp_path / "donor").mkdir()
    donor = labelled(tmp_path / "donor", size=(120, 160), boxes=((20, 20, 60, 60),))
    mapper = RegionMapper(96, "RGB", [donor])
    np.random.seed(0)
    pixels, masks = np.zeros((96, 96, 3), np.uint8), np.ones((1, 96, 96), bool)
    before = pixels.copy()
    pasted, seen = mapper._paste(pixels, masks)
    assert np.array_equal(pixels, before) and masks.all()  # what was given is left alone
    assert len(seen) >= 2 and all(mask.sum() >= RegionMapper.MIN_AREA for mask in seen)
    assert (seen.sum(axis=0) <= 1).all()  # each pixel belongs to one object
    assert pasted[~seen[0]].mean() > 100  # the donor's object is bright
