import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from canon_seg.errors import InputError

SCRIPT = Path(__file__).parents[1] / "tools" / "scaling.py"


def test_calculation(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("scaling", SCRIPT)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "scaling.py",
            "--embedding-seconds",
            "0.5",
            "--prompts-seconds",
            "0.25",
            "--scoring-seconds",
            "10",
            "--start-seconds",
            "100",
            "--num-images",
            "10",
            "--num-angles",
            "8",
            "--gpus",
            "1",
            "4",
            "--output",
            str(tmp_path / "scaling.json"),
            "--canonicalize-seconds",
            "0.125",
            "--view-seconds",
            "0.0625",
        ],
    )
    script.main()
    result = json.loads((tmp_path / "scaling.json").read_text())
    assert result["measured"] is None
    # An image: 8 runs and, by the cache, 2 more; 8 poses and views. Four GPUs have 3 images and 2
    # angles at most.
    image = 10 * (0.5 + 0.25) + 8 * (0.125 + 0.0625)
    hours = [(100 + 10 * image + 16 * 10) / 3600, (100 + 3 * image + 4 * 10) / 3600]
    assert [row["hours"] for row in result["calculated"]["rows"]] == pytest.approx(hours)
    assert result["calculated"]["rows"][1]["efficiency"] == pytest.approx(hours[0] / hours[1] / 4)
    table = (tmp_path / "scaling.md").read_text()
    assert table == capsys.readouterr().out and f"{hours[1]:.3g}" in table


def test_seconds_of_a_benchmark(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("scaling", SCRIPT)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    benchmark = tmp_path / "benchmark.json"
    benchmark.write_text(
        json.dumps(
            {
                "scoring": {
                    "images": 10,
                    "seconds": {
                        "ours": {"median": 2.0},
                        "ours, preparation": {"median": 3.0},
                    },
                },
                "canonicalize": {"seconds": {"default": {"median": 0.25}}},
            }
        )
    )
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "scaling.py",
            "--embedding-seconds",
            "1",
            "--benchmark",
            str(benchmark),
            "--num-images",
            "20",
            "--output",
            str(tmp_path / "scaling.json"),
        ],
    )
    script.main()
    result = json.loads((tmp_path / "scaling.json").read_text())["calculated"]
    assert result["scoring_seconds"] == 10 and result["canonicalize_seconds"] == 0.25
    benchmark.write_text("{}")
    with pytest.raises(InputError, match="--benchmark: .*benchmark.json"):
        script.main()
