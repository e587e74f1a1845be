"""Heads that repel in a run: each way does what its formula says, from its step on; lanes, devices and resumption as ever."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from workdirs import rows

from attention_variants import variants
from attention_variants.errors import InputError
from attention_variants.particles import repulsive_heads
from attention_variants.particles.energy import energy
from attention_variants.tasks.translation import Task
from attention_variants.train import devices, loop, optimizers, repulsion, step
from attention_variants.train import settings as settings_lib
from experiments.ablation import fingerprint

# Adam with a large eps: else it makes steps of rounding errors, where the true gradient is zero.
ON = {"hypers.alpha": 0.5, "hypers.temperature": 1e-3, "optimizer.eps": 1e-2}
METHODS = ("svgd", "spos", "energy", "outputs")
PATHS = ("encoder_0/self_attention", "decoder_0/self_attention", "decoder_0/cross_attention")


def parsed(make_config, method: str, **changes):
    size = {"particles.stepsize": 1.0} if method in ("svgd", "spos") else {}
    own = {key: value for key, value in ON.items() if key != "hypers.temperature" or method == "spos"}
    return settings_lib.parse(make_config(f"tiny,particles={method}", **own | size | changes))


def one_step(settings, *, repel: int = 0, start: int = 0, devices_used: int = 1):
    """(params before, params after, metrics) of a step that is number `start`."""
    task = Task.new(settings)
    shape = optimizers.schedule(settings.optimizer, total=10, per_epoch=10, width=task.width)
    backend = devices.connect(settings_lib.Parallel(devices=devices_used, cache=""))
    state = step.init(task, settings, 0)._replace(step=jnp.int32(start))
    batch = backend.place(task.batches("train", seed=0, multiple=8)[0])
    hypers = backend.replicate(step.hypers_of(settings)[0])
    program = backend.compile(step.make(task, settings, shape, repel), backend.replicate(state), batch, hypers)
    before = jax.device_get(state.params)
    after, metrics = program.run(backend.replicate(state), batch, hypers)
    return before, jax.device_get(after.params), jax.device_get(metrics)


def kernels(params) -> dict:
    """By path, the kernels whose heads are particles by default."""
    found = {}
    for path in PATHS:
        block, kind = path.split("/")
        found |= {f"{path}/{name}": params[block][kind][name]["kernel"] for name in ("query", "key", "value")}
    return found


def same(a, b, **kwargs):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **kwargs), a, b)


def differ(a, b, by: float = 0.0) -> bool:
    return any(abs(np.asarray(x) - np.asarray(y)).max() > by for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("method", repulsion.WAYS)
def test_every_way_can_be_chosen(make_config, method):
    settings = settings_lib.parse(make_config(f"tiny,particles={method}"))
    assert settings.particles.method == method
    assert set(repulsion.WAYS) == {"none", *METHODS}


def test_repulsive_is_standard_attention_with_svgd(make_config):
    assert make_config("tiny,variant=repulsive") == make_config("tiny,variant=standard,particles=svgd")
    assert make_config("tiny,variant=rbf,particles=spos").particles.method == "spos"


def test_gradients_are_replaced_before_clipping_and_adam(make_config):
    """The step of a run is that of the public transformation in a chain."""
    settings = parsed(make_config, "svgd")
    task = Task.new(settings)
    before, after, _ = one_step(settings)
    found, other = (expected(settings, task, before, lambda _: 0.0, repulsive_heads("svgd", alpha)) for alpha in (0.5, 0.0))
    same(after, found, rtol=2e-4, atol=2e-6)
    assert differ(kernels(found), kernels(other), by=1e-5)


def test_energy_is_a_term_of_the_loss(make_config):
    """Of the mean over tokens that is minimised: the step of a run is that of the sum of both."""
    settings = parsed(make_config, "energy")
    task = Task.new(settings)
    before, after, _ = one_step(settings)
    found = expected(settings, task, before, lambda params: energy(params, 0.5))
    same(after, found, rtol=2e-4, atol=2e-6)
    assert differ(kernels(found), kernels(expected(settings, task, before, lambda params: 0.0)), by=1e-6)


def expected(settings, task, before, added, *transformations):
    """The parameters after a first step from `before` down the loss and what is added to it, by optax's own Adam."""
    batch, hypers = task.batches("train", seed=0, multiple=8)[0], step.hypers_of(settings)[0]

    def loss(params):
        total, weight, *_ = task.loss(params, {}, batch, step.key_for(jnp.uint32(0), step.TRAIN), hypers)
        return total / weight + added(params)

    of, shape = settings.optimizer, optimizers.schedule(settings.optimizer, total=10, per_epoch=10, width=task.width)
    rate = lambda count: settings.hypers.learning_rate * shape(count)
    chain = optax.chain(*transformations, optax.clip_by_global_norm(of.clip), optax.adam(rate, of.b1, of.b2, of.eps))
    updates, _ = chain.update(jax.grad(loss)(before), chain.init(before), before)
    return optax.apply_updates(before, updates)


