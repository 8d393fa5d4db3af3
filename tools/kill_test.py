#!/usr/bin/env python
"""Kill sweeps and trainings at random times, resume them, and check that nothing was lost.

    python tools/kill_test.py --kills 200 --output docs/results/kills.json

Each is run in two processes and killed (SIGKILL): the whole of it, the process that started it, or
one of the two. Then it is resumed, which may be killed again. A sweep that came to its end must
have the sweep.json of an undisturbed one, but for the seconds. The last checkpoint of a training
must load, and may be at most SOLVER.CHECKPOINT_PERIOD steps behind what was done.

In between the disk is filled, or the folder made read-only: the command must end with a message
that names the folder, and go on once there is room. A disk of its own needs the right to mount.

Models and images are tiny, and every run is a copy of a process that has imported everything, so
that a kill costs a second or two.
"""

import argparse
import contextlib
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends import backend_agg  # noqa: F401 - as others below: imported for all runs
from PIL import Image
from torch.utils import cpp_extension, tensorboard  # noqa: F401
from tqdm import tqdm

from canon_seg.cli import eval_rotated, train_net
from canon_seg.d2.trainer import Trainer
from canon_seg.d2.versions import versions
from canon_seg.errors import InputError, run_main
from canon_seg.io.files import write_json
from canon_seg.networks import escnn_layers  # noqa: F401
from canon_seg.networks.weights import load_canonicalizer
from forking import be_command, members

from detectron2.engine import HookBase

PROCESSES = 2
PERIOD = 5
"""Steps from checkpoint to checkpoint."""
LONGEST = 120
"""Seconds after which a run that should end has failed."""
TARGETS = ("all processes", "the first process", "one of the two")
TROUBLED = {3: "full disk", 7: "read-only folder"}
"""Trouble by the number of kills of a subject, of which 20 are a round."""
OPTIONS = [
    *("MODEL.DEVICE", "cpu", "SEED", "3", "MODEL.SAM.SIZE", "tiny"),
    *("MODEL.SAM.TINY.BACKBONE", "", "MODEL.SAM.TINY.IMAGE_SIZE", "64"),
    *("MODEL.SAM.TINY.CHANNELS", "[8, 8, 16, 64]"),
    *("MODEL.SAM.TINY.BLOCKS", "[1, 1, 1, 1]", "MODEL.SAM.TINY.EMBED_DIM", "32"),
]
TRAINING_OPTIONS = [
    *("MODEL.CANONICALIZER.WEIGHTS", "", "MODEL.CANONICALIZER.INPUT_SIZE", "33"),
    *("MODEL.CANONICALIZER.NETWORK.FIELDS", "[2, 2]", "MODEL.CANONICALIZER.NETWORK.DEPTH", "1"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.OPTIMIZER", "ADAMW", "SOLVER.MAX_ITER", "1000000"),
    *("SOLVER.CHECKPOINT_PERIOD", str(PERIOD), "DATALOADER.NUM_WORKERS", "0"),
]


class LostWorkError(Exception):
    """Say what was lost or wrong after a kill."""


class Run:
    """Run a command's ``main`` in a copy of this process, with processes of its own."""

    def __init__(self, main, arguments, log):
        self.log, self.start = log, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            be_command(main, arguments, log)

    def kill(self, target, rng):
        """Kill by SIGKILL; return whether there was something to kill."""
        everyone = members(self.pid)
        started = sorted(set(everyone) - {self.pid})
        pids = {"all processes": everyone, "the first process": [self.pid]}.get(target)
        if pids is None:
            pids = [started[rng.integers(len(started))]] if started else everyone
        alive = os.waitpid(self.pid, os.WNOHANG)[0] == 0
        if not alive:
            self.pid = None
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def wait(self, seconds=LONGEST):
        """Wait for the end of all processes; return the exit status, or None after ``seconds``."""
        if self.pid is None:
            return 0
        end, status = time.monotonic() + seconds, None
        while time.monotonic() < end:
            if status is None:
                found, code = os.waitpid(self.pid, os.WNOHANG)
                status = os.waitstatus_to_exitcode(code) if found else None
            if status is not None and not members(self.pid):
                return status
            time.sleep(0.01)
        return None

    def end(self):
        """Kill what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(10)

    def said(self):
        """Return the end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]


