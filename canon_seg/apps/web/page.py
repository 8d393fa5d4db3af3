"""Build the Gradio page; turning.py computes for it, and pictures.py draws.

Each visitor's :class:`canon_seg.apps.web.turning.Session` lives in a ``gr.State``; the models are
shared. All events stand in one queue of one worker, so that neither a visitor's session nor the
machine's memory is worked on twice at once.
"""

import html
from functools import wraps

import gradio as gr

from canon_seg.apps.drawing import zoom_factor
from canon_seg.apps.web.pictures import (
    CANONICAL,
    PLAIN,
    draw_answer,
    draw_prompt,
    pose_bars,
    score,
    table,
)
from canon_seg.apps.web.samples import read_upload
from canon_seg.apps.web.turning import TOOLS, clear, click, pose_of
from canon_seg.errors import InputError

FIRST_ANGLE = 90
FORGET_AFTER = 3600  # s: idle sessions and files
MAX_WAITING = 32  # events; more are refused

_INTRO = """# Turn a photo, keep the mask
**Pick a photo, click an object, turn the photo.** Segment Anything's mask changes with the angle
(2). Behind a *canonicalizer*, a small network that finds which way is up, it does not (3): the
photo is turned upright, segmented, and the mask turned back, equal in every pixel at every quarter
turn."""
_NOTES = """**Filled**: the mask found in the turned photo. **Dashed**: the mask found in the photo
as it was given, turned along. **IoU**: the overlap of these two; 1.000 means the same in every
pixel. Quarter turns move pixels and do nothing else to them. At other angles the photo is
resampled, a box grows to the upright box around the turned one, and the tilt is left as it is: the
canonicalizer knows quarter turns only. **A box** takes two clicks, on opposite corners. Uploads are
kept for an hour at most."""

