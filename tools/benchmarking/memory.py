"""Measure the peak memory of one way to segment one image, in a process of its own.

python -m benchmarking.memory '{"segmenter": "sam_tiny", "way": "canonical", ...}'
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarking.peers import Equiadapt
from benchmarking.tilts import TURNS, SaysAnother, so2_canonicalizers
from benchmarking.ways import Settings, box_prompts, build, picture, turned_inputs
from canon_seg.d2.capabilities import capabilities
from canon_seg.d2.coco_results import coco_results
from canon_seg.d2.models import behind, models_by_mode

LARGE = {"height": 3000, "width": 4000, "masks": 100}


def peak_memory(settings, segmenter, way, height, width, masks):
    """Return MiB of a process, before and while it segments one image turned by 90 degrees.

    They are those of the whole process.

    Args:
        segmenter: key of :data:`benchmarking.ways.SEGMENTERS`.
        way: a mode, "so2" (any angle, by a tilt), or "equiadapt".
        height, width, masks: of the image; the masks are also encoded.

    Returns:
        dict: ``before`` with the model and the image there; ``peak``; ``gpu_peak`` on a GPU.
    """
    task = {
        "device": str(settings.device),
        "quick": settings.quick,
        "threads": torch.get_num_threads(),
        "segmenter": segmenter,
        "way": way,
        "height": height,
        "width": width,
        "masks": masks,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", __name__, json.dumps(task)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def memory_of_ways(settings, segmenters, with_peer):
    """Measure memory by segmenter and way, and of a photograph of 12 megapixels with 100 masks."""
    side = settings.image_size
    ways = ["vanilla", "canonical", "so2", "tta"] + ["equiadapt"] * with_peer
    results = {
        name: {way: peak_memory(settings, name, way, side, side, settings.prompts) for way in ways}
        for name in segmenters
    }
    large = {"height": 120, "width": 160, "masks": 3} if settings.quick else LARGE
    results["large photograph, sam_tiny"] = {
        **large,
        **{way: peak_memory(settings, "sam_tiny", way, **large) for way in ways[:3]},
    }
    return results


def _run(task):
    torch.set_num_threads(task["threads"])
    settings = Settings(torch.device(task["device"]))
    if task["quick"]:
        settings = settings.toy()
    model, cfg = build(task["segmenter"], settings)
    image, prompts = picture(task["height"], task["width"]), None
    if capabilities(model.segmenter).takes_prompts:
        prompts = box_prompts(task["masks"], task["height"], task["width"])
    inputs = turned_inputs(image, prompts, 1)
    if task["way"] == "equiadapt":
        peer, vanilla = Equiadapt(settings), models_by_mode(model, ["vanilla"])["vanilla"](0)
        before = _mebibytes("VmRSS")
        peer.segment(vanilla, inputs)
    else:
        if task["way"] == "so2":
            found, _ = so2_canonicalizers(settings.device, cfg.INPUT.FORMAT)
            run = behind(SaysAnother(found["so2"], TURNS[1]), model)
        else:
            run = models_by_mode(model, [task["way"]])[task["way"]](0)
        before = _mebibytes("VmRSS")
        coco_results(run([inputs])[0], 1, range(1, 81))
    result = {"before": before, "peak": _mebibytes("VmHWM")}
    if settings.device.type == "cuda":
        result["gpu_peak"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def _mebibytes(field):
    """Return MiB of this process, by the kernel; getrusage would count what the parent had."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]))))
