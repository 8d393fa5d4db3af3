"""Evaluate what detectron2's loop over a data set gives, by COCO's AP."""

import itertools
import logging
import os

from canon_seg.coco.dataset import contiguous_ids, load_coco, without_empty_masks
from canon_seg.coco.rotation import rotate_coco
from canon_seg.coco.scoring import Scorer, only_scored_keys
from canon_seg.d2 import compat  # noqa: F401 - before detectron2
from canon_seg.d2.coco_results import coco_results
from canon_seg.io.files import check_output_dir, write_json

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table


class CocoEvaluator(DatasetEvaluator):
    """Compute the COCO AP of predictions, whose classes become the category ids of the data set."""

    def __init__(self, ground_truth, category_ids):
        """Index the ground truth.

        Args:
            ground_truth: dict as :class:`canon_seg.coco.scoring.Scorer` takes it.
            category_ids: sequence of the id of each class.
        """
        self._scorer = Scorer(ground_truth)
        self._category_ids = category_ids
        self.reset()

    def reset(self):
        """Forget all predictions taken in so far."""
        self._results = []

    def process(self, inputs, outputs):
        """Take in predictions, in the frame of the ground truth.

        Args:
            inputs: list of dicts with ``image_id``.
            outputs: list of dicts as :func:`coco_results` takes.

        Raises:
            InputError: see there.
        """
        for image, output in zip(inputs, outputs, strict=True):
            self.extend(coco_results(output, image["image_id"], self._category_ids))

    def extend(self, results):
        """Take in entries of COCO's results format, in the frame of the ground truth."""
        self._results.extend(results)

    def evaluate(self):
        """Return the scores of what was taken in since the last ``reset``.

        Returns:
            dict as :meth:`canon_seg.coco.scoring.Scorer.score` returns it.
        """
        return self._scorer.score(self._results)


class UprightCocoEvaluator(CocoEvaluator):
    """Compute the COCO AP of a registered data set as it is, and write what was predicted.

    The figures are those of a sweep at 0 degrees: the ground truth is turned by 0 in the same way.
    In several processes the main one has the result, and writes.
    """

    def __init__(self, name, output_dir):
        """Read the ground truth.

        Args:
            name: of a registered data set.
            output_dir: path of a folder, which is created, for ``coco_instances_results.json``.

        Raises:
            InputError: if the annotations cannot be used, or the folder cannot be written.
        """
        self._output_dir = check_output_dir(output_dir)
        dataset, category_ids = _load(name, output_dir)
        dataset, empty = without_empty_masks(only_scored_keys(dataset))
        if empty:
            logging.getLogger(__name__).warning(
                "%d annotations of %s have masks without a pixel and are left out: ids %s",
                len(empty),
                name,
                empty[:10],
            )
        upright, _ = rotate_coco(dataset, 0)
        super().__init__(upright, category_ids)

    def evaluate(self):
        """Write the results and return their scores, each class's AP too; {} in other processes."""
        results = list(itertools.chain(*comm.gather(self._results)))
        if not comm.is_main_process():
            return {}
        results.sort(key=lambda entry: entry["image_id"])  # whichever process ran an image
        write_json(self._output_dir / "coco_instances_results.json", results, indent=None)
        logger = logging.getLogger(__name__)
        if not results:
            logger.warning("nothing was predicted: there is no AP")
        scores = self._scorer.score(results, by_class=True)
        for task, figures in scores.items():
            logger.info("Evaluation results for %s:\n%s", task, create_small_table(figures))
        return scores


def _load(name, folder):
    """Return the data set of a registered name, and the category id of each class."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file"):
        dataset = load_coco(metadata.json_file, metadata.image_root)
        return dataset, list(contiguous_ids(dataset))
    # Registered as a function, in no file.
    path = os.path.join(folder, f"{name}_coco_format.json")
    convert_to_coco_json(name, path, allow_cached=False)
    dataset = load_coco(path, folder)
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    return dataset, sorted(ids, key=ids.get) if ids else list(contiguous_ids(dataset))