_CSS = """
.gradio-container { max-width: 1360px !important; margin: 0 auto !important; }
#samples .grid-wrap { overflow: hidden; }
.score { display: flex; justify-content: space-between; align-items: center; min-height: 2.2rem;
  gap: .5rem; white-space: nowrap; font-weight: 600; font-size: 1.05rem; }
.score .iou { padding: .1rem .7rem; border-radius: 1rem; color: white; font-weight: 700;
  font-variant-numeric: tabular-nums; }
#plain-score .iou { background: rgb(PLAIN); }
#canonical-score .iou { background: rgb(CANONICAL); }
.bar { display: flex; align-items: center; gap: .6rem; margin: .35rem 0;
  font-variant-numeric: tabular-nums; }
.bar .name { width: 3rem; text-align: right; }
.bar .track { flex: 1; height: 1rem; border-radius: .5rem; overflow: hidden;
  background: var(--border-color-primary); }
.bar .fill { display: block; height: 100%; background: #94a3b8; }
.bar .value { width: 4.2rem; text-align: right; }
.bar.chosen { font-weight: 700; }
.bar.chosen .fill { background: rgb(CANONICAL); }
.wide { overflow-x: auto; }
.wide table { width: auto !important; border: 0 !important; font-variant-numeric: tabular-nums; }
.wide tr { border: 0 !important; }
.wide th, .wide td { padding: .25rem .4rem !important; text-align: right; border: 0 !important; }
.wide tr + tr th { text-align: left; }
.wide tr.plain td { color: rgb(PLAIN); font-weight: 600; }
.wide tr.canonicalized td { color: rgb(CANONICAL); font-weight: 600; }
#notes { opacity: .75; font-size: .9rem; }
""".replace("PLAIN", ",".join(map(str, PLAIN))).replace("CANONICAL", ",".join(map(str, CANONICAL)))


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
                height=160,
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
                height=160,
                scale=1,
                elem_id="upload",
            )
        with gr.Row(equal_height=True):
            angle = gr.Slider(
                0,
                360,
                FIRST_ANGLE,
                step=5,
                label="Turn the photo (degrees counterclockwise)",
                scale=3,
                elem_id="angle",
            )
            quarters = [
                gr.Button(f"{degrees}°", scale=0, min_width=80, elem_id=f"turn-{degrees}")
                for degrees in (0, 90, 180, 270)
            ]
        with gr.Row():
            with gr.Column():
                gr.HTML(score("1. The photo: click here", None))
                photo = _picture("photo")
                tool = gr.Radio(TOOLS, value=TOOLS[0], label="A click marks", elem_id="tool")
                clearing = gr.Button("Clear", size="sm", elem_id="clear")
            with gr.Column():
                plain_score = gr.HTML(elem_id="plain-score")
                plain = _picture("plain")
                gr.Markdown("#### How well the masks stay: IoU at each angle")
                visited = gr.HTML(elem_id="visited")
            with gr.Column():
                canonical_score = gr.HTML(elem_id="canonical-score")
                canonical = _picture("canonical")
                gr.Markdown("#### Pose that the canonicalizer finds")
                poses = gr.HTML(elem_id="poses")
        gr.Markdown(_NOTES, elem_id="notes")

        shown = [state, photo, plain, canonical, plain_score, canonical_score, poses, visited]

        def show(session):
            """Return the values of ``shown``."""
            session, by_plain, by_canonical = turner.compare(session)
            image, degrees = session.upright.image, session.turned.degrees
            prompt = session.prompt.turned(degrees, *image.shape[:2])
            return (
                session,
                draw_prompt(image, session.prompt, session.corner),
                draw_answer(session.turned.image, prompt, by_plain, PLAIN),
                draw_answer(session.turned.image, prompt, by_canonical, CANONICAL),
                score("2. Plain SAM", by_plain),
                score("3. Canonicalized SAM", by_canonical),
                pose_bars(pose_of(session)),
                table(session.visited),
            )

        @_warn(shown)
        def on_load(degrees):
            return show(turner.open(samples[0].image, degrees, samples[0].prompt))

        @_warn(shown)
        def on_sample(degrees, event: gr.SelectData):
            sample = samples[event.index]
            return show(turner.open(sample.image, degrees, sample.prompt))

        @_warn(shown)
        def on_upload(path, degrees):
            return show(turner.open(read_upload(path, limits), degrees))

        @_warn(shown)
        def on_turn(session, degrees):
            return show(turner.turn(_present(session), degrees))

        @_warn(shown)
        def on_click(session, kind, event: gr.SelectData):
            factor = zoom_factor(*_present(session).upright.image.shape[:2])
            x, y = event.index
            return show(click(session, kind, x / factor, y / factor))

        @_warn(shown)
        def on_clear(session):
            return show(clear(_present(session)))

        def listen(event, handler, inputs, **options):
            return event(
                handler,
                inputs,
                shown,
                concurrency_id="models",
                concurrency_limit=1,
                show_progress="minimal",
                api_visibility="private",
                **options,
            )

        listen(page.load, on_load, [angle])
        listen(gallery.select, on_sample, [angle])
        # Emptied in the browser, to take the next file.
        listen(upload.upload, on_upload, [upload, angle]).then(
            None, None, upload, js="() => null", api_visibility="private"
        )
        listen(angle.change, on_turn, [state, angle], trigger_mode="always_last")
        listen(photo.select, on_click, [state, tool], trigger_mode="multiple")
        listen(clearing.click, on_clear, [state])
        for button, degrees in zip(quarters, (0, 90, 180, 270), strict=True):
            # In the browser as well; the slider's change does the rest.
            button.click(None, None, angle, js=f"() => {degrees}", api_visibility="private")
    return page


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
    )
    print(f"serving http://{host}:{port}; Ctrl-C ends it", flush=True)
    page.block_thread()


def _picture(name):
    return gr.Image(
        interactive=False, show_label=False, buttons=[], height=430, elem_id=name, container=False
    )


def _warn(outputs):
    """Make a handler answer bad input with a message, and leave ``outputs`` as they are."""

    def decorate(handler):
        @wraps(handler)
        def guarded(*args, **kwargs):
            try:
                return handler(*args, **kwargs)
            except InputError as error:
                gr.Warning(html.escape(str(error)), title="That didn't work")
                return tuple(gr.skip() for _ in outputs)

        return guarded

    return decorate


def _present(session):
    if session is None:
        raise InputError("the page was left alone for too long; pick a photo again")
    return session
