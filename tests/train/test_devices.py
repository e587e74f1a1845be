"""jit over four devices, jit over one and pmap over four are the same training."""

import json

import jax
import numpy as np
import pytest

from attention_variants.errors import InputError
from attention_variants.tasks.translation import Task
from attention_variants.train import devices, optimizers, step
from attention_variants.train import settings as settings_lib

PATHS = {"one": ("jit", 1), "jit": ("jit", 4), "pmap": ("pmap", 4)}


def train(task, settings, path: str, steps: int):
    """(params, losses) after `steps` steps on the same batches, whose rows four devices divide."""
    backend = devices.connect(settings_lib.Parallel(*PATHS[path]))
    shape = optimizers.schedule(settings.optimizer, total=steps, per_epoch=10, width=task.width)
    batches = task.batches("train", seed=0, multiple=4).until(steps)
    state = backend.trace(lambda: step.init(task, settings, settings.run.seed)).lower().compile()()
    hypers = backend.replicate(step.hypers_of(settings)[0])
    run, losses = None, []
    for batch in batches:
        placed = backend.place(batch)
        run = run or backend.compile(step.make(task, settings, shape), state, placed, hypers).run
        state, metrics = run(state, placed, hypers)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), np.array(losses)


def settings_of(make_config, **changes):
    noise = {"hypers.dropout": 0.2, "hypers.attention_dropout": 0.2, "hypers.label_smoothing": 0.1}
    return settings_lib.parse(make_config(**noise, **changes))


def test_there_are_four_devices():
    assert jax.local_device_count() == 4


def test_in_float64_parameters_agree_after_100_steps(make_config):
    with jax.enable_x64(True):
        settings = settings_of(make_config, **{"model.dtype": "float64"})
        task = Task.new(settings)
        found = {path: train(task, settings, path, 100)[0] for path in PATHS}
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(found["one"]))
        for path in ("jit", "pmap"):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), found["one"], found[path])


def test_in_float32_losses_agree_for_100_steps(make_config):
    settings = settings_of(make_config)
    task = Task.new(settings)
    found = {path: train(task, settings, path, 100)[1] for path in PATHS}
    assert found["one"][-1] < found["one"][0] - 0.5
    for path in ("jit", "pmap"):
        np.testing.assert_allclose(found[path], found["one"], rtol=1e-4)


def test_a_batch_is_divided_over_the_devices_and_the_state_is_not(tiny_config):
    backend = devices.connect(settings_lib.Parallel(devices=4))
    batch = backend.place({"source": np.arange(24, dtype=np.int32).reshape(8, 3)})
    assert [s.data.shape for s in batch["source"].addressable_shards] == [(2, 3)] * 4
    assert sorted(int(s.data[0, 0]) for s in batch["source"].addressable_shards) == [0, 6, 12, 18]
    assert backend.place.multiple == 4
    mapped = devices.connect(settings_lib.Parallel("pmap", 4)).place({"source": np.arange(24).reshape(8, 3)})
    np.testing.assert_array_equal(mapped["source"], np.arange(24).reshape(4, 2, 3))
    state = backend.replicate({"w": np.ones((5, 3), np.float32)})
    assert [s.data.shape for s in state["w"].addressable_shards] == [(5, 3)] * 4


@pytest.mark.parametrize("path", PATHS)
def test_flops_are_those_of_all_devices(path):
    """A product of (8, 16) and (16, 32) matrices takes 2 · 8 · 16 · 32 of them, however its rows are divided."""

    def product(state, batch, hypers, axis=None):
        out = (batch["x"] @ state).sum(0)
        return state, jax.lax.psum(out, axis) if axis else out

    backend = devices.connect(settings_lib.Parallel(*PATHS[path]))
    state, batch = backend.replicate(np.ones((16, 32), np.float32)), backend.place({"x": np.ones((8, 16), np.float32)})
    assert backend.compile(product, state, batch, backend.replicate({})).flops == 2 * 8 * 16 * 32


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_a_run_over_four_devices_comes_to_its_end(make_config, tmp_path, backend):
    """The loop, evaluation, checkpoints and resumption: a run over four devices evaluates as one device evaluates its result."""
    from attention_variants.train import loop, runs

    config = make_config(
        **{"parallel.devices": 4, "parallel.backend": backend, "run.duration": "4 steps", "run.evaluate": "2 steps"}
    )
    state, results = loop.train(config, tmp_path / "run", quiet=True)
    assert int(state.step) == 4
    assert (tmp_path / "run" / "DONE").exists()
    loaded = runs.Loaded(tmp_path / "run", print)
    one = devices.connect(settings_lib.Parallel(devices=1)).place_whole
    params = jax.device_get(loaded.params)
    assert loaded.task.evaluate(params, {}, "validation", one)[0]["loss"] == pytest.approx(results["validation"]["loss"], rel=1e-5)


def test_more_devices_than_there_are_is_an_input_error():
    with pytest.raises(InputError, match=r"parallel\.devices is 9; found 4 cpu device"):
        devices.connect(settings_lib.Parallel(devices=9))


def test_pmap_over_several_hosts_is_an_input_error(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"parallel\.backend is pmap, which runs on one host; expected jit"):
        devices.connect(settings_lib.Parallel("pmap"))


def test_memory_is_arranged_before_jax_starts_its_threads(python, make_config, tmp_path):
    """Only then do all of them feel it: at the start of a run nothing may have asked jax for its devices."""
    code = """
import json, pathlib, sys
from attention_variants.train import devices, loop
arrange = devices._keep_freed_memory
def look():
    print(sorted({(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()}))
    arrange()
    raise SystemExit
devices._keep_freed_memory = look
loop.train(json.loads(sys.argv[1]), sys.argv[2], quiet=True)
"""
    threads = python(code, json.dumps(make_config().to_dict()), tmp_path / "run")
    assert threads.startswith("[")
    assert "XLA" not in threads
