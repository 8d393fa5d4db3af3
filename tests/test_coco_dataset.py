import copy
import json
import re
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from canon_seg.coco.dataset import check_images, contiguous_ids, load_coco
from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions

HEIGHT, WIDTH = 20, 30
VAL182 = Path(__file__).parents[2] / "shared" / "data" / "coco_val182"


def _mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[3:9, 4:14] = 1
    mask[5, 20:29] = 1
    return mask


def _compressed():
    rle = mask_util.encode(_mask())
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def _uncompressed():
    flat = _mask().reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size])
    return {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}


@pytest.fixture
def dataset():
    polygon = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]
    shared = {"image_id": 7, "iscrowd": 0}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 8, "file_name": "sub/b.png", "height": WIDTH, "width": HEIGHT},
        ],
        "annotations": [
            {
                "id": 1,
                "category_id": 2,
                "bbox": [2, 3, 10, 6],
                "area": 60.0,
                "segmentation": [polygon],
                **shared,
            },
            {
                "id": 2,
                "category_id": 5,
                "bbox": [4, 3, 25, 6],
                "area": 69,
                "segmentation": _compressed(),
                **shared,
            },
        ],
        # Nothing in the data set is of the last category.
        "categories": [{"id": i, "name": f"thing {i}"} for i in (2, 5, 9)],
    }


@pytest.fixture
def images_dir(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, size in (("a.png", (WIDTH, HEIGHT)), ("sub/b.png", (HEIGHT, WIDTH))):
        Image.new("RGB", size).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def load(tmp_path, images_dir):
    """load_coco on a dict, or on the text of a file."""

    def load(dataset):
        path = tmp_path / "instances.json"
        path.write_text(dataset if isinstance(dataset, str) else json.dumps(dataset))
        return load_coco(path, images_dir)

    return load


# What is accepted --------------------------------------------------------------------------------


def test_a_complete_file_is_returned_as_it_is(dataset, load):
    assert load(dataset) == dataset


@pytest.mark.parametrize("rle", [_compressed(), _uncompressed()])
def test_absent_iscrowd_and_area(dataset, load, rle):
    for annotation in dataset["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    dataset["annotations"][1]["segmentation"] = rle
    polygon, other = load(dataset)["annotations"]
    assert (polygon["iscrowd"], polygon["area"]) == (0, 60)
    assert (other["iscrowd"], other["area"]) == (0, int(_mask().sum()))


def test_area_of_overlapping_polygons_counts_pixels_once(dataset, load):
    annotation = dataset["annotations"][0]
    annotation["segmentation"] *= 2
    del annotation["area"]
    assert load(dataset)["annotations"][0]["area"] == 60


def test_ids_are_kept(dataset, load):
    dataset["annotations"][0]["id"] = 0
    dataset["annotations"][1]["id"] = -(10**17)
    assert [entry["id"] for entry in load(dataset)["annotations"]] == [0, -(10**17)]


@pytest.mark.skipif(not VAL182.is_dir(), reason="no COCO photographs in ../shared/data")
def test_real_annotations():
    dataset = load_coco(VAL182 / "annotations" / "instances_val.json", VAL182 / "images")
    assert (len(dataset["images"]), len(dataset["annotations"])) == (182, 1651)
    check_images(dataset, VAL182 / "images", progress=False, decode=False)


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n  {"id": 7,,', "line 2, column 12"),
        ("", "line 1, column 1"),
        ("\ufeff\u0000", "not"),
        ("[]", "results file"),
        ("3", "holds a int"),
        ("{}", 'no "images"'),
        ('{"images": {}}', '"images" must be a list of objects'),
        ('{"images": [3]}', '"images" must be a list of objects'),
    ],
)
def test_a_file_of_another_kind(load, text, message):
    with pytest.raises(InputError, match=f"instances.json.*{message}"):
        load(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d.update(
                annotations=[{"image_id": 7, "segments_info": [], "file_name": "a"}]
            ),
            "panoptic file",
        ),
        (
            lambda d: d.update(annotations=[{"id": 1, "image_id": 7, "caption": "A dog."}]),
            "captions",
        ),
        (lambda d: d.update(shapes=[], imagePath="a.jpg"), "Labelme"),
        (lambda d: d.update(_via_settings={}), "VGG Image Annotator"),
        (lambda d: d.pop("annotations"), 'has no "annotations"'),
    ],
)
def test_annotations_of_another_kind_are_named(dataset, load, change, said):
    change(dataset)
    with pytest.raises(InputError, match=f"instances.json: .*{said}"):
        load(dataset)


def test_bytes_that_are_no_text(tmp_path, images_dir):
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xff\xd8\xff\xe0JFIF")
    with pytest.raises(InputError, match="not a JSON text file"):
        load_coco(path, images_dir)