@pytest.mark.parametrize("method", ["spos", "outputs"])
def test_it_begins_where_it_is_told_to(make_config, method):
    """Before, a step is that of a run without; from then on it is another."""
    plain = parsed(make_config, "none")
    for start, repels in ((2, False), (3, True)):
        _, after, _ = one_step(parsed(make_config, method), repel=3, start=start)
        _, expected, _ = one_step(plain, start=start)
        if repels:
            assert differ(kernels(after), kernels(expected))
        else:
            same(after, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["svgd", "outputs"])
def test_only_the_chosen_attention_is_touched(make_config, method):
    """SVGD changes gradients of chosen layers; in function space, those of everything before the chosen layer too."""
    changes = {"particles.attention": "cross", "optimizer.clip": 0.0, "particles.layers": "0"}
    _, after, _ = one_step(parsed(make_config, method, **changes))
    _, plain, _ = one_step(parsed(make_config, "none", **changes))
    own = lambda params: {k: v for k, v in kernels(params).items() if k.startswith("decoder_0/cross")}
    assert differ(own(after), own(plain))
    if method == "svgd":
        others = lambda params: {k: v for k, v in kernels(params).items() if not k.startswith("decoder_0/cross")}
        same(others(after), others(plain), rtol=1e-6, atol=1e-7)


def test_a_collapsed_run_begins_with_nearly_equal_heads(make_config):
    before, _, _ = one_step(parsed(make_config, "none", **{"particles.collapsed": True}))
    plain, _, _ = one_step(parsed(make_config, "none"))
    for path, kernel in kernels(before).items():
        apart = kernel[:, 1:] - kernel[:, :1]
        assert 0.5e-3 < np.std(apart) < 3e-3
        assert np.std(kernels(plain)[path][:, 1:] - kernels(plain)[path][:, :1]) > 0.05
    assert not differ(before["embedding"], plain["embedding"])


@pytest.mark.parametrize("method", ["spos"])
def test_what_heads_are_like_is_in_the_metrics(make_config, tmp_path, method):
    config = make_config(f"tiny,particles={method}", **ON)
    loop.train(config, tmp_path / "run", quiet=True)
    for row in (row for row in rows(tmp_path / "run") if row["kind"] == "train"):
        assert row["head_distance"] > row["head_bandwidth"] > 0
        assert -1 <= row["head_cosine"] <= 1
        assert 0 < row["head_repulsion"] < 1


@pytest.mark.parametrize("method", METHODS)
def test_devices_do_not_matter(make_config, method):
    """In float64, to 1e-9, where repulsion changes what can be seen."""
    with jax.enable_x64(True):
        settings = parsed(make_config, method, **{"model.dtype": "float64"})
        _, one, _ = one_step(settings)
        same(one, one_step(settings, devices_used=4)[1], rtol=1e-9, atol=1e-11)
        if method != "energy":
            _, plain, _ = one_step(parsed(make_config, "none", **{"model.dtype": "float64"}))
            assert differ(kernels(one), kernels(plain), by=1e-6)


@pytest.mark.parametrize("method", ["spos", "outputs"])
def test_lanes_are_solo_runs(make_config, method):
    """Two runs of other strengths in one program, three steps, in float64, to 1e-9."""
    with jax.enable_x64(True):
        own = [parsed(make_config, method, **{"model.dtype": "float64", "hypers.alpha": alpha}) for alpha in (0.1, 0.7)]
        beside, alone = steps(own), [params for settings in own for params in steps([settings])]
        same(beside, alone, rtol=1e-9, atol=1e-11)
        assert differ(*beside, by=1e-6)


