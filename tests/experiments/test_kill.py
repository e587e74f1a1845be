"""A sweep killed with -9 at random moments and started again ends in the table of one never killed, bit for bit."""

import random
import subprocess
import sys
import time

import pandas as pd
import pytest
from workdirs import rows

from experiments.ablation import ROOT

pytestmark = pytest.mark.slow
KILLS = 10
TIMED = ["step_seconds", "seconds"]


def table(workdir) -> pd.DataFrame:
    return pd.read_csv(workdir / "table.csv").drop(columns=TIMED)


@pytest.mark.parametrize("launcher", ["lanes", "local"])
def test_ten_kills_change_no_bit_of_the_table(launcher, small, environment, tmp_path):
    """Moments are drawn from the whole time that a launch takes, and each of them kills all its processes."""

    def start(workdir):
        seeds = 2 if launcher == "lanes" else 1  # as each costs a process
        words = [f"--experiment={small}", f"--workdir={workdir}", f"--seeds={seeds}", "--tiny", f"--launcher={launcher}"]
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        command = [sys.executable, "-m", "experiments.launch", *words]
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **quiet)

    unbroken = tmp_path / "unbroken"
    assert start(unbroken).wait() == 0
    begun = time.monotonic()
    assert start(tmp_path / "again").wait() == 0  # now that programs are compiled
    seconds, draw = time.monotonic() - begun, random.Random(0)
    kills, workdirs = 0, [tmp_path / "killed_0"]
    while kills < KILLS:
        process = start(workdirs[-1])
        time.sleep(draw.uniform(0.0, seconds))
        if process.poll() is None:
            kill_with_children(process)
            kills += 1
        else:  # it came to its end; the next kills are another sweep's
            workdirs.append(tmp_path / f"killed_{len(workdirs)}")
    assert start(workdirs[-1]).wait() == 0
    for killed in workdirs:
        pd.testing.assert_frame_equal(table(killed), table(unbroken), check_exact=True)
        for run in sorted(p.parent.relative_to(unbroken) for p in unbroken.rglob("DONE")):
            assert rows(killed / run) == rows(unbroken / run)


def kill_with_children(process: subprocess.Popen) -> None:
    """Processes of `local` have sessions of their own."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = [int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process.pid]
    process.kill()
    process.wait()
    for child in children:
        subprocess.run(["kill", "-9", str(child)], check=False, capture_output=True)
