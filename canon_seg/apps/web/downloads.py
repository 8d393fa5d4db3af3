"""Make the files that the page gives: masks, cut-out, COCO JSON, upright photo; and Python lines.

All are of the photograph at the angle chosen, as the canonicalized way sees it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from canon_seg.apps.drawing import colors
from canon_seg.apps.web.objects import CHOICES
from canon_seg.apps.web.turning import ANY_ANGLE, canonical_photo
from canon_seg.coco.masks import encode_mask, with_str_counts
from canon_seg.errors import InputError
from canon_seg.predictors import defaults

ANY_ANGLE_LINE = (
    f'canonicalizer = canon_seg.load_default_canonicalizer(weights="{defaults.ANY_ANGLE}", '
    'group="SO2")'
)


@dataclass(frozen=True)
class Named:
    """Hold a mask of the turned photograph, (H, W) bool, with its name and predicted IoU."""

    name: str
    mask: np.ndarray
    predicted_iou: float


def named_masks(session, answers):
    """List what is downloaded: everything, where it was asked for, else the objects' masks.

    Args:
        session: :class:`canon_seg.apps.web.turning.Session`.
        answers: of the canonical way, by ``Turner.compare``.

    Returns:
        list of :class:`Named`.

    Raises:
        InputError: if there is none.
    """
    if session.everything is not None:
        found = [
            Named(f"Mask {number}", one.mask, one.predicted_iou)
            for number, one in enumerate(session.everything, 1)
        ]
    else:
        items = session.objects.items
        found = [
            Named(items[answer.index].name, answer.mask, answer.predicted_iou) for answer in answers
        ]
    if not found:
        raise InputError("there is no mask yet; click the photo, or draw a box")
    return found


def write_masks(folder, masks):
    """Write ``masks.png``: 0 where nothing is; one mask is 255, of several the n-th is n.

    Where masks overlap the later one is seen. Of several the file has a palette, so that they show.

    Args:
        folder: path of an existing folder.
        masks: list of :class:`Named`.

    Returns:
        path of the file.
    """
    path = Path(folder, "masks.png")
    if len(masks) == 1:
        Image.fromarray(np.where(masks[0].mask, 255, 0).astype(np.uint8)).save(path)
        return path
    labels = np.zeros(masks[0].mask.shape, np.uint8)
    for number, one in enumerate(masks, 1):
        labels[one.mask] = number
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([0, 0, 0, *colors(len(masks)).reshape(-1).tolist()])
    picture.save(path)
    return path


def write_cutout(folder, session, masks):
    """Write ``cutout.png``: what the masks cover, on transparent ground, cut to its edges.

    Raises:
        InputError: if the masks are empty.
    """
    union = np.any([one.mask for one in masks], axis=0)
    if not union.any():
        raise InputError("the mask is empty: there is nothing to cut out")
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    alpha = np.where(union, 255, 0).astype(np.uint8)
    pixels = np.dstack([session.turned.image, alpha])
    part = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    path = Path(folder, "cutout.png")
    Image.fromarray(np.ascontiguousarray(part), mode="RGBA").save(path)
    return path


def write_coco(folder, session, masks):
    """Write ``coco.json``: a COCO data set of this one image, each name a category.

    Annotations hold the mask as RLE, its box and area in pixels, and SAM's predicted IoU as
    ``score``.
    """
    height, width = session.turned.image.shape[:2]
    names = list(dict.fromkeys(one.name for one in masks))
    annotations = []
    for number, one in enumerate(masks, 1):
        rows, columns = (np.flatnonzero(one.mask.any(axis=axis)) for axis in (1, 0))
        box = [0, 0, 0, 0]
        if len(rows):
            x, y = int(columns[0]), int(rows[0])
            box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": names.index(one.name) + 1,
                "segmentation": with_str_counts(encode_mask(one.mask)),
                "bbox": box,
                "area": int(np.count_nonzero(one.mask)),
                "iscrowd": 0,
                "score": one.predicted_iou,
            }
        )
    path = Path(folder, "coco.json")
    content = {
        "images": [{"id": 1, "file_name": "photo.png", "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_upright(folder, session):
    """Write ``upright.png``: the photograph in the pose that was found for it."""
    path = Path(folder, "upright.png")
    Image.fromarray(canonical_photo(session)).save(path)
    return path


def python_lines(turner, session):
    """Write the prompts as lines of Python that give the same masks.

    Args:
        turner, session: see :mod:`canon_seg.apps.web.turning`.

    Returns:
        source text; ``photo.png`` stands for the photograph.
    """
    height, width = session.upright.image.shape[:2]
    degrees = session.turned.degrees
    lines = [
        "import numpy as np",
        "",
        "import canon_seg",
        "from canon_seg.images.reading import read_image",
        *(["from canon_seg.images.tilt import rotate_image"] if degrees else []),
        "",
        f'image = read_image("photo.png", "RGB")  # here it has {width} x {height} pixels',
        *([f"image = rotate_image(image, {degrees:g}).copy()"] if degrees else []),
        *([ANY_ANGLE_LINE] if session.way == ANY_ANGLE else []),
        "predictor = canon_seg.CanonicalSamPredictor("
        + ("sam" if turner.multimask else "canon_seg.load_default_sam()")
        + (", canonicalizer)" if session.way == ANY_ANGLE else ")")
        + ("  # segment_anything's" if turner.multimask else ""),
        "predictor.set_image(image)",
    ]
    for index in session.objects.asked:
        item = session.objects.items[index]
        points, labels, box = item.prompt.turned(degrees, height, width).arrays()
        three = turner.uses_three(item.prompt, item.choice)
        arguments = [] if box is None else [f"    box=np.array({box.tolist()}),"]
        if points is not None:
            arguments += [
                f"    point_coords=np.array({points.tolist()}),",
                f"    point_labels=np.array({labels.tolist()}),",
            ]
        lines += [
            "",
            f"# {item.name}",
            "masks, scores, _ = predictor.predict(",
            *arguments,
            f"    multimask_output={three},",
            ")",
            "mask = masks["
            + ("scores.argmax()" if item.choice == CHOICES[0] else str(int(item.choice) - 1))
            + "]",
        ]
    return "\n".join(lines) + "\n"
