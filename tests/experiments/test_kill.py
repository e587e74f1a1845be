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


def notes(workdir) -> list[str]:
    """What stands on top of the table."""
    return [line for line in (workdir / "table.md").read_text().splitlines() if line.startswith("**")]


def test_ten_kills_change_no_bit_of_the_table(small, environment, tmp_path):
    """Moments are drawn from the whole time that a launch takes."""

    def start(workdir):
        words = [f"--experiment={small}", f"--workdir={workdir}", "--seeds=2", "--tiny", "--launcher=lanes"]
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        command = [sys.executable, "-m", "experiments.launch", *words]
        return subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)

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
            process.kill()
            process.wait()
            kills += 1
        else:  # it came to its end; the next kills are another sweep's
            workdirs.append(tmp_path / f"killed_{len(workdirs)}")
    assert start(workdirs[-1]).wait() == 0
    for killed in workdirs:
        pd.testing.assert_frame_equal(table(killed), table(unbroken), check_exact=True)
        assert notes(killed) == notes(unbroken)
        for run in sorted(p.parent.relative_to(unbroken) for p in unbroken.rglob("DONE")):
            assert rows(killed / run) == rows(unbroken / run)
