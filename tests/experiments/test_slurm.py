"""The launcher for Slurm, against a real one: controller and daemon on this host, without accounting."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from workdirs import rows

from experiments.ablation import ROOT

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in NEEDED if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}")]

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,requeue_delay=1
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Its environment; it ends with the module."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700)
    host, user = os.uname().nodename.partition(".")[0], os.environ.get("USER") or "root"
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, user=user, folder=folder))
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    more = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--foreground", "--force", *(f"--{flag}={folder / 'munge' / name}" for flag, name in files.items())]
    with contextlib.ExitStack() as running, (folder / "log.txt").open("w") as log:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            process = subprocess.Popen(command, env=os.environ | more, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.terminate)
            time.sleep(1)
        until(
            lambda: "idle" in said(["sinfo", "-h", "-o", "%T"], more),
            f"no node is idle: {(folder / 'log.txt').read_text()[-2000:]}",
        )
        yield more


def said(command: list[str], more: dict) -> str:
    return subprocess.run(command, env=os.environ | more, capture_output=True, text=True).stdout


def until(true, otherwise: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


@pytest.fixture
def launching(cluster, small, environment):
    """`launching(workdir)`: a launch by Slurm, under way."""

    def start(workdir: pathlib.Path, *flags):
        words = [
            f"--experiment={small}",
            f"--workdir={workdir}",
            "--seeds=1",
            "--tiny",
            "--launcher=slurm",
            "--cpus=1",
            "--memory=1",
        ]
        command = [sys.executable, "-m", "experiments.launch", *words, *flags]
        streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return subprocess.Popen(command, cwd=ROOT, env=environment | cluster, **streams)

    return start


def test_an_array_of_jobs_comes_to_the_table_of_lanes(launching, launched, tmp_path):
    process = launching(tmp_path / "w", "--partition=main", "--minutes=30", "--seeds=2")
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert "6 jobs submitted" in told
    tables = [pd.read_csv(w / "table.csv") for w in (tmp_path / "w", launched)]
    assert tables[0]["mean"].tolist() == pytest.approx(tables[1]["mean"].tolist(), rel=1e-4)
    assert tables[0]["seeds"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("end", ["preempted", "out of time"])
def test_jobs_that_are_requeued_go_on_in_their_workdirs(end, launching, launched, cluster, tmp_path):
    """The job is ended while it trains, waits again, and resumes from its checkpoint."""
    process = launching(tmp_path / "w", "--minutes=9")  # of which submitit holds every moment to be near the end
    begun = lambda: [p.parents[2] for p in (tmp_path / "w").glob("*/*/checkpoints/2")]
    until(begun, "no run has saved a checkpoint", 120)
    job = said(["squeue", "-h", "-t", "R", "-o", "%i"], cluster).split()[0]
    said(["scontrol", "requeue", job] if end == "preempted" else ["scancel", "--signal=USR2", job], cluster)
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    starts = {p.parent: len(p.read_text().splitlines()) for p in (tmp_path / "w").glob("*/*/command.txt")}
    assert max(starts.values()) == 2
    for workdir in starts:
        losses = [[row["loss"] for row in rows(w)] for w in (workdir, launched / workdir.relative_to(tmp_path / "w"))]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_jobs_are_watched_again_and_not_submitted_again(launching, tmp_path):
    process = launching(tmp_path / "w")
    until(lambda: list((tmp_path / "w").glob("*/*/command.txt")), "no job has begun", 120)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "the jobs go on; the same command watches them again" in told
    process = launching(tmp_path / "w")
    _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert "0 jobs submitted" in told
    starts = [p.read_text().count("\n") for p in (tmp_path / "w").glob("*/*/command.txt")]
    assert starts == [1] * 3


def test_a_job_that_fails_is_told_of_and_the_others_go_on(launching, tmp_path):
    blocked = tmp_path / "w" / "as-configured" / "seed=0"
    blocked.mkdir(parents=True)
    (tmp_path / "w" / "experiment.json").write_text('{"experiment": "small", "file": "", "tiny": true, "seeds": 2, "again": false}')
    (blocked / "something.txt").write_text("not ours")
    process = launching(tmp_path / "w")
    _, told = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "failed: as configured, seed 0: " in told
    assert "is not a run of this project" in told
    assert len(list((tmp_path / "w").glob("*/*/DONE"))) == 2
