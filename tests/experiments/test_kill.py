"""A sweep killed with -9 at random moments and started again ends in the table of one never killed, bit for bit.

So does one that is stopped by other means, whatever launched it.
"""

import os
import pty
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from workdirs import rows

from attention_variants.train.workdir import busy
from experiments.ablation import ROOT

pytestmark = pytest.mark.slow
KILLS = 10
TIMED = ["step_seconds", "seconds"]


def table(workdir) -> pd.DataFrame:
    return pd.read_csv(workdir / "table.csv").drop(columns=TIMED)


def notes(workdir) -> list[str]:
    """What stands on top of the table."""
    return [line for line in (workdir / "table.md").read_text().splitlines() if line.startswith("**")]


@pytest.fixture
def start(small, environment):
    """`start(workdir, launcher, seeds)`: a launch that is under way."""

    def start(workdir, launcher="lanes", seeds=2, **streams):
        words = [f"--experiment={small}", f"--workdir={workdir}", f"--seeds={seeds}", "--tiny", f"--launcher={launcher}"]
        command = [sys.executable, "-m", "experiments.launch", *words]
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)

    return start


def test_ten_kills_change_no_bit_of_the_table(start, tmp_path):
    """Moments are drawn from the whole time that a launch takes."""
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unbroken = tmp_path / "unbroken"
    assert start(unbroken, **quiet).wait() == 0
    begun = time.monotonic()
    assert start(tmp_path / "again", **quiet).wait() == 0  # now that programs are compiled
    seconds, draw = time.monotonic() - begun, random.Random(0)
    kills, workdirs = 0, [tmp_path / "killed_0"]
    while kills < KILLS:
        process = start(workdirs[-1], **quiet)
        time.sleep(draw.uniform(0.0, seconds))
        if process.poll() is None:
            process.kill()
            process.wait()
            kills += 1
        else:  # it came to its end; the next kills are another sweep's
            workdirs.append(tmp_path / f"killed_{len(workdirs)}")
    assert start(workdirs[-1], **quiet).wait() == 0
    for killed in workdirs:
        pd.testing.assert_frame_equal(table(killed), table(unbroken), check_exact=True)
        assert notes(killed) == notes(unbroken)
        for run in sorted(p.parent.relative_to(unbroken) for p in unbroken.rglob("DONE")):
            assert rows(killed / run) == rows(unbroken / run)


@pytest.mark.parametrize(
    ("launcher", "how"), [("local", "SIGINT"), ("local", "SIGKILL"), ("lanes", "SIGTERM"), ("lanes", "SIGHUP")]
)
def test_a_launch_that_is_stopped_goes_on(launcher, how, start, launched, tmp_path):
    """The signal reaches the launcher alone; its processes are not left to train beside those of the next launch.

    SIGHUP comes as it does in life: the terminal is gone, and nothing can be written to it any more.
    """
    workdir, told = tmp_path / "w", dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seeds = 1  # as processes take their time to start
    ours, theirs = pty.openpty()
    process = start(workdir, launcher, seeds, **(dict(stdout=theirs, stderr=theirs) if how == "SIGHUP" else told))
    os.close(theirs)
    end = time.monotonic() + 120
    while not list(workdir.glob("*/*/checkpoints/2")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.close(ours)
    process.send_signal(signal.Signals[how])
    said = process.communicate(timeout=120)[1]
    if how == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
        end = time.monotonic() + 60
        while any(busy(path.parent) for path in workdir.glob("*/*/config.json")):  # though nobody waits for them
            assert time.monotonic() < end
            time.sleep(0.1)
    else:
        assert process.returncode == 0, said
        assert how == "SIGHUP" or "the same command goes on from there" in said
        assert how == "SIGHUP" or "Traceback" not in said
    assert len(list(workdir.rglob("DONE"))) < 3 * seeds
    process = start(workdir, launcher, seeds, **told)
    said = process.communicate(timeout=280)[1]
    assert process.returncode == 0, said
    done = sorted(p.parent.relative_to(workdir) for p in workdir.rglob("DONE"))
    assert len(done) == 3 * seeds
    for run in done:
        ours, theirs = ([row["loss"] for row in rows(w / run)] for w in (workdir, launched))
        assert ours == pytest.approx(theirs, rel=1e-4)
