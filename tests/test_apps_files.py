import gc
import json
import os
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from conftest import TINY_SAM_YAML
from PIL import Image
from pycocotools.coco import COCO
from tiny_models import (
    canonicalized,
    random_canonicalizer,
    random_image,
    tiny_config,
    tiny_segmenter,
)
from toy_coco import write_toy_coco

from canon_seg.apps import photographs
from canon_seg.apps.drawing import draw_segmentation, zoom_factor
from canon_seg.apps.files.captions import describe
from canon_seg.apps.files.classes import OBJECTS, Classes
from canon_seg.apps.files.detectors import (
    detector_segment,
    known_classes,
    model_inputs,
    objects_of,
)
from canon_seg.apps.files.inputs import output_names, sample_photographs
from canon_seg.apps.files.parsing import parse_prompts
from canon_seg.apps.files.results import Results, VideoSummary
from canon_seg.apps.files.saving import save_parts
from canon_seg.apps.files.segment import (
    KEEP,
    KEEP_TINY,
    ColorsThatStay,
    Segment,
    Segmentation,
    objects_of_masks,
    same_when_turned,
    segment_everything,
    segment_prompts,
)
from canon_seg.cli import demo
from canon_seg.config.assets import resolve_config
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer, IdentityCanonicalizer
from canon_seg.core.pose import Pose
from canon_seg.core.turn import Turn
from canon_seg.d2.config import load_config
from canon_seg.d2.sam import SamSegmenter
from canon_seg.errors import InputError, InputWarning, run_main
from canon_seg.geometry.group import C4
from canon_seg.images.arrays import turn_image
from canon_seg.networks.equivariant import NetworkSpec, build_plain_network
from canon_seg.networks.weights import FORMAT
from canon_seg.predictors import conversions
from canon_seg.predictors.mask_generator import CanonicalSamAutomaticMaskGenerator
from canon_seg.sam.prompted import PromptedSam

