"""Laws of resumption: a run that was stopped or died, wherever it was, ends with the bits of the run that never did."""

import json
import os
import signal

import pytest
from workdirs import assert_equal, at_step, latest, rows

from attention_variants.errors import InputError
from attention_variants.tasks.translation import Task
from attention_variants.train import loop
from attention_variants.train import workdir as workdir_lib
from attention_variants.train.progress import Clock, Spent


def test_the_same_seed_is_the_same_run_and_another_seed_another(config, unbroken, tmp_path):
    again = loop.train(config, tmp_path / "again", quiet=True)
    assert_equal(again.state, unbroken[1].state)
    assert rows(tmp_path / "again") == rows(unbroken[0])
    config.run.seed = 1
    with pytest.raises(AssertionError):
        assert_equal(loop.train(config, tmp_path / "other", quiet=True).state.params, unbroken[1].state.params)


@pytest.mark.parametrize("number", [2, 5, 8])
def test_sigterm_saves_exits_cleanly_and_the_run_goes_on_to_the_same_bits(config, unbroken, tmp_path, monkeypatch, number, capsys):
    """Before the first checkpoint, between two, and at an evaluation."""
    with monkeypatch.context() as patch:
        at_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = loop.train(config, tmp_path)
    assert stopped.results is None
    assert int(stopped.state.step) == number == latest(tmp_path)
    assert not (tmp_path / "DONE").exists()
    assert f"stopped by a signal after step {number}" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(loop, "futures", None)  # nobody makes parameters that are restored
        resumed = loop.train(config, tmp_path)
    assert f"going on from step {number} of 16" in capsys.readouterr().err
    assert_equal(resumed.state, unbroken[1].state)
    assert rows(tmp_path) == rows(unbroken[0])
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 2  # one entry per start
    for key in ("validation", "test", "samples", "best_step", "steps", "tokens", "flops"):
        assert resumed.results[key] == unbroken[1].results[key]


def test_several_steps_in_one_dispatch_are_the_same_run_and_resume_as_exactly(config, unbroken, tmp_path, monkeypatch):
    config.parallel.steps_per_dispatch = 2
    whole = loop.train(config, tmp_path / "whole", quiet=True)
    for ours, theirs in zip(rows(tmp_path / "whole"), rows(unbroken[0]), strict=True):
        for name, value in theirs.items():
            assert ours[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3)), name
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert int(loop.train(config, tmp_path / "cut", quiet=True).state.step) == 6  # the fifth and sixth step go together
    assert_equal(loop.train(config, tmp_path / "cut", quiet=True).state, whole.state)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_ctrl_c_at_the_start_waits_for_the_first_step(config, tmp_path, monkeypatch, capsys):
    """While data are read and programs compiled; it says so."""
    splits = Task.batches

    def batches(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return splits(self, *args, **kwargs)

    monkeypatch.setattr(Task, "batches", batches)
    stopped = loop.train(config, tmp_path)
    assert (int(stopped.state.step), stopped.results, latest(tmp_path)) == (1, None, 1)
    assert "stopped by a signal after step 1" in capsys.readouterr().err


def test_a_signal_handler_is_given_back(config, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert loop.train(config, tmp_path, quiet=True).results is None
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("numbers", [(2,), (11,), (5, 4, 6)])
def test_a_run_that_died_is_the_run_that_never_did(config, unbroken, tmp_path, monkeypatch, numbers):
    """Died without a word, once or several times: what was done since the last checkpoint is done again, and recorded once."""

    def die():
        raise RuntimeError("power cut")

    for number in numbers:
        with monkeypatch.context() as patch:
            at_step(patch, number, die)
            with pytest.raises(RuntimeError, match="power cut"):
                loop.train(config, tmp_path, quiet=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "kind": "tr')  # a row cut short
    resumed = loop.train(config, tmp_path, quiet=True)
    assert_equal(resumed.state, unbroken[1].state)
    assert rows(tmp_path) == rows(unbroken[0])


def test_a_run_that_died_before_it_began_can_begin(config, unbroken, tmp_path, monkeypatch):
    """Killed while the folder's first files were written, at each of them."""

    def die(*args, **kwargs):
        raise RuntimeError("power cut")

    for name in ("environment", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(workdir_lib, name, die)
            with pytest.raises(RuntimeError, match="power cut"):
                loop.train(config, tmp_path / name, quiet=True)
        (tmp_path / name / "config.json.partial").write_text('{"task"')
        with monkeypatch.context() as patch:
            patch.setattr(Task, "save", die)
            with pytest.raises(RuntimeError, match="power cut"):
                loop.train(config, tmp_path / name, quiet=True)
        with monkeypatch.context() as patch:
            at_step(patch, 1, die)
            with pytest.raises(RuntimeError, match="power cut"):
                loop.train(config, tmp_path / name, quiet=True)
    assert_equal(loop.train(config, tmp_path / "environment", quiet=True).state, unbroken[1].state)


def test_a_run_that_died_before_its_results_has_them_in_the_end(config, unbroken, tmp_path, monkeypatch):
    def die(*args, **kwargs):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Task, "figures", die)
        with pytest.raises(RuntimeError, match="power cut"):
            loop.train(config, tmp_path, quiet=True)
    assert not (tmp_path / "DONE").exists()
    state, results = loop.train(config, tmp_path, quiet=True)
    assert_equal(state, unbroken[1].state)
    assert results["test"] == unbroken[1].results["test"]
    assert (tmp_path / "DONE").exists()
    assert rows(tmp_path) == rows(unbroken[0])


def test_the_time_of_earlier_starts_counts(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Clock, "spent", lambda self, before: Spent(1000.0))
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path, quiet=True)
    assert 1000 < loop.train(config, tmp_path, quiet=True).results["seconds"] < 2000


@pytest.mark.parametrize("parallel", [{"devices": 4}, {"devices": 2, "backend": "pmap"}])
def test_a_run_goes_on_with_the_same_batches_on_other_devices(config, unbroken, tmp_path, monkeypatch, parallel):
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path, quiet=True)
    config.parallel.update(parallel)
    resumed = loop.train(config, tmp_path, quiet=True)
    assert resumed.results["tokens"] == unbroken[1].results["tokens"]
    for ours, theirs in zip(rows(tmp_path), rows(unbroken[0]), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_devices_that_cannot_divide_the_batches_of_a_run_are_refused(config, tmp_path, monkeypatch):
    """Three devices take batches of 24, 48, … rows, not those of the plan the run began with."""
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path, quiet=True)
    config.parallel.devices = 3
    with pytest.raises(InputError, match=r"was planned as .*expected the data and devices it began with"):
        loop.train(config, tmp_path, quiet=True)
    assert latest(tmp_path) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what tensorstore leaves behind
def test_a_corrupt_latest_checkpoint_costs_time_and_no_bits(config, unbroken, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_step(patch, 14, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train(config, tmp_path, quiet=True)
    for file in (tmp_path / "checkpoints" / "14" / "state").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    resumed = loop.train(config, tmp_path)
    told = capsys.readouterr().err
    assert "the checkpoint of step 14 is broken" in told
    assert "going on from step 12 of 16" in told
    assert_equal(resumed.state, unbroken[1].state)
    assert rows(tmp_path) == rows(unbroken[0])
