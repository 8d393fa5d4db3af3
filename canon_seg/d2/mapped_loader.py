"""Build detectron2's training loader around a mapper, with errors that name the file."""

from canon_seg.d2 import compat  # noqa: F401 - before detectron2
from canon_seg.errors import InputError
from canon_seg.io.relay import RaisingLoader, bad_example

from detectron2.data import build_detection_train_loader
from detectron2.data.detection_utils import SizeMismatchError


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
