"""Runs that train beside each other in one program are the runs they would have been alone, in numbers and on disk."""

import collections
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.dispatch import BACKEND_COMPILE_EVENT
from workdirs import at_step, latest, rows

from attention_variants.errors import InputError
from attention_variants.tasks.translation import Task
from attention_variants.train import devices, lane, loop, optimizers, runs, step
from attention_variants.train import settings as settings_lib

HYPERS = [  # of three lanes, which two devices do not divide
    {"run.seed": 3},
    {"run.seed": 5, "hypers.dropout": 0.2, "hypers.learning_rate": 5e-4},
    {"run.seed": 3, "hypers.attention_dropout": 0.1, "hypers.label_smoothing": 0.2},
]


@pytest.fixture(scope="module")
def configs(make_config):
    """The first lane trains as `alone` does; dropout is off in some lanes and on in others."""
    return [make_config(**{"task.packed": True, "parallel.devices": 2} | changes) for changes in HYPERS]


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    """(workdir, Result) of each run, trained alone on one device."""
    folder, found = tmp_path_factory.mktemp("alone"), []
    for i, config in enumerate(configs):
        config = config.copy_and_resolve_references()
        config.parallel.devices = 1
        found.append((folder / str(i), loop.train(config, folder / str(i), quiet=True)))
    return found


@pytest.fixture(scope="module")
def beside(configs, tmp_path_factory):
    """(workdir, Result) of each run, trained as lanes on two devices."""
    folder = tmp_path_factory.mktemp("beside")
    workdirs = [folder / str(i) for i in range(len(configs))]
    commands = [f"python main.py --workdir={w}" for w in workdirs]
    return list(zip(workdirs, loop.train_together(configs, workdirs, commands=commands, quiet=True), strict=True))


def train(settings: list, steps: int, lanes: bool):
    """(params, losses) of every run after `steps` steps, as lanes on two devices or one after the other on one."""
    task = Task.new(settings[0])
    shape = optimizers.schedule(settings[0].optimizer, total=steps, per_epoch=10, width=task.width)
    found = []
    for group in [settings] if lanes else [[own] for own in settings]:
        backend = devices.connect(settings_lib.Parallel(devices=2 if lanes else 1, cache=""), lanes=len(group))
        plans = [task.batches("train", seed=own.run.seed, multiple=8) for own in group]
        states = [step.init(task, own, own.run.seed) for own in group]
        hypers = step.hypers_of(*group)
        state, hypers, run, losses = backend.join(states), backend.join(hypers), None, []
        for i in range(steps):
            batch = backend.place(backend.join([plan[i % plan.per_epoch] for plan in plans]))
            run = run or backend.compile(step.make(task, group[0], shape), state, batch, hypers).run
            state, metrics = run(state, batch, hypers)
            losses.append([np.asarray(own["loss"]) for own in backend.apart(metrics)])
        found += zip((jax.device_get(own.params) for own in backend.apart(state)), np.array(losses).T, strict=True)
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lanes_are_solo_runs_for_100_steps(make_config, dtype):
    """Parameters to 1e-9 in float64, losses to 1e-4 in float32; three lanes with hypers of their own, on two devices."""
    with jax.enable_x64(dtype == "float64"):
        settings = [settings_lib.parse(make_config(**{"task.packed": True, "model.dtype": dtype} | own)) for own in HYPERS]
        for (params, losses), (params_alone, losses_alone) in zip(
            train(settings, 100, True), train(settings, 100, False), strict=True
        ):
            np.testing.assert_allclose(losses, losses_alone, rtol=1e-4)
            assert losses[-1] < losses[0] - 0.3
            if dtype == "float64":
                assert jax.tree.leaves(params)[0].dtype == np.float64
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), params, params_alone)


