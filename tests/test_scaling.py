import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "scaling.py"


def test_calculation(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("scaling", SCRIPT)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", [
        "scaling.py", "--embedding-seconds", "0.5", "--prompts-seconds", "0.25",
        "--scoring-seconds", "10", "--start-seconds", "100", "--num-images", "10",
        "--num-angles", "8", "--gpus", "1", "4", "--output", str(tmp_path / "scaling.json"),
    ])
    script.main()
    result = json.loads((tmp_path / "scaling.json").read_text())
    assert result["measured"] is None
    # An image: 8 embeddings and, by the cache, 2 more; 16 times prompts. Four GPUs have 3 images
    # and 2 angles at most.
    image = 10 * 0.5 + 16 * 0.25
    hours = [(100 + 10 * image + 16 * 10) / 3600, (100 + 3 * image + 4 * 10) / 3600]
    assert [row["hours"] for row in result["calculated"]["rows"]] == pytest.approx(hours)
    assert result["calculated"]["rows"][1]["efficiency"] == pytest.approx(hours[0] / hours[1] / 4)
    assert len(capsys.readouterr().out.splitlines()) == 2
