"""Set how the threads of our commands wait for each other."""

import os
from collections.abc import MutableMapping

# Each of them says how threads of OpenMP wait; libgomp and Intel's library read the first.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_waiting_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait, unless the user chose how they wait.

    By default they spin for a while. Where another process wants the same cores, the thread that
    the others wait for is then the one that does not run, and everything takes many times as long
    (docs/evaluation.md has figures). OpenMP reads the variable when torch is imported: call this
    before, and only in commands. A library must not choose for its caller.

    Args:
        environment: variables of the process, changed in place.
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
