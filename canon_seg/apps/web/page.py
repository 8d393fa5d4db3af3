"""Build the Gradio page; turning.py computes for it, and pictures.py draws.

Each visitor's :class:`canon_seg.apps.web.turning.Session` lives in a ``gr.State``; the models are
shared. All events stand in one queue of one worker, so that neither a visitor's session nor the
machine's memory is worked on twice at once.
"""

import html
import tempfile
from functools import partial, wraps

import gradio as gr

from canon_seg.apps.web import stage
from canon_seg.apps.web.downloads import (
    named_masks,
    python_lines,
    write_coco,
    write_cutout,
    write_masks,
    write_upright,
)
from canon_seg.apps.web.objects import BOX, CHOICES, TOOLS
from canon_seg.apps.web.pictures import (
    COLORS,
    chips,
    draw_answers,
    draw_everything,
    draw_level,
    draw_stage,
    pose_chart,
    score,
    table,
    verdict,
)
from canon_seg.apps.web.samples import read_upload
from canon_seg.apps.web.turning import canonical_photo, pose_of
from canon_seg.errors import InputError

FIRST_ANGLE = 90
FORGET_AFTER = 3600  # s: idle sessions and files
MAX_WAITING = 32  # events; more are refused
_REFUSED = "That didn't work"

_INTRO = """# Turn a photo, keep the mask
**Pick a photo, click an object or drag a box, turn the photo.** Segment Anything's mask changes
with the angle (2). Behind a *canonicalizer*, a small network that finds which way is up, it does
not (3): the photo is turned upright, segmented, and the mask turned back, equal in every pixel at
every quarter turn."""
_NOTES = """**Filled**: the mask found in the turned photo. **Dashed**: the mask found in the photo
as it was given, turned along. **Agreement with the unturned photo**: the overlap of these two;
1.000 means the same in every pixel. It does not say that the mask is right: look at it, and at the
model's own estimate beside it (*predicted IoU*). Quarter turns move pixels and do nothing else to
them. At other angles the photo is resampled, and a box grows to the upright box around the turned
one. A canonicalizer of quarter turns leaves the tilt as it is; one of any angle, where the switch
offers it, undoes it too, by one interpolation there and one back. **Yellow line**: level, by the
angle found, with a tick upwards. Downloads and Python lines are of the turned photo (3). Uploads
are kept for an hour at most."""

_CSS = """
.gradio-container { max-width: 1360px !important; margin: 0 auto !important; }
#samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(90px, 1fr)) !important; }
#samples .grid-wrap { overflow: hidden; }
#angle input[type=number], #angle .reset-button { display: none; }
.score { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center;
  min-height: 4rem; gap: .1rem .5rem; font-weight: 600; font-size: 1.05rem; }
.score .figure { padding: .1rem .7rem; border-radius: 1rem; color: white; font-weight: 700;
  font-variant-numeric: tabular-nums; font-size: .95rem; }
.score .predicted { font-weight: 400; font-size: .85rem; opacity: .8;
  font-variant-numeric: tabular-nums; }
COLORED
.verdict { margin: .3rem 0 !important; padding: .3rem .6rem; border-left: 4px solid; }
.chips { display: flex; flex-wrap: wrap; gap: .35rem; }
.chip { display: inline-flex; align-items: center; gap: .4rem; padding: .25rem .7rem;
  border: 2px solid transparent; border-radius: 1rem; cursor: pointer;
  background: var(--button-secondary-background-fill); overflow-wrap: anywhere; }
.chip[aria-pressed=true] { border-color: currentColor; font-weight: 700; }
.chip .dot { width: .9rem; height: .9rem; border-radius: 50%; flex: none; }
.bar { display: flex; align-items: center; gap: .6rem; margin: .35rem 0;
  font-variant-numeric: tabular-nums; }
.bar .name { width: 3rem; text-align: right; }
.bar .track { flex: 1; height: 1rem; border-radius: .5rem; overflow: hidden;
  background: var(--border-color-primary); }
.bar .fill { display: block; height: 100%; background: #94a3b8; }
.bar .value { width: 4.2rem; text-align: right; }
.bar.chosen { font-weight: 700; }
.bar.chosen .fill { background: #475569; }
.ring { display: block; width: 100%; max-width: 260px; margin: 0 auto; }
.ring circle { fill: none; stroke: var(--border-color-primary); }
.ring .arc { fill: #94a3b8; }
.ring .arc.chosen { fill: #475569; }
.ring line { stroke: currentColor; stroke-width: 3; }
.ring text { fill: currentColor; text-anchor: middle; dominant-baseline: middle; font-size: 13px;
  font-variant-numeric: tabular-nums; }
.ring .found { font-weight: 700; font-size: 16px; }
.near { text-align: center; margin: 0 !important; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.wide table { width: auto !important; border: 0 !important; font-variant-numeric: tabular-nums; }
.wide tr { border: 0 !important; }
.wide th, .wide td { padding: .25rem .4rem !important; text-align: right; border: 0 !important; }
.wide tr + tr th { text-align: left; }
#notes { opacity: .8; font-size: .9rem; }
#file { position: absolute; left: -9999px; }
""".replace(
    "COLORED",
    "\n".join(
        f".figure.{kind} {{ background: rgb{color}; }}\n"
        f".verdict.{kind} {{ border-color: rgb{color}; }}"
        for kind, color in COLORS.items()
    ),
)