def test_a_lane_leaves_the_workdir_of_a_run(alone, beside):
    for (workdir, result), (solo, expected) in zip(beside, alone, strict=True):
        names = [{str(p.relative_to(w)) for p in w.rglob("*") if "checkpoints" not in p.parts} for w in (workdir, solo)]
        assert names[0] == names[1]
        assert runs.steps(workdir) == runs.steps(solo)
        assert (workdir / "command.txt").read_text() == f"python main.py --workdir={workdir}\n"
        ours, theirs = rows(workdir), rows(solo)
        assert [row.keys() for row in ours] == [row.keys() for row in theirs]
        np.testing.assert_allclose([r["loss"] for r in ours], [r["loss"] for r in theirs], rtol=1e-4)
        assert result.results.keys() == expected.results.keys()
        assert result.results["tokens"] == expected.results["tokens"]
        assert (result.results["lanes"], expected.results["lanes"]) == (len(beside), 1)
        assert json.loads((workdir / "results.json").read_text()) == result.results
        config, config_alone = (json.loads((w / "config.json").read_text()) for w in (workdir, solo))
        assert config | {"parallel": 0} == config_alone | {"parallel": 0}


def test_eight_lanes_share_one_compilation(make_config, tmp_path):
    """Of the step, by jax's own count of compilations; and there are none that two lanes do not need."""

    def compiled(lanes: int) -> collections.Counter:
        found = collections.Counter()
        counting = lambda event, seconds, fun_name="", **_: found.update([fun_name] * (event == BACKEND_COMPILE_EVENT))
        jax.clear_caches()
        jax.config.update("jax_enable_compilation_cache", False)  # where other tests may have put a program
        jax.monitoring.register_event_duration_secs_listener(counting)
        try:
            short = {"run.duration": "2 steps", "run.evaluate": "2 steps", "run.checkpoint": "0"}
            configs = [make_config(**{"task.packed": True, "run.seed": seed} | short) for seed in range(lanes)]
            loop.train_together(configs, [tmp_path / f"{lanes}" / str(i) for i in range(lanes)], quiet=True)
        finally:
            jax.monitoring.unregister_event_duration_listener(counting)
            jax.config.update("jax_enable_compilation_cache", True)
        return found

    two, eight = compiled(2), compiled(8)
    assert eight["jit(steps)"] == 1
    assert eight == two


def test_lanes_have_an_equal_share_in_the_time(beside):
    seconds = [result.results["seconds"] for _, result in beside]
    assert max(seconds) < 1.5 * min(seconds)


