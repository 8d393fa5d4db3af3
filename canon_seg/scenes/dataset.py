"""Write procedural upright scenes with instance masks, in COCO format, drawn from a seed.

Each scene is a small landscape seen by a level camera: sky and light above, ground with
perspective below, and things that stand, drive or float on it. Everything that is painted by an
instance takes its pixels from whatever was behind, so masks are the visible regions.

Only numpy is used, with integer geometry and no function of a platform's mathematics library, so
that a seed gives the same pixels on every machine.
"""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image
from tqdm import tqdm

from canon_seg.errors import InputError
from canon_seg.io.files import write_atomically, write_json
from canon_seg.scenes.landscapes import paint_lake, paint_meadow, paint_street
from canon_seg.scenes.noise import pick
from canon_seg.scenes.stage import Scene

# For evaluation, the demo and the tests; a network must never be trained on these.
DEMO_SEED = 7
# For training.
TRAIN_SEED = 1_000_003

# To be raised whenever the pictures of a seed change.
SCENES_VERSION = 1

CATEGORIES = ("house", "tree", "car", "person", "cow", "boat", "balloon")
_CATEGORY_IDS = {name: number for number, name in enumerate(CATEGORIES, start=1)}

_DESCRIPTION = "procedural upright scenes"
_MIN_VISIBLE_PIXELS = 16

# width : height
_ASPECTS = ((4, 3), (3, 2), (16, 9), (1, 1), (3, 4), (2, 3))


def make_scenes(directory, num_images, seed=DEMO_SEED, progress=False):
    """Write a data set of scenes: ``images/*.png`` and ``annotations/instances.json``.

    Scene i depends on the seed and on i alone. A complete set of the same seed, number and version
    is left as it is; another set of scenes is replaced, its annotations first, so that an
    interrupted call never leaves annotations beside images of another set.

    Args:
        directory: str or path; created if needed.
        num_images: number of scenes, at least 1.
        seed: non-negative integer.
        progress: whether to show a progress bar.

    Returns:
        (path of the annotations, path of the folder of images).

    Raises:
        InputError: the folder can't be written or holds annotations of something else.
    """
    if num_images < 1 or seed < 0:
        raise InputError(
            f"cannot make {num_images} scenes from seed {seed}: give a positive number and a "
            "seed that is not negative"
        )
    images_dir = Path(directory) / "images"
    annotations_path = Path(directory) / "annotations" / "instances.json"
    info = {
        "description": _DESCRIPTION,
        "version": SCENES_VERSION,
        "seed": seed,
        "num_images": num_images,
    }
    file_names = [f"{index:06d}.png" for index in range(num_images)]
    if annotations_path.exists():
        present = _info(annotations_path)
        if present.get("description") != _DESCRIPTION:
            raise InputError(
                f"{annotations_path}: holds annotations of something else; give another folder"
            )
        if present == info and all((images_dir / name).is_file() for name in file_names):
            return annotations_path, images_dir
        annotations_path.unlink()

    images, annotations = [], []
    for index, name in enumerate(tqdm(file_names, desc="drawing scenes", disable=not progress)):
        image, instances = make_scene(np.random.default_rng([seed, index]))
        with write_atomically(images_dir / name) as temporary:
            Image.fromarray(image).save(temporary)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for category_id, mask in instances:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": category_id,
                    "iscrowd": 0,
                    **_mask_annotation(mask),
                }
            )
    categories = [{"id": number, "name": name} for name, number in _CATEGORY_IDS.items()]
    write_json(
        annotations_path,
        {
            "info": info,
            "images": images,
            "annotations": annotations,
            "categories": categories,
        },
        indent=None,
    )
    return annotations_path, images_dir


def make_scene(rng):
    """Draw one scene.

    Args:
        rng: numpy.random.Generator, the only source of chance.

    Returns:
        (image, instances): uint8 RGB array H x W x 3 with the shorter side from 160 to 256, and a
        list of (category id, bool mask H x W) of the visible pixels of each instance, none empty.
    """
    short = int(rng.integers(160, 257))
    aspect = pick(rng, _ASPECTS)
    long = short * max(aspect) // min(aspect)
    width, height = (long, short) if aspect[0] > aspect[1] else (short, long)

    scene = Scene(height, width, rng)
    scene.paint_sky()
    paint = pick(rng, (paint_street, paint_meadow, paint_lake))
    paint(scene)
    masks = [
        (_CATEGORY_IDS[category], scene.owner == number)
        for number, category in enumerate(scene.categories, start=1)
    ]
    visible = [(category_id, mask) for category_id, mask in masks if _is_visible(mask)]
    return scene.developed(), visible


def _is_visible(mask):
    return np.count_nonzero(mask) >= _MIN_VISIBLE_PIXELS


def _mask_annotation(mask):
    """Return RLE, tight box and area of a bool mask, as COCO writes them."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "bbox": [int(value) for value in mask_util.toBbox(rle)],
        "area": int(mask_util.area(rle)),
    }


def _info(annotations_path):
    try:
        return json.loads(annotations_path.read_text(encoding="utf-8"))["info"]
    except (ValueError, KeyError, TypeError):
        return {}
