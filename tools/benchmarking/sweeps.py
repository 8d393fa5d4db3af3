"""Time what more angles cost in a sweep, where the turns of an image share one run."""

import tempfile
from pathlib import Path

from benchmarking.timing import measure, ratio, summary
from benchmarking.ways import build
from canon_seg.coco.dataset import load_coco
from canon_seg.d2.dataset_prompts import load_box_prompts
from canon_seg.d2.models import models_by_mode
from canon_seg.evaluation.sweep import run_sweep
from canon_seg.evaluation.views import View
from canon_seg.scenes.dataset import make_scenes

CACHE = 512


def time_sweeps(settings, segmenter="sam_vit_b"):
    """Time a sweep in canonical mode over 0 degrees, and over four angles, scoring included.

    Returns:
        (dict that JSON can hold, dict of ratios).
    """
    model, cfg = build(segmenter, settings, ["MODEL.CANONICALIZER.CACHE", CACHE])
    with tempfile.TemporaryDirectory() as folder:
        annotations, images = make_scenes(Path(folder), settings.sweep_images)
        dataset = load_coco(annotations, images)
        prompts = load_box_prompts("boxes", dataset)
        results = {}

        def sweep(angles):
            model.cache.clear()
            results[len(angles)] = run_sweep(
                models_by_mode(model, ["canonical"]),
                dataset,
                images,
                views=[View(angle) for angle in angles],
                image_format=cfg.INPUT.FORMAT,
                prompts=prompts,
                progress=False,
            )

        times = measure(
            {"1 angle": lambda: sweep([0]), "4 angles": lambda: sweep([0, 90, 180, 270])},
            max(2, settings.rounds // 2),
            settings.device,
        )
    facts = {
        "segmenter": segmenter,
        "images": settings.sweep_images,
        "cache_mebibytes": CACHE,
        "cache_of_4_angles": results[4]["cache"],
        "seconds": {name: summary(values) for name, values in times.items()},
    }
    return facts, {"sweep4_over_sweep1": ratio(times["4 angles"], times["1 angle"])}
