import json
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from optional import missing, need
from PIL import Image
from tiny_models import random_canonicalizer, random_image

from canon_seg.apps.web.pictures import draw_answer, draw_prompt, pose_bars, table
from canon_seg.apps.web.samples import Limits, load_samples, read_upload
from canon_seg.apps.web.turning import (
    BACKGROUND,
    BOX,
    MAX_POINTS,
    OBJECT,
    ObjectPrompt,
    Turner,
    clear,
    click,
    pose_of,
)
from canon_seg.cli import app
from canon_seg.core.pose import Pose
from canon_seg.errors import InputError
from canon_seg.images.tilt import rotate_image
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
    plain_ious = []
    for turns in range(4):
        session = turner.turn(session, 90 * turns)
        assert (session.turned.image == np.rot90(IMAGE, turns)).all()
        session, plain, canonical = turner.compare(session)
        for answer, before in zip((plain, canonical), upright):
            assert (answer.expected == np.rot90(before.mask, turns)).all()
        assert canonical.iou == 1 and (canonical.mask == canonical.expected).all()
        plain_ious.append(plain.iou)
    assert 0 < np.count_nonzero(canonical.mask) < canonical.mask.size
    assert plain_ious[0] == 1 and min(plain_ious) < 1
    assert session.visited == {90.0 * i: (plain_ious[i], 1.0) for i in range(4)}


def test_other_angles(turner):
    session = turner.open(IMAGE, 30, ObjectPrompt(points=((20, 11, 1),)))
    session, plain, canonical = turner.compare(session)
    size = rotate_image(IMAGE, 30).shape[:2]
    assert plain.mask.shape == canonical.expected.shape == size
    assert 0 <= plain.iou <= 1 and 0 <= canonical.iou <= 1
    assert turner.turn(session, 360).turned is session.upright
    assert turner.turn(session, 390.0) is session
    for wrong in (float("nan"), None, "a lot"):
        with pytest.raises(InputError, match="angle"):
            turner.turn(session, wrong)


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


def test_clicks(turner):
    start = turner.open(IMAGE, 90)
    assert turner.compare(start) == (start, None, None)
    session = click(click(start, OBJECT, 3.7, 5), BACKGROUND, 55, 39)
    assert session.prompt == ObjectPrompt(points=((3, 5, 1), (55, 39, 0)))
    for corners in [((10, 30), (20, 4)), ((20, 4), (10, 30)), ((10, 4), (20, 30))]:
        half = click(session, BOX, *corners[0])
        assert half.corner == corners[0] and half.prompt == session.prompt
        whole = click(half, BOX, *corners[1])
        assert whole.corner is None and whole.prompt.box == (10, 4, 21, 31)
        assert whole.prompt.points == session.prompt.points
    assert click(click(session, BOX, 7, 7), BOX, 7, 7).prompt.box == (7, 7, 8, 8)
    assert click(click(session, BOX, 7, 7), OBJECT, 1, 1).corner is None
    # What was measured for other prompts says nothing of these.
    measured, *_ = turner.compare(whole)
    assert list(measured.visited) == [90] and not click(measured, OBJECT, 1, 1).visited
    assert not clear(measured).prompt and not clear(measured).visited
    assert not start.prompt and not start.visited  # sessions are never changed


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
def test_bad_clicks(turner, tool, x, y, message):
    with pytest.raises(InputError, match=message):
        click(turner.open(IMAGE, 0), tool, x, y)


def test_clicks_are_limited(turner):
    session = turner.open(IMAGE, 0)
    for i in range(MAX_POINTS):
        session = click(session, OBJECT, i, 0)
    with pytest.raises(InputError, match="clear them"):
        click(session, OBJECT, 0, 1)


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
    assert {"Street", "Meadow"} <= {sample.name for sample in samples}
    assert len(samples) == (2 if find_spec("skimage") is None else 6)
    for sample in (*samples, *load_samples(max_side=100)):
        height, width = sample.image.shape[:2]
        x0, y0, x1, y1 = sample.prompt.box
        assert sample.image.dtype == np.uint8 and sample.image.shape[2] == 3
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert max(max(sample.image.shape) for sample in load_samples(max_side=100)) == 100


def test_pictures(turner):
    prompt = ObjectPrompt(points=((20, 11, 1), (50, 3, 0)), box=(4, 6, 50, 31))
    session, plain, _ = turner.compare(turner.open(IMAGE, 90, prompt))
    turned = session.turned.image
    picture = draw_answer(turned, prompt.turned(90, HEIGHT, WIDTH), plain, (255, 0, 0))
    assert picture.shape == (WIDTH * 8, HEIGHT * 8, 3)  # enlarged to about 480 px
    alone = draw_answer(turned, ObjectPrompt(), None, (255, 0, 0))
    assert (alone == turned.repeat(8, 0).repeat(8, 1)).all() and (picture != alone).any()
    marked = draw_prompt(IMAGE, ObjectPrompt(points=((20, 11, 1),)), corner=(2, 3))
    for x, y in ((20, 11), (2, 3)):
        assert (marked[y * 8 + 4, x * 8 + 4] != IMAGE[y, x]).any()