class Sweep:
    """A sweep of a few small images, that is compared when it comes to its end."""

    name = "sweep"

    def __init__(self, folder, data):
        self.folder, self.log = folder, folder.with_suffix(".log")
        annotations, images = data
        self.arguments = [
            *("--config-file", "configs/sam_c4.yaml", "--annotations", annotations),
            *("--images", images, "--output", folder, "--num-processes", PROCESSES),
            *("--angles", 0, 90),
            *("--threads", 1, "--resume", *OPTIONS, "MODEL.SEGMENTER.WEIGHTS", ""),
            *("MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_gcnn.pth"),
        ]
        self.expected, self.seconds, self.finished = None, 0.0, 0
        self.images_at_kill = {}
        self.reset()
        self.check_end(self.start_and_wait())
        self.expected, self.finished = self.result(), 0
        self.reset()

    def reset(self):
        """Empty the folder, which may be where a disk is mounted."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self):
        """Start or resume."""
        return Run(eval_rotated.main, self.arguments, self.log)

    def start_and_wait(self):
        """Run to the end, without a kill."""
        run = self.start()
        status = run.wait()
        if status is None:
            run.end()
            raise LostWorkError(f"a sweep has not ended after {LONGEST} s: {run.said()}")
        self.seconds = time.monotonic() - run.start
        return status

    def result(self):
        """Return what must be the same whenever it was killed."""
        result = json.loads((self.folder / "sweep.json").read_text())
        return {key: value for key, value in result.items() if key != "seconds"}

    def check_end(self, status):
        """Check a sweep that came to its end, and begin anew."""
        if status != 0:
            raise LostWorkError(
                f"a sweep ended with status {status}: {self.log.read_text()[-2000:]}"
            )
        if not (self.folder / "sweep.json").exists():
            raise LostWorkError("a sweep ended with status 0 and wrote no sweep.json")
        self.finished += 1
        result = self.result()
        if self.expected is not None and result != self.expected:
            raise LostWorkError("sweep.json is another one than that of an undisturbed sweep")
        if (self.folder / "sweep.partial").exists():
            raise LostWorkError("a finished sweep left its partial results behind")
        self.reset()
        if self.expected is None:
            (self.folder / "sweep.json").write_text(json.dumps(result))

    def check_kill(self):
        """Check what a kill has left: nothing half-written beside the partial results."""
        lines = [
            path.read_bytes().count(b"\n") for path in self.folder.glob("sweep.partial/*.jsonl")
        ]
        number = str(sum(lines))
        self.images_at_kill[number] = self.images_at_kill.get(number, 0) + 1
        if (self.folder / "sweep.json").exists() and self.result() != self.expected:
            raise LostWorkError("sweep.json is another one than that of an undisturbed sweep")

    def facts(self):
        """Return what the result file says."""
        return {
            "finished_and_equal": self.finished,
            "kills_by_finished_images": dict(sorted(self.images_at_kill.items())),
        }


class Training:
    """The training of a small canonicalizer, whose checkpoints are looked at after every kill."""

    name = "training"

    def __init__(self, folder, photos):
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.arguments = [
            *("--config-file", "configs/sam_c4.yaml", "--resume", "--num-processes", PROCESSES),
            *("--threads", 1, *OPTIONS, *TRAINING_OPTIONS),
            *("DATASETS.PHOTOS", f"['{photos}']", "OUTPUT_DIR", folder),
        ]
        # Start of the run, steps done: written by the training's first process.
        self.steps = mmap.mmap(-1, 16)
        self.seconds, self.saved, self.largest_step_back, self.runs_with_steps = 0.0, 0, 0, 0
        build_hooks = Trainer.build_hooks
        Trainer.build_hooks = lambda trainer: [*build_hooks(trainer), _CountSteps(self.steps)]
        folder.mkdir(exist_ok=True)
        run = self.start()
        while time.monotonic() < run.start + LONGEST and not self.checkpoint_path():
            time.sleep(0.02)
        self.seconds = 2 * (time.monotonic() - run.start)
        run.kill("all processes", None)
        run.wait()
        self.check_kill()

    def reset(self):
        """Begin anew."""
        self.saved = 0
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self):
        """Start or resume."""
        self.steps[:] = struct.pack("qq", -1, -1)
        return Run(train_net.main, self.arguments, self.log)

    def checkpoint_path(self):
        """Return the path of the last checkpoint, or None before the first."""
        last = self.folder / "last_checkpoint"
        return self.folder / last.read_text() if last.is_file() else None

    def check_end(self, status):
        """Fail, as training never comes to its end."""
        raise LostWorkError(f"training ended with status {status}: {self.log.read_text()[-2000:]}")

    def check_kill(self):
        """Check that the last checkpoint and the weights load, and how far back it is."""
        began, done = struct.unpack("qq", self.steps[:])
        if began >= 0 and began != self.saved:
            raise LostWorkError(
                f"resumed at step {began}, and the checkpoint was of step {self.saved}"
            )
        path, saved = self.checkpoint_path(), 0
        if path is not None:
            try:
                saved = torch.load(path, weights_only=True)["iteration"] + 1
                load_canonicalizer(str(self.folder / "canonicalizer.pth"))
            except Exception as error:
                # The weights are written after the checkpoint: not yet after the first.
                if saved != PERIOD or (self.folder / "canonicalizer.pth").exists():
                    raise LostWorkError(f"what a kill has left does not load: {error}") from error
        if saved < self.saved:
            raise LostWorkError(f"the checkpoint went back from step {self.saved} to {saved}")
        step_back = max(0, done - saved)
        self.largest_step_back = max(self.largest_step_back, step_back)
        self.runs_with_steps += done > began >= 0
        if step_back > PERIOD:
            raise LostWorkError(
                f"the checkpoint is {step_back} steps behind, of a period of {PERIOD}"
            )
        self.saved = saved

    def facts(self):
        """Return what the result file says."""
        return {
            "checkpoint_period_in_steps": PERIOD,
            "largest_number_of_steps_lost": self.largest_step_back,
            "kills_after_a_step": self.runs_with_steps,
            "last_checkpoint_at_step": self.saved,
        }


class _CountSteps(HookBase):
    """Write the first step and the number of steps done where the killing process sees them."""

    def __init__(self, steps):
        self.steps = steps

    def before_train(self):
        self.steps[:] = struct.pack("qq", self.trainer.start_iter, self.trainer.start_iter)

    def after_step(self):
        self.steps[8:] = struct.pack("q", self.trainer.iter + 1)


def kill_once(subject, rng):
    """Start, kill at a random time, check; return the target, or None where it had ended."""
    run, target = subject.start(), TARGETS[rng.integers(len(TARGETS))]
    # The last tenth hits what comes after the usual end.
    end = run.start + rng.uniform(0, 1.1 * subject.seconds)
    while (
        time.monotonic() < end
        and os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.005)
    status = os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if status is not None:
        subject.check_end(run.wait())
        return None
    run.kill(target, rng)
    if run.wait() is None:
        run.end()
        raise LostWorkError(f"{target} killed, and the others have not ended after {LONGEST} s")
    subject.check_kill()
    return target


def full_disk(subject, rng):
    """Fill the disk while the subject runs: it says so, and goes on when there is room."""
    run, filler = subject.start(), subject.folder / "filler"
    time.sleep(rng.uniform(0, 0.7) * subject.seconds)
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        status = run.wait()
        if status is None:
            run.end()
            raise LostWorkError(f"has not ended on a full disk after {LONGEST} s: {run.said()}")
        if status != 0:
            _check_message(subject, run, status)
    finally:
        filler.unlink(missing_ok=True)
    if status == 0:  # it came to its end before the disk was full
        subject.check_end(status)
    else:
        subject.check_kill()


def read_only(subject, rng):
    """Make the folder read-only: the next run says so, and the one after it goes on."""
    with _read_only(subject.folder):
        run = subject.start()
        status = run.wait()
        if status is None:
            run.end()
            raise LostWorkError(f"has not ended in a read-only folder: {run.said()}")
        _check_message(subject, run, status)
    subject.check_kill()


def _check_message(subject, run, status):
    said = run.said()
    if status != 2 or str(subject.folder) not in said or "Traceback" in said:
        raise LostWorkError(f"status {status}, no message that names the folder: {said}")


@contextlib.contextmanager
def _read_only(folder):
    if os.path.ismount(folder):
        for attempt in range(LONGEST):
            try:
                _mount("-o", "remount,ro", folder)
                break
            except OSError:  # busy: threads of a process that was killed have not ended yet
                if attempt == LONGEST - 1:
                    raise
                time.sleep(1)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if os.path.ismount(folder):
            _mount("-o", "remount,rw", folder)
        else:
            folder.chmod(0o755)


def _mount(*arguments):
    done = subprocess.run(
        ["mount", *map(str, arguments)], capture_output=True, check=False, text=True
    )
    if done.returncode:
        raise OSError(done.stderr.strip())


@contextlib.contextmanager
def small_disks(folders):
    """Mount a disk of some MB at each folder; give the reason where that is not allowed."""
    mounted, reason = [], None
    try:
        for folder in folders:
            folder.mkdir()
            _mount("-t", "tmpfs", "-o", "size=24m", "canon_seg_kill_test", folder)
            mounted.append(folder)
    except (OSError, FileNotFoundError) as error:
        reason = f"no disk of its own: {error}"
    try:
        yield reason
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def make_data(folder, count=8, size=(48, 64)):
    """Write photographs of boxes, and a COCO file of them; return (annotations, images folder)."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for image_id in range(1, count + 1):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for _ in range(3):
            x, y, w, h = (int(n) for n in rng.integers(4, 24, 4))
            pixels[y : y + h, x : x + w] //= 3
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "height": size[0], "width": size[1]}
        )
        Image.fromarray(pixels).save(folder / "images" / f"{image_id}.png")
    path = folder / "instances.json"
    categories = [{"id": 1, "name": "box"}]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return path, folder / "images"