from detectron2.modeling import META_ARCH_REGISTRY

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "demo" / "demo.py"
CONFIG = """
MODEL:
  META_ARCHITECTURE: "CanonicalizedSegmenter"
  DEVICE: "cpu"
  CANONICALIZER:
    WEIGHTS: "{weights}"
  SEGMENTER:
    META_ARCHITECTURE: "SamSegmenter"
    WEIGHTS: "{sam}"
  SAM: {tiny_sam}
INPUT:
  FORMAT: "RGB"
VERSION: 2
"""
ALL_MASKS = ["--points-per-side", "3", "--min-iou", "0", "--min-stability", "0"]
LINE = re.compile(
    r"(\S+): (\d+) x (\d+), pose (0|90|180|270) degrees, probability (0\.\d+|1\.000), "
    r"(?:NOT CLEAR \(UNCERTAIN vote may help\), )?"
    r"(\d+) mask(?:s|(?<=1 mask))(?: \(.*?empty\))?"
    r"(?:, (the same|NOT the same) in all turns)?, \d+\.\d s -> (\S+)"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config file with weights of toy size."""
    folder = tmp_path_factory.mktemp("config")
    torch.manual_seed(0)
    network = NetworkSpec("GCNN", 4, (2, 4), 1)
    exported = build_plain_network(network).state_dict()
    torch.save(
        {
            "format": FORMAT,
            "network": network.to_dict(),
            "input_size": 33,
            "exported": {key: value.half() for key, value in exported.items()},
            "trainable": {},
        },
        folder / "canonicalizer.pth",
    )
    # Weights with which several masks are left of everything.
    torch.save(tiny_segmenter("sam", seed=4).sam.state_dict(), folder / "sam.pth")
    path = folder / "config.yaml"
    path.write_text(
        CONFIG.format(
            tiny_sam=TINY_SAM_YAML, weights=folder / "canonicalizer.pth", sam=folder / "sam.pth"
        )
    )
    return path


@pytest.fixture
def run(config, tmp_path, monkeypatch, capsys):
    """Run the demo in a fresh folder: arguments to an exit status, printed lines and errors."""
    monkeypatch.chdir(tmp_path)

    def run_demo(*words):
        if "--config-file" not in words:
            words = ("--config-file", config, *words)
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_main(demo.main)
        out, err = capsys.readouterr()
        return SimpleNamespace(status=end.value.code, lines=out.splitlines(), err=err)

    return run_demo


def photo(height=40, width=61, seed=0):
    """(height, width, 3) uint8 array."""
    return np.array(random_image(height, width, seed).permute(1, 2, 0), order="C")


def save(path, pixels, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pictures(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# --- the job ------------------------------------------------------------------------------------


def test_the_script_segments_prompts_in_all_turns(config, tmp_path):
    save(tmp_path / "a.png", photo(40, 61))
    save(tmp_path / "b.jpg", photo(61, 40, seed=1))
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            "--config-file",
            config,
            "--input",
            "*.png",
            "b.jpg",
            "--box",
            "2",
            "3",
            "30",
            "35",
            "5",
            "6",
            "40",
            "40",
            "--box",
            "0",
            "0",
            "40",
            "40",
            "--point",
            "10",
            "12",
            "--turns",
            "--output",
            "out",
            "SEED",
            "1",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = [LINE.fullmatch(line).groups() for line in done.stdout.splitlines()]
    assert [(line[:3], line[5:]) for line in lines] == [
        (("a.png", "61", "40"), ("4", "the same", "out/a.png")),
        (("b.jpg", "40", "61"), ("4", "the same", "out/b.png")),
    ]
    assert pictures(tmp_path / "out") == ["a.png", "a_turns.png", "b.png", "b_turns.png"]
    assert Image.open(tmp_path / "out" / "a.png").size[0] >= 7 * 61
    width, height = Image.open(tmp_path / "out" / "a_turns.png").size
    assert width > 2 * (7 * 40 + 7 * 61) and height > 7 * 61


def test_everything_is_segmented_without_prompts(run):
    pixels = photo()
    save("photo.png", pixels)
    done = run("--input", "photo.png", "--output", "out", "--turns", *ALL_MASKS)
    assert done.status == 0, done.err
    count, same = LINE.fullmatch(done.lines[0]).group(6, 7)
    assert int(count) > 0 and same == "the same"
    assert pictures("out") == ["photo.png", "photo_turns.png"]
    factor = zoom_factor(40, 61)
    drawn = np.asarray(Image.open("out/photo.png"))[-40 * factor :, : 61 * factor]
    assert (drawn != pixels.repeat(factor, axis=0).repeat(factor, axis=1)).any()


def test_a_tiny_sam_has_thresholds_of_its_own(run):
    pixels = np.full((90, 130, 3), 30, np.uint8)
    pixels[15:45, 20:60], pixels[50:80, 70:120] = (220, 60, 60), (60, 220, 60)
    save("things.png", pixels)
    assert all(tiny < large for tiny, large in zip(KEEP_TINY[:2], KEEP[:2], strict=True))
    words = ["--input", "things.png", "--output", "out", "--points-per-side", "4"]
    # Random weights are not sure of anything.
    words += ["--min-iou", "0", "--min-stability", "0"]
    done = run(*words, "--turns")
    assert done.status == 0, done.err
    count, same = LINE.fullmatch(done.lines[0]).group(6, 7)
    assert int(count) >= 2 and same == "the same"
    assert ", 1 mask, " in run(*words, "--max-masks", "1").lines[0]
    assert ", 0 masks, " in run(*words, "--min-iou", "0.999").lines[0]


def test_thresholds_of_everything_are_heeded(run):
    save("photo.png", photo())
    words = ["--input", "photo.png", "--output", "out", *ALL_MASKS]
    assert ", 0 masks, " in run(*words, "--min-iou", "0.999").lines[0]
    assert ", 1 mask, " in run(*words, "--max-masks", "1").lines[0]


def test_the_best_masks_of_everything_are_kept():
    sam, canonicalizer = tiny_segmenter("sam").sam, IdentityCanonicalizer()
    options = dict(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    records = CanonicalSamAutomaticMaskGenerator(sam, canonicalizer, **options).generate(photo())
    best = max(
        (record for record in records if record["area"]),
        key=lambda record: record["predicted_iou"] * record["stability_score"],
    )
    found = segment_everything(sam, 1, options, None, canonicalizer, photo()).objects
    assert np.array_equal(found.masks[0], best["segmentation"])
    assert found.scores.tolist() == [pytest.approx(best["predicted_iou"])]


@pytest.mark.parametrize("size", [(40, 61), (47, 47), (1, 30), (30, 1)])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_masks_of_turned_prompts_are_the_turned_masks(size, image_format):
    prompted = PromptedSam(tiny_segmenter("sam").sam, image_format)
    image, (height, width) = photo(*size), size
    boxes = [0, 0, width, height, 0, 0, width / 2, height / 3]
    prompts = parse_prompts(boxes, [width - 1, 0, width // 2, height // 2])

    def of_turns(canonicalizer):
        return [
            segment_prompts(
                prompted,
                canonicalizer,
                turn_image(image, turns),
                [part.turned(turns, height, width) for part in prompts],
            )
            for turns in C4.elements
        ]

    found = of_turns(random_canonicalizer(image_format))
    assert [len(one.objects) for one in found] == [4] * 4
    assert same_when_turned(found)
    assert sorted(one.pose.turns for one in found) == [0, 1, 2, 3]
    if min(size) > 1:
        assert found[0].objects.masks.any()
        assert not same_when_turned(of_turns(IdentityCanonicalizer()))


def test_all_eight_exif_orientations_give_the_picture_of_the_upright_file(run):
    upright = photo()
    flipped = upright[:, ::-1]
    stored = {  # what a camera stores for each value of the tag, from the tag's definition
        1: upright,
        2: flipped,
        3: np.rot90(upright, 2),
        4: np.rot90(flipped, 2),
        5: np.rot90(flipped, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(flipped, 3),
        8: np.rot90(upright, 3),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"in/{orientation}.png", np.ascontiguousarray(pixels), exif=exif)
    save("in/upright.png", upright)
    prompts = ["--box", 3, 4, 50, 30, "--point", 60, 39]  # the point is inside only if upright
    done = run("--input", "in/*.png", "--output", "many", "--turns", *prompts)
    assert done.status == 0, done.err
    assert len(done.lines) == 9
    for suffix in ("", "_turns"):
        expected = Path(f"many/upright{suffix}.png").read_bytes()
        for orientation in stored:
            assert Path(f"many/{orientation}{suffix}.png").read_bytes() == expected, orientation
    run("--input", "in/6.png", "--output", "one", *prompts)
    assert Path("one/6.png").read_bytes() == Path("many/upright.png").read_bytes()


def test_photographs_of_scikit_image_are_the_default(run, monkeypatch):
    pytest.importorskip("skimage")
    samples = sample_photographs()
    assert 1 <= len(samples) <= 4 and all(path.is_file() for path in samples)
    monkeypatch.setattr(photographs, "_PHOTOGRAPHS", photographs._PHOTOGRAPHS[:1])
    done = run("--output", "out", *ALL_MASKS)
    assert done.status == 0, done.err
    assert pictures("out") == ["astronaut.png"] and len(done.lines) == 1


def test_all_pixel_formats_are_read(run):
    rng = np.random.default_rng(0)
    save("in/grey.png", photo()[:, :, 0])
    save("in/rgba.png", np.dstack([photo(), photo()[:, :, 0]]))
    save("in/deep.png", rng.integers(0, 65536, (40, 61), dtype=np.uint16))
    Image.fromarray(photo()).convert("CMYK").save("in/cmyk.jpg")
    save("in/pixel.png", photo(1, 1))
    save("in/thin.png", photo(1, 300))
    done = run("--input", "in/*", "--output", "out", "--turns", *ALL_MASKS)
    assert done.status == 0, done.err
    assert len(done.lines) == 6 and len(pictures("out")) == 12


def test_poses_are_written_in_degrees_counterclockwise(tmp_path):
    find = partial(segment_everything, tiny_segmenter("sam").sam, 5, {"points_per_side": 2}, None)
    segment = Segment(find, FixedPoseCanonicalizer(1))
    line = demo.process_image(
        Path(save(tmp_path / "a.png", photo())), tmp_path / "out.png", segment, [], False, Results()
    )
    assert "61 x 40, pose 90 degrees, probability 1.000, " in line


def test_colours_of_everything_stay_with_their_masks_over_turns_and_frames():
    masks = np.zeros((3, 500, 600), bool)
    for mask, (y, x) in zip(masks, [(20, 30), (200, 100), (300, 400)], strict=True):
        mask[y : y + 100, x : x + 120] = True
    image = np.full((500, 600, 3), 90, np.uint8)

    def found(order, turns):
        turned = [np.rot90(masks[number], turns) for number in order]
        pixels = np.rot90(image, turns).copy()
        objects = objects_of_masks(turned, [0] * len(turned), pixels.shape[:2])
        picture = draw_segmentation(pixels, turned)
        return Segmentation(Pose(0, (1, 0, 0, 0)), objects, OBJECTS, picture, pixels.shape[:2])

    def colors_in(picture, turns):
        upright = np.rot90(picture, -turns)
        return [tuple(upright[y + 50, x + 60]) for y, x in [(20, 30), (200, 100), (300, 400)]]

    draw = ColorsThatStay(Segment(None, None, everything=True))
    first = draw(found((0, 1, 2), 0), image)
    expected = colors_in(first.picture, 0)
    assert len(set(expected)) == 3
    for order, turns in [((2, 0, 1), 1), ((1, 2, 0), 2), ((1, 0, 2), 3), ((2, 1, 0), 0)]:
        pixels = np.rot90(image, turns).copy()
        drawn = draw(found(order, turns), pixels, turns)
        assert colors_in(drawn.picture, turns) == expected
        assert colors_in(found(order, turns).picture, turns) != expected
    # What is found by prompts or classes has their colours.
    other = found((2, 0, 1), 0)
    assert ColorsThatStay(Segment(None, None))(other, image) is other


# --- detectors and other detectron2 models ------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "noun"),
    [
        ("mask_rcnn", "mask"),
        ("keypoint_rcnn", "box"),
        ("retinanet", "box"),
        ("semantic", "mask"),
        ("panoptic_fpn", "mask"),
    ],
)
def test_results_of_detectron2_models_are_drawn(kind, noun, tmp_path):
    model = canonicalized(tiny_segmenter(kind), random_canonicalizer("BGR"))
    classes = known_classes(tiny_config(kind))
    segment = detector_segment(model, "BGR", classes, 0.0)
    path, results = save(tmp_path / "a.png", photo()), Results()
    line = demo.process_image(path, tmp_path / "out.png", segment, [], True, results)
    assert int(re.search(rf" (\d+) {noun}", line).group(1)) > 0
    assert "the same in all turns" in line
    assert (tmp_path / "out.png").exists() and (tmp_path / "out_turns.png").exists()
    results.write(tmp_path / "results.json")
    read = COCO(tmp_path / "results.json")
    assert len(read.anns) == int(re.search(rf" (\d+) {noun}", line).group(1))
    for entry in read.loadAnns(read.getAnnIds()):
        assert read.cats[entry["category_id"]]["name"] and 0 <= entry["score"] <= 1


def test_a_detector_needs_no_prompts(run, config):
    cfg = tiny_config("mask_rcnn")
    cfg.MODEL.META_ARCHITECTURE = "CanonicalizedSegmenter"
    cfg.MODEL.SEGMENTER.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.CANONICALIZER.WEIGHTS = str(config.with_name("canonicalizer.pth"))
    Path("detector.yaml").write_text(cfg.dump())
    save("photo.png", photo())
    words = ["--config-file", "detector.yaml", "--input", "photo.png", "--turns", "--output"]
    done = run(*words, "out", "--score-threshold", 0)
    assert done.status == 0, done.err
    assert LINE.fullmatch(done.lines[0]).group(6, 7) == ("6", "the same")
    assert ", 0 masks, " in run(*words, "none", "--score-threshold", 1).lines[0]


def test_weak_detections_are_left_out():
    model = canonicalized(tiny_segmenter("mask_rcnn"), random_canonicalizer("BGR"))
    result = model([model_inputs(photo(), "BGR")])[0]
    scores = result["instances"].scores
    threshold = scores.sort().values[len(scores) // 2].item()
    found, _, _ = objects_of(photo(), result, (Classes(), Classes()), threshold)
    assert 0 < len(found) < len(scores)
    assert torch.equal(found.scores, scores[scores >= threshold])


def test_a_detector_prompts_sam_unless_everything_is_asked_for(run, config):
    detector = tiny_config("mask_rcnn")
    torch.save(tiny_segmenter("mask_rcnn").state_dict(), "detector.pth")
    Path("detector.yaml").write_text(detector.dump())
    save("photo.png", photo())
    options = [
        "MODEL.SAM.PROMPTS",
        "detector",
        "MODEL.SAM.DETECTOR.CONFIG_FILE",
        "detector.yaml",
        "MODEL.SAM.DETECTOR.WEIGHTS",
        "detector.pth",
        "MODEL.SAM.DETECTOR.SCORE_THRESH",
        "0.0",
    ]
    words = ["--input", "photo.png", "--output", "out", "--turns", "--score-threshold", 0]
    done = run(*words, "--save-json", *options)
    assert done.status == 0, done.err
    assert LINE.fullmatch(done.lines[0]).group(6, 7) == ("6", "the same"), done.err
    results = json.loads(Path("out/results.json").read_text())
    names = {category["name"] for category in results["categories"]}
    assert names <= {"person", "bicycle", "car", "motorcycle", "airplane"}  # its first five
    masks = ["--max-masks", 2, "--min-iou", 0, "--min-stability", 0, "--points-per-side", 4]
    done = run(*words, "--everything", *masks, *options)
    assert ", 2 masks" in "".join(done.lines), done.err
    assert ", 1 mask" in run("--point", 5, 5, *words, *options).lines[0]


def test_another_segmenter_that_takes_prompts_is_prompted(run, monkeypatch):
    class Promptable(SamSegmenter):
        """Someone else's."""

    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "Promptable", Promptable)
    save("photo.png", photo())
    keys = "MODEL.SEGMENTER.META_ARCHITECTURE", "Promptable", "MODEL.SEGMENTER.WEIGHTS", ""
    words = ["--input", "photo.png", "--output", "out", "--turns", "--score-threshold", 0]
    prompts = ["--box", 1, 2, 30, 30, "--point", 5, 6, "--save-json"]
    done = run(*words, *prompts, *keys)
    assert done.status == 0, done.err
    # Of random weights masks may be empty.
    assert re.search(r", 2 masks( \(\d of them empty\))?, the same in all turns, ", done.lines[0])
    done = run(*words, "--everything", *keys)
    assert done.status == 2 and "--everything" in done.err


