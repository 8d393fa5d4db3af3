r"""Segment photographs and videos in their canonical pose, and write pictures of what was found.

    canon-seg-demo photo.jpg [more, folders, globs, videos] [--output DIR] \
        [--box x0 y0 x1 y1] [--point x y] [--background x y] [--turns] [KEY VALUE ...]

Writes DIR/photo.png: the photograph with its masks, the pose found and its probability; of a video
DIR/video.mp4. SAM takes boxes and points, and segments everything where there are none; detectors
need no prompts, but detectron2. Without a file: photographs that come with scikit-image. Config
options KEY VALUE stand anywhere. In a checkout, python demo/demo.py is the same command.
"""

import argparse
import importlib
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from canon_seg.apps.drawing import save_picture
from canon_seg.apps.files.captions import captioned, describe, draw_turns
from canon_seg.apps.files.inputs import find_inputs, output_names, places_below
from canon_seg.apps.files.parsing import fit_prompts, parse_prompts
from canon_seg.apps.files.results import Results, VideoSummary
from canon_seg.apps.files.saving import KINDS, save_parts
from canon_seg.apps.files.segment import (
    KEEP,
    KEEP_TINY,
    POINTS_PER_SIDE,
    ColorsThatStay,
    build_sam_segment,
    same_when_turned,
)
from canon_seg.apps.files.video import (
    count_frames,
    equals_a_turn,
    frame_rate,
    is_video,
    read_frames,
    read_timed_frames,
    video_size,
)
from canon_seg.apps.files.video_writer import write_video
from canon_seg.cli.options import (
    add_device,
    all_options,
    is_number,
    may_name_files,
    parse_with_options,
)
from canon_seg.cli.waiting import LOADING, said
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.clip import SMOOTH_SECONDS, clip_pose, smooth_poses
from canon_seg.errors import InputError, warn, without_detectron2
from canon_seg.images.arrays import turn_image
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.io.files import check_output_dir
from canon_seg.io.names import printable
from canon_seg.predictors.everything import SMALL_SAM
from canon_seg.sam.loading import OFFICIAL_FILES, SEGMENTER, is_sam

