"""Build detectron2's training loader around a mapper, with errors that name the file."""

import copy

import numpy as np
import torch

from canon_seg.d2 import compat  # noqa: F401 - before detectron2
from canon_seg.errors import InputError
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.io.relay import RaisingLoader, bad_example

from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    SizeMismatchError,
    check_image_size,
    transform_proposals,
)


def build_mapped_loader(cfg, mapper, dataset=None):
    """Build the endless loader of training batches that a config describes.

    Args:
        cfg: config.
        mapper: function from a dict in detectron2's standard format to a training example.
        dataset: list of such dicts; None for the sets of DATASETS.TRAIN.

    Returns:
        Iterable of lists of examples. Iterating raises :class:`InputError` for an image that
        cannot be read or has another size than its annotations say, with workers as without.
    """
    options = {} if dataset is None else {"dataset": dataset}
    return RaisingLoader(build_detection_train_loader(cfg, mapper=_Relaying(mapper), **options))


class ReadingMapper(DatasetMapper):
    """Map as detectron2's mapper does, but read images as INPUT.EXIF and INPUT.MAX_PIXELS say.

    Args:
        cfg: config.
        is_train: for training rather than for evaluation.
        augmentations: in place of those that the config names, or None.
    """

    def __init__(self, cfg, is_train, augmentations=None):
        options = DatasetMapper.from_config(cfg, is_train)
        if augmentations is not None:
            options["augmentations"] = augmentations
        super().__init__(**options)
        self.options = ReadingOptions.from_config(cfg)

    def __call__(self, dataset_dict):
        """Make an example of a dict in detectron2's standard format.

        Raises:
            InputError: if the image cannot be read, or it has a map of semantic classes, which
                detectron2 alone can read.
        """
        if "sem_seg_file_name" in dataset_dict:
            raise InputError(
                "INPUT.EXIF and INPUT.MAX_PIXELS do not go with maps of semantic classes "
                f"({dataset_dict['sem_seg_file_name']}); leave them at True and 0"
            )
        example = copy.deepcopy(dataset_dict)
        image = read_image(example["file_name"], self.image_format, self.options)
        check_image_size(example, image)
        view = T.AugInput(image)
        transforms = self.augmentations(view)
        size = view.image.shape[:2]
        example["image"] = torch.as_tensor(np.array(view.image.transpose(2, 0, 1), order="C"))
        if self.proposal_topk is not None:
            transform_proposals(example, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            example.pop("annotations", None)
        elif "annotations" in example:
            self._transform_annotations(example, transforms, size)
        return example


class _Relaying:
    """Map an example, and hand bad input on in its place; picklable, for the workers."""

    def __init__(self, mapper):
        self.mapper = mapper

    def __call__(self, dataset_dict):
        try:
            return self.mapper(dataset_dict)
        except InputError as error:
            wrong = error
        except (OSError, SizeMismatchError) as error:  # detectron2's, of an image file
            reason = " ".join(str(error).split())
            wrong = InputError(f"{dataset_dict['file_name']}: cannot be trained on ({reason})")
        # detectron2 groups examples by their aspect ratio, which mappers may be the first to know.
        size = {key: dataset_dict.get(key, 1) for key in ("height", "width")}
        return bad_example(wrong, **size)
