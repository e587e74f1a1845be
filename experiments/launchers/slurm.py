"""A job array on a Slurm cluster, by submitit; a run that is preempted or out of time is saved, requeued and goes on.

`jobs.json` in the workdir says which job is whose, so that a launch watches jobs that are still queued or running instead of
submitting them a second time.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import submitit

from attention_variants.errors import InputError
from attention_variants.train import runs, workdir
from experiments.ablation import Run
from experiments.launchers import Failure, last_words

LAST_MINUTES = 5  # more than clusters wait between the signal that asks a job to end and the one that ends it
LOOK = 2  # seconds between two looks at the queue


class Training(submitit.helpers.Checkpointable):
    """What a job does: `main.py` for one run. Slurm's signal has it saved before the job is requeued as it was."""

    def __init__(self, command: list[str], workdir: pathlib.Path):
        self.command, self.workdir, self._process = command, workdir, None

    def __call__(self) -> None:
        # Slurm's signal is for this process alone, which answers it in the midst of whatever it does: so it must hold no lock.
        ignore = lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._process = subprocess.Popen(self.command, preexec_fn=ignore)
        while self._process.poll() is None:
            time.sleep(0.5)
        if self._process.returncode:
            raise RuntimeError("the run failed; its log says why")
        if not runs.finished(self.workdir):
            # A signal had the run saved, and this process is the next to go: a job that returns would count as one that is done.
            time.sleep(LAST_MINUTES * 60)
            raise RuntimeError("the run was stopped")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        return submitit.helpers.DelayedSubmission(Training(self.command, self.workdir))


def check(options) -> None:
    """Raises InputError where there is no Slurm, or no time."""
    if not shutil.which("sbatch"):
        raise InputError("there is no Slurm on this machine (no sbatch); expected --launcher=local, lanes or commands")
    if options.minutes < 1:
        raise InputError(f"--minutes is {options.minutes}; expected at least 1")


def launch(plan: list[Run], board, options) -> list[Failure]:
    """Submits the runs that no job is there for, and watches all. Ctrl-C stops the watching; the jobs go on."""
    logs, kept = pathlib.Path(options.workdir) / "logs", pathlib.Path(options.workdir) / "jobs.json"
    jobs = json.loads(kept.read_text()) if kept.exists() else {}
    alive = queued()
    if lost := sorted(job for job, name in alive.items() if name == name_of(options) and job not in jobs.values()):
        raise InputError(
            f"jobs {', '.join(lost)} of {options.workdir} are in the queue, and jobs.json does not know them; scancel them"
        )
    if new := [run for run in plan if jobs.get(run.name) not in alive]:
        jobs |= zip([run.name for run in new], submit(new, logs, options), strict=True)
        workdir.write_json(kept, jobs)
    watched = {jobs[run.name] for run in plan}
    board.tell(f"{len(new)} jobs submitted, {len(plan) - len(new)} of an earlier launch go on; logs in {logs}")
    try:
        alive = dict.fromkeys(watched)
        while watched & alive.keys():
            board.update()
            time.sleep(LOOK)
            with contextlib.suppress(InputError):  # a controller that is busy
                alive = queued()
    except KeyboardInterrupt:
        board.tell("the jobs go on; the same command watches them again")
        return []
    # What a job came to only a cluster with accounting can tell; what its run came to, the workdir.
    failed = [run for run in plan if not runs.finished(run.workdir)]
    board.failed |= {run.workdir for run in failed}
    log = lambda run: submitit.core.utils.JobPaths(logs, jobs[run.name]).stderr
    return [Failure(run, last_words(log(run))) for run in failed]


def submit(plan: list[Run], logs: pathlib.Path, options) -> list[str]:
    """Submits an array; the ids of its jobs. Raises InputError where Slurm refuses (an unknown partition, too much memory)."""
    executor = submitit.AutoExecutor(folder=logs, cluster="slurm", slurm_max_num_timeout=1000)
    wanted = dict(slurm_partition=options.partition) if options.partition else {}
    wanted |= dict(gpus_per_node=options.gpus) if options.gpus else {}
    wanted |= dict(mem_gb=options.memory, cpus_per_task=options.cpus, timeout_min=options.minutes)
    executor.update_parameters(name=name_of(options), slurm_array_parallelism=options.jobs or 256, **wanted)
    try:
        with executor.batch():
            jobs = [executor.submit(Training(run.command(), run.workdir)) for run in plan]
    except submitit.core.utils.FailedJobError as error:
        raise InputError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from None
    return [job.job_id for job in jobs]


def name_of(options) -> str:
    """What the jobs of a workdir are called, and no others."""
    return f"{pathlib.Path(options.workdir).name}-{hashlib.sha256(options.workdir.encode()).hexdigest()[:8]}"


def queued() -> dict[str, str]:
    """The names of this user's jobs that wait or run, by their ids. Raises InputError where the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i %j", f"--user={os.getuid()}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"squeue fails: {' '.join(done.stderr.split())}; expected a controller that answers")
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