# Gradio puts its own root before all that is given as css, where these rules mean what is above it.
_HEAD = """<style>
@media (max-width: 640px) {
  .gradio-container, .gradio-container .main, .gradio-container .main > .wrap {
    min-width: 0 !important; max-width: 100vw !important; width: 100% !important; }
  .gradio-container .main { padding: .5rem !important; box-sizing: border-box; }
  .gradio-container .row { flex-wrap: wrap !important; }
  .gradio-container .row > * { min-width: 0 !important; }
  #samples, #upload, #way-1, #way-2, #way-3, .row > .form {
    flex: 1 1 100% !important; min-width: 100% !important; }
  #samples, #samples .gallery-container, #samples .grid-wrap {
    height: auto !important; max-height: none !important; }
  [id^="turn-"] { flex: 1 1 20% !important; min-height: 2.6rem; }
  [id^="get-"] { flex: 1 1 45% !important; }
}
</style>"""

_CHIPS_JS = """
element.addEventListener('click', (event) => {
  const chip = event.target.closest('.chip');
  if (chip) trigger('select', {index: Number(chip.dataset.index)});
});
"""


def build_page(turner, samples, limits):
    """Build the page as ``gr.Blocks``.

    Args:
        turner: :class:`canon_seg.apps.web.turning.Turner`.
        samples: list of :class:`canon_seg.apps.web.samples.Sample`; the first is shown first.
        limits: :class:`canon_seg.apps.web.samples.Limits` of uploads.
    """
    with gr.Blocks(
        title="canon_seg", analytics_enabled=False, delete_cache=(FORGET_AFTER, FORGET_AFTER)
    ) as page:
        state = gr.State(None, time_to_live=FORGET_AFTER)
        gr.Markdown(_INTRO, elem_id="intro")
        with gr.Row():
            gallery = gr.Gallery(
                [(sample.image, sample.name) for sample in samples],
                show_label=False,
                columns=max(6, len(samples)),
                rows=1,
                height=130,
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                scale=3,
                elem_id="samples",
            )
            upload = gr.File(
                label="or upload a photo",
                file_types=["image"],
                height=130,
                scale=1,
                elem_id="upload",
            )
        with gr.Row(equal_height=True):
            angle = gr.Slider(
                0,
                360,
                FIRST_ANGLE,
                step=1,
                label="Turn the photo (degrees counterclockwise)",
                buttons=[],
                scale=3,
                elem_id="angle",
            )
            typed = gr.Textbox(
                str(FIRST_ANGLE),
                label="Angle",
                max_lines=1,
                max_length=20,
                scale=0,
                min_width=90,
                elem_id="typed",
            )
            quarters = [
                gr.Button(f"{degrees}°", scale=0, min_width=70, elem_id=f"turn-{degrees}")
                for degrees in (0, 90, 180, 270)
            ]
        with gr.Row():
            with gr.Column(min_width=300, elem_id="way-1"):
                gr.HTML(score("1. The photo: click here, or drag", "plain", ()))
                photo = gr.HTML(
                    "",
                    html_template=stage.HTML,
                    css_template=stage.CSS,
                    js_on_load=stage.JS,
                    elem_id="photo",
                )
                tool = gr.Radio(TOOLS, value=TOOLS[0], label="A click marks", elem_id="tool")
                things = gr.HTML("", js_on_load=_CHIPS_JS, elem_id="objects")
                with gr.Row():
                    adding = gr.Button("New object", size="sm", min_width=90, elem_id="add")
                    undoing = gr.Button("Undo", size="sm", min_width=70, elem_id="undo")
                    clearing = gr.Button("Clear", size="sm", min_width=70, elem_id="clear")
                name = gr.Textbox(
                    label="Name of the object", max_lines=1, max_length=40, elem_id="name"
                )
                choice = gr.Radio(
                    CHOICES, value=CHOICES[0], label="Which of SAM's three masks", elem_id="choice"
                )
                everything = gr.Button("Find everything", elem_id="everything")
                gr.Markdown(f"<small>{stage.HINT}</small>", elem_id="hint")
            with gr.Column(min_width=300, elem_id="way-2"):
                plain_score = gr.HTML(elem_id="plain-score")
                plain = _picture("plain")
                gr.Markdown("#### Agreement with the unturned photo, at each angle")
                visited = gr.HTML(elem_id="visited")
                gr.Markdown("#### The same in Python")
                code = gr.Code(
                    language="python", show_label=False, interactive=False, elem_id="code"
                )
            with gr.Column(min_width=300, elem_id="way-3"):
                canonical_score = gr.HTML(elem_id="canonical-score")
                canonical = _picture("canonical")
                switch = gr.Radio(
                    list(turner.canonicalizers),
                    value=next(iter(turner.canonicalizers)),
                    label="The canonicalizer finds",
                    visible=len(turner.canonicalizers) > 1,
                    elem_id="switch",
                )
                gr.Markdown("#### Pose that the canonicalizer finds")
                said = gr.HTML(elem_id="verdict")
                poses = gr.HTML(elem_id="poses")
                gr.Markdown("#### The photo as the segmenter sees it")
                upright = _picture("upright", 260)
        with gr.Row():
            downloads = {
                kind: gr.Button(label, min_width=140, elem_id=f"get-{kind}")
                for kind, label in (
                    ("masks", "Mask (PNG)"),
                    ("cutout", "Cut-out (PNG)"),
                    ("coco", "COCO (JSON)"),
                    ("upright", "Upright photo (PNG)"),
                )
            }
        file = gr.DownloadButton("File", elem_id="file")
        gr.Markdown(_NOTES, elem_id="notes")

        shown = [
            *(state, photo, plain, canonical, plain_score, canonical_score, said, poses, upright),
            *(visited, things, name, choice, code, typed, angle),
        ]

        def show(session):
            """Return the values of ``shown``."""
            session, by_plain, by_canonical = turner.compare(session)
            objects, turned = session.objects, session.turned
            kind = turner.judge(session)
            if session.everything is None:
                canonical_picture = draw_answers(turned.image, session, by_canonical)
                title, answers = "3. Canonicalized SAM", by_canonical
            else:
                canonical_picture = draw_everything(turned.image, session.everything)
                title, answers = f"3. Everything: {len(session.everything)} masks", ()
            masks = {answer.index: answer.upright for answer in by_canonical}
            return (
                session,
                stage.address(draw_stage(session.upright.image, objects, masks)),
                draw_answers(turned.image, session, by_plain),
                draw_level(canonical_picture, pose_of(session)),
                score("2. Plain SAM", "plain", by_plain),
                score(title, kind, answers),
                verdict(kind, pose_of(session), turned.degrees),
                pose_chart(pose_of(session)),
                canonical_photo(session),
                table(session.visited),
                chips(objects),
                objects.current.name,
                objects.current.choice,
                python_lines(turner, session),
                f"{turned.degrees:g}",
                turned.degrees,
            )

        def stepped(session, step):
            """Show the session after a step of its objects."""
            session = _present(session)
            return show(session.with_objects(step(session.objects)))

        @_warn(shown)
        def on_load(degrees, way):
            return show(open_sample(samples[0], degrees, way))

        @_warn(shown)
        def on_sample(degrees, way, event: gr.SelectData):
            return show(open_sample(samples[event.index], degrees, way))

        def open_sample(sample, degrees, way):
            return turner.open(sample.image, degrees, sample.prompt, sample.is_upright, way)

        @_warn(shown)
        def on_upload(path, degrees, way):
            return show(turner.open(read_upload(path, limits), degrees, way=way))

        @_warn(shown)
        def on_switch(session, way):
            return show(turner.switch(_present(session), way))

        @_warn(shown)
        def on_turn(session, degrees):
            return show(turner.turn(_present(session), degrees))

        @_warn(shown)
        def on_stage(session, kind, event: gr.EventData):
            height, width = size = _present(session).upright.image.shape[:2]
            data = event._data if isinstance(event._data, dict) else {}
            action = data.get("action")
            if action == "undo":
                return stepped(session, lambda objects: objects.undone())
            x, y = _scaled(data, "x", width), _scaled(data, "y", height)
            if action == "box":
                x1, y1 = _scaled(data, "x1", width), _scaled(data, "y1", height)
                return stepped(session, lambda objects: objects.boxed(x, y, x1, y1, size))
            kind = BOX if action == "corner" else kind
            return stepped(session, lambda objects: objects.clicked(kind, x, y, size))

        @_warn(shown)
        def on_chip(session, event: gr.EventData):
            index = event._data.get("index") if isinstance(event._data, dict) else None
            return stepped(session, lambda objects: objects.switched(index))

        @_warn(shown)
        def on_name(session, text):
            return stepped(session, lambda objects: objects.named(text))

        @_warn(shown)
        def on_choice(session, chosen):
            return stepped(session, lambda objects: objects.chosen(chosen))

        @_warn(shown)
        def on_everything(session):
            return show(turner.find_everything(_present(session)))

        def step_of(step):
            return _warn(shown)(lambda session: stepped(session, step))

        def write(kind):
            def on_download(session):
                try:
                    session, _, answers = turner.compare(_present(session))
                    folder = tempfile.mkdtemp(dir=page.GRADIO_CACHE)
                    if kind == "upright":
                        return str(write_upright(folder, session))
                    masks = named_masks(session, answers)
                    if kind == "masks":
                        return str(write_masks(folder, masks))
                    writer = {"cutout": write_cutout, "coco": write_coco}[kind]
                    return str(writer(folder, session, masks))
                except InputError as error:  # an error, so that no file is taken after it
                    raise gr.Error(
                        html.escape(str(error)), title=_REFUSED, print_exception=False
                    ) from error

            return on_download

        def listen(event, handler, inputs, outputs=shown, **options):
            return event(
                handler,
                inputs,
                outputs,
                concurrency_id="models",
                concurrency_limit=1,
                **{"show_progress": "minimal", "api_visibility": "private", **options},
            )

        listen(page.load, on_load, [angle, switch])
        listen(gallery.select, on_sample, [angle, switch])
        # Emptied in the browser, to take the next file.
        listen(upload.upload, on_upload, [upload, angle, switch]).then(
            None, None, upload, js="() => null", api_visibility="private"
        )
        listen(angle.input, on_turn, [state, angle], trigger_mode="always_last")
        listen(switch.input, on_switch, [state, switch])
        listen(typed.submit, on_turn, [state, typed])
        listen(photo.submit, on_stage, [state, tool], trigger_mode="multiple")
        listen(things.select, on_chip, [state])
        listen(adding.click, step_of(lambda objects: objects.added()), [state])
        listen(undoing.click, step_of(lambda objects: objects.undone()), [state])
        listen(clearing.click, step_of(lambda objects: objects.cleared()), [state])
        listen(name.submit, on_name, [state, name])
        listen(choice.input, on_choice, [state, choice])
        listen(everything.click, on_everything, [state], show_progress="full")
        for kind, button in downloads.items():
            # The file is made when it is asked for, and then taken as if its own link were clicked.
            listen(button.click, write(kind), [state], [file]).success(
                None, None, None, js=_TAKE_FILE, api_visibility="private"
            )
        for button, degrees in zip(quarters, (0, 90, 180, 270), strict=True):
            listen(button.click, partial(on_turn, degrees=degrees), [state])
    return page


