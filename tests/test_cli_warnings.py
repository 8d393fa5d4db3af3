"""Warnings of other libraries, which commands do not show."""

import os
import subprocess
import sys

CODE = """
import warnings
from canon_seg.cli.warnings import silence_libraries
silence_libraries()
warnings.warn("TypedStorage is deprecated. It will be removed", UserWarning)
warnings.warn("`torch.jit.script` is deprecated", FutureWarning)
warnings.warn("Image size (100000000 pixels) exceeds limit of 89478485 pixels", RuntimeWarning)
warnings.warn("our own", UserWarning)
"""
CHILD = "import subprocess, sys\n" + CODE + "subprocess.run([sys.executable, '-c', sys.argv[1]])"
WARN = "import warnings; warnings.warn('`py3nj` package not found!'); warnings.warn('the child')"


def run(*words, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**environment, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_only_ours_are_shown():
    said = run("-c", CODE)
    assert "our own" in said
    for theirs in ("TypedStorage", "torch.jit", "Image size"):
        assert theirs not in said


def test_processes_that_are_started_keep_quiet_too():
    said = run("-c", CHILD, WARN)
    assert "the child" in said and "py3nj" not in said


def test_what_the_user_asks_for_is_shown():
    assert "TypedStorage" in run("-W", "default", "-c", CODE)
    assert "TypedStorage" in run("-c", CODE, PYTHONWARNINGS="default")


def test_a_log_on_a_full_disk_prints_no_traceback():
    code = """
import logging
from canon_seg.errors import prepare_terminal
prepare_terminal()
handler = logging.StreamHandler(open("/dev/full", "w"))
logging.getLogger().addHandler(handler)
logging.getLogger().warning("lost")
print("going on", flush=True)
import os, sys
sys.stderr.flush()
os._exit(0)  # what the stream still holds is not flushed
"""
    assert "Traceback" not in run("-c", code)


def test_a_thread_on_a_full_disk_prints_one_line_and_others_their_traceback():
    code = """
import threading
from canon_seg.errors import prepare_terminal
prepare_terminal()
def fill():
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"events")
def fail():
    raise KeyError("a defect")
for target in (fill, fail)[:{count}]:
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
"""
    said = run("-c", code.format(count=1))
    assert said == "warning: a file cannot be written: [Errno 28] No space left on device\n"
    said = run("-c", code.format(count=2))
    assert "Traceback" in said and "a defect" in said
