"""A pool of processes on this machine: one on each accelerator, or `--jobs` on the CPU.

Where the launcher is killed, its processes save and end (on Linux, else they go on); the next launch waits for that.
"""

import collections
import ctypes
import glob
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping

from attention_variants.train import runs, signals
from attention_variants.train.workdir import busy
from experiments.launchers import Failure, last_words

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


def launch(plan, board, options) -> list[Failure]:
    """Runs `main.py` for each run. Ctrl-C and SIGTERM let what is in hand be saved; a second one ends it at once."""
    places = accelerators() or [{}] * (options.jobs or max(1, os.cpu_count() // 2))
    if options.jobs:
        places = places[: options.jobs]
    logs = pathlib.Path(options.workdir) / "logs"
    logs.mkdir(exist_ok=True)
    free, waiting, running, failures = list(places), collections.deque(plan), {}, []
    if earlier := [run for run in plan if busy(run.workdir)]:
        board.tell(f"waiting for {len(earlier)} processes of an earlier launch")
    stopping = False

    def stop(*_):
        nonlocal stopping
        for process in running:
            process.send_signal(signal.SIGKILL if stopping else signal.SIGTERM)
        stopping = True
        signals.say(signals.STOPPING)

    before = {number: signal.signal(number, stop) for number in signals.stopping()}
    try:
        while running or (waiting and not stopping):
            earlier = [run for run in earlier if busy(run.workdir)]
            while free and waiting and not stopping and not earlier:
                run, place = waiting.popleft(), free.pop()
                log = logs / f"{run.workdir.parent.name},{run.workdir.name}.txt"
                process = begin(run.command(), os.environ | place, log)
                running[process] = run, place, log
                if stopping:  # by a signal that came while it was begun
                    process.terminate()
            for process in [p for p in running if p.poll() is not None]:
                run, place, log = running.pop(process)
                free.append(place)
                if process.returncode and busy(run.workdir):
                    waiting.append(run)  # a process of an earlier launch was there first
                    earlier.append(run)
                elif process.returncode and not stopping and not runs.finished(run.workdir):
                    failures.append(Failure(run, last_words(log)))
                    board.failed.add(run.workdir)
            board.update()
            time.sleep(0.1)
    finally:
        for process in running:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopping:
        board.tell("stopped; the same command goes on from there")
    return failures


def begin(command: list[str], environment: Mapping[str, str], log: pathlib.Path) -> subprocess.Popen:
    """Starts a process that Ctrl-C does not reach, and that is asked to end when this one is gone."""
    prctl, launcher = getattr(ctypes.CDLL(None), "prctl", None), os.getpid()

    def end_with_the_launcher():
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # it is gone already
            os._exit(1)

    own = dict(start_new_session=True, preexec_fn=end_with_the_launcher)
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, **own)


def accelerators() -> list[dict[str, str]]:
    """What the environment of a process says to give it one accelerator; jax is not asked, as it would take them all."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if glob.glob("/dev/accel[0-9]*"):  # a TPU serves one process, which uses all of it
        return [{}]
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [{"CUDA_VISIBLE_DEVICES": device} for device in chosen.split(",") if device]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return [{"CUDA_VISIBLE_DEVICES": device} for device in listed.stdout.split()] if listed.returncode == 0 else []