# --- names of classes ---------------------------------------------------------------------------


def test_class_names_come_from_the_data_set_or_from_coco():
    cfg = tiny_config("panoptic_fpn")
    things, stuff = known_classes(cfg)
    assert things.name(0) == "person" and stuff.name(0) == "things"
    assert (things.id(79), stuff.id(1)) == (90, 92)  # COCO's own ids
    both = things.followed_by(stuff, len(things.names))
    assert (both.name(81), both.id(81), both.color(81)) == ("banner", 92, tuple(stuff.colors[1]))
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ()
    things, stuff = known_classes(cfg)
    assert things.names == tuple(f"class {i}" for i in range(5)) and stuff == Classes()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    assert known_classes(cfg)[0].name(79) == "toothbrush"


def test_class_names_are_given_or_those_of_own_data_sets(tmp_path):
    cfg = load_config("mask_rcnn_pedestrian_c4.yaml")
    assert known_classes(cfg)[0].names == ("person",)
    annotations, images = write_toy_coco(tmp_path)
    cfg = tiny_config("mask_rcnn")
    cfg.DATASETS.COCO = [["mine", str(annotations), str(images)]]
    cfg.DATASETS.TEST = ("mine",)
    things, _ = known_classes(cfg)
    assert things.names == ("block", "bar", "never seen", "class 3", "class 4")
    assert [things.id(label) for label in range(4)] == [3, 7, 9, 4]


