"""Laws of a run: its folder, what it records and tells, losses that are not finite, and the best checkpoint that results report."""

import errno
import json
import re
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from workdirs import assert_equal, latest, rows

from attention_variants.errors import InputError
from attention_variants.tasks.translation import Task
from attention_variants.train import durations, loop, optimizers, runs, step
from attention_variants.train.records import Records


def test_a_finished_workdir_holds_all_that_was_promised(trained):
    workdir, (state, results) = trained
    assert int(state.step) == 12
    for name in ("config.json", "command.txt", "environment.json", "metrics.jsonl", "vocabulary.json", "results.json", "DONE"):
        assert (workdir / name).is_file(), name
    assert any((workdir / "tensorboard").iterdir())
    assert len(list((workdir / "figures").glob("*.png"))) == 3
    assert [p.name for p in sorted((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name))][-1] == "12"
    assert not list(workdir.glob("*.partial"))
    (environment,) = json.loads((workdir / "environment.json").read_text())  # one start
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["backend"] == "cpu"
    assert json.loads((workdir / "results.json").read_text()) == json.loads(json.dumps(results))


def test_metrics_have_a_row_for_every_report(trained):
    found = rows(trained[0])
    assert [r["step"] for r in found if r["kind"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in found if r["kind"] == "validation"] == [6, 12]
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= found[0].keys()
    assert found[0]["loss"] > found[-2]["loss"]
    assert found[-2]["learning_rate"] == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(v) for r in found for v in r.values() if isinstance(v, float))


def test_results_say_how_good_how_long_and_how_fast(trained):
    _, (_, results) = trained
    assert results["metric"] == "exact_match"
    assert results["steps"] == 12
    assert set(results["validation"]) == set(results["test"]) >= {"loss", "perplexity", "bleu", "bleu_signature", "exact_match"}
    assert len(results["samples"]) == 3
    assert results["parameters"] == 6592
    assert results["seconds"] > 0
    assert results["tokens_per_second"] > 0
    assert results["flops_per_second"] > 0


def test_a_finished_workdir_is_not_trained_again(config, trained, make_config, monkeypatch, capsys):
    workdir, (state, results) = trained
    files = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.name in ("metrics.jsonl", "results.json", "DONE", "metadata")}
    monkeypatch.setattr(step, "make", lambda *args: pytest.fail("trained again"))
    again = loop.train(make_config(**{"hypers.dropout": 0.1, "log.tensorboard": True}), workdir)
    assert_equal(again.state, state)
    assert again.results == json.loads(json.dumps(results))
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert "is finished; a new run wants a new --workdir" in capsys.readouterr().err


