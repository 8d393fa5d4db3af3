"""Describe the machine in neutral words, and the results as a table."""

import os
import platform
import re
from pathlib import Path

import torch

TARGETS = {
    "canonical_over_vanilla_sam_vit_b": "<= 1.02",
    "canonical_over_vanilla_sam_vit_h": "<= 1.02",
    "canonical_over_vanilla_mask_rcnn_r50": "",
    "gcnn_over_vanilla_sam_vit_b": "<= 1.001",
    "pretrained_1_pass_over_vanilla_sam_vit_b": "<= 1.02",
    "pretrained_4_passes_over_vanilla_sam_vit_b": "",
    "gcnn_over_vanilla_mask_rcnn_r50": "<= 1.01",
    "pretrained_1_pass_over_vanilla_mask_rcnn_r50": "",
    "pretrained_4_passes_over_vanilla_mask_rcnn_r50": "",
    "so2_over_vanilla_sam_vit_b": "<= 1.03",
    "so2_over_vanilla_mask_rcnn_r50": "<= 1.03",
    "tta_over_canonical_sam_vit_b": ">= 3.8",
    "equiadapt_over_ours_canonicalize": ">= 50",
    "equiadapt_over_ours_canonicalize_1_9m": ">= 50",
    "equiadapt_steerable_over_ours_so2": "",
    "sweep4_over_sweep1": "<= 1.15",
    "coco_eval_pycocotools_over_ours": ">= 25",
    "training_photos_per_second_over_equiadapt": ">= 20",
    "points_canonical_over_vanilla_pointnet": "",
    "points_canonical_over_vanilla_dgcnn": "",
    "equiadapt_over_ours_points": "",
    "canonical_over_vanilla_cifar10": "",
    "canonical_over_vanilla_vit_l": "",
    "equiadapt_over_ours_cifar10_canonicalize": "",
}
"""The ratios that are always reported, null where they were not measured, and what is wanted."""


def describe_machine(device):
    """Describe what the times depend on, without names of machines or places."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "system": platform.system(),
    }


def split_ratios(ratios):
    """Return (values, intervals) by key, None for what was not measured.

    Those of ``TARGETS`` for segmenters that are run on request are there only if measured.
    """
    wanted = [key for key in TARGETS if not key.endswith("vit_h")]
    ratios = {**dict.fromkeys(wanted), **ratios}
    values = {key: one and one["value"] for key, one in ratios.items()}
    return values, {key: one and one["interval"] for key, one in ratios.items()}


def format_table(result):
    """Format as Markdown the ratios, the times of the ways, and the memory."""
    machine = result["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"device: {machine['device']}, torch {machine['torch']}, Python {machine['python']}",
        "",
        "| ratio | value | interval | wanted |",
        "|---|---:|---:|---:|",
    ]
    for key, value in result["ratios"].items():
        cells = ("-", _why_not(result, key))
        if value is not None:
            low, high = result["ratio_intervals"][key]
            cells = (
                f"{value:.5g}",
                f"{low:.5g} to {high:.5g}",
            )  # overheads differ from 1 by little
        lines.append(f"| {key} | {' | '.join(cells)} | {TARGETS.get(key, '')} |")
    lines += ["", "| seconds | median | quartiles |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {times['median']:.4g} | {times['quartiles'][0]:.4g} to "
        f"{times['quartiles'][1]:.4g} |"
        for name, times in _summaries(result, "")
    ]
    if result.get("memory"):
        lines += ["", "| MiB of memory | before | peak |", "|---|---:|---:|"]
        lines += [
            f"| {name}, {way} | {peak['before']:.0f} | {peak['peak']:.0f} |"
            for name, ways in result["memory"].items()
            for way, peak in ways.items()
            if isinstance(peak, dict)
        ]
    return "\n".join(lines)


def _why_not(result, key):
    """Say why a ratio was not measured, where its name tells, or "-"."""
    note = result.get("equiadapt", {}).get("note")
    if "steerable" in key:
        note = note or result.get("canonicalize", {}).get("note_of_equiadapt_steerable")
    return f"equiadapt: {note}" if note and "equiadapt" in key else "-"


def _summaries(node, name):
    """Return all summaries of times in a result, with the names of what they are in."""
    if isinstance(node, dict) and "quartiles" in node:
        yield name, node
    elif isinstance(node, dict):
        for key, value in node.items():
            skipped = key in ("seconds", "seconds_per_photo")
            yield from _summaries(value, name if skipped else f"{name}, {key}".lstrip(", "))


def _cpu_model():
    try:
        return re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
