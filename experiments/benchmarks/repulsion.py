"""How much longer is a training step where heads repel each other, and how long is the update alone, beside BlackJAX's?

The step is that of the `small` Transformer (4 + 4 layers, width 192, 3 heads) on a batch as Multi30k's (see the step's benchmark),
without repulsion, with SVGD and with SPOS. The update alone is of 18 attention layers × queries, keys and values, 8 heads, width
512, alpha = 1: gradients in, what the optimiser gets out. BlackJAX forms the differences of all pairs; it wants a function for
gradients, so each particle carries its own, and it is given our bandwidth, made of inner products, which costs it next to nothing.
Results of the updates are checked equal first.
"""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp

from attention_variants.particles import rbf, repulsive_heads
from experiments.benchmarks import step
from experiments.timing import Contender, Table, alternate, assert_same, compiled


def measure(quick: bool) -> list[Table]:
    return [steps(quick), updates(quick)]


def steps(quick: bool) -> Table:
    contenders = [contender(method, quick) for method in ("none", "svgd", "spos")]
    return Table("a training step, by method", alternate(contenders, rounds=3 if quick else 25, same=None))


def contender(method: str, quick: bool) -> Contender:
    """A step of a method, on the same batch each time."""
    task, settings, batch = step.prepare(*(("tiny", 8, {"layers": 1}) if quick else ("small", 112, {})))
    particles = dataclasses.replace(settings.particles, method=method, stepsize=0.01)
    return step.ours(task, dataclasses.replace(settings, particles=particles), batch)._replace(name=method)


def updates(quick: bool) -> Table:
    layers, width, heads = (2, 64, 8) if quick else (18, 512, 8)
    params, grads = (
        {f"layer_{i}": {"query": {"kernel": kernel}} for i, kernel in enumerate(drawn)}
        for drawn in jax.random.normal(jax.random.key(0), (2, 3 * layers, width, heads, width // heads)) / width**0.5
    )
    transformation = repulsive_heads(alpha=1.0)
    state = transformation.init(params)

    def ours(params, grads):
        return transformation.update(grads, state, params)[0]

    contenders = [compiled("repulsive_heads", ours, params, grads)]
    if importlib.util.find_spec("blackjax"):
        contenders.append(compiled("BlackJAX", lambda *trees: jax.tree.map(blackjax(), *trees), params, grads))
    same = functools.partial(assert_same, tolerance=1e-4)
    return Table(f"the update of {3 * layers} groups", alternate(contenders, rounds=3 if quick else 15, same=same))


def blackjax():
    """A function from a projection (D, H, K) and its gradients to its descent directions, by BlackJAX's SVGD."""
    import optax
    from blackjax.vi import svgd

    optimizer = optax.sgd(1.0)
    kernel = svgd.build_kernel(optimizer)

    def one(x_DHK, g_DHK):
        flat = lambda kernel_DHK: kernel_DHK.swapaxes(0, 1).reshape(kernel_DHK.shape[1], -1)
        particles = {"x": flat(x_DHK), "g": flat(g_DHK)}
        products_HH = particles["x"] @ particles["x"].T
        square_H = jnp.diagonal(products_HH)
        h2 = rbf.bandwidth(square_H[:, None] + square_H - 2 * products_HH)
        near = lambda a, b, length_scale: svgd.rbf_kernel({"x": a["x"]}, {"x": b["x"]}, length_scale)
        state = svgd.init(particles, {"length_scale": 2 * h2}, optimizer)
        moved = kernel(state, lambda own: {"x": -own["g"], "g": jnp.zeros_like(own["g"])}, near).particles["x"]
        return (particles["x"] - moved).reshape(x_DHK.shape[1], x_DHK.shape[0], -1).swapaxes(0, 1)

    return one
