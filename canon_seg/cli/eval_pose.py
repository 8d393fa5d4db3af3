"""Measure how well the canonicalizer finds the pose of upright photographs, and how sure it is.

    canon-seg-eval-pose --images DIR --output pose.json [--config-file FILE] [KEY VALUE ...]
    canon-seg-eval-pose --images DIR --output pose.json --angles 0:360:15 --canvas inscribed

Every photograph below DIR counts as upright. Writes accuracy, calibration and alignment with the
prior to pose.json, a reliability diagram and the confusion matrix to pose.png beside it, and the
photographs that went wrong to pose_mistakes.png. The segmenter is not needed. Each photograph is
looked at once: the canonicalizer is equivariant, so that the confusion over the four turns follows
from the upright ones. That is tested on a few, which are really turned.

With --angles, or a canonicalizer of any angle, each photograph is rotated by each angle, and what
is measured is how far the angle found is from that: mean_error, median_error (degrees), within_5,
within_10, within_45 (fractions), over all and by angle, with a plot of the error against the
angle. accuracy is then within_10 (of a finite group: within half a step), and confusion null.

Of a group with mirrors (GROUP D4, O2) the rotation and the side of the mirror are measured apart:
turn_accuracy, or the errors of the angle, and mirror_accuracy, which is near a half for
photographs in which nothing tells left from right.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch

import canon_seg
from canon_seg.apps.drawing import fit
from canon_seg.cli.options import parse_with_options
from canon_seg.cli.waiting import DRAWING, LOADING, said
from canon_seg.config.assets import resolve_asset
from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.core.scorer import NEAR
from canon_seg.errors import InputError
from canon_seg.evaluation.figures import save_figure
from canon_seg.evaluation.pose_finder import build_pose_finder
from canon_seg.evaluation.pose_report import (
    angle_caption,
    caption,
    plot_angles,
    plot_photos,
    plot_poses,
)
from canon_seg.evaluation.poses import (
    choose_mistakes,
    find_angles,
    find_poses,
    measure_angles,
    measure_gate,
    measure_poses,
)
from canon_seg.evaluation.stress import KINDS
from canon_seg.evaluation.views import parse_angles
from canon_seg.images.energy import EnergyScorer
from canon_seg.images.folders import list_photos
from canon_seg.images.pose_files import pose_entry
from canon_seg.images.reading import ReadingOptions, read_image
from canon_seg.images.tilt import CANVASES, rotate_image
from canon_seg.io.files import check_output_dir, write_json
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.build import prior_of
from canon_seg.networks.circle_scorer import CircleScorer
from canon_seg.networks.weights import count_free_parameters

CONFIG_FILE = "configs/sam_c4.yaml"
NUM_TURNED = 8  # photographs that are really turned
NUM_MISTAKES = 12
THUMBNAIL = 240  # px, longer side


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default=CONFIG_FILE, metavar="FILE", help=f"default: {CONFIG_FILE}"
    )
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="folder of upright photographs"
    )
    parser.add_argument(
        "--angle",
        type=float,
        default=0.0,
        metavar="DEGREES",
        help="rotate each photograph by this first, -45 to 45; default: 0",
    )
    parser.add_argument(
        "--angles",
        nargs="+",
        metavar="DEGREES",
        help="rotate each photograph by each of these, and measure how far the angle found is from "
        "the true one; ranges START:STOP:STEP without STOP too, such as 0:360:15; default, for a "
        "canonicalizer of any angle: --angle",
    )
    parser.add_argument(
        "--canvas",
        choices=CANVASES,
        default="expand",
        help="what holds a rotated photograph: expand to the whole of it, crop to its size, or "
        "inscribed to what lies inside of it, where no edge tells the angle; default: expand",
    )
    parser.add_argument(
        "--stress",
        action="store_true",
        help="measure the photographs with borders, under-exposed, tiny and as panoramas, too",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N by path")
    parser.add_argument("--output", required=True, metavar="FILE", help="a .json file to write")
    parser.add_argument(
        "--details", metavar="FILE", help="another one, for what was found of each photograph"
    )
    return parse_with_options(parser)


def main():
    """Run the command."""
    args = parse_arguments()
    output, details = check_outputs(args.output, args.details)
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; give the number of photographs, at least 1")
    if args.angles and (args.stress or args.angle):
        raise InputError("--angles: give it without --angle and --stress")
    angles = parse_angles(args.angles) if args.angles else None
    if not -45 < args.angle < 45:
        raise InputError(
            f"--angle is {args.angle:g}; give more than -45 and less than 45, where upright is the "
            "nearest pose (quarter turns change nothing: the canonicalizer is equivariant)"
        )
    cfg = load_config(args.config_file, args.options)
    resolve_device(cfg, args.config_file, args.options)
    files = list_photos(args.images, "--images")[: args.limit]
    with said(LOADING):
        canonicalizer = build_pose_finder(cfg, args.config_file, args.options)
    if angles is None and canonicalizer.group.elements is None:
        if args.stress:
            raise InputError(
                f"--stress measures quarter turns, and MODEL.CANONICALIZER.GROUP is "
                f"{canonicalizer.group.name}; set it to C4"
            )
        angles = [args.angle % 360]
    if angles is not None:
        evaluate_angles(args, cfg, canonicalizer, files, angles, (output, details))
    else:
        evaluate_quarters(args, cfg, canonicalizer, files, (output, details))


def evaluate_quarters(args, cfg, canonicalizer, files, outputs):
    """Measure quarter turns; arguments are what :func:`main` has made."""
    output, details = outputs
    keys, prior = cfg.MODEL.CANONICALIZER, prior_of(cfg)
    reading = ReadingOptions.from_config(cfg)
    probabilities, agreeing = find_poses(
        canonicalizer,
        files,
        cfg.INPUT.FORMAT,
        angle=args.angle,
        num_turned=NUM_TURNED,
        reading=reading,
    )
    group = canonicalizer.group
    measured = measure_poses(probabilities, prior, group)
    turned = min(NUM_TURNED, len(files))
    if agreeing < turned:
        print(
            f"warning: of {turned} photographs that were really turned, {turned - agreeing} did "
            "not get poses that turn along: the confusion does not hold",
            file=sys.stderr,
        )
    gate = canonicalizer.uncertain.gate
    gated = measure_gate(probabilities, gate, group) if gate else None
    stressed = {}
    for kind in KINDS if args.stress else ():
        found, _ = find_poses(
            canonicalizer,
            files,
            cfg.INPUT.FORMAT,
            angle=args.angle,
            stress=kind,
            reading=reading,
        )
        under_stress = measure_poses(found, prior, group)
        stressed[kind] = {
            **{name: under_stress[name] for name in ("accuracy", "ece")},
            "intervals": {name: under_stress["intervals"][name] for name in ("accuracy", "ece")},
        }
    names = [Path(os.path.relpath(file, args.images)).as_posix() for file in files]
    if details:
        write_json(
            details,
            [
                pose_entry(name, row.tolist(), group)
                for name, row in zip(names, probabilities, strict=True)
            ],
        )
    write_json(
        output,
        {
            **measured,
            "turned": {"photos": turned, "agreeing": agreeing},
            **({"stress": stressed} if args.stress else {}),
            **({"gate": gated} if gated else {}),
            "network": describe_network(canonicalizer, resolve_asset(keys.WEIGHTS), keys.SCORER),
            "config": {**describe(args, cfg), "group": group.name},
        },
    )
    chosen = choose_mistakes(probabilities, NUM_MISTAKES)

    def draw_mistakes():
        images = [
            fit(rotate_image(read_image(files[index], "RGB", reading), args.angle), THUMBNAIL)
            for index in chosen
        ]
        return plot_photos(
            images, [caption(names[index], probabilities[index], group) for index in chosen]
        )

    pictures = save_pictures(
        output, lambda: plot_poses(measured, args.images, group), draw_mistakes
    )
    print(format_measures(measured))
    if stressed:
        print(format_stress(measured, stressed))
    if gated:
        print(format_gate(gated))
    print("written:", *filter(None, [output, details, *pictures]))


def evaluate_angles(args, cfg, canonicalizer, files, angles, outputs):
    """Measure angles in place of quarter turns; arguments are what :func:`main` has made."""
    output, details = outputs
    reading = ReadingOptions.from_config(cfg)
    errors, probabilities, mirrored = find_angles(
        canonicalizer, files, cfg.INPUT.FORMAT, angles, args.canvas, reading=reading
    )
    group, keys = canonicalizer.group, cfg.MODEL.CANONICALIZER
    # Of a finite group an angle is found by the element nearest to it.
    tolerance = NEAR if group.order is None else 180 / group.order
    measured = measure_angles(
        angles, errors, probabilities, tolerance, mirrored if group.mirrors else None
    )
    names = [Path(os.path.relpath(file, args.images)).as_posix() for file in files]
    worst = np.argsort(-errors.max(axis=1), kind="stable")[:NUM_MISTAKES]
    places = [(int(index), int(errors[index].argmax())) for index in worst]

    def draw_mistakes():
        shown = [
            rotate_image(read_image(files[i], "RGB", reading), angles[j], args.canvas)
            for i, j in places
        ]
        return plot_photos(
            [fit(image, THUMBNAIL) for image in shown],
            [
                angle_caption(names[i], angles[j], errors[i, j], probabilities[i, j])
                for i, j in places
            ],
        )

    if details:
        write_json(
            details,
            [
                {"file": name, "errors": own.tolist(), "probabilities": sure.tolist()}
                for name, own, sure in zip(names, errors, probabilities, strict=True)
            ],
        )
    write_json(
        output,
        {
            **measured,
            "network": describe_network(canonicalizer, resolve_asset(keys.WEIGHTS), keys.SCORER),
            "config": {
                **describe(args, cfg),
                "angles": angles,
                "canvas": args.canvas,
                "group": group.name,
                "min_tilt": keys.MIN_TILT,
            },
        },
    )
    print(
        f"within 10 degrees: {100 * measured['within_10']:.1f} % of {measured['num_images']} "
        f"photographs at {len(angles)} angle{'' if len(angles) == 1 else 's'}; within 5 "
        f"{100 * measured['within_5']:.1f} %, within 45 {100 * measured['within_45']:.1f} %\n"
        f"error: {measured['median_error']:.2f} degrees in the median, "
        f"{measured['mean_error']:.2f} in the mean\n"
        f"expected calibration error: {measured['ece']:.4f}" + _format_mirror(measured)
    )
    pictures = save_pictures(output, lambda: plot_angles(measured, args.images), draw_mistakes)
    print("written:", *filter(None, [output, details, *pictures]))


def save_pictures(output, draw, draw_mistakes):
    """Save the plot and the photographs that went wrong beside the results; return their paths."""
    with said(DRAWING):
        return [
            *save_figure(output.with_suffix(".png"), draw),
            *save_figure(output.with_name(f"{output.stem}_mistakes.png"), draw_mistakes),
        ]


def check_outputs(output, details):
    """Return the two paths, the second may be None, once files can be written there."""
    paths = [Path(path) if path else None for path in (output, details)]
    for option, path in zip(("--output", "--details"), paths, strict=True):
        if path is None:
            continue
        if path.suffix != ".json" or path.is_dir():
            raise InputError(f"{option}: {path} is no name for a .json file; give one")
        check_output_dir(path.parent)
    if details and paths[0].resolve() == paths[1].resolve():
        raise InputError(f"--details: {details} is also --output; give another file")
    return paths


def describe_network(canonicalizer, weights, keys):
    """Describe what was evaluated: ``parameters`` are the trained ones, as papers count them."""
    scorer = canonicalizer.scorer
    if isinstance(scorer, EnergyScorer):
        return {"name": keys.NAME, "energy": keys.ENERGY, "temperature": scorer.temperature}
    count = sum(parameter.numel() for parameter in scorer.parameters())
    if isinstance(scorer, (BackboneScorer, CircleScorer)):
        return {
            "name": scorer.network.spec.backbone,
            "input_size": scorer.input_size,
            "passes": scorer.passes,
            "temperature": scorer.temperature,
            "parameters": count,
        }
    spec = scorer.network.spec
    return {
        "name": spec.name,
        "fields": list(spec.fields),
        "depth": spec.depth,
        "input_size": canonicalizer.scorer.input_size,
        "parameters": count_free_parameters(weights),
        "exported_parameters": count,
    }


def describe(args, cfg):
    """Describe what it takes to run the same again, paths as they were given."""
    return {
        "config_file": args.config_file,
        "options": args.options,
        "images": args.images,
        "angle": args.angle,
        "stress": args.stress,
        "limit": args.limit,
        "canonicalizer_weights": cfg.MODEL.CANONICALIZER.WEIGHTS,
        "prior": list(cfg.MODEL.CANONICALIZER.PRIOR),
        "device": cfg.MODEL.DEVICE,
        "versions": {"canon_seg": canon_seg.__version__, "torch": torch.__version__},
    }


def format_stress(measured, stressed):
    """Format a table of the kinds of stress: accuracy, its change, and the calibration error.

    The 95 % interval of the accuracy comes last.
    """
    lines = [f"{'':15}accuracy  change    ECE  95 % interval"]
    for name, row in {"as they are": measured, **stressed}.items():
        change = row["accuracy"] - measured["accuracy"]
        ends = "{:.3f} to {:.3f}".format(*row["intervals"]["accuracy"])
        lines.append(f"{name:15}{row['accuracy']:8.3f}{change:+8.3f}{row['ece']:8.4f}  {ends}")
    return "\n".join(lines)


def format_gate(gated):
    """Format what the gate does in one line."""
    parts = [
        f"{name} {100 * row['accuracy']:.1f} % right, {100 * row['gated']:.1f} % left as given"
        for name, row in gated.items()
        if name != "margin"
    ]
    return f"gate of {gated['margin']:g}: {'; '.join(parts)}"


def format_measures(measured):
    """Format the measures in three lines, with the 95 % intervals of the first two."""
    kl = "infinite" if measured["kl"] is None else f"{measured['kl']:.4f} nats"
    tenth = "accuracy_without_least_certain_tenth"
    right = measured["confusion"][0][0]
    return "\n".join(
        [
            f"found upright: {right} of {measured['num_images']} "
            f"({_percent(measured, 'accuracy')}); without the least certain tenth "
            f"{_percent(measured, tenth)}",
            f"expected calibration error: {measured['ece']:.4f} "
            "(95 % interval {:.4f} to {:.4f})".format(*measured["intervals"]["ece"]),
            *(
                [f"rotation alone {_percent(measured, 'turn_accuracy')}{_format_mirror(measured)}"]
                if "turn_accuracy" in measured
                else []
            ),
            f"prior: identity rate {measured['identity_rate']:.4f}, KL {kl}, Wasserstein "
            f"{measured['wasserstein']:.4f} quarter turns, MMD {measured['mmd']:.4f}",
        ]
    )


def _format_mirror(measured):
    """Say how often the side of the mirror is found, on a line of its own; nothing without one."""
    if "mirror_accuracy" not in measured:
        return ""
    return f"\nside of the mirror alone {_percent(measured, 'mirror_accuracy')}"


def _percent(measured, key):
    low, high = measured["intervals"][key]
    share = f"{100 * measured[key]:.1f} %"
    return f"{share}, 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