def test_a_model_without_anything_to_draw_is_an_error():
    with pytest.raises(InputError, match="proposals"):
        objects_of(photo(), {"proposals": None}, (Classes(), Classes()), 0.5)


# --- videos and webcams: their parts are in test_video.py ---------------------------------------


def clip(path, frames):
    """Write (H, W, 3) RGB frames as a video, without loss but for the codec's."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return Path(path)


def test_a_folder_of_photographs_and_videos(run):
    turned = [photo(40, 62), photo(40, 62)[::-1, ::-1]]
    clip("in/clip.avi", turned * 2)
    save("in/a.png", photo(40, 62, seed=1))
    Path("in/notes.txt").write_text("neither")
    words = ["--input", "in", "--output", "out", "--save-json", "--box", 2, 3, 30, 35]
    done = run(*words)
    assert done.status == 0, done.err
    assert pictures("out") == ["a.png", "clip.mp4", "results.json"]
    assert re.fullmatch(
        r"clip.avi: 62 x 40, 4 frames, pose (0|90|180|270) degrees, probability 0\.\d+, "
        r"(NOT CLEAR \(UNCERTAIN vote may help\) in 4, )?\d+\.\d s -> out/clip.mp4",
        done.lines[1],
    ), done.lines
    capture = cv2.VideoCapture("out/clip.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.get(cv2.CAP_PROP_FPS) == 10
    read = COCO("out/results.json")
    videos = [image for image in read.imgs.values() if image["file_name"] == "in/clip.avi"]
    assert [image["frame"] for image in videos] == [0, 1, 2, 3]
    assert len({json.dumps(image["pose"]) for image in videos}) == 1
    assert len(read.anns) == len(read.imgs) == 5
    for entry in read.anns.values():
        assert read.annToMask(entry).sum() == entry["area"]

    done = run(*words, "--pose-per-frame", "--frames", 2)
    images = json.loads(Path("out/results.json").read_text())["images"]
    first, second = (image["pose"]["degrees"] for image in images if "frame" in image)
    assert (second - first) % 360 == 180 and ", 2 frames, poses: " in "".join(done.lines)


def test_smooth_poses_of_a_video(run):
    """A pose that is off for one frame is mended; the segmenter sees each frame in its own."""
    frames = [photo(40, 62)] * 6
    frames[3] = np.ascontiguousarray(np.rot90(frames[3], 2))
    clip("in/clip.avi", frames)
    words = "--box", 3, 4, 30, 28, "--input", "in/clip.avi", "--output", "out", "--save-json"
    assert run(*words, "--pose-per-frame").status == 0
    before = [image["pose"] for image in json.loads(Path("out/results.json").read_text())["images"]]
    done = run(*words, "--pose-per-frame", "--smooth")
    assert done.status == 0, done.err
    poses = [image["pose"] for image in json.loads(Path("out/results.json").read_text())["images"]]
    assert len({pose["degrees"] for pose in poses}) == 1
    assert [pose["probabilities"] for pose in poses] == [pose["probabilities"] for pose in before]
    assert before[3]["degrees"] != poses[3]["degrees"]


@pytest.mark.parametrize("words", [["--smooth"], ["--smooth", "--pose-per-frame", "--webcam", "0"]])
def test_smooth_needs_a_pose_for_each_frame_of_a_video(run, words):
    done = run("--output", "out", *words)
    assert done.status == 2 and "--smooth is for the poses of the frames" in done.err


def test_broken_videos_are_errors_and_leave_nothing(run):
    whole = clip("in/whole.avi", [photo(40, 62)] * 20).read_bytes()
    Path("in/cut.avi").write_bytes(whole[: len(whole) // 2])
    Path("in/text.mp4").write_text("no video")
    save("in/good.png", photo())
    done = run(
        "--input",
        "in",
        "missing.mp4",
        "--output",
        "out",
        "--save-json",
        "--point",
        1,
        1,
        "--frames",
        15,
    )
    assert done.status == 2
    assert re.search(r"error: in/cut.avi: ends after \d+ of 20 frames", done.err)
    assert "error: in/text.mp4: cannot be opened as a video" in done.err
    assert "error: missing.mp4: no such video file" in done.err
    assert pictures("out") == ["good.png", "results.json", "whole.mp4"]
    images = json.loads(Path("out/results.json").read_text())["images"]
    assert {image["file_name"] for image in images} == {"in/good.png", "in/whole.avi"}
    assert len(images) == 16


def test_a_webcam_is_written_until_an_interrupt(run, monkeypatch):
    recording = webcam_recording(monkeypatch)
    done = run("--webcam", 3, "--output", "out", "--save-json", "--point", 5, 6)
    assert done.status == 0, done.err
    assert "webcam 3: 62 x 40, 4 frames, pose" in done.lines[-2]
    assert pictures("out") == ["results.json", "webcam_3.mp4"]
    assert recording("out/webcam_3.mp4").get(cv2.CAP_PROP_FRAME_COUNT) >= 4
    images = json.loads(Path("out/results.json").read_text())["images"]
    assert [image["frame"] for image in images] == [0, 1, 2, 3]


def test_nothing_is_kept_of_a_webcam_without_save_json(run, monkeypatch):
    webcam_recording(monkeypatch)
    for name in ("add", "extend", "write"):
        monkeypatch.setattr(Results, name, lambda *args: pytest.fail("results were kept"))
    monkeypatch.setattr(conversions, "encode_mask", lambda mask: pytest.fail("was encoded"))
    alive = []
    segmented = demo.captioned

    def captioned(found):
        alive.append(weakref.ref(found))
        return segmented(found)

    monkeypatch.setattr(demo, "captioned", captioned)
    done = run("--webcam", 3, "--output", "out", "--point", 5, 6)
    assert done.status == 0, done.err
    assert "webcam 3: 62 x 40, 4 frames, pose" in done.lines[-1]
    assert pictures("out") == ["webcam_3.mp4"]
    gc.collect()
    assert len(alive) == 4 and not any(found() for found in alive)


def test_nothing_is_encoded_of_photographs_and_videos_without_save_json(run, monkeypatch):
    monkeypatch.setattr(conversions, "encode_mask", lambda mask: pytest.fail("was encoded"))
    clip("in/clip.avi", [photo(40, 62)] * 2)
    save("in/a.png", photo(40, 62))
    done = run("--input", "in", "--output", "out", "--point", 5, 6)
    assert done.status == 0 and len(done.lines) == 2, done.err


def webcam_recording(monkeypatch):
    """Make webcam 3 show four frames until an interrupt; return OpenCV's own VideoCapture."""
    recording = clip("seen.avi", [photo(40, 62, seed) for seed in range(6)])
    real = cv2.VideoCapture

    class Webcam:
        def __init__(self, number):
            assert number == 3
            self.file, self.left = real(str(recording)), 4

        def read(self):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return self.file.read()

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: Webcam(source) if source == 3 else real(source)
    )
    return real