def steps(settings: list) -> list:
    """The parameters of runs after three steps, as lanes of one program where there are several."""
    task = Task.new(settings[0])
    shape = optimizers.schedule(settings[0].optimizer, total=10, per_epoch=10, width=task.width)
    backend = devices.connect(settings_lib.Parallel(devices=1, cache=""), lanes=len(settings))
    plans = [task.batches("train", seed=own.run.seed, multiple=8) for own in settings]
    state = backend.join([step.init(task, own, own.run.seed) for own in settings])
    hypers, program = backend.join(step.hypers_of(*settings)), None
    for i in range(3):
        batch = backend.place(backend.join([plan[i] for plan in plans]))
        program = program or backend.compile(step.make(task, settings[0], shape), state, batch, hypers)
        state, _ = program.run(state, batch, hypers)
    return [own.params for own in backend.apart(state)]


def test_what_is_resumed_is_what_was_never_stopped(make_config, tmp_path):
    """The noise of SPOS goes on where it was."""
    config = make_config("tiny,particles=spos", **ON | {"run.duration": "8 steps", "run.evaluate": "0"})
    whole = loop.train(config, tmp_path, quiet=True)
    for name in ("DONE", "results.json"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    again = loop.train(config, tmp_path, quiet=True)
    same(whole.state, again.state, rtol=0, atol=0)


def test_a_head_alone_trains_and_has_no_metrics_of_heads(make_config, tmp_path):
    changes = {"model.heads": 1, "particles.noise": "exact", "run.duration": "2 steps", "run.evaluate": "0"}
    loop.train(make_config("tiny,particles=spos", **ON | changes), tmp_path / "run", quiet=True)
    assert not any(name.startswith("head_") for row in rows(tmp_path / "run") for name in row)


@pytest.mark.parametrize("variant", variants.names())
def test_any_variant_has_heads_that_can_repel(make_config, variant):
    settings = parsed(make_config, "svgd", **{"task.packed": False})
    settings = dataclasses.replace(settings, variant=variants.load(variant).Config())
    own = settings if getattr(settings.variant, "project", True) else values_only(settings)
    repulsion.check(own, jax.eval_shape(lambda: step.init(Task.new(own), own, 0)).params)


def values_only(settings):
    return dataclasses.replace(settings, particles=dataclasses.replace(settings.particles, projections="value"))


def test_runs_share_a_fingerprint_only_where_they_are_the_same(make_config):
    of = lambda **changes: fingerprint(settings_lib.parse(make_config("tiny", **changes)))
    assert of() == of(**{"hypers.alpha": 0.3}) == of(**{"particles.stepsize": 0.5})
    collapsed = {"particles.collapsed": True}
    assert len({of(), of(**collapsed), of(**collapsed, **{"particles.layers": "0"})}) == 3


def test_an_optimiser_without_particles_has_the_state_it_always_had(make_config):
    settings = parsed(make_config, "none")
    state = jax.eval_shape(lambda: step.init(Task.new(settings), settings, 0))
    expected = jax.eval_shape(lambda params: optimizers.make(settings.optimizer, 0.0, lambda n: n).init(params), state.params)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"particles.layers": "7"}, "which no leaf ends with; found decoder_0/cross_attention/key/kernel"),
        ({"particles.layers": "0,7"}, "which no leaf ends with"),
        ({"hypers.temperature": 0.5}, "hypers.temperature is 0.5, which particles.method=svgd does not read; spos does"),
        ({"particles.noise": "exact"}, "particles.noise is 'exact', which particles.method=svgd does not read; spos does"),
        ({"particles.projections": "querry"}, "'querry'; did you mean 'query'"),
        ({"particles.attention": "cros"}, "'cros'; did you mean 'cross'"),
        ({"particles.layers": "all"}, "particles.layers is 'all'"),
        ({"particles.stepsize": 0.0}, "particles.stepsize is 0.0"),
        ({"particles.begin": "soon"}, "particles.begin is 'soon'"),
        ({"hypers.alpha": -0.1}, "hypers.alpha is -0.1"),
        ({"hypers.temperature": -1.0}, "hypers.temperature is -1.0"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(make_config, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        loop.train(make_config("tiny,particles=svgd", **changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer.accumulate": 2}, "accumulate is 2; expected 1"),
        ({"parallel.backend": "pmap"}, "backend is 'pmap'; expected 'jit'"),
    ],
)
def test_function_space_wants_whole_batches(make_config, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        loop.train(make_config("tiny,particles=outputs", **changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
