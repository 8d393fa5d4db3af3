"""Hold the stage of the page: a picture to click, to draw boxes on, to zoom, and to use by keys.

Gradio's own images know clicks only. The stage sends one kind of event, ``submit``, with ``action``
"click" (``x``, ``y``), "box" (``x``, ``y``, ``x1``, ``y1``), "corner" (``x``, ``y``) or "undo";
coordinates are fractions of the picture's width and height. It shows the picture whose address is
its value.
"""

import base64
import io

from PIL import Image

HINT = """Click, or drag a box. Keys, once the photo is focused: arrows move the cross, Enter
clicks, B sets a corner of a box, U undoes, + and − zoom, 0 shows all."""

HTML = """
<div class="tools">
  <button type="button" class="zoom" data-zoom="1.5" aria-label="Zoom in">+</button>
  <button type="button" class="zoom" data-zoom="0.6667" aria-label="Zoom out">&minus;</button>
  <button type="button" class="zoom" data-zoom="0" aria-label="Show all">All</button>
</div>
<div class="frame" tabindex="0" role="application" aria-label="The photo. HINT">
  <div class="sheet">
    <img src="${value}" alt="The photo with its prompts and masks" draggable="false">
    <div class="rubber" hidden></div><div class="cross" hidden></div>
  </div>
</div>
""".replace("HINT", " ".join(HINT.split()))

CSS = """
.tools { display: flex; gap: .25rem; margin-bottom: .25rem; }
.zoom { min-width: 2.4rem; height: 2rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem; background: var(--button-secondary-background-fill); cursor: pointer; }
.frame { overflow: auto; max-height: 560px; border-radius: .4rem; position: relative; }
.frame:focus-visible, .zoom:focus-visible { outline: 3px solid #2563eb; outline-offset: 1px; }
.sheet { position: relative; width: 100%; line-height: 0; }
.sheet img { width: 100%; height: auto; cursor: crosshair; user-select: none;
  -webkit-user-drag: none; }
.rubber { position: absolute; border: 2px solid #ffc828; box-shadow: 0 0 0 1px #000 inset,
  0 0 0 1px #000; pointer-events: none; }
.cross { position: absolute; width: 25px; height: 25px; margin: -12px 0 0 -12px;
  pointer-events: none; background:
  linear-gradient(#000, #000) center / 3px 100% no-repeat,
  linear-gradient(#000, #000) center / 100% 3px no-repeat; outline: 1px solid #fff; }
[hidden] { display: none; }
"""

JS = r"""
const part = (name) => element.querySelector(name);
let zoom = 1, cross = null, start = null, focused = false;
const clamp = (value) => Math.min(Math.max(value, 0), 0.999999);
function place(event) {
  const box = part('img').getBoundingClientRect();
  return [clamp((event.clientX - box.left) / box.width),
    clamp((event.clientY - box.top) / box.height)];
}
function show() {
  part('.sheet').style.width = 100 * zoom + '%';
  const mark = part('.cross');
  mark.hidden = !cross;
  if (cross) { mark.style.left = 100 * cross[0] + '%'; mark.style.top = 100 * cross[1] + '%'; }
  // With the tool for boxes a finger draws; else it moves the page.
  const tool = document.querySelector('#tool input:checked');
  part('img').style.touchAction = tool && tool.value === 'Box' ? 'none' : 'auto';
}
function rubber(from, to) {
  const line = part('.rubber');
  line.hidden = false;
  line.style.left = 100 * Math.min(from[0], to[0]) + '%';
  line.style.top = 100 * Math.min(from[1], to[1]) + '%';
  line.style.width = 100 * Math.abs(from[0] - to[0]) + '%';
  line.style.height = 100 * Math.abs(from[1] - to[1]) + '%';
}
function magnify(factor) {
  zoom = factor ? Math.min(Math.max(zoom * factor, 1), 8) : 1;
  const frame = part('.frame');
  const centre = cross || [
    (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth,
    (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight];
  show();
  frame.scrollLeft = centre[0] * frame.scrollWidth - frame.clientWidth / 2;
  frame.scrollTop = centre[1] * frame.scrollHeight - frame.clientHeight / 2;
}
element.addEventListener('click', (event) => {
  const button = event.target.closest('.zoom');
  if (button) magnify(Number(button.dataset.zoom));
});
element.addEventListener('pointerdown', (event) => {
  if (event.target.tagName !== 'IMG' || event.button) return;
  start = {at: place(event), x: event.clientX, y: event.clientY, id: event.pointerId};
});
window.addEventListener('pointermove', (event) => {
  if (start && event.pointerId === start.id && far(event)) rubber(start.at, place(event));
});
const far = (event) => Math.hypot(event.clientX - start.x, event.clientY - start.y) > 6;
window.addEventListener('pointerup', (event) => {
  if (!start || event.pointerId !== start.id) return;
  const [from, to, drawn] = [start.at, place(event), far(event)];
  start = null;
  part('.rubber').hidden = true;
  cross = null;
  if (drawn) trigger('submit', {action: 'box', x: from[0], y: from[1], x1: to[0], y1: to[1]});
  else trigger('submit', {action: 'click', x: to[0], y: to[1]});
});
window.addEventListener('pointercancel', () => { start = null; part('.rubber').hidden = true; });
element.addEventListener('focusin', (event) => { focused = event.target.matches('.frame'); });
element.addEventListener('keydown', (event) => {
  if (!event.target.matches('.frame') || event.altKey || event.metaKey) return;
  const step = event.shiftKey ? 0.1 : 0.01;
  const move = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step],
    ArrowDown: [0, step]}[event.key];
  const key = event.key.toLowerCase();
  if (move) {
    cross = cross || [0.5, 0.5];
    cross = [clamp(cross[0] + move[0]), clamp(cross[1] + move[1])];
    show();
    part('.cross').scrollIntoView({block: 'nearest', inline: 'nearest'});
  } else if ((key === 'enter' || key === ' ') && cross) {
    trigger('submit', {action: 'click', x: cross[0], y: cross[1]});
  } else if (key === 'b' && cross) {
    trigger('submit', {action: 'corner', x: cross[0], y: cross[1]});
  } else if (key === 'u' || (key === 'z' && event.ctrlKey)) {
    trigger('submit', {action: 'undo'});
  } else if (key === '+' || key === '=') { magnify(1.5);
  } else if (key === '-') { magnify(1 / 1.5);
  } else if (key === '0') { magnify(0);
  } else if (key !== 'enter' && key !== ' ' && key !== 'b') { return; }
  event.preventDefault();
});
document.addEventListener('change', (event) => { if (event.target.closest('#tool')) show(); });
watch('value', () => { show(); if (focused) part('.frame').focus({preventScroll: true}); });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = false; });
show();
"""


def address(picture):
    """Return an (H, W, 3) uint8 RGB picture as the address of a JPEG image that holds it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