CONFIG_FILE = "sam_tiny_c4.yaml"
SAM_CONFIG_FILE = "sam_c4.yaml"
DEFAULT_OUTPUT = "segmented"
WEBCAM_FPS = 10  # of the video that is written


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="images, videos, folders of them, or glob patterns in quotes",
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help=f"a file, or the name of a config of the package; default: {CONFIG_FILE}",
    )
    parser.add_argument(
        "--sam",
        nargs=2,
        metavar=("SIZE", "FILE"),
        help=f"an official SAM, such as --sam vit_b {OFFICIAL_FILES['vit_b']}: short for "
        f"--config-file {SAM_CONFIG_FILE} MODEL.SAM.SIZE SIZE MODEL.SEGMENTER.WEIGHTS FILE",
    )
    add_device(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", nargs="+", default=[], metavar="FILE", help="the same as PHOTO")
    source.add_argument(
        "--webcam",
        type=int,
        metavar="N",
        help="the webcam of that number, 0 for the first, to DIR/webcam_N.mp4 until Ctrl-C",
    )
    parser.add_argument(
        "--recursive", action="store_true", help="folders stand for all below them, in such folders"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"default: a folder {DEFAULT_OUTPUT} beside the first photograph",
    )
    parser.add_argument(
        "--box",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="x0 y0 x1 y1 in pixel edges, again and again; each box is one prompt",
    )
    parser.add_argument(
        "--point",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="x y of a pixel, counted from 0, again and again; each point is one prompt",
    )
    parser.add_argument(
        "--background",
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="x y of a pixel that does not belong to the object; means --one-object, too",
    )
    parser.add_argument(
        "--one-object",
        action="store_true",
        help="all points, with a box or without, are one prompt",
    )
    parser.add_argument(
        "--everything",
        action="store_true",
        help="have SAM segment everything, as it does without prompts, even where the config has a "
        "detector to prompt it",
    )
    parser.add_argument(
        "--turns",
        action="store_true",
        help="also write all four turns of each image side by side",
    )
    parser.add_argument(
        "--save",
        nargs="+",
        action="extend",
        default=[],
        choices=KINDS,
        metavar="PART",
        help="also save of each photograph: mask, cutout (each object, on a transparent ground), "
        "upright (the photograph in its canonical pose); and json",
    )
    parser.add_argument(
        "--save-json",
        action="store_true",
        help="also write DIR/results.json, a COCO file of all that was found, with the poses; the "
        "same as --save json",
    )
    parser.add_argument(
        "--pose-per-frame",
        action="store_true",
        help="find the pose of each frame of a video; default: one pose for the whole clip, from "
        "frames all over it. Frames of a webcam always have their own",
    )
    parser.add_argument(
        "--smooth",
        action="store_true",
        help="with --pose-per-frame: smooth the angle from frame to frame, for cameras that roll, "
        f"by a Gaussian of {SMOOTH_SECONDS:g} s; best with a canonicalizer of any angle. Jumps, as "
        "by a quarter turn, stay",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="only the first N frames of each video or webcam"
    )
    parser.add_argument(
        "--points-per-side",
        type=int,
        metavar="N",
        help="without prompts, SAM is asked at N x N points; default: "
        f"{POINTS_PER_SIDE}, tiny SAM {SMALL_SAM['points_per_side']}",
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        metavar="P",
        help="without prompts: least IoU that SAM predicts for a mask; default: "
        f"{KEEP[0]:g}, tiny SAM {KEEP_TINY[0]:g}",
    )
    parser.add_argument(
        "--min-stability",
        type=float,
        metavar="P",
        help="without prompts: least stability of a mask; default: "
        f"{KEEP[1]:g}, tiny SAM {KEEP_TINY[1]:g}",
    )
    parser.add_argument(
        "--max-masks",
        type=int,
        metavar="N",
        help="without prompts: only the N best masks, by predicted IoU times stability; default: "
        f"{KEEP[2]}, tiny SAM {KEEP_TINY[2]}",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="least score of a detector's instances; default: 0.5",
    )
    lists = dict.fromkeys(("--box", "--point", "--background"), is_no_file)
    args = parse_with_options(parser, lists={**lists, "--save": is_part})
    return settle(args)


def is_no_file(word):
    """Tell whether a word after --box or --point is for it: a number, or a mistyped one."""
    return is_number(word) or not may_name_files(word)


def is_part(word):
    """Tell whether a word after --save is for it: a part, or a mistyped one."""
    return word in KINDS or not may_name_files(word)


def settle(args):
    """Bring what can be said in two ways into one: photographs, options, config, what to save."""
    if args.webcam is not None and args.photos:
        raise InputError("--webcam and photographs are two inputs; give one")
    if args.smooth and (args.webcam is not None or not args.pose_per_frame):
        raise InputError(
            "--smooth is for the poses of the frames of a video, before and after each: give "
            "--pose-per-frame with it, and no --webcam"
        )
    args.input = [*args.photos, *args.input]
    if args.save_json:
        args.save.append("json")
    options = all_options(args)
    if args.sam:
        size, file = args.sam
        if size not in OFFICIAL_FILES:
            raise InputError(
                f"--sam: {size!r} is no size; give {', '.join(OFFICIAL_FILES)}, and then the file"
            )
        options += ["MODEL.SAM.SIZE", size, "MODEL.SEGMENTER.WEIGHTS", file]
    args.options = options
    args.config_file = args.config_file or (SAM_CONFIG_FILE if args.sam else CONFIG_FILE)
    if args.output is None:
        first = Path(args.input[0]) if args.input else Path()
        args.output = str((first if first.is_dir() else first.parent) / DEFAULT_OUTPUT)
    return args


def main():
    """Run the command."""
    args = parse_arguments()
    for name in ("points_per_side", "max_masks", "frames"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give at least 1")
    for name in ("score_threshold", "min_iou", "min_stability"):
        if (value := getattr(args, name)) is not None and not 0 <= value <= 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give 0 to 1")
    prompts = parse_prompts(args.box, args.point, args.background, args.one_object)
    output = check_output_dir(args.output)
    load_segment = choose_segment(args, prompts)
    reading = ReadingOptions.from_config(load_config(args.config_file, args.options))
    results, errors = Results() if "json" in args.save else None, []
    # Whatever ends the work midway, what was found before is written.
    with ExitStack() as at_end:
        if results is not None:
            at_end.callback(write_results, results, output / "results.json")
        if args.webcam is not None:
            with said(LOADING):
                segment = load_segment()
            print(process_webcam(args, output, segment, prompts, results))
            return 0
        # All inputs are looked at before the first is worked on: mistakes show at once.
        with said("looking at the files ..."):
            paths, errors = find_inputs(args.input, prompts, reading, args.recursive, output)
        for error in errors:
            print(f"error: {error}", file=sys.stderr)
        if paths:
            with said(LOADING):
                segment = load_segment()
            errors += process_all(args, paths, output, segment, prompts, results, reading)
    return 2 if errors else 0


def write_results(results, path):
    """Write what was found, if anything was."""
    if results.images:
        results.write(path)
        print("written:", path)


def choose_segment(args, prompts):
    """Choose who segments: a SAM alone, which needs no detectron2, or a model of detectron2's.

    Returns:
        function without arguments that builds the :class:`canon_seg.apps.files.segment.Segment`.

    Raises:
        InputError: where the options ask for what the segmenter of the config can't do.
    """
    if prompts and args.everything:
        raise InputError("--everything is without prompts: leave it out, or --box and --point")
    cfg = load_config(args.config_file, args.options)
    finds_everything = args.everything or (not prompts and cfg.MODEL.SAM.PROMPTS != "detector")
    if is_sam(cfg) and (prompts or finds_everything):
        resolve_device(cfg, args.config_file, args.options)
        if not prompts:
            check_everything(cfg, args.everything)
        load = partial(
            build_sam_segment,
            cfg,
            prompted=bool(prompts),
            points_per_side=args.points_per_side,
            min_iou=args.min_iou,
            min_stability=args.min_stability,
            max_masks=args.max_masks,
        )
    else:
        detectors = import_detectors(cfg)
        cfg = detectors.load_config(args.config_file, args.options)
        resolve_device(cfg, args.config_file, args.options)
        name = cfg.MODEL.SEGMENTER.META_ARCHITECTURE
        if args.everything or (prompts and not detectors.takes_prompts(cfg)):
            raise InputError(
                f"--box, --point and --everything: {name} takes no prompts; leave them out, or "
                f"take a config with {SEGMENTER}, such as {CONFIG_FILE}"
            )
        load = partial(detectors.build_detector_segment, cfg, args.score_threshold)
    if not cfg.MODEL.SEGMENTER.WEIGHTS:
        print(
            "warning: MODEL.SEGMENTER.WEIGHTS is empty, the segmenter has random weights",
            file=sys.stderr,
        )
    return load


def check_everything(cfg, is_asked_for):
    """Raise InputError where the config of a SAM does not go with looking for everything.

    Args:
        cfg: config.
        is_asked_for: by --everything, not only for want of prompts.
    """
    keys = cfg.MODEL
    if keys.SAM.PROMPTS != "boxes" and not is_asked_for:
        raise InputError(
            f"MODEL.SAM.PROMPTS is {keys.SAM.PROMPTS!r}: prompts from a results file are for the "
            "evaluation (canon-seg-eval); give --box, --point or --everything here, or a detector"
        )
    if keys.CANONICALIZER.UNCERTAIN == "vote":
        raise InputError(
            "MODEL.CANONICALIZER.UNCERTAIN is 'vote', but everything is looked for in one pose; "
            "set argmax or keep, or give --box, --point or a detector"
        )


def import_detectors(cfg):
    """Import :mod:`canon_seg.apps.files.detectors`, or raise InputError without detectron2."""
    try:
        return importlib.import_module("canon_seg.apps.files.detectors")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "detectron2":
            raise
        keys = cfg.MODEL
        what = f"MODEL.SEGMENTER.META_ARCHITECTURE {keys.SEGMENTER.META_ARCHITECTURE}"
        if is_sam(cfg):
            what = f"MODEL.SAM.PROMPTS {keys.SAM.PROMPTS}"
        raise InputError(without_detectron2(what)) from error


def process_all(args, paths, output, segment, prompts, results, reading):
    """Work on each input, print a line for it, and return the errors of those that failed."""
    errors = []
    names = output_names(paths, output, places_below(args.input, paths))
    for path, name in zip(tqdm(paths, unit="file", disable=None), names, strict=True):
        found = None if results is None else Results()
        try:
            if is_video(path):
                line = process_video(args, path, output / name, segment, prompts, found)
            else:
                line = process_image(
                    path, output / name, segment, prompts, args.turns, found, reading, args.save
                )
        except InputError as error:
            errors.append(error)
            tqdm.write(f"error: {error}", file=sys.stderr)
            # A picture that cannot be written costs the picture, a broken video all of its frames.
            is_complete = not is_video(path)
        else:
            is_complete = True
            tqdm.write(line)
        if results is not None and is_complete:
            results.extend(found)
    return errors


def process_image(
    path, target, segment, prompts, all_turns, results, reading=ReadingOptions(), save=()
):
    """Segment one image, write its pictures, and return the line to print.

    Args:
        path: of the image.
        target: path of the picture to write.
        segment: :class:`canon_seg.apps.files.segment.Segment`.
        prompts: of the image; empty for none.
        all_turns: whether to segment all four turns of the image, and draw them side by side.
        results: :class:`Results` to add to, or None; so in the functions below.
        reading: how the file is read.
        save: what else to save, see :mod:`canon_seg.apps.files.saving`.
    """
    start = time.perf_counter()
    image = read_image(path, "RGB", reading)
    height, width = image.shape[:2]
    prompts = fit_prompts(prompts, path, height, width)
    found = segment(image, prompts)
    if results is not None:
        results.add(path, found)
    save_picture(target, captioned(found))
    warn_of_vanished(path, found.objects.vanished)
    line = (
        f"{printable(path.name)}: {width} x {height}, {describe(found.pose, ' degrees')}, {found}"
    )
    if all_turns:
        turned, same_colors = [found], ColorsThatStay(segment)
        same_colors(found, image)
        for turns in (1, 2, 3):
            pixels = np.array(turn_image(image, turns), order="C")
            parts = [part.turned(turns, height, width) for part in prompts]
            turned.append(same_colors(segment(pixels, parts), pixels, turns))
        save_picture(target.with_name(f"{target.stem}_turns.png"), draw_turns(turned))
        line += f", {'the same' if same_when_turned(turned) else 'NOT the same'} in all turns"
    save_parts(target, image, found, save)
    return f"{line}, {time.perf_counter() - start:.1f} s -> {target}"


def process_video(args, path, target, segment, prompts, results):
    """Segment the frames of a video, write them as one, and return the line to print.

    The written one has the sound, the times and the orientation that a player gives the given one.
    """
    start, summary = time.perf_counter(), VideoSummary()
    prompts = fit_prompts(prompts, path, *video_size(path))
    if not args.pose_per_frame:
        uncertain = segment.canonicalizer.uncertain
        frames = (frame for _, frame in frames_of(args, path, "pose of "))

        def find_pose(frame):
            return None if equals_a_turn(frame) else segment.pose(frame)

        segment = segment.with_pose(
            clip_pose(find_pose, frames, uncertain, segment.canonicalizer.group)
        )
    smoothed = find_smooth_poses(args, path, segment) if args.smooth else None
    same_colors = ColorsThatStay(segment)
    with write_video(target, frame_rate(path), sound_of=path) as write:
        for number, (seconds, frame) in enumerate(frames_of(args, path)):
            if smoothed is not None:
                segment = segment.with_pose(smoothed[number])
            found = same_colors(segment(frame, prompts), frame)
            write(captioned(found), seconds)
            summary.add(found)
            if results is not None:
                results.add(path, found, number)
    warn_of_vanished(path, summary.vanished)
    return f"{printable(path.name)}: {summary}, {time.perf_counter() - start:.1f} s -> {target}"


def warn_of_vanished(path, count):
    """Warn of masks that lie outside of the tilted image, if there are any."""
    if count:
        warn(
            f"{printable(path.name)}: {count} mask{' is' if count == 1 else 's are'} empty; what "
            "they are of was found in the image set upright, at an edge that the image as given "
            "does not have"
        )


def frames_of(args, path, label=""):
    """Yield (seconds since the start, frame) of a video, with a progress bar."""
    frames = islice(read_timed_frames(path), args.frames)
    total = count_frames(path)
    if total is not None and args.frames is not None:
        total = min(total, args.frames)
    name = f"{label}{printable(path.name)}"
    yield from tqdm(frames, name, total, unit="frame", leave=False, disable=None)


def find_smooth_poses(args, path, segment):
    """Find the pose of each frame of a video, smoothed by those around it."""
    poses, times = [], []
    for seconds, frame in frames_of(args, path, "poses of "):
        poses.append(None if equals_a_turn(frame) else segment.pose(frame))
        times.append(seconds)
    return smooth_poses(poses, times, segment.canonicalizer.group)


def process_webcam(args, output, segment, prompts, results):
    """Segment what a webcam sees until an interrupt, and return the line to print."""
    name, target = f"webcam {args.webcam}", output / f"webcam_{args.webcam}.mp4"
    start, written, summary = time.perf_counter(), 0, VideoSummary()
    same_colors = ColorsThatStay(segment)
    with write_video(target, WEBCAM_FPS) as write:
        try:
            for number, frame in enumerate(islice(read_frames(args.webcam), args.frames)):
                found = segment(frame, fit_prompts(prompts, name, *frame.shape[:2]))
                found = same_colors(found, frame)
                picture = captioned(found)
                summary.add(found)
                if results is not None:
                    results.add(name, found, number)
                # As often as it takes for the video to run at the speed of life.
                due = (time.perf_counter() - start) * WEBCAM_FPS
                for _ in range(max(1, round(due - written))):
                    write(picture)
                    written += 1
                tqdm.write(f"{number}: {describe(found.pose, ' degrees')}, {found}")
        except KeyboardInterrupt:
            if not written:
                raise
    return f"{name}: {summary} -> {target}"