def test_absent_paths(tmp_path, dataset, load):
    with pytest.raises(InputError, match="no such annotation file"):
        load_coco(tmp_path / "none.json", tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        load_coco(tmp_path, tmp_path)
    load(dataset)
    with pytest.raises(InputError, match="pictures: is not a folder"):
        load_coco(tmp_path / "instances.json", tmp_path / "pictures")


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_sections(dataset, load, section):
    with pytest.raises(InputError, match=f'"{section}" is empty'):
        load({**dataset, section: []})
    with pytest.raises(InputError, match=f'no "{section}"'):
        load({key: value for key, value in dataset.items() if key != section})
    repeated = {**dataset, section: dataset[section] + dataset[section][:1]}
    first = dataset[section][0]["id"]
    with pytest.raises(InputError, match=rf"{section}: 1 ids .* first \[{first}\]"):
        load(repeated)
    for wrong in ("7", None, True, 1.5):
        broken = copy.deepcopy(dataset)
        broken[section][1]["id"] = wrong
        with pytest.raises(InputError, match=rf"{section}\[1\] has the id {wrong!r}"):
            load(broken)


ABSENT = object()
SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("images", "file_name", ABSENT, "image 7: has no file_name"),
        ("images", "file_name", "", "image 7: has no file_name"),
        ("images", "height", ABSENT, r"image 7 \(a.png\): height is None"),
        ("images", "width", "30", r"image 7 \(a.png\): width is '30'"),
        ("images", "width", 0, r"image 7 \(a.png\): width is 0"),
        ("categories", "name", ABSENT, "category 2: has no name"),
        ("annotations", "image_id", ABSENT, "annotation 1: image_id None is not among the image"),
        ("annotations", "image_id", 99, "annotation 1: image_id 99 is not among the image ids"),
        ("annotations", "image_id", [7], r"annotation 1: image_id \[7\]"),
        ("annotations", "category_id", 3, "annotation 1: category_id 3 is not among the category"),
        ("annotations", "iscrowd", 2, "annotation 1 of image 7: iscrowd is 2"),
        ("annotations", "iscrowd", None, "iscrowd is None"),
        ("annotations", "ignore", 1, '"ignore" is not supported'),
        ("annotations", "area", "big", "area is 'big'"),
        ("annotations", "area", -1, "area is -1"),
        ("annotations", "bbox", ABSENT, "annotation 1 of image 7: bbox is null"),
        ("annotations", "bbox", [], r"bbox is \[\]"),
        ("annotations", "bbox", [1, 2, 3], r"bbox is \[1, 2, 3\]"),
        ("annotations", "bbox", [1, 2, 3, "4"], "bbox is"),
        ("annotations", "bbox", [1, 2, 3, float("nan")], "bbox is"),
        ("annotations", "bbox", [1, 2, -3, 4], "negative width"),
        ("annotations", "bbox", [2, 3, 0, 6], r"bbox \[2, 3, 0, 6\] has no area, though"),
        ("annotations", "bbox", [30, 3, 5, 6], r"lies outside the image, 30 wide and 20 high"),
        ("annotations", "bbox", [2, -6, 5, 6], r"lies outside the image"),
        ("annotations", "segmentation", ABSENT, "annotation 1 of image 7: segmentation is null"),
        ("annotations", "segmentation", [], r"segmentation is \[\]"),
        ("annotations", "segmentation", [1, 2, 3, 4, 5, 6], "polygon 1 is not a list"),
        ("annotations", "segmentation", [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4]], "has 4 numbers"),
        ("annotations", "segmentation", [[1, 2, 3, 4, 5, 6, 7]], "has 7 numbers"),
        ("annotations", "segmentation", [[1, 2, 3, 4, 5, None]], "not a list of numbers"),
        ("annotations", "segmentation", {}, "RLE size None is not"),
        ("annotations", "segmentation", {"size": SIZE}, "RLE counts cannot be decoded"),
        ("annotations", "segmentation", {**_compressed(), "size": SIZE[::-1]}, r"size \[30, 20\]"),
        ("annotations", "segmentation", {"size": SIZE, "counts": [5, 7]}, "cover 12 pixels"),
        ("annotations", "segmentation", {"size": SIZE, "counts": [601, -1]}, "cannot be decoded"),
        ("annotations", "segmentation", {"size": SIZE, "counts": ""}, "cover 0 pixels"),
        ("annotations", "segmentation", {"size": SIZE, "counts": "\u00ff"}, "cannot be decoded"),
        ("annotations", "segmentation", {"size": SIZE, "counts": "oo"}, "cannot be decoded"),
    ],
)
def test_one_bad_value(dataset, load, section, key, value, message):
    if value is ABSENT:
        del dataset[section][0][key]
    else:
        dataset[section][0][key] = value
    with pytest.raises(InputError, match=rf"instances.json: 1 {section}.*\n  .*{message}"):
        load(dataset)


