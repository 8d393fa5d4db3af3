"""Run one function in several processes: detectron2's launcher for GPUs, our own for CPUs.

detectron2 v0.6's ``launch`` insists on CUDA and NCCL. For CPUs the processes are started here and
joined by torch.distributed's gloo; within them ``detectron2.utils.comm`` works as ever.
"""

import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import traceback
from datetime import timedelta
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
import torch.multiprocessing as torch_multiprocessing

from canon_seg.errors import InputError, prepare_terminal

from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm

__all__ = ["SharedCounter", "add_launch_arguments", "check_device", "comm", "launch"]

# How long one process waits for another: the slowest one may still have hours to go.
_TIMEOUT = timedelta(days=7)


def add_launch_arguments(parser):
    """Add to a parser what :func:`launch` reads, where it has not got it already."""
    present = parser._option_string_actions
    for option, settings in {
        "--num-processes": dict(
            type=int, metavar="N", help="on CPUs: processes on this machine; default: 1"
        ),
        "--threads": dict(
            type=int,
            metavar="N",
            help="threads of each process; default: the cores, shared among the processes. The "
            "last bits of a result can depend on it",
        ),
        "--num-gpus": dict(
            type=int,
            default=1,
            metavar="N",
            help="GPUs of this machine, with a process for each; default: 1",
        ),
        "--num-machines": dict(type=int, default=1, metavar="N"),
        "--machine-rank": dict(
            type=int, default=0, metavar="I", help="of this machine: 0 to N - 1, 0 is the first"
        ),
        "--dist-url": dict(
            default="auto",
            metavar="URL",
            help="for several machines: tcp://HOST:PORT with a free port of the first one",
        ),
    }.items():
        if option not in present:
            parser.add_argument(option, **settings)


