"""A run killed with -9 at any moment and started again ends with the bits of one never killed."""

import json
import random
import subprocess
import time

import jax
import numpy as np
import pytest
from workdirs import rows

from attention_variants.train import runs

pytestmark = pytest.mark.slow
KILLS = 10
FLAGS = (
    "--config=configs/translation.py:tiny",
    "--config.task.max_padding=1.0",
    "--config.run.duration=1500 steps",
    "--config.run.evaluate=500 steps",
    "--config.run.checkpoint=20 steps",
    "--config.log.every=10 steps",
    "--config.hypers.dropout=0.1",
    "--config.parallel.devices=1",
)


def step_of(workdir) -> int:
    """The last step written down, 0 where there is none."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0


def test_ten_kills_change_no_bit(program, command, environment, tmp_path):
    """Moments are drawn from the whole run: its start, its steps with saving and evaluation between them, its conclusion."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    first = program(*FLAGS, f"--workdir={unbroken}")
    assert first.returncode == 0, first.stderr
    draw = random.Random(0)
    places = sorted([0, *(draw.randrange(1500) for _ in range(KILLS - 2)), 1500])
    for place in places:
        with subprocess.Popen(
            command(*FLAGS, f"--workdir={killed}"), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            while step_of(killed) < place and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 3.0) if place == 0 else draw.uniform(0.0, 0.2))
            assert process.poll() is None, f"the run ended before it was killed at step {place}"
            process.kill()
    last = program(*FLAGS, f"--workdir={killed}")
    assert last.returncode == 0, last.stderr
    a, b = (runs.Loaded(workdir, print) for workdir in (unbroken, killed))
    assert a.step == b.step
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert rows(unbroken) == rows(killed)
    found = [json.loads((workdir / "results.json").read_text()) for workdir in (unbroken, killed)]
    assert [f["test"] for f in found] == [found[0]["test"]] * 2
    assert [f["samples"] for f in found] == [found[0]["samples"]] * 2
