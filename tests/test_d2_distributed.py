import argparse
import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker

from canon_seg.d2.distributed import SharedCounter, add_launch_arguments, check_device, launch
from canon_seg.errors import InputError

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

TICKETS = 20


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    return parser.parse_args(map(str, arguments))


def take_tickets(folder):
    """Write down who this process is and which numbers it drew."""
    tickets, drawn = SharedCounter("tickets"), []
    while (ticket := tickets.add()) <= TICKETS:
        drawn.append(ticket)
    facts = [comm.get_rank(), comm.get_world_size(), comm.get_local_rank(), comm.get_local_size()]
    comm.synchronize()
    assert len(comm.gather(drawn)) == (comm.get_world_size() if comm.is_main_process() else 0)
    text = " ".join(map(str, [*facts, torch.get_num_threads(), *drawn]))
    Path(folder, str(comm.get_rank())).write_text(text)


def fail_in_one(how):
    if comm.get_rank() == 1:
        if how == "input":
            raise InputError("some_file: is damaged\nin two lines")
        if how == "defect":
            raise ZeroDivisionError("a defect")
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()  # never ends by itself


def read(folder):
    return [list(map(int, path.read_text().split())) for path in sorted(folder.iterdir())]


def test_three_processes(tmp_path):
    launch(take_tickets, (tmp_path,), options("--num-processes", 3, "--threads", 2))
    facts = read(tmp_path)
    assert [own[:5] for own in facts] == [[rank, 3, rank, 3, 2] for rank in range(3)]
    assert sorted(ticket for own in facts for ticket in own[5:]) == list(range(1, TICKETS + 1))


def test_two_machines(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda rank: launch(
                    take_tickets,
                    (tmp_path,),
                    options(
                        "--num-processes",
                        1,
                        "--num-machines",
                        2,
                        "--machine-rank",
                        rank,
                        "--threads",
                        1,
                        "--dist-url",
                        url,
                    ),
                ),
                range(2),
            )
        )
    facts = read(tmp_path)
    assert [own[:5] for own in facts] == [[rank, 2, 0, 1, 1] for rank in range(2)]
    assert sorted(ticket for own in facts for ticket in own[5:]) == list(range(1, TICKETS + 1))


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("input", InputError, "^some_file: is damaged\nin two lines$"),
        ("defect", RuntimeError, "(?s)fail_in_one.*ZeroDivisionError: a defect"),
        ("killed", InputError, "SIGKILL.*Fewer processes"),
    ],
)
def test_a_failure_in_one_process_ends_all(how, error, message):
    with pytest.raises(error, match=message):
        launch(fail_in_one, (how,), options("--num-processes", 2))


def load_data_and_be_killed(folder):
    worker.MP_STATUS_CHECK_INTERVAL = 0.2  # how often a worker looks for its parent, in seconds
    loaded = iter(DataLoader(range(8), num_workers=1))
    next(loaded)
    (child,) = multiprocessing.active_children()
    Path(folder, str(child.pid)).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_of_data_loaders_end_with_a_killed_process(tmp_path):
    with pytest.raises(InputError, match="SIGKILL"):
        launch(load_data_and_be_killed, (tmp_path,), options("--num-processes", 2))
    workers, end = [int(path.name) for path in tmp_path.iterdir()], time.monotonic() + 60
    assert workers
    while any(map(is_running, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_one_process_is_this_one():
    launched = []
    assert launch(launched.append, (1,), options()) is None and launched == [1]
    assert launch(os.getpid, (), options("--num-processes", 1)) == os.getpid()
    counter = SharedCounter("alone")
    assert [counter.add(), counter.add(2), counter.add(0)] == [1, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-processes", 0], "--num-processes is 0"),
        (["--num-processes", 2, "--threads", 0], "--threads is 0"),
        (["--num-processes", 2, "--num-gpus", 2], "give one of them"),
        (["--num-gpus", 64], "--num-gpus is 64"),
        (["--num-processes", 2, "--machine-rank", 1], "--machine-rank is 1"),
        (["--num-processes", 2, "--num-machines", 2], "--dist-url"),
    ],
)
def test_options_that_cannot_be_used(arguments, message):
    with pytest.raises(InputError, match=message):
        launch(os.getpid, (), options(*arguments))


def test_processes_are_for_cpus():
    check_device(options("--num-processes", 2), "cpu")
    check_device(options(), "cuda")
    with pytest.raises(InputError, match="MODEL.DEVICE is 'cuda'"):
        check_device(options("--num-processes", 2), "cuda")


def test_detectron2s_own_options_are_kept():
    parser = default_argument_parser()
    add_launch_arguments(parser)
    read = parser.parse_args(["--num-gpus", "2", "--num-processes", "3"])
    assert (read.num_gpus, read.num_processes, read.threads) == (2, 3, None)