def run_kills(subjects, kills, troubles, rng, counts, failures):
    """Kill the subjects in turn.

    Args:
        subjects: list of :class:`Sweep` and :class:`Training`.
        kills: number of kills that hit something.
        troubles: dict from name to a function of (subject, rng), run after those of the kills that
            ``TROUBLED`` names.
        rng: numpy's random generator.
        counts: empty dict that is filled: number of each target and trouble, by subject.
        failures: empty list that is filled with what failed; ten of them are the end.
    """
    counts.update({each.name: dict.fromkeys((*TARGETS, *troubles), 0) for each in subjects})
    done = 0
    with tqdm(total=kills, desc="killing", unit="kill", smoothing=0.05) as bar:
        while done < kills:
            subject = min(subjects, key=lambda each: _number_of_kills(counts[each.name]))
            try:
                target = kill_once(subject, rng)
                if target is None:
                    continue
                counts[subject.name][target] += 1
                done += 1
                bar.update()
                name = TROUBLED.get(_number_of_kills(counts[subject.name]) % 20)
                if name in troubles:
                    troubles[name](subject, rng)
                    counts[subject.name][name] += 1
            except LostWorkError as error:
                failures.append(f"{subject.name}, after {done} kills: {error}")
                tqdm.write(failures[-1])
                if len(failures) == 10:
                    return
                subject.reset()


