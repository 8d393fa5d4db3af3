"""Run commands in forks of a process that has imported everything, and find what they start."""

import contextlib
import io
import os
import sys
import threading
from pathlib import Path

from tqdm import tqdm

from canon_seg.d2 import distributed
from canon_seg.errors import run_main


def be_command(main, arguments, log):
    """Run a command in this forked process, which it ends."""
    status = 70
    try:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0)) for n in (1, 2))
        sys.argv = ["command", *map(str, arguments)]
        # tqdm's own lock is shared with the forking process, which would wait for a killed one.
        tqdm.set_lock(threading.RLock())
        # A server of forks would import everything again; this process has computed nothing yet.
        start = distributed.torch_multiprocessing.start_processes
        distributed.torch_multiprocessing.start_processes = lambda *args, **options: start(
            *args, **{**options, "start_method": "fork"}
        )
        run_main(main)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def members(leader):
    """Return the pids of the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found
