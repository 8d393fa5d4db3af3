import json
import sys

import choose_gate
import numpy as np
import pytest

from canon_seg.core.group import C4
from canon_seg.core.pose import UncertainPoses
from canon_seg.errors import InputError


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["choose_gate.py", *map(str, arguments)])
    choose_gate.main()


def details(count=40):
    return np.random.default_rng(0).dirichlet([3, 1, 1, 1], count)


@pytest.mark.parametrize("gate", [0.7, 2.0])
def test_the_shares_are_those_of_the_gate_that_canonicalizers_have(gate):
    probabilities = details()
    policy, wanted = UncertainPoses(gate=gate), []
    for given in range(4):
        # Turned by `given`, the photograph's poses come in another order; 0 is "as given".
        permuted = np.roll(probabilities, -given, axis=1)
        poses = [
            policy.choose(
                sorted(zip(C4.elements, row, strict=True), key=lambda pair: -pair[1]), row
            )
            for row in permuted
        ]
        wanted.append(np.mean([pose.turns == (-given) % 4 for pose in poses]))
    upright, turned = choose_gate.right_by_gate(np.log(probabilities), gate)
    assert upright == wanted[0] and turned == pytest.approx(np.mean(wanted[1:]))


def test_a_gate_fits_the_share_that_is_upright(tmp_path, monkeypatch, capsys):
    file, output = tmp_path / "details.json", tmp_path / "gate.json"
    file.write_text(json.dumps([{"file": "a", "probabilities": list(p)} for p in details()]))
    run(monkeypatch, "--details", file, "--output", output)
    table = json.loads(output.read_text())
    assert table["num_images"] == 40
    first = table["gates"][0]
    assert first["gate"] == 0 and first["upright"] == first["turned"]
    best = list(table["best_gate"].values())
    assert best == sorted(best) and best[0] < best[-1]
    assert "given upright" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '[{"file": "a"}]', '[{"probabilities": [0.5, 0.5]}]'])
def test_other_files_are_refused(tmp_path, monkeypatch, text):
    (tmp_path / "details.json").write_text(text)
    with pytest.raises(InputError, match=r"details\.json"):
        run(monkeypatch, "--details", tmp_path / "details.json")