def test_compressed_rle_is_decoded_like_pycocotools(dataset, load):
    rng = np.random.default_rng(0)
    for density in (0, 0.02, 0.5, 1):
        mask = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < density, dtype=np.uint8)
        counts = mask_util.encode(mask)["counts"].decode()
        dataset["annotations"][0]["segmentation"] = {"size": SIZE, "counts": counts}
        dataset["annotations"][0]["bbox"] = mask_util.toBbox(mask_util.encode(mask)).tolist()
        load(dataset)
        dataset["annotations"][0]["segmentation"] = {"size": SIZE, "counts": counts[:-1]}
        with pytest.raises(InputError, match="RLE counts"):
            load(dataset)


def test_many_problems_are_counted_and_some_listed(dataset, load):
    dataset["annotations"] = [
        {**dataset["annotations"][0], "id": number, "image_id": 99} for number in range(1, 31)
    ]
    with pytest.raises(InputError) as caught:
        load(dataset)
    message = str(caught.value)
    assert "30 annotations cannot be used" in message and "... and 20 more" in message
    assert "annotation 10:" in message and "annotation 11:" not in message


# Image files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
def test_good_images(dataset, images_dir, decode):
    check_images(dataset, images_dir, progress=False, decode=decode)


def test_progress_shows_the_total(dataset, images_dir, capfd):
    check_images(dataset, images_dir)
    assert "2/2" in capfd.readouterr().err


def test_all_bad_images_are_named_at_once(dataset, images_dir):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images_dir / "a.png")
    whole = (images_dir / "a.png").read_bytes()
    (images_dir / "a.png").write_bytes(whole[: len(whole) // 2])
    (images_dir / "sub" / "b.png").unlink()
    with pytest.raises(InputError, match="2 of 2 images") as caught:
        check_images(dataset, images_dir, progress=False)
    assert "a.png: cannot be decoded" in str(caught.value)
    assert "b.png: no such image file" in str(caught.value)
    # The header of the first is whole.
    with pytest.raises(InputError, match="1 of 2 images"):
        check_images(dataset, images_dir, progress=False, decode=False)


@pytest.mark.parametrize("decode", [True, False])
def test_size_that_disagrees(dataset, images_dir, decode):
    Image.new("RGB", (WIDTH, HEIGHT - 1)).save(images_dir / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(images_dir / "sub" / "b.png", exif=exif)
    with pytest.raises(InputError, match="2 of 2 images") as caught:
        check_images(dataset, images_dir, progress=False, decode=decode)
    first, second = str(caught.value).splitlines()[1:]
    assert "a.png: is 19 x 30" in first and "image 7" in first and "EXIF" not in first
    assert "b.png: is 20 x 30" in second and "is 30 x 20" in second and "EXIF" in second


def write_turned(images_dir, orientation):
    """Write a.png with another EXIF orientation, on the same raw frame, and b.png as it is."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(images_dir / "a.png", exif=exif)


@pytest.mark.parametrize(
    ("orientation", "said"), [(3, "3 .turned by 180 degrees. in 1"), (2, "2 .mirrored. in 1")]
)
def test_orientations_are_said_that_no_size_shows(dataset, images_dir, orientation, said):
    assert check_images(dataset, images_dir, progress=False) is None
    write_turned(images_dir, orientation)
    line = check_images(dataset, images_dir, progress=False)
    assert re.search(f"EXIF orientation of 2 images: {said}; applied.*INPUT.EXIF False", line)
    raw = ReadingOptions(exif=False)
    line = check_images(dataset, images_dir, progress=False, options=raw)
    assert re.search(f"EXIF orientation of 2 images: {said}; not applied", line)


def test_raw_frames_have_the_raw_size(dataset, images_dir):
    write_turned(images_dir, 6)
    with pytest.raises(InputError, match="a.png: is 30 x 20 .* give INPUT.EXIF False"):
        check_images(dataset, images_dir, progress=False)
    assert check_images(dataset, images_dir, progress=False, options=ReadingOptions(exif=False))
    dataset["images"][0].update(height=WIDTH, width=HEIGHT)
    with pytest.raises(InputError, match="a.png: is 20 x 30 .* give INPUT.EXIF True"):
        check_images(dataset, images_dir, progress=False, options=ReadingOptions(exif=False))


def test_backslashes_are_the_reason(dataset, images_dir):
    dataset["images"][1]["file_name"] = "sub\\b.png"
    with pytest.raises(InputError, match=r"backslashes in its file_name are the reason.*sub/b.png"):
        check_images(dataset, images_dir, progress=False)


# Detectron2 --------------------------------------------------------------------------------------


def test_class_indices_follow_the_order_of_the_ids(dataset):
    dataset["categories"].reverse()
    assert contiguous_ids(dataset) == {2: 0, 5: 1, 9: 2}