# --- the command line ---------------------------------------------------------------------------


def test_photographs_flags_and_options_in_any_order(run):
    save("a.png", photo())
    save("B.PNG", photo(seed=1))
    parts = (
        ["a.png", "B.PNG"],
        ["--output", "out"],
        ["--box", 2, 3, 30, 35],
        ["--point", 5, 6],
        ["MODEL.DEVICE", "cpu"],
        ["--save", "mask"],
    )
    lines = set()
    for start in range(len(parts)):
        for order in (parts[start:] + parts[:start], (parts[start:] + parts[:start])[::-1]):
            done = run(*(word for part in order for word in part))
            assert done.status == 0, done.err
            lines.add(re.sub(r"\d+\.\d s", "", "\n".join(done.lines)))
    assert len(lines) == 1 and lines.pop().count(", 2 masks") == 2


@pytest.mark.parametrize("words", [["msk"], ["mask", "foo"]])
def test_a_mistyped_part_to_save_is_named(run, words):
    save("a.png", photo())
    done = run("a.png", "--output", "out", "--point", 5, 6, "--save", *words)
    assert done.status == 2 and f"invalid choice: '{words[-1]}'" in done.err
    assert not Path("out").exists()


def test_without_output_pictures_lie_beside(run):
    save("in/a.png", photo())
    assert run("in/a.png", "--point", 5, 6).status == 0
    assert pictures("in/segmented") == ["a.png"]
    assert run("in", "--recursive", "--point", 5, 6).status == 0
    assert pictures("in/segmented") == ["a.png"]


