import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from optional import missing, need
from PIL import Image
from pycocotools.coco import COCO
from tiny_models import random_canonicalizer, random_image

from canon_seg.apps.web import turning
from canon_seg.apps.web.downloads import (
    named_masks,
    python_lines,
    write_coco,
    write_cutout,
    write_masks,
    write_upright,
)
from canon_seg.apps.web.objects import (
    BACKGROUND,
    BOX,
    MAX_OBJECTS,
    MAX_POINTS,
    MAX_STEPS,
    OBJECT,
    ObjectPrompt,
    Objects,
)
from canon_seg.apps.web.pictures import (
    COLORS,
    chips,
    draw_answers,
    draw_everything,
    draw_level,
    draw_stage,
    pose_bars,
    pose_chart,
    score,
    table,
    verdict,
)
from canon_seg.apps.web.samples import Limits, load_samples, read_upload
from canon_seg.apps.web.turning import (
    ANY_ANGLE,
    QUARTERS,
    RIGHT,
    UNCERTAIN,
    UNKNOWN,
    WRONG,
    Answer,
    Found,
    Turner,
    canonical_photo,
    pose_of,
)
from canon_seg.cli import app
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.group import SO2
from canon_seg.core.pose import Pose
from canon_seg.core.scorer import CircularDistribution, pointwise
from canon_seg.core.turn import Turn
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.tilt import rotate_image
from canon_seg.networks.backbone import BackboneSpec, PoseNetwork
from canon_seg.networks.circle_scorer import CircleScorer
from canon_seg.predictors.defaults import load_default_sam
from canon_seg.sam import loading
from canon_seg.sam.models import build_tiny_sam
from canon_seg.scenes.dataset import make_scene

SCRIPT = Path(__file__).parents[1] / "demo" / "app.py"
SCREENSHOTS = "CANON_SEG_SCREENSHOTS"
"""Environment variable: the folder that the page's screenshot goes to."""

HEIGHT, WIDTH = 40, 56
IMAGE = random_image(HEIGHT, WIDTH).permute(1, 2, 0).numpy()


def tiny_sam():
    torch.manual_seed(5)  # weights whose masks depend on the turn
    return build_tiny_sam(64, (8, 8, 16, 64), (1, 1, 1, 1), 32)


@pytest.fixture(scope="module")
def turner():
    return Turner(tiny_sam(), random_canonicalizer().eval())


class BrightSide:
    """Take the direction in which it gets brighter for up."""

    group, image_format = SO2, "RGB"

    def __call__(self, images):
        rows = []
        for image in images:
            grey = image.double().mean(0)
            height, width = grey.shape
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            y, x = y - (height - 1) / 2, x - (width - 1) / 2
            grey = torch.where(x**2 + y**2 < (min(height, width) / 2) ** 2, grey - grey.mean(), 0)
            angle = torch.atan2(-(grey * x).sum(), -(grey * y).sum())
            rows.append(50 * torch.cos(torch.deg2rad(torch.arange(72) * 5.0) - angle))
        return CircularDistribution(torch.stack(rows))


def sky(height=72, width=96):
    """A photograph whose light comes from above, with something dark in it."""
    pixels = np.repeat(np.linspace(250, 60, height)[:, None, None], width, 1).repeat(3, 2)
    pixels[40:60, 30:50] *= 0.6
    return pixels.astype(np.uint8)


@pytest.fixture(scope="module")
def switchable():
    return Turner(
        tiny_sam(), random_canonicalizer().eval(), any_angle=GroupCanonicalizer(BrightSide()).eval()
    )


def test_the_switch_to_any_angle(switchable):
    assert list(switchable.canonicalizers) == [QUARTERS, ANY_ANGLE]
    prompt = ObjectPrompt(points=((40, 50, 1),))
    session = switchable.open(sky(), 37, prompt, is_upright=True)
    session, *_ = switchable.compare(session)
    assert pose_of(session).turn.exact and session.visited
    other = switchable.switch(session, ANY_ANGLE)
    assert other.visited == {} and other.objects == session.objects
    assert pose_of(other).turn.degrees == pytest.approx(37, abs=4)
    assert switchable.judge(other) == RIGHT
    assert (other.turned.image == session.turned.image).all()
    # At quarter turns it is the same in every pixel, behind either.
    for degrees in (90, 180):
        other = switchable.turn(other, degrees)
        other, _, (answer,) = switchable.compare(other)
        assert answer.agreement == 1
    assert switchable.switch(other, ANY_ANGLE) is other
    back = switchable.switch(other, QUARTERS)
    assert back.way == QUARTERS and len(pose_of(back).probabilities) == 4
    with pytest.raises(InputError, match="'C8' is not there; take one of Quarter turns"):
        switchable.switch(other, "C8")


