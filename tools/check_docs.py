#!/usr/bin/env python
"""Run the commands and the Python of the documents, with stand-ins for files that users have.

    python tools/check_docs.py [--list] [--only TEXT] [DOCUMENT ...]

Every fenced block of bash and python runs by itself, in a folder that looks like the checkout.
Files that a block names and a checkout has not (checkpoints, data sets, photographs) are made up:
official names and formats, random weights, drawn scenes. HTML comments before a block say what to
do with it:

    <!-- docs-check: skip because it takes a day -->
    <!-- docs-check: SOLVER.MAX_ITER 5000 -> SOLVER.MAX_ITER 2 -->

The second one runs the block with one text replaced by another. Prints what ran, and what did not
and why; the exit status is 1 if a block failed.
"""

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from canon_seg.errors import InputError, run_main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "MODEL_ZOO.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
LANGUAGES = ("bash", "python")
TIMEOUT = 900  # s, for each block

_COMMENT = re.compile(r"<!-- docs-check: (.+) -->")
_SKIP = re.compile(r"skip because (.+)")
_REPLACE = re.compile(r"(.+?) -> (.*)")


@dataclass(frozen=True)
class Block:
    """Hold a fenced block of a document.

    Attributes:
        document, line: where it starts, the line counted from 1.
        language: what stands behind the fence.
        text: as it is in the document.
        skip: why it is not run, or None.
        replacements: (old, new) texts for a run.
    """

    document: str
    line: int
    language: str
    text: str
    skip: str
    replacements: tuple

    @property
    def place(self):
        """Return the document and the line of the block."""
        return f"{self.document}:{self.line}"

    @property
    def to_run(self):
        """Return the text with its replacements made."""
        text = self.text
        for old, new in self.replacements:
            # As whole words: "--output out" is not in "--output out/x".
            whole = rf"(?<![\w/]){re.escape(old)}(?![\w/])"
            text, count = re.subn(whole, lambda _, new=new: new, text)
            if count == 0:
                raise InputError(f"{self.place}: there is no {old!r} in the block to replace")
        return text


def read_blocks(document, text):
    """Return all fenced blocks of a document.

    Raises:
        InputError: for a comment that can't be understood, or that no block follows.
    """
    blocks, comments, lines = [], [], iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if match := _COMMENT.fullmatch(line):
            comments.append(match[1])
        elif line.startswith("```"):
            body = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                body.append(inner)
            skips = [match[1] for comment in comments if (match := _SKIP.fullmatch(comment))]
            pairs = [
                match.groups()
                for comment in comments
                if not _SKIP.fullmatch(comment) and (match := _REPLACE.fullmatch(comment))
            ]
            if len(skips) + len(pairs) != len(comments):
                raise InputError(f"{document}:{number}: no docs-check comment: {comments}")
            blocks.append(
                Block(
                    document,
                    number,
                    line[3:].strip(),
                    "\n".join([*body, ""]),
                    skips[0] if skips else None,
                    tuple(pairs),
                )
            )
            comments = []
        elif line.strip() and comments:
            raise InputError(f"{document}:{number}: a block must follow docs-check comments")
    return blocks


def commands(block):
    """Return the commands of a bash block, one string each, continued lines joined."""
    text = block.text.replace("\\\n", " ")
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def make_workspace(folder):
    """Fill a folder with links to what the checkout holds, and with the stand-ins' folder."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    top = {name.partition("/")[0] for name in listed if name} or {
        path.name for path in ROOT.iterdir() if not path.name.startswith(".")
    }
    for name in sorted(top - {"output"}):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def make_stand_ins(folder, text):
    """Make the files in ``STAND_INS`` that a block's text names."""
    for names, make in STAND_INS:
        missing = [name for name in names if name in text and not (folder / name).exists()]
        if missing:
            make(folder)