def test_recursive_keeps_folders(run):
    for name in ("in/a.png", "in/b/a.png", "in/b/c/a.jpg", "in/.hidden.png"):
        save(name, photo())
    done = run("in", "--recursive", "--output", "out", "--point", 5, 6)
    assert done.status == 0, done.err
    assert sorted(p.as_posix() for p in Path("out").rglob("*.png")) == [
        "out/a.png",
        "out/b/a.png",
        "out/b/c/a.png",
    ]
    assert len(run("in", "--output", "flat", "--point", 5, 6).lines) == 1


def test_points_and_a_box_of_one_object(run):
    save("a.png", photo())
    words = ["a.png", "--box", 2, 3, 50, 35, "--point", 5, 6, "--point", 9, 9]
    assert ", 3 masks" in run(*words).lines[0]
    for more in (["--one-object"], ["--background", 20, 20], ["--background", 1, 2, 3, 4]):
        done = run(*words, *more, "--turns")
        assert ", 1 mask" in done.lines[0] and ", the same in all turns" in done.lines[0]


def test_clicks_beside_the_object_reach_sam():
    (part,) = parse_prompts(["1", "2", "9", "8"], ["3", "4"], ["5", "6", "7", "7"])
    assert part.boxes.tolist() == [[1, 2, 9, 8]]
    assert part.points.tolist() == [[[3, 4], [5, 6], [7, 7]]]
    assert part.point_labels.tolist() == [[1, 0, 0]]
    (part,) = parse_prompts(["1", "2", "9", "8"], [], one_object=True)
    assert part.points is None


def test_sam_is_the_short_way(monkeypatch):
    seen = []
    monkeypatch.setattr(demo, "choose_segment", lambda args, prompts: seen.append(args) or 1 / 0)
    for words in (["--sam", "vit_b", "b.pth"], ["--device", "cpu"], []):
        monkeypatch.setattr(sys, "argv", ["demo", "a.png", "--output", "out", *words])
        with pytest.raises(ZeroDivisionError):
            demo.main()
    short, device, plain = seen
    assert (short.config_file, short.options) == (
        "sam_c4.yaml",
        ["MODEL.SAM.SIZE", "vit_b", "MODEL.SEGMENTER.WEIGHTS", "b.pth"],
    )
    assert device.options == ["MODEL.DEVICE", "cpu"]
    assert plain.config_file == demo.CONFIG_FILE and plain.options == []


def test_parts_are_saved(run):
    pixels = photo()
    save("a.png", np.ascontiguousarray(np.rot90(pixels)))
    done = run(
        "a.png", "--output", "out", *ALL_MASKS, "--save", "mask", "cutout", "upright", "json"
    )
    assert done.status == 0, done.err
    results = json.loads(Path("out/results.json").read_text())
    turns = round(results["images"][0]["pose"]["degrees"] / 90)
    upright = np.asarray(Image.open("out/a_upright.png"))
    assert np.array_equal(upright, np.rot90(pixels, 1 - turns))
    assert len(results["annotations"]) > 1
    for number, entry in enumerate(results["annotations"], start=1):
        mask = np.asarray(Image.open(f"out/a_objects/mask_{number}.png"))
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(mask > 0, mask_util.decode(entry["segmentation"]).astype(bool))
        cut = np.asarray(Image.open(f"out/a_objects/cutout_{number}.png"))
        rows, columns = np.nonzero(mask)
        inside = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        assert np.array_equal(cut[..., :3], np.rot90(pixels)[inside])
        assert np.array_equal(cut[..., 3], mask[inside])


def test_an_empty_mask_is_said_to_be_empty(tmp_path):
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    pose = Pose(0, (1.0, 0.0, 0.0, 0.0))

    def said(masks):
        objects = objects_of_masks(masks.numpy(), [0] * len(masks), (4, 5))
        found = Segmentation(pose, objects, OBJECTS, photo(4, 5), (4, 5))
        save_parts(tmp_path / "a.png", photo(4, 5), found, ["cutout"])
        return str(found)

    assert said(masks) == "3 masks (3 of them empty)" and said(masks[:1]) == "1 mask (empty)"
    masks[1, 2, 2] = True
    assert said(masks) == "3 masks (2 of them empty)" and said(masks[:0]) == "0 masks"
    assert pictures(tmp_path / "a_objects") == ["cutout_2.png"]


def test_masks_that_vanish_are_warned_of(tmp_path, recwarn):
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    objects = replace(objects_of_masks(list(masks.numpy()), [0] * 3, (4, 6)), vanished=2)
    pose = Pose(Turn.by(30), (1.0,), probability=1.0)
    found = Segmentation(pose, objects, OBJECTS, np.zeros((4, 6, 3), np.uint8), (4, 6))
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    segment = Segment(lambda *_: found, None)
    demo.process_image(tmp_path / "a.png", tmp_path / "out.png", segment, (), False, None)
    (warning,) = [one for one in recwarn if issubclass(one.category, InputWarning)]
    assert str(warning.message).startswith("a.png: 2 masks are empty; what they are of was found")
    summary = VideoSummary()
    summary.add(found)
    summary.add(found)
    assert summary.vanished == 4