def test_a_finished_workdir_without_its_checkpoints_is_refused_and_left_alone(trained, make_config, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    with pytest.raises(InputError, match="is finished, and its checkpoints are gone; expected another --workdir"):
        loop.train(make_config(**{"hypers.dropout": 0.1}), tmp_path / "run", quiet=True)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_a_workdir_of_another_config_is_refused_and_left_alone(trained, make_config):
    workdir = trained[0]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    with pytest.raises(
        InputError,
        match=r"belongs to another config \(hypers\.learning_rate: 0\.002 there, 0\.5 here; run\.seed: 0 there, 3 here\)",
    ):
        loop.train(make_config(**{"hypers.dropout": 0.1, "hypers.learning_rate": 0.5, "run.seed": 3}), workdir, quiet=True)
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_how_it_is_logged_may_change_between_a_run_and_its_resumption(make_config, trained):
    assert loop.train(make_config(**{"hypers.dropout": 0.1, "log.every": "3 steps"}), trained[0], quiet=True).results is not None


def finite(tree) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


def test_an_update_that_is_not_finite_stops_the_run_and_names_the_step(config, tmp_path, monkeypatch):
    """The last good checkpoint is named, is good, and is the last: the state that is no longer finite is never saved."""
    schedule = optimizers.schedule

    def breaks(*args, **kwargs):
        shape = schedule(*args, **kwargs)
        return lambda at: jnp.where(at == 8, jnp.inf, shape(at))  # the ninth step, due for a checkpoint

    monkeypatch.setattr(optimizers, "schedule", breaks)
    with pytest.raises(InputError, match=r"^step 9 .*; stopped, the last good checkpoint is of step 8$"):
        loop.train(config, tmp_path, quiet=True)
    assert latest(tmp_path) == 8
    assert finite(runs.Loaded(tmp_path, print).params)
    assert not (tmp_path / "DONE").exists()
    assert [r["step"] for r in rows(tmp_path) if r["kind"] == "train"] == list(range(1, 9))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(config, tmp_path, monkeypatch):
    loss, third = Task.loss, Task.new(loop.settings_lib.parse(config)).batches("train", seed=0, multiple=8)[2]

    def breaks(self, params, model_state, batch, key, hypers):
        total, *rest = loss(self, params, model_state, batch, key, hypers)
        return (total + jnp.where((batch["source"] == third["source"]).all(), jnp.nan, 0.0), *rest)

    monkeypatch.setattr(Task, "loss", breaks)
    with pytest.raises(InputError, match=r"^step 3 .*nan.*; stopped, "):
        loop.train(config, tmp_path, quiet=True)


def test_a_first_step_that_is_not_finite_says_that_there_is_no_checkpoint(config, tmp_path):
    config.hypers.learning_rate = 1e30
    config.run.checkpoint = "1 steps"
    with pytest.raises(InputError, match=r"^step 1 .*; stopped, there is no checkpoint yet$"):
        loop.train(config, tmp_path, quiet=True)


def test_results_are_of_the_best_checkpoint_which_is_kept(config, tmp_path, monkeypatch):
    """Judged by the task's metric on the validation split; predict and evaluate take it too."""
    scores, params = iter([0.1, 0.9, 0.3, 0.2] + [0.5] * 4), []

    def evaluate(self, these, model_state, split, place):
        params.append(these)
        return {"loss": 1.0, "exact_match": next(scores), "note": "words"}, []

    monkeypatch.setattr(Task, "evaluate", evaluate)
    config.run.update(evaluate="4 steps", checkpoint="1 steps")
    results = loop.train(config, tmp_path, quiet=True).results
    assert results["best_step"] == 8
    assert results["steps"] == 16
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [8, 15, 16]
    assert len(params) == 5
    assert results["validation"]["exact_match"] == 0.9
    assert_equal(params[4], params[1])  # the test split at the end
    loaded = runs.Loaded(tmp_path, print)
    assert loaded.step == 8
    assert_equal(loaded.params, params[1])


def test_a_run_without_evaluations_reports_its_last_state(config, tmp_path):
    config.run.update(evaluate="0", duration="3 steps")
    state, results = loop.train(config, tmp_path, quiet=True)
    assert results["best_step"] == 3
    assert_equal(runs.Loaded(tmp_path, print).params, state.params)


def test_what_is_due_every_so_often_is_due_at_the_end_too():
    plan = durations.Plan(total=10, per_epoch=5, evaluate=3, checkpoint=0, log=1)
    assert [step for step in range(1, 11) if plan.due(plan.evaluate, step)] == [3, 6, 9, 10]
    assert not any(plan.due(plan.checkpoint, step) for step in range(1, 11))


def test_steps_go_together_where_nothing_is_due_between_them_wherever_a_run_was_resumed():
    plan = durations.Plan(total=23, per_epoch=7, evaluate=10, checkpoint=0, log=1)

    def ends(at):
        while at < plan.total:
            yield (at := at + plan.together(at, 4))

    whole = list(ends(0))
    assert whole == [4, 8, 9, 10, 11, 12, 16, 20, 21, 22, 23]
    for n, at in enumerate(whole):
        assert list(ends(at)) == whole[n + 1 :]
    assert all(plan.together(at, 1) == 1 for at in range(23))


@pytest.mark.parametrize(("devices", "parts", "multiple"), [(1, 1, 8), (2, 2, 8), (4, 1, 8), (3, 1, 24), (4, 4, 16)])
def test_rows_come_in_eights_whatever_divides_them(make_config, tmp_path, monkeypatch, devices, parts, multiple):
    """So that a run may go on with another number of devices; nothing is written before."""

    def batches(self, split, **kwargs):
        raise InputError(f"multiple of {kwargs['multiple']}")

    monkeypatch.setattr(Task, "batches", batches)
    config = make_config(**{"parallel.devices": devices, "optimizer.accumulate": parts})
    with pytest.raises(InputError, match=f"^multiple of {multiple}$"):
        loop.train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_work_is_counted_over_all_parts_of_a_batch(make_config, tmp_path):
    """Twice the parts, half the rows in each: the same work."""
    work = []
    for parts in (1, 2):
        config = make_config(**{"optimizer.accumulate": parts, "run.duration": "2 steps"})
        work.append(loop.train(config, tmp_path / str(parts), quiet=True).results)
    assert work[0]["flops"] == work[1]["flops"]
    assert work[0]["tokens"] == work[1]["tokens"]
    assert work[0]["flops"] > 6 * 6592 * work[0]["tokens"] / 2  # six a parameter and token, source or target


def test_a_window_of_steps_is_profiled(make_config, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(("start", len(steps), folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(("stop", len(steps))))
    steps = []
    tokens = Task.tokens
    monkeypatch.setattr(Task, "tokens", lambda self, batch: steps.append(1) or tokens(self, batch))
    loop.train(make_config(**{"log.profile": 2, "run.duration": "15 steps"}), tmp_path / "two", quiet=True)
    assert calls == [("start", 9, str(tmp_path / "two" / "profile")), ("stop", 11)]
    calls.clear(), steps.clear()
    loop.train(make_config(**{"log.profile": 9, "run.duration": "12 steps"}), tmp_path / "cut", quiet=True)
    assert [c[0] for c in calls] == ["start", "stop"]  # a run that ends first has its trace too


def test_training_outside_the_main_thread_works(config, tmp_path):
    config.run.update(duration="2 steps")
    found = []
    thread = threading.Thread(target=lambda: found.append(loop.train(config, tmp_path, quiet=True)))
    thread.start()
    thread.join()
    assert int(found[0].state.step) == 2


def test_a_full_disk_is_one_sentence_and_the_checkpoints_before_it_are_whole(config, tmp_path, monkeypatch):
    """Wherever it is noticed: in metrics.jsonl, or by orbax in another thread."""
    write = Records.write

    def full(self, at, *rest):
        if at == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, at, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", full)
        with pytest.raises(InputError, match="No space left on device"):
            loop.train(config, tmp_path, quiet=True)
    assert int(loop.train(config, tmp_path, quiet=True).state.step) == 16

    def refuse(self):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing file: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "wait_until_finished", refuse)
        with pytest.raises(InputError, match="No space left on device"):
            loop.train(config, tmp_path / "other", quiet=True)


def test_every_duration_is_checked_before_anything_is_written(make_config, tmp_path):
    for name in ("run.duration", "run.evaluate", "run.checkpoint", "log.every", "optimizer.warmup"):
        with pytest.raises(InputError, match=re.escape(f"{name} is 'soon'")):
            loop.train(make_config(**{name: "soon"}), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"run\.duration is '0'; expected at least one step"):
        loop.train(make_config(**{"run.duration": "0"}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_person_sees_parameters_speed_and_what_is_left(make_config, tmp_path, capsys):
    results = loop.train(make_config(**{"run.duration": "2 steps"}), tmp_path).results
    out, err = capsys.readouterr()
    assert out == ""
    for word in ("embedding", "64×16", "1,024", "6,592", "400 training pairs", "validation: loss", "picture: "):
        assert word in err
    assert re.search(r"step 2/2 +loss \d\.\d+ +[\d,]+ tokens/s +[\d.]+ .FLOP/s +0:00 left", err)
    assert re.search(r"first step done [\d.]+ s after the start", err)
    for sample in results["samples"]:
        assert all(text in err for text in sample.values())
