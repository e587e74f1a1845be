"""A pool of processes on this machine: one on each accelerator, or `--jobs` on the CPU."""

import collections
import os
import pathlib
import shutil
import signal
import subprocess
import time

from attention_variants.errors import InputError
from experiments.launchers import Failure, last_words


def check(options) -> None:
    """Raises InputError for a number of processes that is none."""
    if options.jobs < 0:
        raise InputError(f"--jobs is {options.jobs}; expected 0 for the default, or how many")


def launch(plan, board, options) -> list[Failure]:
    """Runs `main.py` for each run. Ctrl-C and SIGTERM let what is in hand be saved; a second one ends it at once."""
    places = [{"CUDA_VISIBLE_DEVICES": device} for device in accelerators()] or [{}] * (options.jobs or max(1, os.cpu_count() // 2))
    if options.jobs:
        places = places[: options.jobs]
    logs = pathlib.Path(options.workdir) / "logs"
    logs.mkdir(exist_ok=True)
    free, waiting, running, failures = list(places), collections.deque(plan), {}, []
    stopping = False

    def stop(*_):
        nonlocal stopping
        for process in running:
            process.send_signal(signal.SIGKILL if stopping else signal.SIGTERM)
        stopping = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (waiting and not stopping):
            while free and waiting and not stopping:
                run, place = waiting.popleft(), free.pop()
                log = logs / f"{run.workdir.parent.name},{run.workdir.name}.txt"
                with log.open("w") as file:
                    process = subprocess.Popen(
                        run.command(), env=os.environ | place, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                    )
                running[process] = run, place, log
            for process in [p for p in running if p.poll() is not None]:
                run, place, log = running.pop(process)
                free.append(place)
                if process.returncode and not stopping:
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


def accelerators() -> list[str]:
    """Those that a process can be given by CUDA_VISIBLE_DEVICES; jax is not asked, as it would take them all."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in chosen.split(",") if device]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []
