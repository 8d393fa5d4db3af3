"""Load what ``tools/train_net.py --eval-only`` and evaluations during training run on."""

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
from canon_seg.images.reading import read_image
from canon_seg.images.tensors import segmenter_inputs
from canon_seg.networks.build import canonicalizer_class

from detectron2.data import MetadataCatalog, build_detection_test_loader


def build_test_loader(cfg, name):
    """Load images of a registered COCO-format set, with prompts for a segmenter that takes them.

    For a model that resizes by itself, images come **as read**: the pose has to be found on those.
    Prompts come from where MODEL.SAM.PROMPTS says.

    Raises:
        InputError: naming the file or the key that cannot be used.
    """
    check_registered("DATASETS.TEST", [name])
    model = cfg.MODEL.META_ARCHITECTURE
    if model != CANONICALIZED and not capabilities(registered(model)).resizes_itself:
        return build_detection_test_loader(cfg, name)
    metadata = MetadataCatalog.get(name)
    dataset = load_coco(metadata.json_file, metadata.image_root)
    check_images(dataset, metadata.image_root, progress=False, decode=False)
    prompts = None
    # Rounded while they are exact, as a sweep does: in float32 a tie could have moved.
    snapped = model == CANONICALIZED and canonicalizer_class(cfg).snaps
    if prompted_from_outside(cfg):
        prompts = load_box_prompts(cfg.MODEL.SAM.PROMPTS, dataset)

    def read(entry):
        path = Path(metadata.image_root) / entry["file_name"]
        image = read_image(path, cfg.INPUT.FORMAT)
        inputs = segmenter_inputs(image, image_id=entry["id"], file_name=str(path))
        if prompts is not None:
            boxes = prompts[entry["id"]]
            inputs["prompts"] = boxes.turned(0, *image.shape[:2], snapped)
        return inputs

    return build_detection_test_loader(
        dataset["images"], mapper=read, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
