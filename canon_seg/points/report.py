"""Show the experiment on point clouds: a table, and pictures of clouds given and canonical."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from canon_seg.io.names import figure_text
from canon_seg.points.canonicalizer import CanonicalizedPointClassifier
from canon_seg.points.clouds import CloudSet
from canon_seg.points.experiment import SCENARIOS, TOLERANCE, rotated
from canon_seg.points.group import SO3

SHOWN = 6  # clouds in the picture


def format_result(result: Mapping[str, Any]) -> str:
    """Format the accuracies as a Markdown table, with what was measured of the poses below it.

    Args:
        result: of :func:`canon_seg.points.experiment.evaluate`.
    """
    lines = [
        f"| accuracy in %, {result['data']} ({result['num_clouds']} clouds) | "
        + " | ".join(SCENARIOS)
        + " |",
        "|---|" + "---:|" * len(SCENARIOS),
    ]
    for classifier, rows in result["classifiers"].items():
        for row, accuracies in rows.items():
            cells = ["n/a" if accuracies[s] is None else f"{accuracies[s]:.1f}" for s in SCENARIOS]
            lines.append(f"| {classifier}, {row} | " + " | ".join(cells) + " |")
    lines += ["", "Canonical forms of a cloud and of the same cloud rotated, in float32:", ""]
    lines += [f"- {name}: {_poses(result, name)}." for name in result["equivariance"]]
    return "\n".join(lines)


def _poses(result: Mapping[str, Any], name: str) -> str:
    """Describe the poses that one canonicalizer finds."""
    measured, prior = result["equivariance"][name], result["prior"][name]
    facts = [f"a frame is found in {100 * measured['sound']:.1f} % of the clouds"]
    if measured["median"] is not None:
        facts.append(f"{measured['median']:.1e} rad apart in the median")
        facts.append(f"{100 * measured['within_tolerance']:.1f} % within {TOLERANCE:.0e} rad")
    kind = "up axes" if name.endswith("z") else "poses"
    facts.append(f"{kind} of upright clouds {prior['median']:.1f}° off in the median")
    return "; ".join(facts)


@torch.no_grad()
def plot_clouds(model: CanonicalizedPointClassifier, clouds: CloudSet, seed: int) -> Any:
    """Draw rotated clouds above their canonical forms.

    Args:
        model: whose canonicalizer is shown.
        clouds: of which the first are shown.
        seed: of the rotations.

    Returns:
        matplotlib figure.
    """
    from matplotlib.figure import Figure

    count = min(SHOWN, len(clouds))
    given = rotated(clouds, SO3, seed)[:count]
    canonical = model.canonicalizer(given).canonical(given)[:, 0]
    figure = Figure(figsize=(2.2 * count, 4.8), layout="constrained")
    rows: Sequence[tuple[str, torch.Tensor]] = (("given", given), ("canonical", canonical))
    for row, (title, shown) in enumerate(rows):
        for column, points in enumerate(shown.numpy()):
            axes: Any = figure.add_subplot(
                2, count, row * count + column + 1, projection="3d", proj_type="ortho"
            )
            axes.scatter(*points.T, c=points[:, 2], s=2, cmap="viridis")
            axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.8, 0.8))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_zticks([])
            axes.view_init(elev=15, azim=-60)
            name = figure_text(clouds.classes[int(clouds.labels[column])])  # may be a folder's
            axes.set_title(f"{name}, {title}", fontsize=9)
    return figure
