"""Provide the entry points of the console commands, which import nothing heavy before a call."""

import importlib
import importlib.util
import sys

from canon_seg.cli.threads import let_waiting_threads_sleep
from canon_seg.cli.waiting import IMPORTING, said
from canon_seg.cli.warnings import silence_libraries
from canon_seg.cli.words import config_file_in
from canon_seg.config.load import existing_config
from canon_seg.errors import InputError, run_main, without_detectron2


def app():
    """Run canon-seg-app."""
    _run("app", "canon-seg-app", needs_detectron2=False)


def demo():
    """Run canon-seg-demo."""
    _run("demo", "canon-seg-demo", needs_detectron2=False)


def eval_rotated():
    """Run canon-seg-eval."""
    _run("eval_rotated", "canon-seg-eval")


def eval_classification():
    """Run canon-seg-eval-classification."""
    _run("eval_classification", "canon-seg-eval-classification", needs_detectron2=False)


def eval_pose():
    """Run canon-seg-eval-pose."""
    _run("eval_pose", "canon-seg-eval-pose", needs_detectron2=False)


def eval_prompts():
    """Run canon-seg-eval-prompts."""
    _run("eval_prompts", "canon-seg-eval-prompts")


def eval_everything():
    """Run canon-seg-eval-everything."""
    _run("eval_everything", "canon-seg-eval-everything")


def eval_points():
    """Run canon-seg-eval-points."""
    _run("eval_points", "canon-seg-eval-points", needs_detectron2=False)


def install_detectron2():
    """Run canon-seg-install-detectron2."""
    _run("install_detectron2", "canon-seg-install-detectron2", needs_detectron2=False)


def label_poses():
    """Run canon-seg-label-poses."""
    _run("label_poses", "canon-seg-label-poses", needs_detectron2=False)


def train_net():
    """Run canon-seg-train."""
    # What is trained is asked of the config: classifiers need no detectron2.
    _run("train", "canon-seg-train", needs_detectron2=False)


def upright():
    """Run canon-seg-upright."""
    _run("upright", "canon-seg-upright", needs_detectron2=False)


def _run(module, command, needs_detectron2=True):
    def main():
        let_waiting_threads_sleep()
        silence_libraries()
        if needs_detectron2 and importlib.util.find_spec("detectron2") is None:
            raise InputError(without_detectron2(command))
        name = config_file_in(sys.argv[1:])
        if name:  # a mistyped one is not to wait for the imports
            existing_config(name)
        with said(IMPORTING):
            loaded = importlib.import_module(f"canon_seg.cli.{module}")
        return loaded.main()

    run_main(main)