def make_photo(folder):
    """Make photo.jpg, of 480 x 640 pixels or more, turned by a quarter turn."""
    import numpy as np
    from PIL import Image

    from canon_seg.scenes.dataset import DEMO_SEED, make_scene

    image, _ = make_scene(np.random.default_rng(DEMO_SEED))
    scale = 640 / min(image.shape[:2])
    size = tuple(round(scale * side) for side in image.shape[1::-1])
    picture = Image.fromarray(image).resize(size, Image.BICUBIC).rotate(90, expand=True)
    picture.save(folder / "photo.jpg", quality=95)


def make_video(folder):
    """Make clip.mp4: six frames."""
    import cv2
    import numpy as np

    video = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (160, 120)
    )
    for shade in range(6):
        frame = np.full((120, 160, 3), 40 * shade, np.uint8)
        frame[30:90, 20 + 10 * shade : 80 + 10 * shade] = 255 - 30 * shade
        video.write(frame)
    video.release()


def make_coco(folder):
    """Make instances_val2017.json and val2017: three drawn scenes."""
    from canon_seg.scenes.dataset import TRAIN_SEED, make_scenes

    annotations, images = make_scenes(folder / "scenes", 3, TRAIN_SEED)
    shutil.copy(annotations, folder / "instances_val2017.json")
    shutil.copytree(images, folder / "val2017")


def make_photos(folder):
    """Make my_photos: thirty upright pictures."""
    from canon_seg.scenes.dataset import TRAIN_SEED, make_scenes

    _, images = make_scenes(folder / "photo_scenes", 30, TRAIN_SEED)
    shutil.copytree(images, folder / "my_photos")


def make_sam(folder):
    """Make sam_vit_b_01ec64.pth: random weights with the official names."""
    import torch

    from canon_seg.sam.models import build_official_sam

    torch.save(build_official_sam("vit_b").state_dict(), folder / "sam_vit_b_01ec64.pth")


def make_mask_rcnn(folder):
    """Make model_final_f10217.pkl: random weights in the format of detectron2's model zoo."""
    from canon_seg.d2.config import load_config
    from canon_seg.d2.segmenters import build_segmenter

    cfg = load_config("mask_rcnn_c4.yaml", ["MODEL.DEVICE", "cpu", "MODEL.SEGMENTER.WEIGHTS", ""])
    model = {key: value.numpy() for key, value in build_segmenter(cfg).state_dict().items()}
    with (folder / "model_final_f10217.pkl").open("wb") as file:
        pickle.dump({"model": model, "__author__": "docs-check"}, file)


STAND_INS = (
    (("photo.jpg",), make_photo),
    (("clip.mp4",), make_video),
    (("instances_val2017.json", "val2017"), make_coco),
    (("my_photos",), make_photos),
    (("sam_vit_b_01ec64.pth",), make_sam),
    (("model_final_f10217.pkl",), make_mask_rcnn),
)


def run_block(block, folder):
    """Run a block; the subprocess's result."""
    make_stand_ins(folder, block.to_run)
    interpreter = [shutil.which("bash"), "-euo", "pipefail", "-c"]
    if block.language == "python":
        interpreter = [sys.executable, "-W", "ignore", "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*interpreter, block.to_run],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def tail(text, lines=30):
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="*", default=DOCUMENTS, metavar="DOCUMENT")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="blocks that have this text in them"
    )
    return parser.parse_args()


def main():
    """Run the command."""
    args = parse_arguments()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_workspace(folder)
        for document in args.documents:
            for block in read_blocks(document, (ROOT / document).read_text(encoding="utf-8")):
                if block.language not in LANGUAGES or args.only not in block.text:
                    continue
                if block.text.startswith(">>>"):
                    print(f"{block.place}  skipped: an example, which tests/test_docs.py runs")
                    continue
                first = block.text.strip().splitlines()[0]
                if block.skip or args.list:
                    print(f"{block.place}  {'skipped: ' + block.skip if block.skip else first}")
                    continue
                start = time.perf_counter()
                done = run_block(block, folder)
                verdict = "FAILED" if done.returncode else "ok"
                seconds = time.perf_counter() - start
                print(f"{block.place}  {verdict}, {seconds:.0f} s: {first}", flush=True)
                if done.returncode:
                    failed += 1
                    print(block.to_run, tail(done.stdout), tail(done.stderr), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
