#!/usr/bin/env python
"""Make a clip of a slowly rolling camera over a photograph, and a picture of it levelled.

    python tools/make_rolling_clip.py rolling.mp4 [--picture FILE] [KEY VALUE ...]

The photograph is one of scikit-image's: a rocket on its launch pad. The camera drifts over it and
rolls from -15 to 105 degrees, with a hand's tremble of a degree; no frame shows anything but the
photograph. The clip is for

    canon-seg-demo rolling.mp4 --config-file sam_tiny_so2.yaml --pose-per-frame --smooth

--picture draws some frames as they are, with the mask of the rocket that comes back to them, and
levelled by the angle found and smoothed. The prompt is the rocket's box in the photograph, which
lies tilted in a frame; KEY VALUE are options of the config. It prints how far the angles are off,
with smoothing and without.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from tqdm import tqdm

from canon_seg.apps.drawing import draw_masks
from canon_seg.apps.files.segment import build_sam_segment
from canon_seg.apps.files.video_writer import write_video
from canon_seg.apps.photographs import sample_photographs
from canon_seg.cli.options import parse_with_options
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.clip import smooth_poses
from canon_seg.core.turn import inverse
from canon_seg.errors import InputError, run_main
from canon_seg.images.arrays import turn_image
from canon_seg.images.file_levelling import level_array
from canon_seg.images.reading import read_image
from canon_seg.io.files import write_atomically
from canon_seg.sam.prompts import Prompts

mpl.use("Agg")
from matplotlib import pyplot as plt

CONFIG_FILE = "sam_tiny_so2.yaml"
FPS, SECONDS = 12, 6.0
SIZE = 240, 320  # height, width of the frames in pixels
ZOOM = 1.0  # pixels of the photograph in one of a frame
ROLL = -15.0, 105.0  # degrees, of the picture, counterclockwise
PATH = (335.0, 212.0), (305.0, 216.0)  # x, y in the photograph that the camera looks at
ROCKET = 300.0, 120.0, 345.0, 400.0  # x0, y0, x1, y1 in the photograph
TREMBLE = 1.0  # degrees
SHOWN = 5  # frames in the picture


def camera(seconds: float) -> "tuple[float, tuple[float, float]]":
    """Return the angle in degrees and the x, y that the camera looks at, at a time."""
    share = (1 - np.cos(np.pi * seconds / SECONDS)) / 2  # starts and stops gently
    tremble = TREMBLE * np.sin(17 * seconds) * np.cos(5 * seconds)
    (x0, y0), (x1, y1) = PATH
    return ROLL[0] + share * (ROLL[1] - ROLL[0]) + tremble, (
        x0 + share * (x1 - x0),
        y0 + share * (y1 - y0),
    )


def to_photograph(degrees: float, centre: "tuple[float, float]") -> np.ndarray:
    """Return the (2, 3) matrix from pixel indices of a frame to those of the photograph."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = ZOOM * np.array([[cos, -sin], [sin, cos]])
    middle = np.array([SIZE[1] / 2 - 0.5, SIZE[0] / 2 - 0.5])
    return np.hstack([linear, (np.array(centre) - linear @ middle)[:, None]])


def frames_of(photograph: np.ndarray):
    """Yield (degrees, frame, matrix to the photograph) of the clip."""
    for number in range(round(FPS * SECONDS)):
        degrees, centre = camera(number / FPS)
        matrix = to_photograph(degrees, centre)
        frame = cv2.warpAffine(
            photograph, matrix, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        yield degrees, frame, matrix


def prompts_in_frame(matrix: np.ndarray) -> Prompts:
    """Return the box around the rocket, which lies tilted in a frame."""
    x0, y0, x1, y1 = ROCKET
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]])
    points = corners @ cv2.invertAffineTransform(matrix).T
    limits = np.array(SIZE[::-1], float)
    box = np.concatenate([points.min(0).clip(0, limits), points.max(0).clip(0, limits)])
    return Prompts(boxes=box[None], corners=torch.from_numpy(points[None]).float())


def draw(path: Path, photograph: np.ndarray, options: "list[str]") -> None:
    """Draw frames, masks and levelled frames, and print the errors of the angles."""
    cfg = load_config(CONFIG_FILE, options)
    resolve_device(cfg, CONFIG_FILE, options)
    segment = build_sam_segment(cfg, prompted=True)
    clip = list(frames_of(photograph))
    found = [segment.pose(frame) for _, frame, _ in tqdm(clip, unit="frame", disable=None)]
    smooth = smooth_poses(found, [k / FPS for k in range(len(clip))], segment.canonicalizer.group)
    true = np.array([degrees for degrees, *_ in clip])
    for name, poses in (("each frame by itself", found), ("smoothed", smooth)):
        error = np.array([pose.turn.degrees for pose in poses]) - true
        error = (error + 180) % 360 - 180
        trembles = np.abs(np.diff(error)).mean()
        print(
            f"{name}: off by {np.median(np.abs(error)):.1f} degrees (median), "
            f"{np.abs(error).max():.1f} at most; from frame to frame {trembles:.2f}"
        )
    figure, axes = plt.subplots(2, SHOWN, figsize=(11, 5.2))
    colour = np.array([(9, 132, 150)], np.uint8)
    for place, number in enumerate(np.linspace(0, len(clip) - 1, SHOWN).round().astype(int)):
        degrees, frame, matrix = clip[number]
        pose = smooth[number]
        found_there = segment.with_pose(pose)(frame, [prompts_in_frame(matrix)])
        (mask,) = found_there.objects.masks.numpy()
        marked = draw_masks(frame, [mask], colour)
        axes[0, place].imshow(marked)
        axes[0, place].set_title(f"rolled {degrees:.0f}°, found {pose.turn.degrees:.0f}°")
        back = inverse(replace(pose.turn, mirrored=False))
        levelled = turn_image(marked, back) if back.exact else level_array(marked, back, "expand")
        axes[1, place].imshow(levelled)
    axes[1, 0].set_title("levelled", loc="left")
    for ax in axes.flat:
        ax.axis("off")
    figure.tight_layout()
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="jpg", dpi=90, pil_kwargs={"quality": 88})
    print("written:", path)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", metavar="FILE", help="the clip to write, .mp4")
    parser.add_argument("--picture", metavar="FILE", help="also draw a picture, .jpg")
    args = parse_with_options(parser)
    photographs = [photo for photo in sample_photographs() if photo.title == "Rocket"]
    if not photographs:
        raise InputError("the photograph is scikit-image's; pip install scikit-image")
    photograph = read_image(photographs[0].path, "RGB")
    with write_video(args.clip, FPS) as write:
        for _, frame, _ in frames_of(photograph):
            write(frame)
    print("written:", args.clip)
    if args.picture:
        draw(Path(args.picture), photograph, args.options)
    return 0


if __name__ == "__main__":
    run_main(main)
