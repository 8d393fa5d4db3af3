"""What a command line says before the command is imported."""

import subprocess
import sys

import pytest

from canon_seg.cli.words import config_file_in


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--output", "out", "--config-file", "a.yaml", "KEY", "1"], "a.yaml"),
        (["--config-file=b.yaml", "--output", "out"], "b.yaml"),
        (["--config-file"], ""),
        (["--config-files", "c.yaml"], ""),
        ([], ""),
    ],
)
def test_the_config_file_is_found(words, name):
    assert config_file_in(words) == name


def test_a_config_that_is_not_there_is_said_before_anything_heavy_is_imported():
    program = (
        "import sys\n"
        "from canon_seg.cli.commands import eval_rotated\n"
        "try:\n"
        "    eval_rotated()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, "--config-file", "absent.yaml", "--output", "out"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --config-file: there is no file")