def launch(main, args, options):
    """Run ``main(*args)`` in every process that the command line asks for, until all are done.

    If one fails, all are ended.

    Args:
        main: function at the top of a module.
        args: tuple of its arguments; they are pickled for the processes.
        options: parsed arguments of :func:`add_launch_arguments`.

    Returns:
        what ``main`` returns where there is one process, else None.

    Raises:
        InputError: naming the option that cannot be used, with the message of the process that
            raised one, or if a process was killed.
        RuntimeError: with the traceback of a process that failed in another way.
    """
    _check(options)
    per_machine = options.num_processes or options.num_gpus
    threads = options.threads
    if per_machine * options.num_machines <= 1:
        _set_threads(threads)
        return main(*args)
    if options.num_processes and threads is None:
        threads = max(1, (os.cpu_count() or 1) // options.num_processes)
    with tempfile.TemporaryDirectory() as folder:
        task = (folder, threads, main, args)
        try:
            if options.num_processes:
                _launch_on_cpus(task, options)
            else:
                launch_on_gpus(
                    _run,
                    options.num_gpus,
                    num_machines=options.num_machines,
                    machine_rank=options.machine_rank,
                    dist_url=options.dist_url,
                    args=task,
                    timeout=_TIMEOUT,
                )
        except torch_multiprocessing.ProcessRaisedException as error:
            raise _failure(folder) or error from error
        except (_KilledError, torch_multiprocessing.ProcessExitedException) as error:
            # What the others died of, once this one was gone, tells nothing.
            raise _failure(folder, ["input_error"]) or InputError(
                f"a process ended before its time ({error}); was memory short? Fewer processes "
                "need less"
            ) from error


def check_device(options, device):
    """Raise :class:`InputError` if processes of the CPU are asked for, but another device.

    Args:
        options: parsed arguments of :func:`add_launch_arguments`.
        device: MODEL.DEVICE.
    """
    if options.num_processes and torch.device(device).type != "cpu":
        raise InputError(
            f"--num-processes is for CPUs, but MODEL.DEVICE is {device!r}; add MODEL.DEVICE cpu, "
            "or give --num-gpus"
        )


def _check(options):
    for name in ("num_processes", "threads", "num_machines"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    if options.num_processes and options.num_gpus > 1:
        raise InputError("--num-processes is for CPUs and --num-gpus for GPUs: give one of them")
    if not options.num_processes and options.num_gpus > max(1, torch.cuda.device_count()):
        raise InputError(
            f"--num-gpus is {options.num_gpus}, but {torch.cuda.device_count()} are here; give "
            "fewer, or --num-processes to run on the CPU"
        )
    if not 0 <= options.machine_rank < options.num_machines:
        raise InputError(
            f"--machine-rank is {options.machine_rank}; with --num-machines "
            f"{options.num_machines} it is 0 to {options.num_machines - 1}"
        )
    if options.num_machines > 1 and options.dist_url == "auto":
        raise InputError(
            "--dist-url is needed with --num-machines: tcp://HOST:PORT with a free port of the "
            "machine of --machine-rank 0, the same on all machines"
        )
    if options.num_machines > 1 and not (options.num_processes or torch.cuda.is_available()):
        raise InputError("there is no GPU here; give --num-processes to run on the CPU")


def _set_threads(threads):
    if threads is not None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def _launch_on_cpus(task, options):
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        # Each process starts from a copy of one that has imported everything, but computed nothing.
        method = "forkserver"
        modules = [name for name in sys.modules if name.startswith("canon_seg.")]
        multiprocessing.get_context(method).set_forkserver_preload(modules)
    context = torch_multiprocessing.start_processes(
        _run_on_cpu,
        args=(
            task,
            options.num_processes,
            options.num_machines,
            options.machine_rank,
            options.dist_url,
        ),
        nprocs=options.num_processes,
        start_method=method,
        join=False,
    )
    try:
        while not context.join():
            pass
    except torch_multiprocessing.ProcessRaisedException as error:
        codes = {process.exitcode for process in context.processes} - {None, -signal.SIGTERM}
        if min(codes, default=0) < 0:  # those that are left are ended by SIGTERM
            raise _KilledError(signal.Signals(-min(codes)).name) from error
        raise


class _KilledError(Exception):
    """Say that a signal ended a process, even if another one failed first for want of it."""


def _run_on_cpu(local_rank, task, num_processes, num_machines, machine_rank, url):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Workers of data loaders end with their parent, which a server of forks would never do.
    start_method = "fork" if sys.platform == "linux" else "spawn"
    multiprocessing.set_start_method(start_method, force=True)
    if num_machines == 1:
        url = Path(task[0], "store").as_uri()
    dist.init_process_group(
        "gloo",
        init_method=url,
        timeout=_TIMEOUT,
        world_size=num_processes * num_machines,
        rank=machine_rank * num_processes + local_rank,
    )
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(num_processes)
    else:  # detectron2 v0.6
        for machine in range(num_machines):
            first = machine * num_processes
            group = dist.new_group(list(range(first, first + num_processes)))
            if machine == machine_rank:
                comm._LOCAL_PROCESS_GROUP = group
    _run(*task)
    comm.synchronize()
    dist.destroy_process_group()


def _end_with_parent():
    """End this process with its parent, since a killed parent cannot end its children."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run(folder, threads, main, args):
    prepare_terminal()
    _set_threads(threads)
    try:
        main(*args)
    except Exception as error:  # and is raised again
        # The others fail too, once this one is gone: the first to write has the cause.
        name = "input_error" if isinstance(error, InputError) else "traceback"
        text = str(error) if isinstance(error, InputError) else traceback.format_exc()
        Path(folder, f"{name}.{os.getpid()}").write_text(text)
        raise


def _failure(folder, kinds=("input_error", "traceback")):
    """Return the exception that the first failed process left behind, or None."""
    files = [path for path in Path(folder).glob("*.[0-9]*") if path.stem in kinds]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:1]:
        text = path.read_text()
        if path.stem == "input_error":
            return InputError(text)
        return RuntimeError(f"a process failed:\n\n{text}")
    return None


class SharedCounter:
    """Count up a number together with all processes of a launch, each call at a time.

    Args:
        name: the same in all processes, and of no other counter before.
    """

    def __init__(self, name):
        self._name, self._value, self._store = name, 0, None
        if comm.get_world_size() > 1:
            # Every process group has one, but torch gives it no public name.
            self._store = dist.distributed_c10d._get_default_store()

    def add(self, amount=1):
        """Count up, and return the new value."""
        if self._store is not None:
            return self._store.add(self._name, amount)
        self._value += amount
        return self._value
