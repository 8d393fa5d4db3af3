#!/usr/bin/env python
r"""Say which MODEL.CANONICALIZER.GATE fits photographs of which a share is upright already.

    python tools/eval_pose.py --images UPRIGHT_PHOTOS --output pose.json --details details.json
    python tools/choose_gate.py --details details.json --output gate.json

Reads the probabilities of upright photographs' poses (C4). For each gate it says how many poses are
right of photographs that are given upright, of photographs that are given turned, and of a
collection in which 0.25 to 0.99 of them are upright. Choose the gate by the column of your
collection, on photographs that are not those of your evaluation. Where the probabilities are
calibrated, the best gate for a share s is about log(3 s / (1 - s)), the log-odds of "as given"
against each other pose.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tabulate import tabulate

from canon_seg.errors import InputError, run_main
from canon_seg.io.files import write_json

GATES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
SHARES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
QUARTERS = 4


def right_by_gate(log_probabilities, gate):
    """Return how many poses are right behind a gate, of photographs given upright and turned.

    Args:
        log_probabilities: (N, 4) of upright photographs, the true pose first. Those of a turned
            photograph are the same, in another order, since canonicalizers are equivariant.
        gate: margin by which the likeliest pose has to beat the given one, 0 or more.

    Returns:
        (upright, turned), 0..1; "turned" is the mean over the three other quarter turns.
    """
    best = log_probabilities.argmax(axis=1)
    beaten = log_probabilities.max(axis=1, keepdims=True) - log_probabilities >= gate
    right = [(np.where(beaten[:, given], best, given) == 0).mean() for given in range(QUARTERS)]
    return float(right[0]), float(np.mean(right[1:]))


def read_details(path):
    """Read (N, 4) log-probabilities from a file of ``eval_pose --details``."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [entry["probabilities"] for entry in entries]
        probabilities = np.array(rows, dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"--details {path} could not be read ({error}); give a file that tools/eval_pose.py "
            "wrote with --details"
        ) from error
    if probabilities.ndim != 2 or probabilities.shape[1] != QUARTERS or not len(probabilities):
        raise InputError(
            f"--details {path} does not hold four probabilities for each photograph; give a file "
            "that tools/eval_pose.py wrote with --details, of a canonicalizer of quarter turns"
        )
    return np.log(probabilities.clip(np.finfo(float).tiny))


def table(rows):
    """Return a Markdown table, in per cent, of the rows of the output file."""
    values = [
        [row["gate"]]
        + [
            f"{100 * share:.1f}"
            for share in (row["upright"], row["turned"], *row["mixed"].values())
        ]
        for row in rows
    ]
    mixed = [f"{float(share):.0%} upright" for share in rows[0]["mixed"]]
    return tabulate(values, ["GATE", "given upright", "given turned", *mixed], tablefmt="github")


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--details", required=True, help="file of tools/eval_pose.py --details")
    parser.add_argument("--output", help="JSON file to write the table to")
    args = parser.parse_args()
    log_probabilities = read_details(args.details)
    rows = []
    for gate in GATES:
        upright, turned = right_by_gate(log_probabilities, gate)
        mixed = {str(share): share * upright + (1 - share) * turned for share in SHARES}
        rows.append({"gate": gate, "upright": upright, "turned": turned, "mixed": mixed})
    best = {
        str(share): max(rows, key=lambda row, s=str(share): row["mixed"][s])["gate"]
        for share in SHARES
    }
    if args.output:
        write_json(
            args.output, {"num_images": len(log_probabilities), "gates": rows, "best_gate": best}
        )
    print(f"Poses that are right, in % of {len(log_probabilities)} photographs")
    print(table(rows))
    print("Best gate: " + ", ".join(f"{gate} at {float(s):.0%}" for s, gate in best.items()))


if __name__ == "__main__":
    run_main(main)