def test_a_pose_that_is_not_clear_is_marked():
    unclear, clear = Pose(1, (0.3, 0.4, 0.2, 0.1)), Pose(1, (0.1, 0.5, 0.2, 0.2))
    assert "0.400, NOT CLEAR (UNCERTAIN vote may help)" in describe(unclear)
    assert "NOT CLEAR" not in describe(clear)
    objects = objects_of_masks(np.zeros((0, 4, 5), bool), [], (4, 5))
    summary = VideoSummary()
    for pose in (unclear, unclear, clear):
        summary.add(Segmentation(pose, objects, OBJECTS, photo(4, 5), (4, 5)))
    assert ", NOT CLEAR (UNCERTAIN vote may help) in 2" in str(summary)


# --- names of the pictures ----------------------------------------------------------------------


def test_pictures_of_the_same_stem_have_different_names(tmp_path):
    paths = [Path(name) for name in ("a/x.png", "b/x.jpg", "x_turns.jpg", "x_2.png", "c/x.png")]
    names = output_names(paths, tmp_path)
    files = [name.replace(".png", end) for name in names for end in (".png", "_turns.png")]
    assert len(set(files)) == 10
    assert names[0] == "x.png"
    assert names == output_names(paths, tmp_path)


def test_videos_and_pictures_share_names_but_not_files(tmp_path):
    paths = [Path("a/x.png"), Path("a/x.avi"), Path("b/x.MOV"), tmp_path / "y.mp4"]
    assert output_names(paths, tmp_path) == ["x.png", "x.mp4", "x_2.mp4", "y_2.mp4"]


def test_the_input_is_never_overwritten(run):
    save("photo.png", photo())
    before = Path("photo.png").read_bytes()
    done = run("--input", "photo.png", "--output", ".", "--box", 1, 2, 30, 30)
    assert done.status == 0, done.err
    assert Path("photo.png").read_bytes() == before
    assert pictures(".") == ["photo.png", "photo_2.png"]


# --- bad input ----------------------------------------------------------------------------------