def _number_of_kills(counts):
    return sum(counts[target] for target in TARGETS)


def main():
    """Kill, and write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default: 200")
    parser.add_argument("--seed", type=int, default=0, help="of the times; default: 0")
    parser.add_argument("--output", metavar="FILE", help="JSON file for the result")
    args = parser.parse_args()
    if args.kills < 1:
        raise InputError(f"--kills is {args.kills}; give 1 or more")
    torch.set_num_threads(1)
    start, rng = time.monotonic(), np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotations, images = make_data(folder / "data")
        homes = [folder / "sweep", folder / "training"]
        with small_disks(homes) as reason:
            subjects = [Sweep(homes[0], (annotations, images)), Training(homes[1], images)]
            troubles = {} if reason else {"full disk": full_disk}
            if not reason or os.geteuid() != 0:  # a folder's rights say nothing to root
                troubles["read-only folder"] = read_only
            counts, failures = {}, []
            try:
                run_kills(subjects, args.kills, troubles, rng, counts, failures)
            except KeyboardInterrupt:
                print("interrupted: what was done until now counts", file=sys.stderr)
            result = {
                "kills": sum(map(_number_of_kills, counts.values())),
                "seed": args.seed,
                "processes": PROCESSES,
                **{
                    subject.name: {**counts[subject.name], **subject.facts()}
                    for subject in subjects
                },
                "skipped": reason,
                "failures": failures,
                "versions": versions(),
                "seconds": round(time.monotonic() - start, 1),
            }
    if args.output:
        write_json(args.output, result)
    print(json.dumps(result, indent=2))
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    run_main(main)
