"""A job array on a Slurm cluster, by submitit; a run that is preempted or out of time is saved, requeued and goes on."""

import shutil
import subprocess
import time

import submitit

from attention_variants.errors import InputError
from experiments.ablation import Run
from experiments.launchers import Failure, last_words


class Training(submitit.helpers.Checkpointable):
    """What a job does: `main.py` for one run. Slurm's signal has it saved before the job is requeued as it was."""

    def __init__(self, command: list[str]):
        self.command, self._process = command, None

    def __call__(self) -> None:
        self._process = subprocess.Popen(self.command)
        if self._process.wait():
            raise RuntimeError("the run failed; its log says why")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        return submitit.helpers.DelayedSubmission(Training(self.command))


def check(options) -> None:
    """Raises InputError where there is no Slurm, or no time."""
    if not shutil.which("sbatch"):
        raise InputError("there is no Slurm on this machine (no sbatch); expected --launcher=local, lanes or commands")
    if options.minutes < 1:
        raise InputError(f"--minutes is {options.minutes}; expected at least 1")


def launch(plan: list[Run], board, options) -> list[Failure]:
    """Submits the runs and watches them. Ctrl-C stops the watching; the jobs go on."""
    executor = submitit.AutoExecutor(folder=f"{options.workdir}/logs", cluster="slurm", slurm_max_num_timeout=1000)
    wanted = dict(slurm_partition=options.partition) if options.partition else {}
    wanted |= dict(gpus_per_node=options.gpus) if options.gpus else {}
    wanted |= dict(mem_gb=options.memory, cpus_per_task=options.cpus, timeout_min=options.minutes)
    executor.update_parameters(name=options.workdir.rpartition("/")[2], slurm_array_parallelism=options.jobs or 256, **wanted)
    with executor.batch():
        jobs = [executor.submit(Training(run.command())) for run in plan]
    board.tell(f"{len(jobs)} jobs: {jobs[0].job_id} and on; logs in {options.workdir}/logs")
    try:
        while not all(job.done() for job in jobs):
            board.update()
            time.sleep(1)
    except KeyboardInterrupt:
        board.tell("the jobs go on; the same command watches the rest, `scancel` ends them")
        return []
    failed = [(run, job) for run, job in zip(plan, jobs, strict=True) if job.state != "COMPLETED" or job.exception()]
    board.failed |= {run.workdir for run, _ in failed}
    return [Failure(run, last_words(job.paths.stderr)) for run, job in failed]
