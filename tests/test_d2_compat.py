import importlib.util
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from canon_seg.d2 import compat

CONFIG = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


def run_python(code, *folders):
    """Run code in a fresh interpreter with ``folders`` first on its path; return its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, text=True, capture_output=True
    ).stdout.strip()


def fake_detectron2(folder, compiled=None):
    """Write an empty package ``detectron2`` whose ``_C`` has the given source, or is absent."""
    package = folder / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("")
    if compiled is not None:
        (package / "_C.py").write_text(compiled)


def test_importing_it_imports_neither_torch_nor_detectron2():
    code = "import canon_seg.d2.compat, sys; print({'torch', 'detectron2'} & set(sys.modules))"
    assert run_python(code) == "set()"


def test_names_that_libraries_removed_are_back():
    assert Image.LINEAR == Image.BILINEAR
    names = np.bool, np.int, np.float, np.str  # noqa: NPY001
    assert [np.dtype(t).kind for t in names] == ["b", "i", "f", "U"]


def test_names_that_are_there_are_kept():
    code = (
        "import numpy as np; from PIL import Image; np.int = Image.LINEAR = 'own';"
        "import canon_seg.d2.compat; print(np.int, Image.LINEAR)"
    )
    assert run_python(code) == "own own"


def test_compiled_operators_that_are_there_are_kept(tmp_path):
    fake_detectron2(tmp_path, compiled="real = True")
    code = "import canon_seg.d2.compat, sys; from detectron2 import _C; print(_C.real)"
    assert run_python(code, tmp_path) == "True"


def test_compiled_operators_that_cannot_be_loaded_stay_an_error(tmp_path):
    fake_detectron2(tmp_path, compiled="raise ImportError('undefined symbol')")
    code = (
        "import canon_seg.d2.compat\n"
        "try: from detectron2 import _C\n"
        "except ImportError as error: print(error)"
    )
    assert run_python(code, tmp_path) == "undefined symbol"


def test_absent_compiled_operators_are_named_where_they_are_called(tmp_path):
    fake_detectron2(tmp_path)
    code = (
        "import canon_seg.d2.compat\n"
        "from detectron2 import _C\n"
        "import detectron2._C as same\n"
        "assert same is _C and not hasattr(_C, 'box_iou_rotated') and not _C.has_cuda()\n"
        "try: _C.box_iou_rotated(1, 2)\n"
        "except AttributeError as error: print(error)"
    )
    message = run_python(code, tmp_path)
    assert message.startswith("detectron2._C.box_iou_rotated: ")
    assert "without compiled operators" in message and "repository" in message


def test_other_missing_modules_stay_missing():
    assert importlib.util.find_spec("detectron2_C") is None
    with pytest.raises(ImportError):
        importlib.import_module("pkg_resources_of_old")


def test_resource_filename_without_setuptools():
    spec = compat._LastResort().find_spec("pkg_resources")
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    path = stand_in.resource_filename("canon_seg", os.path.join("d2/compat.py"))
    assert os.path.samefile(path, compat.__file__)


class TestWithDetectron2:
    """The places in detectron2 that failed before, one by one."""

    @pytest.fixture(autouse=True)
    def detectron2(self):
        pytest.importorskip("detectron2")

    def test_layers_import(self):
        from detectron2.layers import DeformConv, ROIAlignRotated  # noqa: F401
        from detectron2.layers.rotated_boxes import pairwise_iou_rotated  # noqa: F401

    def test_zoo_config_is_found(self):
        from detectron2 import model_zoo

        assert os.path.isfile(model_zoo.get_config_file(CONFIG))

    def test_environment_is_collected(self):
        from detectron2.utils.collect_env import collect_env_info

        assert "detectron2" in collect_env_info()

    def test_coco_evaluator_has_an_evaluation(self):
        from pycocotools.cocoeval import COCOeval

        from detectron2.evaluation.coco_evaluation import COCOeval_opt

        assert issubclass(COCOeval_opt, COCOeval)

    def test_polygons_to_bitmask(self):
        from detectron2.structures.masks import polygons_to_bitmask

        mask = polygons_to_bitmask([np.array([1.0, 1, 5, 1, 5, 5, 1, 5])], 8, 8)
        expected = np.zeros((8, 8), dtype=bool)
        expected[1:5, 1:5] = True
        assert mask.dtype == bool and np.array_equal(mask, expected)

    def test_class_histogram(self, caplog):
        from detectron2.data.build import print_instances_class_histogram

        annotations = [{"category_id": 0}, {"category_id": 1}, {"category_id": 1}]
        with caplog.at_level(logging.INFO, logger="detectron2"):
            logging.getLogger("detectron2").addHandler(caplog.handler)
            try:
                print_instances_class_histogram([{"annotations": annotations}], ["cat", "dog"])
            finally:
                logging.getLogger("detectron2").removeHandler(caplog.handler)
        words = caplog.text.replace("|", " ").split()
        assert words[words.index("dog") + 1] == "2" and words[words.index("total") + 1] == "3"

    def test_resize_of_a_grey_image(self):
        from detectron2.data.transforms import ExtentTransform, ResizeTransform

        image = np.zeros((6, 8, 1), dtype=np.uint8)
        assert ResizeTransform(6, 8, 12, 16).apply_image(image).shape == (12, 16, 1)
        assert ExtentTransform((0, 0, 4, 4), (3, 2)).apply_image(image).shape == (3, 2, 1)

    def test_trainer_state_is_loaded_with_weights_only(self, tmp_path):
        import torch

        from detectron2.checkpoint import DetectionCheckpointer
        from detectron2.config import get_cfg
        from detectron2.solver import build_lr_scheduler, build_optimizer

        model = torch.nn.Linear(2, 2)
        optimizer = build_optimizer(get_cfg(), model)
        scheduler = build_lr_scheduler(get_cfg(), optimizer)
        parts = {"optimizer": optimizer, "scheduler": scheduler}
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            scheduler.step()
        DetectionCheckpointer(model, str(tmp_path), **parts).save("model", iteration=3)
        file = tmp_path / "model.pth"
        assert torch.load(file, weights_only=True)["scheduler"]["last_epoch"] == 3
        again = torch.nn.Linear(2, 2)
        assert DetectionCheckpointer(again, **parts).load(str(file))["iteration"] == 3
        assert torch.equal(again.weight, model.weight)

    def test_mask_rcnn_of_the_zoo_runs(self):
        import torch

        from detectron2 import model_zoo
        from detectron2.modeling import build_model

        cfg = model_zoo.get_config(CONFIG)
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        cfg.MODEL.PIXEL_STD = [1e4] * 3  # random weights would make numbers without end
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        with torch.no_grad():
            (output,) = model([{"image": 255 * torch.rand(3, 64, 96), "height": 32, "width": 48}])
        instances = output["instances"]
        assert len(instances) > 0
        assert instances.pred_masks.shape[1:] == (32, 48)