_TAKE_FILE = """() => setTimeout(() => {
  const file = document.querySelector('#file');
  (file.matches('a, button') ? file : file.querySelector('a, button')).click();
}, 200)"""


def _scaled(data, key, size):
    """Return a fraction that the browser sent in pixels.

    Raises:
        InputError: if it is no number.
    """
    try:
        return float(data[key]) * size
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"click {data!r}: give numbers") from error


def launch(page, host, port, max_upload):
    """Serve the page, which asks nothing of other hosts, until it is interrupted.

    Args:
        page: what :func:`build_page` returned.
        host, port: to listen on.
        max_upload: size of an uploaded file in megabytes.
    """
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    page.queue(max_size=MAX_WAITING).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=f"{max_upload}mb",
        state_session_capacity=64,
        theme=gr.themes.Default(primary_hue="emerald", **fonts),
        css=_CSS,
        head=_HEAD,
    )
    print(f"serving http://{host}:{port}; Ctrl-C ends it", flush=True)
    page.block_thread()


def _picture(name, height=430):
    return gr.Image(
        interactive=False,
        show_label=False,
        buttons=[],
        height=height,
        elem_id=name,
        container=False,
    )


def _warn(outputs):
    """Make a handler answer bad input with a message, and leave ``outputs`` as they are."""

    def decorate(handler):
        @wraps(handler)
        def guarded(*args, **kwargs):
            try:
                return handler(*args, **kwargs)
            except InputError as error:
                gr.Warning(html.escape(str(error)), title=_REFUSED)
                return tuple(gr.skip() for _ in outputs)

        return guarded

    return decorate


def _present(session):
    if session is None:
        raise InputError("the page was left alone for too long; pick a photo again")
    return session
