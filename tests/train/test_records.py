"""Laws of what a run writes down: files whole or not at all, rows and curves without what is done again, time by its parts."""

import json
import os
import time

import pytest
import tensorboardX

from attention_variants.train import workdir
from attention_variants.train.progress import Clock, Spent
from attention_variants.train.records import Records


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    workdir.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError):
        workdir.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_rows_after_the_step_that_is_resumed_are_forgotten(tmp_path):
    for resume, steps in ((0, (1, 2, 3, 4)), (2, (3,))):
        records = Records(tmp_path, resume_step=resume, tensorboard=False)
        for step in steps:
            records.write(step, "train", {"loss": step + resume / 10, "note": "words"})
        records.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"], row["kind"]) for row in found] == [(1, 1.0, "train"), (2, 2.0, "train"), (3, 3.2, "train")]


def test_curves_hold_the_numbers_and_purge_what_is_done_again(tmp_path, monkeypatch):
    made, scalars = [], []
    writer = tensorboardX.SummaryWriter

    class Watched(writer):
        def __init__(self, *args, **kwargs):
            made.append(kwargs)
            super().__init__(*args, **kwargs)

        def add_scalar(self, *args):
            scalars.append(args)

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Watched)
    records = Records(tmp_path, resume_step=7, tensorboard=True)
    records.write(8, "validation", {"bleu": 2.5, "signature": "words"})
    records.close()
    assert made[0]["purge_step"] == 8
    assert scalars == [("validation/bleu", 2.5, 8)]


def test_a_process_that_does_not_write_writes_nothing(tmp_path):
    records = Records(tmp_path, resume_step=0, tensorboard=True, write=False)
    records.write(1, "train", {"loss": 1.0})
    records.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runs", [1, 4])
def test_time_is_the_sum_of_its_parts_and_goes_on(monkeypatch, runs):
    """And runs that a process works on at once have an equal share in it."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(runs)
    for name, seconds in (("compile", 5.0), ("input", 2.0), ("evaluate", 3.0), ("input", 1.0)):
        with clock.part(name):
            now += seconds
    now += 10.0
    assert clock.parts == {"compile": 5.0, "input": 3.0, "evaluate": 3.0}
    assert (clock.now, clock.busy) == (21.0, 16.0)
    spent = clock.spent(Spent())
    assert (spent.total, spent.parts["input"], spent.training) == (21.0 / runs, 3.0 / runs, 13.0 / runs)
    again = Clock(runs)
    now += 4.0
    later = again.spent(Spent(**json.loads(json.dumps(spent._asdict()))))
    assert (later.total, later.parts, later.training) == (25.0 / runs, spent.parts, 17.0 / runs)
