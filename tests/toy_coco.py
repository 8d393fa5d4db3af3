"""A small COCO data set with what real ones have: fractional boxes, crowds, sparse category ids."""

import json
from itertools import chain

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

SIZES = ((60, 83), (96, 64), (71, 71), (48, 97))  # height, width
CATEGORIES = ((3, "block"), (7, "bar"), (9, "never seen"))


def write_toy_coco(folder, sizes=SIZES):
    """Write ``images/*.png`` and ``instances.json``; returns (annotations, images folder)."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for image_id, (height, width) in enumerate(sizes, start=11):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.BILINEAR))
        # From large to small: a large, several medium, and some small objects.
        for fraction in (0.9, 0.6, 0.6, 0.5, 0.3, 0.2):
            h, w = fraction * height * rng.uniform(0.8, 1), fraction * width * rng.uniform(0.8, 1)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            polygon = [(0.1, 0), (0.9, 0.05), (1, 0.5), (0.8, 1), (0.2, 0.95), (0, 0.4)]
            polygon = [[round(x + u * w, 2), round(y + v * h, 2)] for u, v in polygon]
            rle = mask_util.merge(mask_util.frPyObjects([list(chain(*polygon))], height, width))
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice([3, 7])),
                    "bbox": [round(value, 2) for value in (x, y, w, h)],
                    "segmentation": [list(chain(*polygon))],
                    "area": float(mask_util.area(rle)),
                    "iscrowd": 0,
                    "attributes": {"of": "no interest to the evaluation"},
                }
            )
            pixels[int(y) : int(y + h), int(x) : int(x + w)] //= 2
        crowd = np.zeros((height, width), np.uint8, order="F")
        crowd[-12:-2, 3:20] = 1
        rle = mask_util.encode(crowd)
        annotations.append(
            {
                "image_id": image_id,
                "category_id": 7,
                "bbox": [3.0, height - 12.0, 17.0, 10.0],
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                "area": 170.0,
                "iscrowd": 1,
            }
        )
        name = f"{image_id}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(dataset))
    return path, folder / "images"