def test_the_canonical_photo_is_level(switchable):
    session = switchable.open(sky(), 37, way=ANY_ANGLE)
    photo = canonical_photo(session).astype(int)
    middle = photo[photo.shape[0] // 2 - 20 : photo.shape[0] // 2 + 20, photo.shape[1] // 2]
    across = photo[photo.shape[0] // 2 - 20, photo.shape[1] // 2 - 12 : photo.shape[1] // 2 + 12]
    assert middle[0].mean() > middle[-1].mean() + 50 and np.ptp(across.mean(axis=1)) < 12


def test_lines_of_python_name_the_canonicalizer(switchable):
    source = python_lines(switchable, switchable.open(sky(), 37, way=ANY_ANGLE))
    assert 'weights="canon_seg://canonicalizer_so2.pth", group="SO2"' in source
    assert "load_default_sam(), canonicalizer)" in source
    assert "canonicalizer)" not in python_lines(switchable, switchable.open(sky(), 37))


def circle_file(folder):
    """Weights of a canonicalizer of any angle, at random."""
    torch.manual_seed(0)
    network = PoseNetwork(BackboneSpec("mobilenetv3_small_050", 72)).eval()
    path = folder / "circle.pth"
    CircleScorer(network, input_size=96, image_format="RGB").save(path)
    return path


def test_the_switch_offers_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "load_sam", tiny_sam)
    monkeypatch.setattr(app, "ANY_ANGLE", str(tmp_path / "none.pth"))
    turner = app.build_turner(app.parse_arguments(["--device", "cpu"]))
    assert list(turner.canonicalizers) == [QUARTERS]
    path = circle_file(tmp_path)
    monkeypatch.setattr(app, "ANY_ANGLE", str(path))
    turner = app.build_turner(app.parse_arguments(["--device", "cpu"]))
    assert turner.canonicalizers[ANY_ANGLE].group == SO2
    with pytest.raises(InputError, match="lost.pth"):
        app.build_turner(app.parse_arguments(["--any-angle", "lost.pth", "--device", "cpu"]))


@pytest.mark.parametrize(
    "prompt",
    [
        ObjectPrompt(points=((20, 11, 1),)),
        ObjectPrompt(points=((20, 11, 1), (0, 39, 0)), box=(4, 6, 50, 31)),
    ],
)
def test_at_quarter_turns_the_canonical_way_keeps_every_pixel(turner, prompt):
    session = turner.open(IMAGE, 0, prompt)
    session, *upright = turner.compare(session)
    plain_agreements = []
    for turns in range(4):
        session = turner.turn(session, 90 * turns)
        assert (session.turned.image == np.rot90(IMAGE, turns)).all()
        session, (plain,), (canonical,) = turner.compare(session)
        for answer, (before,) in zip((plain, canonical), upright):
            assert (answer.expected == np.rot90(before.mask, turns)).all()
            assert (answer.upright == before.mask).all()
        assert canonical.agreement == 1 and (canonical.mask == canonical.expected).all()
        assert canonical.predicted_iou == upright[1][0].predicted_iou
        plain_agreements.append(plain.agreement)
    assert 0 < np.count_nonzero(canonical.mask) < canonical.mask.size
    assert plain_agreements[0] == 1 and min(plain_agreements) < 1
    assert session.visited == {90.0 * i: (plain_agreements[i], 1.0) for i in range(4)}


def test_other_angles(turner):
    session = turner.open(IMAGE, 30, ObjectPrompt(points=((20, 11, 1),)))
    session, (plain,), (canonical,) = turner.compare(session)
    size = rotate_image(IMAGE, 30).shape[:2]
    assert plain.mask.shape == canonical.expected.shape == size
    assert 0 <= plain.agreement <= 1 and 0 <= canonical.agreement <= 1
    assert turner.turn(session, 360).turned is session.upright
    assert turner.turn(session, 390.0) is turner.turn(session, " 30,0° ") is session
    for wrong in (float("nan"), None, "a lot", "", "9" * 400, "1e999"):
        with pytest.raises(InputError, match="the angle is .*; give a number of degrees"):
            turner.turn(session, wrong)


def test_several_objects_have_a_mask_each(turner):
    objects = Objects().boxed(4, 6, 49, 30, (HEIGHT, WIDTH)).added()
    assert objects.asked == (0,)
    objects = objects.clicked(OBJECT, 20, 11, (HEIGHT, WIDTH))
    session = turner.open(IMAGE, 90).with_objects(objects)
    session, plain, canonical = turner.compare(session)
    assert [answer.index for answer in canonical] == [0, 1]
    assert (canonical[0].mask != canonical[1].mask).any()
    assert session.visited[90.0][1] == 1 and session.visited[90.0][0] == pytest.approx(
        np.mean([answer.agreement for answer in plain])
    )
    # The same as each of them alone.
    alone = turner.open(IMAGE, 90, ObjectPrompt(points=((20, 11, 1),)))
    assert (turner.compare(alone)[2][0].mask == canonical[1].mask).all()


def test_one_of_the_three_masks_can_be_chosen(turner):
    session = turner.open(IMAGE, 0, ObjectPrompt(box=(4, 6, 50, 31)))
    predictor = session.turned.canonical
    masks, scores, _ = predictor.predict(box=np.array([4.0, 6, 50, 31]))
    for number in (1, 2, 3):
        chosen = session.with_objects(session.objects.chosen(str(number)))
        _, _, (answer,) = turner.compare(chosen)
        assert (answer.mask == masks[number - 1]).all()
        assert answer.predicted_iou == pytest.approx(scores[number - 1])
    single, _, _ = predictor.predict(box=np.array([4.0, 6, 50, 31]), multimask_output=False)
    assert (turner.compare(session)[2][0].mask == single[0]).all()


def test_the_verdict_is_right_only_where_the_pose_is(turner):
    def of(canonicalizer, degrees, is_upright):
        other = Turner(turner.sam, canonicalizer)
        return other.judge(other.open(IMAGE, degrees, is_upright=is_upright))

    class Unsure(FixedPoseCanonicalizer):
        def pose(self, image, prompt_key=None):
            return Pose(self.turn, (0.3, 0.4, 0.2, 0.1), probability=0.4)

    assert of(FixedPoseCanonicalizer(1), 90, True) == RIGHT
    assert of(FixedPoseCanonicalizer(1), 60, True) == RIGHT
    assert of(FixedPoseCanonicalizer(1), 40, True) == WRONG
    assert of(FixedPoseCanonicalizer(3), 90, True) == WRONG
    assert of(FixedPoseCanonicalizer(0), 330, True) == RIGHT
    assert of(FixedPoseCanonicalizer(1), 90, None) == UNKNOWN
    assert of(Unsure(1), 90, True) == of(Unsure(1), 90, None) == UNCERTAIN


def test_the_canonical_photo_is_the_turned_one_set_upright(turner):
    photos = [canonical_photo(turner.open(IMAGE, 90 * turns)) for turns in range(4)]
    assert all((photo == photos[0]).all() for photo in photos)
    turns = pose_of(turner.open(IMAGE, 0)).turns
    assert (photos[0] == np.rot90(IMAGE, -turns)).all()


def test_everything_is_found_in_the_canonical_photo(turner, monkeypatch):
    options = {
        **turning.SMALL_SAM,
        "points_per_side": 4,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
    }
    monkeypatch.setattr(turning, "SMALL_SAM", options)  # random weights are not sure of anything
    image, _ = make_scene(np.random.default_rng([7, 3]))
    image = np.ascontiguousarray(image[::2, ::2])
    upright = turner.find_everything(turner.open(image, 0)).everything
    turned = turner.find_everything(turner.open(image, 90)).everything
    assert len(upright) == len(turned) > 0
    for one, other in zip(turned, upright):
        assert (one.mask == np.rot90(other.mask)).all()
        assert one.predicted_iou == other.predicted_iou and one.number == other.number
    session = turner.find_everything(turner.open(image, 0))

    # Another order, as another pose would have it: colours are those of the masks all the same.
    class Reversed(turning.CanonicalSamAutomaticMaskGenerator):
        def generate(self, image):
            return super().generate(image)[::-1]

    monkeypatch.setattr(turning, "CanonicalSamAutomaticMaskGenerator", Reversed)
    for degrees in (0, 90):
        again = turner.find_everything(turner.turn(session, degrees)).everything
        assert [one.number for one in again] == [one.number for one in session.everything][::-1]
    assert turner.turn(session, 90).everything is None
    assert session.with_objects(session.objects.added()).everything is None


@pytest.mark.parametrize("degrees", [0, 20, 90, 135, 180, 270, 300])
def test_prompts_turn_with_the_photograph(degrees):
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    black[8:15, 30:41] = 255
    turned = rotate_image(black, degrees) == 255
    prompt = ObjectPrompt(points=((35, 11, 1), (2, 2, 0)), box=(30, 8, 41, 15))
    (x, y, label), (_, _, other) = prompt.turned(degrees, HEIGHT, WIDTH).points
    rows, columns = np.nonzero(turned)
    assert (label, other) == (1, 0)
    assert abs(x - columns.mean()) < 0.6 and abs(y - rows.mean()) < 0.6
    x0, y0, x1, y1 = prompt.turned(degrees, HEIGHT, WIDTH).box
    slack = 0 if degrees % 90 == 0 else 1.5  # pixels that are mixed at the border
    for edge, wanted in zip(
        (x0, y0, x1, y1), (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    ):
        assert abs(edge - wanted) <= slack


SIZE = HEIGHT, WIDTH


def test_clicks_and_boxes():
    start = Objects()
    objects = start.clicked(OBJECT, 3.7, 5, SIZE).clicked(BACKGROUND, 55, 39, SIZE)
    assert objects.current.prompt == ObjectPrompt(points=((3, 5, 1), (55, 39, 0)))
    for corners in [((10, 30), (20, 4)), ((20, 4), (10, 30)), ((10, 4), (20, 30))]:
        half = objects.clicked(BOX, *corners[0], SIZE)
        assert half.corner == corners[0] and half.current.prompt == objects.current.prompt
        whole = half.clicked(BOX, *corners[1], SIZE)
        assert whole.corner is None and whole.current.prompt.box == (10, 4, 21, 31)
        assert whole.current.prompt.points == objects.current.prompt.points
        assert objects.boxed(*corners[0], *corners[1], SIZE).items == whole.items
    assert start.boxed(7, 7, 7, 7, SIZE).current.prompt.box == (7, 7, 8, 8)
    assert objects.clicked(BOX, 7, 7, SIZE).clicked(OBJECT, 1, 1, SIZE).corner is None
    assert not start.current.prompt and not whole.cleared().current.prompt


def test_every_step_can_be_undone():
    steps = [
        Objects(),
        Objects().clicked(OBJECT, 3, 5, SIZE),
    ]
    for step in (
        lambda objects: objects.named("car"),
        lambda objects: objects.chosen("2"),
        lambda objects: objects.added(),
        lambda objects: objects.clicked(BOX, 1, 1, SIZE),
        lambda objects: objects.clicked(BOX, 9, 9, SIZE),
        lambda objects: objects.cleared(),
    ):
        steps.append(step(steps[-1]))
    objects = steps[-1]
    for before in reversed(steps[:-1]):
        objects = objects.undone()
        assert objects == before
    with pytest.raises(InputError, match="nothing to undo"):
        objects.undone()


def test_steps_are_kept_up_to_a_limit():
    objects = Objects()
    for number in range(3 * MAX_STEPS):
        objects = objects.named(f"name {number}")
    count = 0
    while objects.before is not None:
        objects, count = objects.undone(), count + 1
    assert count == MAX_STEPS - 1


def test_objects_have_names_and_one_is_worked_on():
    objects = Objects().named(" the  car ").added().clicked(OBJECT, 1, 1, SIZE)
    assert [item.name for item in objects.items] == ["the car", "Object 2"]
    assert objects.active == 1 and objects.asked == (1,)
    back = objects.switched(0).clicked(OBJECT, 2, 2, SIZE)
    assert back.asked == (0, 1) and back.current.name == "the car"
    assert objects.named("Object 3").added().current.name == "Object 4"
    for call, message in [
        (lambda: objects.named(" "), "1 to 40 characters"),
        (lambda: objects.named("x" * 41), "1 to 40 characters"),
        (lambda: objects.switched(2), "no object 2"),
        (lambda: objects.switched("1"), "no object '1'"),
        (lambda: objects.chosen("4"), "'4' is not known"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    for _ in range(MAX_OBJECTS - 2):
        objects = objects.added()
    with pytest.raises(InputError, match="16 objects already"):
        objects.added()


def test_what_was_measured_for_other_prompts_is_forgotten(turner):
    session, *_ = turner.compare(turner.open(IMAGE, 90, ObjectPrompt(box=(4, 6, 50, 31))))
    assert list(session.visited) == [90]
    objects = session.objects
    assert session.with_objects(objects.named("cat")).visited == session.visited
    assert not session.with_objects(objects.clicked(OBJECT, 1, 1, SIZE)).visited
    assert not session.with_objects(objects.chosen("1")).visited
    assert turner.compare(turner.open(IMAGE, 90))[1:] == ((), ())


@pytest.mark.parametrize(
    ("tool", "x", "y", "message"),
    [
        (OBJECT, WIDTH, 0, "outside the photo, 56 wide and 40 high"),
        (BOX, 0, -1, "outside"),
        (OBJECT, float("nan"), 0, "two numbers"),
        (OBJECT, None, 0, "two numbers"),
        ("Lasso", 1, 1, "'Lasso' is not known"),
    ],
)
def test_bad_clicks(tool, x, y, message):
    with pytest.raises(InputError, match=message):
        Objects().clicked(tool, x, y, SIZE)


def test_clicks_are_limited():
    objects = Objects()
    for i in range(MAX_POINTS):
        objects = objects.clicked(OBJECT, i, 0, SIZE)
    with pytest.raises(InputError, match="clear them"):
        objects.clicked(OBJECT, 0, 1, SIZE)


@pytest.fixture(scope="module")
def two(turner):
    """A session with two objects at 90 degrees, and its answers."""
    objects = Objects().named("house").boxed(4, 6, 49, 30, SIZE).added().named("tree <b>")
    objects = objects.clicked(OBJECT, 20, 11, SIZE)
    session, _, canonical = turner.compare(turner.open(IMAGE, 90).with_objects(objects))
    assert all(answer.mask.any() for answer in canonical)
    return session, canonical


def test_masks_are_written_with_a_number_each(two, tmp_path):
    session, answers = two
    masks = named_masks(session, answers)
    assert [one.name for one in masks] == ["house", "tree <b>"]
    path = write_masks(tmp_path, masks)
    labels = np.asarray(Image.open(path))
    assert (labels == 2).sum() == answers[1].mask.sum()
    assert ((labels == 1) == (answers[0].mask & ~answers[1].mask)).all()
    single = np.asarray(Image.open(write_masks(tmp_path, masks[:1])))
    assert (single == np.where(answers[0].mask, 255, 0)).all()


def test_the_cut_out_has_transparent_ground(two, tmp_path):
    session, answers = two
    pixels = np.asarray(Image.open(write_cutout(tmp_path, session, named_masks(*two)[:1])))
    mask = answers[0].mask
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    assert (pixels[..., 3] == np.where(mask[part], 255, 0)).all()
    assert (pixels[..., :3] == session.turned.image[part]).all()
    empty = replace(named_masks(*two)[0], mask=np.zeros_like(mask))
    with pytest.raises(InputError, match="empty"):
        write_cutout(tmp_path, session, [empty])


def test_pycocotools_reads_the_data_set(two, tmp_path, capsys):
    session, answers = two
    masks = named_masks(session, answers)
    empty = replace(masks[0], mask=np.zeros_like(masks[0].mask))
    coco = COCO(write_coco(tmp_path, session, [*masks, empty]))
    capsys.readouterr()
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["house", "tree <b>"]
    assert coco.imgs[1]["height"], coco.imgs[1]["width"] == session.turned.image.shape[:2]
    for annotation, one in zip(coco.anns.values(), [*masks, empty], strict=True):
        assert (coco.annToMask(annotation) == one.mask).all()
        assert annotation["area"] == one.mask.sum()
        assert annotation["score"] == one.predicted_iou
        x, y, w, h = annotation["bbox"]
        assert one.mask[y : y + h, x : x + w].sum() == one.mask.sum()
    assert coco.anns[3]["bbox"] == [0, 0, 0, 0]


def test_the_upright_photo_and_the_lack_of_masks(turner, two, tmp_path):
    pixels = np.asarray(Image.open(write_upright(tmp_path, two[0])))
    assert (pixels == canonical_photo(two[0])).all()
    with pytest.raises(InputError, match="no mask yet"):
        named_masks(turner.open(IMAGE, 0), ())


@pytest.mark.parametrize("degrees", [0, 90, 30])
def test_python_lines_give_the_masks_of_the_page(tmp_path, monkeypatch, degrees):
    turner = Turner(load_default_sam())
    objects = Objects().boxed(4, 6, 49, 30, SIZE).chosen("2").added()
    objects = objects.clicked(OBJECT, 20, 11, SIZE).clicked(BACKGROUND, 2, 30, SIZE)
    session = turner.open(IMAGE, degrees).with_objects(objects)
    _, _, answers = turner.compare(session)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGE).save("photo.png")
    names, source = {}, python_lines(turner, session)
    first, second = source.split("# Object 2")
    exec(first, names)
    assert (names["mask"] == answers[0].mask).all()
    exec("# Object 2" + second, names)
    assert (names["mask"] == answers[1].mask).all()


def test_uploads(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    assert (read_upload(path) == IMAGE).all()
    assert read_upload(path, Limits(max_side=28)).shape == (20, 28, 3)
    for content, limits, message in [
        (path.read_bytes(), Limits(megapixels=0.001), "0.0 megapixels, at most 0.001"),
        (path.read_bytes(), Limits(max_side=20), "56 x 40 px"),
        (path.read_bytes()[:200], Limits(), "cut short or broken"),
        (b"no picture", Limits(), "is not an image"),
        (b"", Limits(), "is empty"),
    ]:
        bad = tmp_path / "bad.png"
        bad.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            read_upload(bad, limits)
        assert str(caught.value).startswith("bad.png: ") and str(tmp_path) not in str(caught.value)


def test_samples_are_ready_to_be_shown():
    samples = load_samples()
    assert {"Street", "Meadow", "From above"} <= {sample.name for sample in samples}
    assert len(samples) == (3 if find_spec("skimage") is None else 7)
    for sample in (*samples, *load_samples(max_side=100)):
        height, width = sample.image.shape[:2]
        x0, y0, x1, y1 = sample.prompt.box
        assert sample.image.dtype == np.uint8 and sample.image.shape[2] == 3
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert max(max(sample.image.shape) for sample in load_samples(max_side=100)) == 100


def test_one_sample_has_no_up_and_is_uncertain():
    (sample,) = (one for one in load_samples() if one.is_upright is None)
    turner = Turner(load_default_sam())
    for degrees in (0, 90):
        session = turner.open(sample.image, degrees, sample.prompt, sample.is_upright)
        assert turner.judge(session) == UNCERTAIN


def test_pictures(turner):
    prompt = ObjectPrompt(points=((20, 11, 1), (50, 3, 0)), box=(4, 6, 50, 31))
    session, plain, _ = turner.compare(turner.open(IMAGE, 90, prompt))
    turned = session.turned.image
    picture = draw_answers(turned, session, plain)
    assert picture.shape == (WIDTH * 8, HEIGHT * 8, 3)  # enlarged to about 480 px
    alone = draw_answers(turned, turner.open(IMAGE, 90), ())
    assert (alone == turned.repeat(8, 0).repeat(8, 1)).all() and (picture != alone).any()
    objects = Objects().clicked(OBJECT, 20, 11, SIZE).clicked(BOX, 2, 3, SIZE)
    marked = draw_stage(IMAGE, objects, {})
    for x, y in ((20, 11), (2, 3)):
        assert (marked[y * 8 + 4, x * 8 + 4] != IMAGE[y, x]).any()
    mask = np.zeros(SIZE, bool)
    mask[20:30, 20:30] = True
    for filled in (
        draw_stage(IMAGE, Objects(), {0: mask}),
        draw_everything(IMAGE, [Found(mask, 0.9)]),
    ):
        changed = (filled != IMAGE.repeat(8, 0).repeat(8, 1)).any(axis=2)
        assert changed[25 * 8, 25 * 8] and not changed[: 18 * 8].any()


@pytest.mark.parametrize("degrees", [0, 90, 30])
def test_the_level_line_lies_as_the_horizon(degrees):
    """Level in the photograph, it turns along with it."""
    pose = Pose(Turn.by(degrees), pointwise(SO2, Turn.by(degrees)), probability=1.0)
    black = np.zeros((201, 201, 3), np.uint8)
    drawn = draw_level(black, pose)
    assert not black.any()
    level = draw_level(black, Pose(Turn(), pointwise(SO2, Turn()), probability=1.0))
    y, x = np.nonzero(level.any(axis=2))
    assert (np.median(y), np.ptp(x) > 150, y.min() < 90, y.max() < 105) == (100, True, True, True)
    y, x = np.indices(black.shape[:2]) - 100
    inside = x**2 + y**2 < 98**2  # what stays in the picture
    turned = rotate_image(level, degrees, "crop").astype(int)
    assert np.abs(turned - drawn)[inside].mean() < 3 < np.abs(level * 1.0 - 0)[inside].mean()


def answer(agreement=1.0, is_empty=False):
    mask = np.full((2, 3), not is_empty)
    return Answer(0, mask, mask, agreement, 0.756, mask)


def test_figures():
    bars = pose_bars(Pose(1, (0.05, 0.9, 0.03, 0.02)))
    assert bars.count('class="bar') == 4 and bars.count("chosen") == 1
    assert 'chosen"><span class="name">90°' in bars and "90.0 %" in bars
    assert pose_chart(Pose(1, (0.05, 0.9, 0.03, 0.02))) == bars
    pose = Pose(Turn.by(30), pointwise(SO2, Turn.by(30)), probability=0.9)
    ring = pose_chart(pose)
    assert ring.count('class="arc') == 72 and ring.count("arc chosen") == 5  # within 10 degrees
    assert ">30.0°<" in ring and "90.0 % within 10°" in ring
    assert "nothing is asked" in table({})
    html = table({90.0: (0.9999, 1.0), 15.0: (0.5, 0.25)})
    assert html.index("15°") < html.index("90°")
    # 1.000 is kept for masks that are the same.
    assert "<td>0.999</td>" in html and html.count("1.000") == 1


def test_scores_say_agreement_and_never_green_but_for_right_poses():
    for kind in (RIGHT, WRONG, UNCERTAIN, UNKNOWN):
        html = score("3. Canonicalized SAM", kind, (answer(), answer(0.5)))
        assert f'class="figure {kind}"' in html and "agreement 0.750" in html
        assert "predicted IoU 0.76" in html and "IoU 0.750" not in html
    assert "empty mask" in score("2. Plain SAM", "plain", (answer(is_empty=True),))
    assert ">agreement" not in score("2. Plain SAM", "plain", (answer(is_empty=True),))
    some = score("2. Plain SAM", "plain", (answer(), answer(is_empty=True)))
    assert "1 of 2 masks empty" in some
    greenish = [kind for kind, (r, g, b) in COLORS.items() if g > max(r, b)]
    assert greenish == [RIGHT]


def test_verdicts_in_words():
    pose = Pose(2, (0.1, 0.2, 0.6, 0.1))
    assert "180° (60 %)" in verdict(RIGHT, pose, 180) and "right" in verdict(RIGHT, pose, 180)
    assert "wrong" in verdict(WRONG, pose, 90) and "turned by 90°" in verdict(WRONG, pose, 90)
    assert "UNCERTAIN vote" in verdict(UNCERTAIN, pose, 90)
    assert "right" not in verdict(UNKNOWN, pose, 90).replace("upright", "")


def test_names_of_objects_are_text():
    html = chips(Objects().named("<script>").added())
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert html.count('aria-pressed="true"') == 1 and 'data-index="1" aria-pressed="true"' in html


def test_pose_is_that_of_the_turned_photograph(turner):
    poses = [pose_of(turner.open(IMAGE, 90 * turns)).turns for turns in range(4)]
    assert [(pose - poses[0]) % 4 for pose in poses] == [0, 1, 2, 3]


def test_checkpoints_by_flag(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "build_official_sam", lambda size: tiny_sam())
    path = tmp_path / "sam.pth"
    wanted = {name: value + 1 for name, value in tiny_sam().state_dict().items()}
    torch.save(wanted, path)
    turner = app.build_turner(
        app.parse_arguments(
            ["--sam-checkpoint", str(path), "--sam-size", "vit_b", "--device", "cpu"]
        )
    )
    assert turner.multimask and not turner.sam.training
    assert all(torch.equal(turner.sam.state_dict()[name], wanted[name]) for name in wanted)
    session = turner.open(IMAGE, 90, ObjectPrompt(points=((20, 11, 1),)))
    assert turner.compare(session)[2][0].agreement == 1
    torch.save([1, 2], path)
    for arguments, message in [
        (["--sam-checkpoint", str(path), "--sam-size", "vit_b"], "holds no weights"),
        (["--sam-checkpoint", "none.pth", "--sam-size", "vit_b"], "none.pth"),
        (["--canonicalizer", str(path)], "no canonicalizer's weights file"),
    ]:
        with pytest.raises(InputError, match=message):
            app.build_turner(app.parse_arguments(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sam-size", "vit_b"], "belong together"),
        (["--max-side", "10"], "--max-side is 10; give at least 64"),
        (["--max-megapixels", "nan"], "--max-megapixels is nan"),
        (["--port", "0"], "--port is 0"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        app.check_arguments(app.parse_arguments(arguments))


# The page in a browser ---------------------------------------------------------------------------

# Runs the script given as its first argument; whoever connects to another machine ends it.
OFFLINE = """
import os, runpy, sys
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None):
        os.write(2, f"asked for another machine: {host}\\n".encode())
        os._exit(3)
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_spec("gradio") is None:
        missing("the page needs gradio: pip install gradio")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                OFFLINE,
                SCRIPT,
                "--port",
                str(port),
                "--max-upload",
                "1",
                "--device",
                "cpu",
                "--any-angle",
                str(circle_file(folder)),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "cache")},
        )
    try:
        wait(lambda: process.poll() is not None or answers(port), folder / "log.txt", 240)
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield f"http://127.0.0.1:{port}"
        log = (folder / "log.txt").read_text()
        assert process.poll() is None and "Traceback" not in log, log
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    """A browser for all tests: it takes seconds to start."""
    webdriver = need("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        missing("no Chromium; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "hide-scrollbars",
        "window-size=1400,1200",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(chrome):
    """The browser with a new tab, and nothing in its logs."""
    first = chrome.current_window_handle
    chrome.switch_to.new_window("tab")
    for kind in ("browser", "performance"):
        chrome.get_log(kind)
    yield chrome
    for handle in chrome.window_handles:
        if handle != first:
            chrome.switch_to.window(handle)
            chrome.close()
    chrome.switch_to.window(first)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(condition, what, seconds=90):
    """The first true value of ``condition()``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for {what}")


class Page:
    """What a visitor sees and does."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, selector):
        found = self.browser.find_elements("css selector", selector)
        return found[0] if found else None

    def read(self, expression, *args):
        """A JavaScript expression's value; in one step, as the page may change between two."""
        return self.browser.execute_script(f"return {expression}", *args)

    def text(self, selector):
        return self.read("document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def source(self, name):
        return self.read("document.querySelector(arguments[0])?.src", f"#{name} img")

    def agreement(self):
        """What the canonicalized way is said to reach, and the pose's kind, which is its colour."""
        return self.text("#canonical-score .figure"), self.read(
            "document.querySelector('#canonical-score .figure')?.classList[1]"
        )

    def angles(self):
        """The columns of the table, from angle to (plain, canonicalized)."""
        rows = self.read(
            "[...document.querySelectorAll('#visited tr')]"
            ".map(row => [...row.cells].map(cell => cell.innerText))"
        )
        return {angle: values for angle, *values in zip(*(row[1:] for row in rows))}

    def await_angles(self, *angles):
        return wait(lambda: self.angles() if set(self.angles()) == set(angles) else None, angles)

    def press(self, selector):
        self.browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center'})", self.find(selector)
        )
        self.find(selector).click()

    def after(self, act, name="photo"):
        """Do something, and wait until that picture is another one."""
        before = self.source(name)
        act()
        wait(lambda: self.source(name) not in (None, before), f"another picture {name}")

    def pointer(self, right, down):
        """A pointer over the photo, at these fractions of its half size from its centre."""
        from selenium.webdriver import ActionChains

        image = self.find("#photo img")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        x, y = image.size["width"] / 2 * right, image.size["height"] / 2 * down
        return ActionChains(self.browser).move_to_element_with_offset(image, int(x), int(y)), image

    def click_photo(self, right, down):
        self.pointer(right, down)[0].click().perform()

    def drag_photo(self, start, end):
        chain, image = self.pointer(*start)
        width, height = image.size["width"] / 2, image.size["height"] / 2
        x, y = int(width * (end[0] - start[0])), int(height * (end[1] - start[1]))
        chain.click_and_hold().move_by_offset(x // 2, y // 2).move_by_offset(x - x // 2, y - y // 2)
        chain.release().perform()

    def send(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def upload(self, path):
        wait(lambda: self.find("#upload input[type=file]"), "uploads").send_keys(str(path))

    def write(self, selector, text):
        from selenium.webdriver.common.keys import Keys

        field = self.find(f"{selector} input, {selector} textarea")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)

    def await_message(self, part):
        return wait(lambda: part in self.text(".toast-wrap"), part)

    def close_messages(self):
        self.browser.execute_script(
            "document.querySelectorAll('.toast-close').forEach(button => button.click())"
        )
        wait(lambda: not self.text(".toast-wrap"), "messages closed")

    def open(self, server, width, height):
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.browser.get(server)
        self.await_angles("90°")

    def check_nothing_went_wrong(self, server):
        errors = [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors
        assert all(url.startswith((server, "data:", "blob:")) for url in urls(self.browser))


def test_page_in_the_browser(server, browser, tmp_path):
    page = Page(browser)
    page.open(server, 1400, 1200)
    # A sample with a box, turned by 90 degrees, is there from the start.
    assert page.angles()["90°"][1] == "1.000"
    for degrees in (180, 270, 0):
        page.press(f"#turn-{degrees}")
        wait(lambda: f"{degrees}°" in page.angles(), degrees)
    page.press("#turn-90")
    wait(lambda: "90°" in page.text("#poses .chosen"), "pose 90")
    seen = page.await_angles("0°", "90°", "180°", "270°")
    assert all(canonical == "1.000" for _, canonical in seen.values())
    assert seen["0°"][0] == "1.000" and any(plain != "1.000" for plain, _ in seen.values())
    assert page.agreement() == ("agreement 1.000", RIGHT)
    assert "predicted IoU" in page.text("#canonical-score")
    save_screenshot(browser, tmp_path)

    # The other canonicalizer: a ring for its angles, and quarter turns are exact behind it too.
    assert page.find("#poses .bar") and not page.find("#poses .ring")
    page.press("#switch label:nth-of-type(2)")
    wait(lambda: page.find("#poses .ring"), "a ring")
    assert page.read("document.querySelectorAll('#poses .arc').length") == 72
    assert page.await_angles("90°")["90°"][1] == "1.000"
    page.press("#turn-180")
    assert page.await_angles("90°", "180°")["180°"][1] == "1.000"
    page.press("#switch label:nth-of-type(1)")
    wait(lambda: page.find("#poses .bar"), "bars")
    page.press("#turn-90")
    page.await_angles("90°", "180°")

    # Another visitor at the same time.
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(server)
    page.await_angles("90°")
    browser.switch_to.window(first)

    # A sample that has no up.
    page.after(lambda: page.press("#samples .gallery-item:last-child button"))
    wait(lambda: page.agreement()[1] == UNCERTAIN, "an uncertain pose")
    assert "uncertain" in page.text("#verdict") and "UNCERTAIN vote" in page.text("#verdict")

    photo = tmp_path / "mine.png"
    scene, _ = make_scene(np.random.default_rng([7, 3]))
    Image.fromarray(scene).save(photo)
    page.after(lambda: page.upload(photo))
    wait(lambda: not page.angles(), "the photo uploaded")

    page.after(lambda: page.click_photo(0.1, 0.3))
    assert page.await_angles("90°")["90°"][1] == "1.000"
    assert page.agreement()[1] in (UNKNOWN, UNCERTAIN)  # nobody knows whether it is upright

    # Bad angles and bad files are answered in words, and nothing on the page is lost.
    before = page.source("photo")
    typed = "document.querySelector('#typed input, #typed textarea').value"
    page.write("#typed", "a lot")
    page.await_message("the angle is 'a lot'; give a number of degrees")
    page.write("#typed", "37.5")
    assert "37.5°" in wait(lambda: "37.5°" in page.angles() and page.angles(), "37.5")
    page.press("#turn-180")
    wait(lambda: page.read(typed) == "180", "180")
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    page.upload(bad)
    page.await_message("bad.png: is not an image")
    page.check_nothing_went_wrong(server)
    large = tmp_path / "large.png"  # refused while it is sent, which shows in the console
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    Image.fromarray(noise).save(large)
    page.upload(large)
    page.await_message("exceed the maximum allowed size")
    assert page.source("photo") == before and set(page.angles()) == {"90°", "180°", "37.5°"}


def test_page_with_several_objects_and_files(server, browser, tmp_path):
    page = Page(browser)
    page.open(server, 1400, 1200)
    page.after(lambda: page.press("#samples .gallery-item:nth-child(2) button"))
    page.after(lambda: page.press("#clear"))
    wait(lambda: not page.angles(), "nothing asked")
    page.after(lambda: page.click_photo(0.1, 0.3))
    assert page.await_angles("90°")["90°"][1] == "1.000"
    page.press("#tool label:nth-of-type(2)")
    page.after(lambda: page.click_photo(-0.8, -0.8))
    wait(lambda: "point_labels=np.array([1, 0])" in page.text("#code"), "two clicks")
    page.after(lambda: page.press("#undo"))
    wait(lambda: "point_labels=np.array([1])" in page.text("#code"), "one click again")
    page.press("#turn-180")
    assert page.await_angles("90°", "180°")["180°"][1] == "1.000"

    # A second object, by a dragged box, with a name, and one of three masks.
    page.press("#add")
    wait(lambda: page.read("document.querySelectorAll('.chip').length") == 2, "two objects")
    page.after(lambda: page.drag_photo((-0.4, -0.2), (0.5, 0.5)))
    wait(lambda: "box=np.array" in page.text("#code").partition("# Object 2")[2], "the box")
    page.write("#name", "a house")
    wait(lambda: "a house" in page.text("#objects"), "the name")
    page.after(lambda: page.press("#choice label:nth-of-type(3)"))
    wait(lambda: "mask = masks[1]" in page.text("#code"), "the second mask")
    assert page.await_angles("180°")["180°"][1] == "1.000"
    page.press(".chip:first-child")
    wait(lambda: page.text(".chip[aria-pressed=true]") == "Object 1", "the first object")

    # Files, with what is on the page.
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    for kind, name in (
        ("masks", "masks.png"),
        ("cutout", "cutout.png"),
        ("coco", "coco.json"),
        ("upright", "upright.png"),
    ):
        page.press(f"#get-{kind}")
        wait((tmp_path / name).is_file, name)
    # The second object, which lies on the first one.
    assert np.asarray(Image.open(tmp_path / "masks.png")).max() == 2
    assert Image.open(tmp_path / "cutout.png").mode == "RGBA"
    names = [one["name"] for one in json.loads((tmp_path / "coco.json").read_text())["categories"]]
    assert names == ["Object 1", "a house"]
    upright = np.asarray(Image.open(tmp_path / "upright.png"))
    sample = load_samples()[1].image
    assert any(np.array_equal(upright, np.rot90(sample, turns)) for turns in range(4))

    page.after(lambda: page.press("#clear"))
    wait(lambda: not page.angles(), "nothing asked")
    page.press("#get-masks")
    page.await_message("there is no mask yet")
    need("skimage")
    page.after(lambda: page.press("#everything"), "canonical")
    wait(lambda: "Everything:" in page.text("#canonical-score"), "everything")
    page.check_nothing_went_wrong(server)


def test_page_on_a_telephone(server, browser):
    page = Page(browser)
    page.open(server, 380, 800)
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.read(widths) == [380, 380]
    for name in ("photo", "plain", "canonical", "upright"):
        picture = f"document.querySelector('#{name} img')"
        browser.execute_script(f"{picture}.scrollIntoView()")  # some are loaded only then
        wait(lambda picture=picture: page.read(f"{picture}.naturalWidth"), name)
    for selector in ("#photo img", "#plain img", "#canonical img", "#get-masks", "#everything"):
        left, right = page.read(
            "(box => [box.left, box.right])"
            "(document.querySelector(arguments[0]).getBoundingClientRect())",
            selector,
        )
        assert 0 <= left < right <= 380, selector
        assert right - left > (100 if selector == "#get-masks" else 240), selector
    seen = page.read("document.querySelectorAll('#samples .gallery-item').length")
    last = page.read(
        "document.querySelector('#samples .gallery-item:last-child').getBoundingClientRect().bottom"
        " - document.querySelector('#samples').getBoundingClientRect().bottom"
    )
    assert seen >= 3 and last <= 0
    page.after(lambda: page.click_photo(0.5, -0.3))
    page.after(lambda: page.drag_photo((-0.5, -0.5), (0.5, 0.5)))
    wait(lambda: page.agreement()[0] == "agreement 1.000", "a mask")
    page.press("#switch label:nth-of-type(2)")
    wait(lambda: page.find("#poses .ring"), "a ring")
    left, right = page.read(
        "(box => [box.left, box.right])"
        "(document.querySelector('#poses .ring').getBoundingClientRect())"
    )
    assert 0 <= left < right <= 380 and right - left > 150 and page.read(widths) == [380, 380]
    # Zoomed in, the photo scrolls in its frame, and the page is no wider.
    page.press("#photo .zoom")
    frame = "(f => f.scrollWidth / f.clientWidth)(document.querySelector('#photo .frame'))"
    assert wait(lambda: page.read(frame) > 1.4, "zoom") and page.read(widths) == [380, 380]
    page.press("#photo .zoom:last-child")
    wait(lambda: page.read(frame) == 1, "all of it")
    page.check_nothing_went_wrong(server)


def test_page_by_keyboard(server, browser):
    from selenium.webdriver.common.keys import Keys

    page = Page(browser)
    page.open(server, 1000, 900)
    page.press("#clear")
    wait(lambda: not page.angles(), "nothing asked")
    # The photo is reached from the page's buttons before it by the tabulator.
    page.browser.execute_script("document.querySelector('#turn-270').focus()")
    focused = "document.activeElement.className"
    for _ in range(8):
        page.send(Keys.TAB)
        if page.read(focused) == "frame":
            break
    assert page.read(focused) == "frame"
    page.send(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.read("document.querySelector('#photo .cross').hidden") is False
    page.after(lambda: page.send(Keys.ENTER))
    assert page.await_angles("90°")["90°"][1] == "1.000"
    assert page.read(focused) == "frame"  # still there, to go on
    page.after(lambda: page.send("b"))
    page.send(*[Keys.ARROW_LEFT] * 20, *[Keys.ARROW_DOWN] * 20)
    page.after(lambda: page.send("b"))
    wait(lambda: "box=np.array" in page.text("#code"), "a box")
    page.after(lambda: page.send("u"))
    page.after(lambda: page.send("u"))
    wait(lambda: "box=" not in page.text("#code"), "no box")
    page.send("+")
    zoomed = "document.querySelector('#photo .sheet').style.width"
    assert page.read(zoomed) == "150%"
    page.send("0")
    assert page.read(zoomed) == "100%"
    page.browser.execute_script("document.querySelector('#turn-180').focus()")
    page.send(Keys.ENTER)
    page.await_angles("90°", "180°")
    page.browser.execute_script("document.querySelector('#angle input[type=range]').focus()")
    page.send(Keys.ARROW_RIGHT)
    page.await_angles("90°", "180°", "181°")
    page.check_nothing_went_wrong(server)


def save_screenshot(browser, tmp_path):
    folder = Path(os.environ.get(SCREENSHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(1)  # pictures are still being faded in
    browser.execute_script("window.scrollTo(0, 0)")
    height = browser.execute_script("return document.documentElement.scrollHeight")
    size = {"width": 1400, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "height": height})
    time.sleep(1)
    assert browser.save_screenshot(str(folder / "app.png"))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "height": 1200})


def urls(browser):
    """Everything that web pages asked the network for; not what Chromium's own pages did."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked if url.startswith(("http", "ws"))]
