"""One training step, state in, state out: `step(state, batch, hypers) -> (state, metrics)`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from attention_variants.train import optimizers, repulsion
from attention_variants.train.settings import Settings

INIT, TRAIN, REPEL = 0, 1, 2  # what a key is for: every key is fold_in of (seed, purpose, step)


class State(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds of it."""

    step: jax.Array
    params: Any
    opt_state: Any
    model_state: Any


def key_for(seed, purpose: int, step=0):
    """The PRNG key of a purpose at a step; it depends on nothing else."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)


def init(task, settings: Settings, seed) -> State:
    """The state before the first step; `seed` may be traced, so that one program serves all of them."""
    params, model_state = task.init(key_for(seed, INIT))
    params = repulsion.begin(settings.particles, params, key_for(seed, INIT, 1))
    hypers = {"alpha": 0.0, "temperature": 0.0}  # which no state depends on
    way = repulsion.way(settings.particles, hypers, key=key_for(seed, REPEL))
    optimizer = repulsion.around(way, optimizers.make(settings.optimizer, 0.0, lambda step: step))
    return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), model_state)


def hypers_of(*settings: Settings) -> list[dict]:
    """The hypers of each run as arrays: every number that runs may differ in without another program, the seed among them.

    None is for what is switched off (`tasks.Hypers`) in all of them: another structure, so another program.
    """
    numbers = [own.as_dict()["hypers"] for own in settings]
    off = [name for name in settings[0].hypers.SWITCHES if not any(of[name] for of in numbers)]
    return [
        {name: None if name in off else jnp.float32(value) for name, value in of.items()} | {"seed": jnp.uint32(own.run.seed)}
        for of, own in zip(numbers, settings, strict=True)
    ]


def make(task, settings: Settings, shape, repel: int = 0):
    """The step of a task; `shape` is the schedule of the learning rate, `repel` the step from which heads repel, if they do.

    With `accumulate` parts, gradients are summed over parts of the batch before one update. With an `axis`, they are summed over
    the devices of a pmap. The loss is a sum divided by a weight at the very end, so neither changes the numbers.
    """
    parts = settings.optimizer.accumulate

    def gradients(params, model_state, batch, key, hypers):
        def loss(params):
            total, weight, metrics, new_state = task.loss(params, model_state, batch, key, hypers)
            return total, ({"loss": (total, weight)} | metrics, weight, new_state)

        (_, (metrics, weight, new_state)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return (grads, weight, metrics), new_state

    def step(state: State, batch, hypers, axis: str | None = None):
        key = key_for(hypers["seed"], TRAIN, state.step)
        on = True if repel == 0 else state.step >= repel
        rate = hypers["learning_rate"] * shape(state.step)
        way = repulsion.way(settings.particles, hypers, rate, on=on)
        given = hypers | {"repel": way.outputs}
        if parts == 1:
            sums, model_state = gradients(state.params, state.model_state, batch, key, given)
        else:
            # Part p takes rows p, p + parts, …: rows stay on the devices they are on.
            split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

            def one(model_state, part):
                return gradients(state.params, model_state, part, key, given)

            def add(carry, part):
                sums, model_state = one(carry[1], part)
                return (jax.tree.map(jnp.add, carry[0], sums), model_state), None

            sums, model_state = jax.eval_shape(one, state.model_state, jax.tree.map(lambda x: x[0], split))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums)
            (sums, model_state), _ = jax.lax.scan(add, (zeros, state.model_state), split)
        if axis is not None:
            sums = jax.lax.psum(sums, axis)
        grads, weight, metrics = sums
        grads = jax.tree.map(lambda g: g / weight, grads)
        optimizer = repulsion.around(way, optimizers.make(settings.optimizer, hypers["learning_rate"], shape))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {name: total / count for name, (total, count) in metrics.items()}
        metrics |= {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        metrics |= {"learning_rate": rate}
        metrics |= repulsion.numbers(settings.particles, opt_state, state.params)
        return State(state.step + 1, params, opt_state, model_state), metrics

    return step


def several(step):
    """`step` over a tuple of batches of one shape, one after the other in one program; metrics are arrays over the steps."""

    def steps(state: State, batches: tuple, hypers, axis: str | None = None):
        def one(state, batch):
            return step(state, batch, hypers, axis)

        if len(batches) == 1:
            state, metrics = one(state, batches[0])
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(one, state, jax.tree.map(lambda *x: jnp.stack(x), *batches))

    return steps
