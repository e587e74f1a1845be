"""A job array on a Slurm cluster, by submitit; a run that is preempted or out of time is saved, requeued and goes on."""

import logging
import pathlib
import shutil
import signal
import subprocess
import time

import submitit

from attention_variants.errors import InputError
from attention_variants.train import runs
from experiments.ablation import Run
from experiments.launchers import Failure, last_words

LAST_MINUTES = 5  # more than clusters wait between the signal that asks a job to end and the one that ends it


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
    """Submits the runs and watches them. Ctrl-C stops the watching; the jobs go on."""
    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at every look of a cluster without accounting
    executor = submitit.AutoExecutor(folder=f"{options.workdir}/logs", cluster="slurm", slurm_max_num_timeout=1000)
    wanted = dict(slurm_partition=options.partition) if options.partition else {}
    wanted |= dict(gpus_per_node=options.gpus) if options.gpus else {}
    wanted |= dict(mem_gb=options.memory, cpus_per_task=options.cpus, timeout_min=options.minutes)
    executor.update_parameters(name=options.workdir.rpartition("/")[2], slurm_array_parallelism=options.jobs or 256, **wanted)
    try:
        with executor.batch():
            jobs = [executor.submit(Training(run.command(), run.workdir)) for run in plan]
    except submitit.core.utils.FailedJobError as error:  # an unknown partition, more memory than any node has
        raise InputError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from None
    board.tell(f"{len(jobs)} jobs: {jobs[0].job_id} and on; logs in {options.workdir}/logs")
    try:
        while not all(job.done() for job in jobs):
            board.update()
            time.sleep(1)
    except KeyboardInterrupt:
        board.tell("the jobs go on; launch again only when `squeue` has none of them left, or after `scancel`")
        return []
    # What a job came to only a cluster with accounting can tell; what its run came to, the workdir.
    failed = [(run, job) for run, job in zip(plan, jobs, strict=True) if not runs.finished(run.workdir)]
    board.failed |= {run.workdir for run, _ in failed}
    return [Failure(run, last_words(job.paths.stderr)) for run, job in failed]
