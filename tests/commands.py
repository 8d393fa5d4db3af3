"""Commands in processes of their own, without the seconds that their imports take."""

import multiprocessing
import os
import signal
import time

import torch

import forking

MODULES = [
    "canon_seg.cli.eval_rotated",
    "canon_seg.cli.train_net",
    "canon_seg.networks.escnn_layers",
    "torch.utils.tensorboard",
]
"""What the commands import; they start as copies of a process that has imported it."""


class Command:
    """A command's ``main`` in a process of its own, which may start others.

    Args:
        main: at the top of a module.
        arguments: what follows the command's name.
        folder: where it runs.
        log: file for all that it prints.
    """

    def __init__(self, main, arguments, folder, log):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(MODULES)
        self.log = log
        self._process = context.Process(target=_run, args=(main, arguments, folder, log))
        self._process.start()
        self.pid = self._process.pid

    def ended(self):
        """Whether the first process has ended."""
        return self._process.exitcode is not None

    def kill(self):
        """Kill the first process, and wait until those that it started have ended, too."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self, seconds=120):
        """Wait until all processes have ended; return the exit status."""
        end = time.monotonic() + seconds
        while not self.ended() or forking.members(self.pid):
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise AssertionError(f"not ended after {seconds} s:\n{self.output()}")
            time.sleep(0.02)
        return self._process.exitcode

    def output(self):
        """All that was printed so far."""
        return self.log.read_text(errors="replace")


def _run(main, arguments, folder, log):
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a shell starts
    torch.set_num_threads(1)
    forking.be_command(main, arguments, log)
