"""A run killed with -9 at any moment and started again ends with the bits of one never killed."""

import json
import random
import subprocess
import time

import jax
import numpy as np
import pytest

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


def rows(workdir):
    timed = ("seconds", "tokens_per_second", "flops_per_second")
    return [
        {k: v for k, v in json.loads(line).items() if k not in timed}
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


def test_ten_kills_change_no_bit(program, command, environment, tmp_path):
    """Moments are drawn from the whole run, its start and its end: imports, compilation, steps, saving, evaluation, results."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    first = program(*FLAGS, f"--workdir={unbroken}")
    assert first.returncode == 0, first.stderr
    start = time.monotonic()
    program(*FLAGS, f"--workdir={tmp_path / 'timed'}")
    whole = time.monotonic() - start
    draw, left = random.Random(0), KILLS
    while left:
        with subprocess.Popen(
            command(*FLAGS, f"--workdir={killed}"), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                process.communicate(timeout=draw.uniform(0.1, 0.9) * whole)
                assert process.returncode == 0, "neither killed nor well"
                break
            except subprocess.TimeoutExpired:
                process.kill()
                left -= 1
    assert left <= KILLS // 2, f"only {KILLS - left} kills before the run was done"
    last = program(*FLAGS, f"--workdir={killed}")
    assert last.returncode == 0, last.stderr
    a, b = (runs.Loaded(workdir, print) for workdir in (unbroken, killed))
    assert a.step == b.step
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert rows(unbroken) == rows(killed)
    found = [json.loads((workdir / "results.json").read_text()) for workdir in (unbroken, killed)]
    assert [f["test"] for f in found] == [found[0]["test"]] * 2
    assert [f["samples"] for f in found] == [found[0]["samples"]] * 2
