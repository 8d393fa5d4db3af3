"""Load what ``tools/train_net.py --eval-only`` and evaluations during training run on."""

import sys
from pathlib import Path

from canon_seg.coco.dataset import check_images, load_coco
from canon_seg.d2.capabilities import (
    CANONICALIZED,
    capabilities,
    prompted_from_outside,
    registered,
)
from canon_seg.d2.catalog import check_registered
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.mapped_loader import ReadingMapper
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tensors import segmenter_inputs
from canon_seg.networks.build import canonicalizer_class

from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.utils import comm


def build_test_loader(cfg, name):
    """Load images of a registered COCO-format set, with prompts for a segmenter that takes them.

    For a model that resizes by itself, images come **as read**: the pose has to be found on those.
    Prompts come from where MODEL.SAM.PROMPTS says.

    Raises:
        InputError: naming the file or the key that cannot be used.
    """
    check_registered("DATASETS.TEST", [name])
    model = cfg.MODEL.META_ARCHITECTURE
    options = ReadingOptions.from_config(cfg)
    if model != CANONICALIZED and not capabilities(registered(model)).resizes_itself:
        if options == ReadingOptions():
            return build_detection_test_loader(cfg, name)
        return build_detection_test_loader(cfg, name, mapper=ReadingMapper(cfg, is_train=False))
    metadata = MetadataCatalog.get(name)
    dataset = load_coco(metadata.json_file, metadata.image_root)
    if comm.is_main_process():
        line = check_images(
            dataset,
            metadata.image_root,
            progress=sys.stderr.isatty(),
            options=options,
            cache=cfg.DATASETS.CHECK_CACHE,
        )
        if line:
            print(f"{name}: {line}", file=sys.stderr)
    comm.synchronize()
    prompts = None
    # Rounded while they are exact, as a sweep does: in float32 a tie could have moved.
    snapped = model == CANONICALIZED and canonicalizer_class(cfg).snaps
    if prompted_from_outside(cfg):
        prompts = load_box_prompts(cfg.MODEL.SAM.PROMPTS, dataset)

    def read(entry):
        path = Path(metadata.image_root) / entry["file_name"]
        image = read_image(path, cfg.INPUT.FORMAT, options)
        inputs = segmenter_inputs(image, image_id=entry["id"], file_name=str(path))
        if prompts is not None:
            boxes = prompts[entry["id"]]
            inputs["prompts"] = boxes.turned(0, *image.shape[:2], snapped)
        return inputs

    return build_detection_test_loader(
        dataset["images"], mapper=read, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
