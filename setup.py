"""Set-up of canon_seg; `make env` makes an environment with the versions that the tests use."""

import re
import site
from importlib.machinery import PathFinder
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "canon_seg" / "__init__.py").read_text(), re.MULTILINE
).group(1)


def opencv():
    """The requirement that brings cv2: none where any of its distributions brought it already.

    opencv-python and opencv-python-headless fill one folder, so that installing the second one
    damages the first. pip builds in isolation from the environment: hence the explicit folders.
    """
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return [] if PathFinder.find_spec("cv2", folders) else ["opencv-python-headless"]


setup(
    name="canon_seg",
    version=VERSION,
    description="Canonicalization for segmenters on detectron2 and Segment Anything",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # The configs lie at the top of a checkout, and in the package when it is installed.
    packages=[*find_packages(include=["canon_seg", "canon_seg.*"]), "canon_seg.configs"],
    package_dir={"canon_seg.configs": "configs"},
    package_data={"canon_seg": ["assets/**"], "canon_seg.configs": ["*.yaml", "train/*.yaml"]},
    entry_points={
        "console_scripts": [
            "canon-seg-app = canon_seg.cli.commands:app",
            "canon-seg-demo = canon_seg.cli.commands:demo",
            "canon-seg-eval = canon_seg.cli.commands:eval_rotated",
            "canon-seg-eval-pose = canon_seg.cli.commands:eval_pose",
            "canon-seg-train = canon_seg.cli.commands:train_net",
        ]
    },
    python_requires=">=3.10",
    # detectron2 is not on PyPI under its own name and can't be named here: keep the one that you
    # have, or run tools/install_detectron2.py. Its own needs are those of the second group.
    install_requires=[
        "torch>=2.1",
        "torchvision>=0.16",
        "numpy>=1.22",
        "pillow>=9.4",
        "pycocotools>=2.0.6",
        "faster-coco-eval>=1.8",
        "segment-anything>=1.0",
        "matplotlib",
        "tqdm",
        *opencv(),
        "cloudpickle",
        "fvcore>=0.1.5",
        "hydra-core>=1.1",
        "iopath>=0.1.7",
        "omegaconf>=2.1",
        "tabulate",
        "termcolor",
        "yacs>=0.1.8",
    ],
    extras_require={
        # Training also needs escnn, which requires py3nj (a Fortran compiler) for groups that are
        # not used here: `pip install --no-deps -r requirements/escnn.txt`. These are its other
        # needs; lie_learn asks for numpy below 2.
        "train": [
            "autograd",
            "joblib",
            "lie_learn",
            "numpy<2",
            "pymanopt",
            "scipy",
            "tensorboard",
        ],
        "demo": ["scikit-image"],
        # The page of demo/app.py, results as supervision's Detections, and other methods to compare
        # with. `make extras` installs these, and what else their tests need; without, these tests
        # are skipped.
        "app": ["gradio>=6"],
        "supervision": ["supervision"],
        "benchmark": ["e2cnn", "equiadapt==0.1.2", "kornia"],
        "test": ["hypothesis", "pytest", "pytest-timeout", "pytest-xdist"],
    },
)
