"""Laws of one step: parts of a batch are the batch, keys come from (seed, purpose, step) alone, hypers are data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_variants.tasks.translation import Task
from attention_variants.train import settings as settings_lib
from attention_variants.train import step


@pytest.fixture(scope="module")
def task(make_config):
    return Task.new(settings_lib.parse(make_config()))


def ready(task, settings, multiple: int = 1):
    """(step, state, batch, hypers) before the first step."""
    run = step.make(task, settings, lambda at: 1.0)
    batch = {k: jnp.asarray(v) for k, v in task.batches("train", seed=0, multiple=multiple)[0].items()}
    return run, jax.jit(lambda: step.init(task, settings, 0))(), batch, step.hypers_of(settings)[0]


def differences(a, b) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(abs(x - y).max()), a, b)))


def test_accumulating_over_parts_is_one_step_on_the_whole_batch(make_config):
    """To 1e-12 in float64, with dropout, where parts have different numbers of tokens and the last rows are padding."""
    with jax.enable_x64(True):
        changes = {"hypers.dropout": 0.2, "hypers.attention_dropout": 0.2, "hypers.label_smoothing": 0.1, "optimizer.clip": 0.5}
        settings = settings_lib.parse(make_config(**changes, **{"model.dtype": "float64"}))
        task = Task.new(settings)
        found = {}
        for parts in (1, 3):
            chosen = dataclasses.replace(settings, optimizer=dataclasses.replace(settings.optimizer, accumulate=parts))
            run, state, batch, hypers = ready(task, chosen, multiple=3)
            batch = {k: v.at[-2:].set(0) for k, v in batch.items()}
            found[parts] = jax.jit(run)(state, batch, hypers)
        assert jax.tree.leaves(found[1][0].params)[0].dtype == jnp.float64
        weights = [(batch["target"][part::3] != 0).sum() for part in range(3)]
        assert len({int(w) for w in weights}) > 1
        # Adam's first step is the sign of the gradient, so its moments are held against each other, and not only the parameters.
        assert differences(found[1][0].opt_state, found[3][0].opt_state) < 1e-12
        assert float(found[1][1]["loss"]) == pytest.approx(float(found[3][1]["loss"]), abs=1e-12)
        assert float(found[1][1]["grad_norm"]) == pytest.approx(float(found[3][1]["grad_norm"]), abs=1e-12)


def test_the_loss_of_a_step_is_per_target_token(task, make_config):
    settings = settings_lib.parse(make_config())
    run, state, batch, hypers = ready(task, settings)
    mean = lambda params: jnp.divide(*task.loss(params, {}, batch, None, hypers)[:2])
    loss, grads = jax.jit(jax.value_and_grad(mean))(state.params)
    _, metrics = jax.jit(run)(state, batch, hypers)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    assert float(metrics["loss"]) == pytest.approx(np.log(len(task.vocabulary)), rel=0.5)


def test_keys_depend_on_seed_purpose_and_step_only():
    word = lambda *of: tuple(np.asarray(jax.random.key_data(step.key_for(*of))).tolist())
    points = [(seed, purpose, at) for seed in (0, 1, 7) for purpose in (step.INIT, step.TRAIN) for at in range(5)]
    assert len({word(*p) for p in points}) == len(points)
    assert [word(*p) for p in points] == [word(*p) for p in points]
    assert word(jnp.uint32(7), step.TRAIN, jnp.int32(3)) == word(7, step.TRAIN, 3)


def test_one_program_makes_the_parameters_of_every_seed(task, make_config):
    settings = settings_lib.parse(make_config())
    make = jax.jit(lambda seed: step.init(task, settings, seed).params)
    first, other = make(jnp.uint32(0)), make(jnp.uint32(7))
    assert make._cache_size() == 1
    assert differences(first, other) > 0
    assert differences(other, jax.jit(lambda: step.init(task, settings, 7).params)()) == 0


def test_a_step_is_a_function_of_its_arguments(task, make_config):
    """The same state, batch and hypers: the same bits; another step or seed: other noise."""
    settings = settings_lib.parse(make_config(**{"hypers.dropout": 0.3}))
    run, state, batch, hypers = ready(task, settings)
    run = jax.jit(run)
    loss = lambda state, hypers: float(run(state, batch, hypers)[1]["loss"])
    assert loss(state, hypers) == loss(state, hypers)
    assert loss(state, hypers) != loss(state._replace(step=state.step + 1), hypers)
    assert loss(state, hypers) != loss(state, hypers | {"seed": jnp.uint32(1)})
    assert differences(run(state, batch, hypers)[0], run(state, batch, hypers)[0]) == 0
    at_rest = run(state, batch, hypers | {"learning_rate": jnp.float32(0)})[0]
    assert differences(at_rest.params, state.params) == 0
    assert int(run(state, batch, hypers)[0].step) == 1


def test_hypers_are_data_and_one_program_serves_them_all(task, make_config):
    """Learning rates, seeds, rates of dropout and of smoothing: one trace, and each changes what it should."""
    base = make_config(**{"hypers.dropout": 0.1, "hypers.attention_dropout": 0.1, "hypers.label_smoothing": 0.1})
    run, state, batch, _ = ready(task, settings_lib.parse(base))
    traces = []

    @jax.jit
    def counted(state, batch, hypers):
        traces.append(1)
        return run(state, batch, hypers)

    outcomes = []
    for name, value in [
        ("run.seed", 5),
        *((f"hypers.{n}", 0.3) for n in ("learning_rate", "dropout", "attention_dropout", "label_smoothing")),
    ]:
        changed = base.copy_and_resolve_references()
        changed.update_from_flattened_dict({name: value})
        after, metrics = counted(state, batch, step.hypers_of(settings_lib.parse(changed))[0])
        outcomes.append((float(metrics["loss"]), float(jax.tree.leaves(after.params)[0].sum())))
    assert len(traces) == 1
    assert len(set(outcomes)) == 5


def test_hypers_of_a_run_hold_every_hyper_and_the_seed(make_config):
    config = make_config(**{"run.seed": 2**32 - 1, "hypers.dropout": 0.1, "hypers.attention_dropout": 0.1})
    hypers = step.hypers_of(settings_lib.parse(config))[0]
    assert set(hypers) == set(config.hypers) | {"seed"}
    assert int(hypers["seed"]) == 2**32 - 1
    assert all(isinstance(v, jax.Array) and v.shape == () for v in hypers.values())


def test_what_is_switched_off_costs_nothing_and_changes_nothing(task, make_config):
    """A rate of 0 is None in the hypers: the numbers of a traced 0, by a program in which nothing is hashed."""
    settings = settings_lib.parse(make_config(**{"hypers.dropout": 0.0, "hypers.attention_dropout": 0.0}))
    run, state, batch, hypers = ready(task, settings)
    assert [name for name, value in hypers.items() if value is None] == ["dropout", "attention_dropout"]
    zeros = hypers | {"dropout": jnp.float32(0), "attention_dropout": jnp.float32(0)}
    assert differences(jax.jit(run)(state, batch, hypers)[0], jax.jit(run)(state, batch, zeros)[0]) < 1e-6
    xors = [jax.jit(run).lower(state, batch, given).as_text().count("stablehlo.xor ") for given in (hypers, zeros)]
    assert xors[0] < xors[1] / 4


def test_training_lowers_the_loss(task, make_config):
    run, state, batch, hypers = ready(task, settings_lib.parse(make_config()))
    run = jax.jit(run)
    losses = []
    for _ in range(20):
        state, metrics = run(state, batch, hypers)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.5
    assert float(metrics["learning_rate"]) == pytest.approx(2e-3)