def test_bad_images_are_named_first_and_the_others_processed(run):
    save("in/good.png", photo())
    Path("in/empty.png").touch()
    Path("in/text.jpg").write_text("no image")
    whole = Path(save("in/cut.png", photo(200, 200))).read_bytes()
    Path("in/cut.png").write_bytes(whole[: len(whole) // 2])  # shows only when it is decoded
    done = run(
        "--input", "in/*", "nothing/*.png", "missing.png", "--output", "out", "--box", 1, 2, 30, 30
    )
    assert done.status == 2
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    for name in ("in/empty.png", "in/text.jpg", "nothing/*.png", "missing.png", "in/cut.png"):
        assert sum(line.startswith(f"error: {name}: ") for line in errors) == 1, name
    assert len(errors) == 5 and "in/cut.png" in errors[-1]
    assert pictures("out") == ["good.png"]
    assert len(done.lines) == 1


def test_a_prompt_outside_one_image_leaves_the_others(run):
    save("small.png", photo(20, 20))
    save("large.png", photo(40, 61))
    done = run("--input", "small.png", "large.png", "--output", "out", "--box", 20, 0, 61, 40)
    assert done.status == 2 and pictures("out") == ["large.png"]
    assert "error: small.png: --box 20 0 61 40 is outside the image, 20 wide and 20" in done.err


def test_a_box_past_the_edge_is_cut_there(run):
    save("photo.png", photo())
    words = ["--input", "photo.png", "--save-json", "--turns"]
    done = run(*words, "--output", "past", "--box", -9, 3, 99, 400)
    assert done.status == 0 and ", the same in all turns, " in done.lines[0], done.err
    run(*words, "--output", "cut", "--box", 0, 3, 61, 40)
    for name in ("photo.png", "photo_turns.png", "results.json"):
        assert Path("past", name).read_bytes() == Path("cut", name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--point", "61", "0"], "photo.png: --point 61 0 is outside"),
        (["--point", "-1", "0"], "photo.png: --point -1 0 is outside"),
        (["--box", "0", "40", "61", "41"], "61 wide and 40 high"),
        (["--box", "-9", "0", "0", "5"], "photo.png: --box -9 0 0 5 is outside"),
        (["--box", "5", "5", "5", "9"], "--box 5 5 5 9 has no area"),
        (["--box", "9", "9", "5", "5"], "no area"),
        (["--box", "1", "2", "3"], "--box takes 4 numbers for each, got 3"),
        (["--point", "1", "2", "3"], "--point takes 2 numbers"),
        (["--point", "1.5", "2"], "whole numbers"),
        (["--point", "nan", "2"], "finite"),
        (["--box", "1", "2", "x3", "4"], "--box: 'x3' is neither a number nor the name of a file"),
        (["--background", "1", "2"], "need something of the object"),
        (["--one-object"], "need something of the object"),
        (["--background", "61", "2", "--point", "1", "1"], "photo.png: --point 61 2 is outside"),
        (["--one-object", "--box", *"01231123"], "2 boxes are more than one object"),
        (["--device", "tpu9"], "--device tpu9 cannot be used here"),
        (["--sam", "vit_x", "a.pth"], "--sam: 'vit_x' is no size; give vit_h, vit_l, vit_b"),
        (["--sam", "vit_b", "missing.pth"], "missing.pth"),
        (["--webcam", "0"], "argument --webcam: not allowed with"),
        (["MODEL.DEVICE"], "MODEL.DEVICE has no value"),
        (["--points-per-side", "0"], "--points-per-side is 0; give at least 1"),
        (["--max-masks", "-3"], "--max-masks is -3"),
        (
            [
                "--point",
                "1",
                "2",
                "--output",
                "out",
                "MODEL.SEGMENTER.META_ARCHITECTURE",
                "GeneralizedRCNN",
            ],
            "GeneralizedRCNN takes no prompts",
        ),
        (["--output", "out", "MODEL.NOTHING", "1"], "MODEL.NOTHING"),
        (["--output", "out", "MODEL.SEGMENTER.META_ARCHITECTURE", ""], "MODEL.SEGMENTER.META"),
        (["--output", "out", "MODEL.SEGMENTER.WEIGHTS", "missing.pth"], "missing.pth"),
        (["--output", "out", "MODEL.CANONICALIZER.WEIGHTS", "missing.pth"], "missing.pth"),
        (["--output", "photo.png"], "photo.png: cannot be used as an output folder"),
        (["--config-file", "missing.yaml"], "missing.yaml"),
        (["--everything", "--point", "1", "2"], "--everything is without prompts"),
        (
            ["--everything", "MODEL.SEGMENTER.META_ARCHITECTURE", "GeneralizedRCNN"],
            "GeneralizedRCNN takes no prompts",
        ),
        (["--frames", "0"], "--frames is 0"),
        (["--score-threshold", "7"], "--score-threshold is 7.0; give 0 to 1"),
        (["--min-iou", "nan"], "--min-iou is nan"),
        (["--output", "out", "MODEL.SAM.PROMPTS", "detections.json"], "MODEL.SAM.PROMPTS"),
        (["--output", "out", "MODEL.CANONICALIZER.UNCERTAIN", "vote"], "UNCERTAIN is 'vote'"),
        (["--input", "empty"], "empty: holds no image or video by name"),
    ],
)
def test_mistakes_are_errors_that_say_what_to_do(run, words, message):
    save("photo.png", photo())
    Path("empty").mkdir()
    done = run("--input", "photo.png", "--output", "out", *words)
    assert done.status == 2
    assert message in done.err and "Traceback" not in done.err
    assert done.lines == [] and not list(Path("out").glob("*") if Path("out").exists() else [])


def test_an_empty_folder_leaves_the_others(run):
    save("photo.png", photo())
    Path("empty").mkdir()
    done = run("--input", "empty", "photo.png", "--output", "out", "--point", 3, 4)
    assert done.status == 2 and "empty: holds no image" in done.err
    assert pictures("out") == ["photo.png"]


def test_what_is_done_with_an_uncertain_clip_is_said(run):
    clip("clip.avi", [photo(40, 62)] * 3)
    for policy, said in [
        ("keep", ", uncertain in 3: keep, "),
        ("vote", ", uncertain in 3: vote, "),
    ]:
        done = run(
            "--input",
            "clip.avi",
            "--point",
            3,
            4,
            "--output",
            policy,
            "MODEL.CANONICALIZER.UNCERTAIN",
            policy,
            "MODEL.CANONICALIZER.UNCERTAIN_BELOW",
            "1.0",
        )
        assert done.status == 0 and said in done.lines[0], done.lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_absent_is_an_error(run):
    save("photo.png", photo())
    done = run("--input", "photo.png", "--output", "out", "MODEL.DEVICE", "cuda")
    assert done.status == 2 and "MODEL.DEVICE is 'cuda'" in done.err


def test_without_scikit_image_the_extra_is_named(run, monkeypatch):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    done = run("--output", "out")
    assert done.status == 2 and "pip install scikit-image" in done.err


def test_random_weights_are_warned_of(run):
    save("photo.png", photo())
    done = run(
        "--input", "photo.png", "--point", 1, 1, "--output", "out", "MODEL.SEGMENTER.WEIGHTS", ""
    )
    assert done.status == 0 and "random weights" in done.err


def test_a_webcam_that_is_not_there_is_an_error(run):
    done = run("--webcam", 97, "--output", "out")
    assert done.status == 2 and "error: --webcam 97: there is no webcam of that number" in done.err
    assert not pictures("out")


def test_the_default_config_is_the_embedded_one():
    assert Path(resolve_config(demo.CONFIG_FILE)) == ROOT / "configs" / "sam_tiny_c4.yaml"


# --- names of any bytes, and work that ends midway ----------------------------------------------


def test_names_of_any_bytes(run):
    names = [os.fsdecode(name) for name in (b"$a_{.png", b"b\xff.png", b"c\n.png")]
    for index, name in enumerate(names):
        save(f"in/{name}", photo(seed=index))
    done = run("--input", "in", "--output", "out", "--save-json", "--point", 1, 1)
    assert done.status == 0, done.err
    assert pictures("out") == sorted([*names, "results.json"])
    images = json.loads(Path("out/results.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [
        "in/$a_{.png",
        "in/b\\xff.png",
        "in/c\n.png",
    ]
    assert any(r"c\n.png" in line for line in done.lines)


def test_what_was_found_is_written_when_work_ends_midway(run, monkeypatch):
    for index in range(3):
        save(f"in/{index}.png", photo(seed=index))
    captioned = demo.captioned

    def fail_at_the_second(found, done=[]):  # noqa: B006
        done.append(found)
        if len(done) == 2:
            raise ZeroDivisionError("a defect")
        return captioned(found)

    monkeypatch.setattr(demo, "captioned", fail_at_the_second)
    with pytest.raises(ZeroDivisionError):
        run("--input", "in", "--output", "out", "--save-json", "--point", 1, 1)
    images = json.loads(Path("out/results.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["in/0.png"]


def test_a_picture_that_cannot_be_written_costs_the_picture(run, monkeypatch):
    for index in range(2):
        save(f"in/{index}.png", photo(seed=index))
    write = demo.save_picture

    def fail_for_the_first(target, picture):
        if target.name == "0.png":
            raise InputError("0.png: cannot be written")
        write(target, picture)

    monkeypatch.setattr(demo, "save_picture", fail_for_the_first)
    done = run("--input", "in", "--output", "out", "--save-json", "--point", 1, 1)
    assert done.status == 2 and "error: 0.png: cannot be written" in done.err
    assert len(json.loads(Path("out/results.json").read_text())["images"]) == 2
