"""What tests of runs read from a workdir, and how they meddle with a run."""

import json

import jax
import numpy as np

from attention_variants.tasks.translation import Task


def rows(workdir) -> list[dict]:
    """The rows of metrics.jsonl without the columns that tell time."""
    timed = ("seconds", "tokens_per_second", "flops_per_second")
    parsed = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in timed} for row in parsed]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def at_step(monkeypatch, number: int, happen):
    """Has `happen()` called while step `number` of the process is under way."""
    count, original = iter(range(1, 1000)), Task.tokens

    def tokens(self, batch):
        if next(count) == number:
            happen()
        return original(self, batch)

    monkeypatch.setattr(Task, "tokens", tokens)


def latest(workdir) -> int:
    return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