def test_figures():
    bars = pose_bars(Pose(1, (0.05, 0.9, 0.03, 0.02)))
    assert bars.count('class="bar') == 4 and bars.count("chosen") == 1
    assert 'chosen"><span class="name">90°' in bars and "90.0 %" in bars
    assert "nothing is asked" in table({})
    html = table({90.0: (0.9999, 1.0), 15.0: (0.5, 0.25)})
    assert html.index("15°") < html.index("90°")
    # 1.000 is kept for masks that are the same.
    assert "<td>0.999</td>" in html and html.count("1.000") == 1


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
    assert turner.compare(session)[2].iou == 1
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
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GRADIO_TEMP_DIR": str(folder / "cache")},
        )
    try:
        wait(lambda: process.poll() is not None or answers(port), folder / "log.txt")
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield f"http://127.0.0.1:{port}"
        log = (folder / "log.txt").read_text()
        assert process.poll() is None and "Traceback" not in log, log
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def browser(tmp_path):
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
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


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

    def click_photo(self, right, down):
        """Click the photo at these fractions of its half width and height from its centre."""
        from selenium.webdriver import ActionChains

        image = self.find("#photo img")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        x, y = image.size["width"] / 2 * right, image.size["height"] / 2 * down
        ActionChains(self.browser).move_to_element_with_offset(
            image, int(x), int(y)
        ).click().perform()

    def upload(self, path):
        wait(lambda: self.find("#upload input[type=file]"), "uploads").send_keys(str(path))

    def await_message(self, part):
        return wait(lambda: part in self.text(".toast-wrap"), part)


def test_page_in_the_browser(server, browser, tmp_path):
    page = Page(browser)
    browser.get(server)
    # A sample with a box, turned by 90 degrees, is there from the start.
    assert page.await_angles("90°")["90°"][1] == "1.000"
    for degrees in (180, 270, 0):
        page.press(f"#turn-{degrees}")
        wait(lambda: f"{degrees}°" in page.angles(), degrees)
    page.press("#turn-90")
    wait(lambda: "90°" in page.text("#poses .chosen"), "pose 90")
    seen = page.await_angles("0°", "90°", "180°", "270°")
    assert all(canonical == "1.000" for _, canonical in seen.values())
    assert seen["0°"][0] == "1.000" and any(plain != "1.000" for plain, _ in seen.values())
    save_screenshot(browser, tmp_path)

    # Another visitor at the same time.
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(server)
    page.await_angles("90°")
    browser.switch_to.window(first)

    before = page.source("photo")
    photo = tmp_path / "mine.png"
    scene, _ = make_scene(np.random.default_rng([7, 3]))
    Image.fromarray(scene).save(photo)
    page.upload(photo)
    wait(lambda: page.source("photo") != before and not page.angles(), "the photo uploaded")

    bare = page.source("canonical")
    page.click_photo(0.1, 0.3)
    assert page.await_angles("90°")["90°"][1] == "1.000"
    assert wait(lambda: page.source("canonical") != bare, "a mask")
    page.press("#turn-180")
    assert page.await_angles("90°", "180°")["180°"][1] == "1.000"
    page.press("#clear")
    wait(lambda: not page.angles(), "nothing asked")
    page.press("#tool label:nth-of-type(3)")
    for corner in ((0.5, 0.5), (-0.4, -0.2)):
        before = page.source("photo")
        page.click_photo(*corner)
        wait(lambda: page.source("photo") != before, "a corner")
    assert page.await_angles("180°")["180°"][1] == "1.000"

    # Bad files are answered in words, and nothing on the page is lost.
    before = page.source("photo")
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    page.upload(bad)
    page.await_message("bad.png: is not an image")
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    large = tmp_path / "large.png"  # refused while it is sent, which shows in the console
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    Image.fromarray(noise).save(large)
    page.upload(large)
    page.await_message("exceed the maximum allowed size")
    assert page.source("photo") == before and list(page.angles()) == ["180°"]
    assert all(url.startswith(server) for url in urls(browser))


def save_screenshot(browser, tmp_path):
    folder = Path(os.environ.get(SCREENSHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(1)  # pictures are still being faded in
    browser.execute_script("window.scrollTo(0, 0)")
    height = browser.execute_script("return document.documentElement.scrollHeight")
    browser.set_window_size(1400, height + 145)  # what the window has around the page
    assert browser.save_screenshot(str(folder / "app.png"))


def urls(browser):
    """Everything that web pages asked the network for; not what Chromium's own pages did."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked if url.startswith(("http", "ws"))]