@pytest.mark.parametrize("number", [1, 5, 9])
def test_lanes_that_were_stopped_go_on_to_the_same_bits(configs, beside, tmp_path, monkeypatch, number):
    workdirs = [tmp_path / str(i) for i in range(3)]
    with monkeypatch.context() as patch:
        at_step(patch, 3 * number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = loop.train_together(configs, workdirs, quiet=True)
        assert all(result.results is None for result in stopped)
    resumed = loop.train_together(configs, workdirs, quiet=True)
    for workdir, again, (unbroken, result) in zip(workdirs, resumed, beside, strict=True):
        jax.tree.map(np.testing.assert_array_equal, again.state, result.state)
        assert rows(workdir) == rows(unbroken)


def test_lanes_killed_between_their_checkpoints_go_on_from_the_one_they_share(configs, beside, tmp_path, monkeypatch):
    """The kill comes when the second checkpoint of the first lane is written, and that of the others is not."""
    workdirs = [tmp_path / str(i) for i in range(3)]
    saves, save = [], lane.Lane.save

    def die(self, *args):
        saves.append(self.workdir.name)
        if len(saves) == 5:
            raise RuntimeError("power cut")
        save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(lane.Lane, "save", die)
        with pytest.raises(RuntimeError, match="power cut"):
            loop.train_together(configs, workdirs, quiet=True)
    assert list(map(latest, workdirs)) == [4, 2, 2]
    loop.train_together(configs, workdirs, quiet=True)
    for workdir, (unbroken, _) in zip(workdirs, beside, strict=True):
        assert rows(workdir) == rows(unbroken)
        assert json.loads((workdir / "results.json").read_text())["test"] == runs.results(unbroken)["test"]


def test_a_lane_goes_on_alone_and_a_run_goes_on_as_a_lane(configs, alone, tmp_path, monkeypatch):
    workdirs = [tmp_path / str(i) for i in range(2)]
    with monkeypatch.context() as patch:
        at_step(patch, 2 * 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train_together(configs[:2], workdirs, quiet=True)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        solo = configs[0].copy_and_resolve_references()
        solo.parallel.devices = 1
        loop.train(solo, workdirs[0], quiet=True)
    loop.train_together(configs[:2], workdirs, quiet=True)
    for workdir, (unbroken, _) in zip(workdirs, alone[:2], strict=True):
        losses = [[row["loss"] for row in rows(w)] for w in (workdir, unbroken)]
        np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_lane_that_fails_does_not_stop_the_others(configs, beside, tmp_path):
    """A learning rate without bounds; the lane has no DONE, its records end before the step, and the error says where."""
    broken = configs[1].copy_and_resolve_references()
    broken.hypers.learning_rate = 1e30
    workdirs = [tmp_path / str(i) for i in range(3)]
    found = loop.train_together([configs[0], broken, configs[2]], workdirs, quiet=True)
    assert isinstance(found[1], InputError)
    assert "is not finite" in str(found[1])
    assert not runs.finished(workdirs[1])
    for i in (0, 2):
        assert runs.finished(workdirs[i])
        np.testing.assert_allclose([r["loss"] for r in rows(workdirs[i])], [r["loss"] for r in rows(beside[i][0])], rtol=1e-4)


def test_finished_lanes_are_left_as_they_are(configs, beside, tmp_path):
    workdir = beside[0][0]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    found = loop.train_together(configs[:1], [workdir], quiet=True)
    assert found[0].results == beside[0][1].results
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ([[2, 4]], [(None, [0])]),
        ([[], []], [(0, [0, 1])]),
        ([[2], []], [(0, [0, 1])]),
        ([[2, 4], [2]], [(2, [0, 1])]),
        ([[2, 4], [2, 4]], [(4, [0, 1])]),
        ([[2, 6, 8], [2, 4, 6]], [(6, [0, 1])]),
        ([[6, 8], [], [6, 8]], [(None, [1]), (8, [0, 2])]),
        ([[2, 8, 10], [2, 4]], [(None, [1]), (None, [0])]),
    ],
)
def test_runs_go_on_together_where_none_loses_more_than_one_checkpoint(saved, expected):
    assert lane.groups(dict(enumerate(saved))) == expected


def test_runs_that_one_program_cannot_serve_are_refused(configs, make_config, tmp_path):
    workdirs = [tmp_path / "a", tmp_path / "b"]
    wider = configs[1].copy_and_resolve_references()
    wider.model.width = 32
    with pytest.raises(InputError, match=r"hypers and run\.seed alone; found model\.width: 32 there, 16 here"):
        loop.train_together([configs[0], wider], workdirs, quiet=True)
    shapes = [make_config(**{"task.max_padding": 0.05, "run.seed": seed}) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"2 lanes with batches of \d+ shapes"):
        loop.train_together(shapes, workdirs, quiet=True)
    mapped = [make_config(**{"task.packed": True, "parallel.backend": "pmap", "run.seed": seed}) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"2 lanes with parallel\.backend=pmap"):
        loop.train_together(mapped, workdirs, quiet=True)
    assert not any(w.exists() for w in workdirs)


def test_a_backend_gives_back_what_it_was_given_per_lane():
    """Five lanes on two devices: one place is padding."""
    backend = devices.connect(settings_lib.Parallel(devices=2, cache=""), lanes=5)
    trees = [{"a": np.full((3, 2), i, np.float32), "b": None, "c": jnp.int32(i)} for i in range(5)]
    joined = backend.join(trees)
    assert joined["a"].shape == (6, 3, 2)
    assert [s.data.shape for s in joined["a"].addressable_shards] == [(3, 3, 2)] * 2
    for own, back in zip(trees, backend.apart(joined), strict=True):
        jax.tree.map(np.testing.assert_array_equal, own, back)
